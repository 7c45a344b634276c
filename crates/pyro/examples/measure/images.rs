//! Images from a registry on this host, against `skopeo copy` and `umoci unpack` as root.
//!
//! Needs root, `docker-registry`, `skopeo`, `umoci` and `mmdebstrap`. Works in a cache of its own,
//! into which the guest kernels of the user's cache are copied.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener as TokioListener, TcpStream};

use pyro::{EnvironmentOptions, Home, Progress, ProgressSink, Pyro, Settings};

use super::row;

/// What the image is made of: about 250 MB.
const PACKAGES: &str = "git,python3";

/// How often the quick commands are run.
const RUNS: usize = 30;

/// What the relay waits after each piece: without it the half of the bytes would be in buffers
/// before anybody could cut the pull.
const PAUSE: Duration = Duration::from_millis(1);

/// Environments of a long list.
const LISTED: usize = 100;

struct Lab {
    directory: tempfile::TempDir,
    registry: Child,
    port: u16,
}

/// Pull and unpack, `rounds` times each in turn; a second image with one other layer; a pull that
/// is cut at half and resumed; then the quick commands.
pub(crate) async fn images(base: &Settings, program: &Path, rounds: usize) {
    let lab = Lab::start();
    lab.make_images();
    let image = format!("127.0.0.1:{}/deb:1", lab.port);
    let mut phases: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let (mut ours, mut theirs, mut copied) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let begun = Instant::now();
        lab.shell(&format!(
            "rm -rf sk um && skopeo copy -q --src-tls-verify=false docker://{image} oci:sk:1"
        ));
        copied.push(millis(begun));
        lab.shell("umoci unpack --image sk:1 um");
        theirs.push(millis(begun));
        let pyro = lab.pyro(base);
        let (sink, marks) = watched();
        let begun = Instant::now();
        pull(&pyro, &image, &sink).await;
        ours.push(millis(begun));
        for (phase, took) in durations(&marks) {
            phases.entry(phase).or_default().push(took);
        }
    }
    row("skopeo copy", &mut copied);
    row("skopeo copy and umoci unpack, as root", &mut theirs);
    row("pyro env pull", &mut ours);
    for (phase, mut took) in phases {
        row(&format!("  {phase}"), &mut took);
    }

    let relay = Relay::start(lab.port).await;
    let relayed = format!("127.0.0.1:{}/deb:1", relay.port);
    let nobody = pyro::progress::ignore();
    let pyro = lab.pyro(base);
    pull(&pyro, &relayed, &nobody).await;
    let whole = relay.taken();
    let begun = Instant::now();
    pull(&pyro, &relayed.replace("deb:1", "deb:2"), &nobody).await;
    println!(
        "first pull {whole:.1} MB; a second, which shares all but one layer, {:.3} MB in {:.0} ms",
        relay.taken(),
        millis(begun)
    );

    let pyro = lab.pyro(base);
    let (sink, marks) = watched();
    tokio::select! {
        () = pull(&pyro, &relayed, &sink) => {}
        () = halfway(&marks) => {}
    }
    let half = relay.taken();
    pull(&pyro, &relayed, &nobody).await;
    let rest = relay.taken();
    println!(
        "cut after {half:.1} MB, then {rest:.1} MB: {:.1} MB of {whole:.1} came twice",
        half + rest - whole
    );

    quick(&lab, &pyro, program, &image);
}

/// Commands of the program that have nothing to fetch.
fn quick(lab: &Lab, pyro: &Pyro, program: &Path, image: &str) {
    let small = image.replace("deb:1", "small:1");
    let config = lab.directory.path().join("config");
    fs::create_dir_all(config.join("catalogs")).unwrap();
    let mut entries = String::new();
    for n in 0..LISTED {
        let entry = format!("[[environment]]\nname = \"listed{n}\"\nimage = \"{small}\"\n");
        entries.push_str(&entry);
    }
    fs::write(config.join("catalogs/listed.toml"), entries).unwrap();
    let command = |arguments: &[&str]| {
        let home = &pyro.settings().home;
        let begun = Instant::now();
        let output = Command::new(program)
            .args(arguments)
            .env("PYRO_CACHE_DIR", &home.cache)
            .env("PYRO_STATE_DIR", &home.state)
            .env("PYRO_RUNTIME_DIR", &home.runtime)
            .env("PYRO_CONFIG_DIR", &config)
            .output()
            .unwrap();
        let took = millis(begun);
        assert!(output.status.success(), "{output:?}");
        took
    };
    command(&["env", "pull", "-q", image]);
    for n in 0..LISTED {
        command(&["env", "pull", "-q", &format!("listed{n}")]);
    }
    let mut list: Vec<f64> = (0..RUNS).map(|_| command(&["env", "list"])).collect();
    row(&format!("env list, {LISTED} environments"), &mut list);
    let mut again: Vec<f64> = (0..RUNS)
        .map(|_| command(&["env", "pull", "-q", image]))
        .collect();
    row("env pull of an installed image", &mut again);
    let mut version: Vec<f64> = (0..RUNS).map(|_| command(&["--version"])).collect();
    row("  --version, for comparison", &mut version);
}

impl Lab {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let chosen = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = chosen.local_addr().unwrap().port();
        drop(chosen);
        let config = directory.path().join("registry.yml");
        let data = directory.path().join("registry");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
            data.display()
        );
        fs::write(&config, text).unwrap();
        let registry = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lab = Self {
            directory,
            registry,
            port,
        };
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
        lab
    }

    /// `deb:1` has one large layer and a small one, `deb:2` another small one, `small:1` is small.
    fn make_images(&self) {
        let push = format!(
            "skopeo copy -q --dest-tls-verify=false oci:layout:$i docker://127.0.0.1:{}",
            self.port
        );
        self.shell(&format!(
            "mmdebstrap --quiet --variant=minbase --include={PACKAGES} bookworm deb.tar
             umoci init --layout layout
             umoci new --image layout:base && umoci raw add-layer --image layout:base deb.tar
             ls -l deb.tar | awk '{{print \"uncompressed: \" $5 / 1e6 \" MB\"}}'
             for n in 1 2; do
               mkdir -p small$n/opt && echo $n > small$n/opt/number
               umoci tag --image layout:base deb$n
               umoci insert --image layout:deb$n small$n/opt /opt
               i=deb$n; {push}/deb:$n
             done
             umoci new --image layout:small && umoci insert --image layout:small small1/opt /opt
             i=small; {push}/small:1"
        ));
    }

    fn shell(&self, script: &str) {
        let status = Command::new("sh")
            .args(["-euc", script])
            .current_dir(self.directory.path())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{script}");
    }

    /// An SDK with an empty cache but for the kernels.
    fn pyro(&self, base: &Settings) -> Pyro {
        let home = self.directory.path().join("home");
        let _ = fs::remove_dir_all(&home);
        fs::create_dir_all(home.join("cache")).unwrap();
        let copied = Command::new("cp")
            .arg("-a")
            .arg(base.home.cache.join("kernels"))
            .arg(home.join("cache"))
            .status()
            .unwrap();
        assert!(copied.success(), "copying the kernels");
        Pyro::new(Settings {
            home: Home::new(home.join("cache"), home.join("state"), home.join("run")),
            ..base.clone()
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.registry.kill();
        let _ = self.registry.wait();
    }
}

type Marks = Arc<Mutex<(Vec<(String, Instant)>, bool)>>;

/// A sink that remembers when phases began, and whether half of the bytes have come.
fn watched() -> (ProgressSink, Marks) {
    let marks = Marks::default();
    let seen = Arc::clone(&marks);
    let sink: ProgressSink = Arc::new(move |event| {
        let mut marks = seen.lock().unwrap();
        match event {
            Progress::Phase { phase, .. } => marks.0.push((phase.to_string(), Instant::now())),
            Progress::Bytes {
                what,
                done,
                total: Some(total),
            } if what == "pull" && total > 1_000_000 => marks.1 |= done * 2 >= total,
            _ => {}
        }
    });
    (sink, marks)
}

async fn halfway(marks: &Marks) {
    while !marks.lock().unwrap().1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn durations(marks: &Marks) -> Vec<(String, f64)> {
    let marks = marks.lock().unwrap();
    let ends = marks.0.iter().skip(1).map(|(_, at)| *at);
    let ends = ends.chain([Instant::now()]);
    marks
        .0
        .iter()
        .zip(ends)
        .map(|((phase, at), end)| (phase.clone(), (end - *at).as_secs_f64() * 1000.0))
        .collect()
}

async fn pull(pyro: &Pyro, image: &str, progress: &ProgressSink) {
    let options = EnvironmentOptions::default();
    // A large future, of which there are several here.
    Box::pin(pyro.pull_environment(image, options, progress))
        .await
        .unwrap();
}

/// A relay to the registry that counts what the registry sends.
struct Relay {
    port: u16,
    sent: Arc<AtomicU64>,
}

impl Relay {
    async fn start(registry: u16) -> Self {
        let listener = TokioListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let sent = Arc::<AtomicU64>::default();
        let count = Arc::clone(&sent);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let count = Arc::clone(&count);
                tokio::spawn(async move {
                    let server = TcpStream::connect(("127.0.0.1", registry)).await.unwrap();
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = server.into_split();
                    tokio::spawn(async move {
                        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
                    });
                    let mut buffer = vec![0; 64 * 1024];
                    while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
                        if to_client.write_all(&buffer[..read]).await.is_err() {
                            return;
                        }
                        count.fetch_add(read as u64, Ordering::Relaxed);
                        tokio::time::sleep(PAUSE).await;
                    }
                });
            }
        });
        Self { port, sent }
    }

    /// Megabytes that came since the last time.
    fn taken(&self) -> f64 {
        self.sent.swap(0, Ordering::Relaxed) as f64 / 1e6
    }
}

fn millis(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1000.0
}
