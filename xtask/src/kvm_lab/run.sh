# The first process of the lab once the host's root is in place: runs the order and reports how it ended.
box=/run/kvm-lab/bin/busybox
order=/run/kvm-lab/order
scratch=/run/kvm-lab/scratch

give_up() {
  echo "kvm-lab: $1" >/dev/console
  $box poweroff -f
}

$box mkdir -p /lib/modules
$box mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro modules /lib/modules ||
  give_up 'cannot mount the modules'
echo /run/kvm-lab/bin/modprobe >/proc/sys/kernel/modprobe

# An overlay cannot do all that a file system can (files without a name, for one), so /tmp is the scratch disk itself. The
# checkout stays in sight if it lies below.
IFS= read -r checkout <$order/checkout
$box mkdir -p /run/kvm-lab/checkout
$box mount --bind "$checkout" /run/kvm-lab/checkout || give_up 'cannot find the checkout'
$box mount --bind $scratch/tmp /tmp
$box mkdir -p "$checkout"
$box mount --move /run/kvm-lab/checkout "$checkout"
number=0
while IFS= read -r directory; do
  number=$((number + 1))
  $box mkdir -p "$checkout/$directory" $scratch/fresh-$number
  $box chmod 700 $scratch/fresh-$number
  $box mount --bind $scratch/fresh-$number "$checkout/$directory" || give_up "cannot make $directory fresh"
done <$order/fresh

$box mkfifo /run/kvm-lab/stdout /run/kvm-lab/stderr
$box cat /run/kvm-lab/stdout >/dev/virtio-ports/stdout &
out=$!
$box cat /run/kvm-lab/stderr >/dev/virtio-ports/stderr &
err=$!
$box setsid $box env -i /bin/sh $order/command </dev/null >/run/kvm-lab/stdout 2>/run/kvm-lab/stderr &
wait $!
code=$?
# What the command left running may hold the pipes; it gets a moment, not for ever.
($box sleep 5; $box kill $out $err) 2>/dev/null &
wait $out $err
echo "$code" >/dev/virtio-ports/status
$box poweroff -f
