#!/bin/busybox sh
# The first process of the lab: loads modules, puts the host's root under a scratch disk, hands over to `run.sh`.
# What it says goes to the console log.
/bin/busybox mkdir -p /proc /sys /dev /host /run /scratch /new
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1

give_up() {
  echo "kvm-lab: $1"
  poweroff -f
}

while read -r module; do
  insmod "/modules/$module" || give_up "cannot load $module"
done </modules/order

mkdir -p /dev/virtio-ports
for port in /sys/class/virtio-ports/*; do
  ln -s "/dev/${port##*/}" "/dev/virtio-ports/$(cat "$port/name")"
done

share=trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro
mount -t 9p -o "$share" host /host || give_up 'cannot mount the root of the host'
mount -t tmpfs tmpfs /run
mkdir -p /run/kvm-lab/bin /run/kvm-lab/order
mount -t 9p -o "$share" order /run/kvm-lab/order || give_up 'cannot mount the order'
mount -t ext4 -o noatime /dev/vda /scratch || give_up 'cannot mount the scratch disk'
mkdir -p /scratch/upper /scratch/work /scratch/tmp
chmod 1777 /scratch/tmp
mount -t overlay -o lowerdir=/host,upperdir=/scratch/upper,workdir=/scratch/work overlay /new ||
  give_up 'cannot lay the scratch disk over the root of the host'

# Modules that programs ask for later are loaded from here; the host has none for this kernel.
mv /modules /run/kvm-lab/modules
cp /bin/busybox /run/kvm-lab/bin/busybox
for applet in modprobe poweroff; do
  ln -s busybox "/run/kvm-lab/bin/$applet"
done
mv /run.sh /run/kvm-lab/run.sh
mkdir -p /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mkdir -p /dev/pts
ln -s /proc/self/fd /dev/fd
for number in 0:stdin 1:stdout 2:stderr; do
  ln -s "/proc/self/fd/${number%:*}" "/dev/${number#*:}"
done
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# As systemd does it, so that engines are limited as on other systems.
echo '+memory +pids' >/sys/fs/cgroup/cgroup.subtree_control || give_up 'cannot hand down memory and processes'
ip link set lo up
hostname kvm-lab
chmod 666 /dev/kvm || give_up 'there is no /dev/kvm'
mkdir -p /run/kvm-lab/scratch
mount --move /scratch /run/kvm-lab/scratch
for directory in proc sys dev run; do
  mount --move "/$directory" "/new/$directory" || give_up "the host has no /$directory"
done
exec switch_root /new /run/kvm-lab/bin/busybox sh /run/kvm-lab/run.sh
