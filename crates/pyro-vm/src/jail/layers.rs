//! Which layers of the jail this host permits.
//!
//! Owns the question, asked of the kernel itself: a child enters the jail and says how far it got. It executes nothing.

use super::enter::{EncodedReport, Report, landlock_version};
use super::{CgroupPath, Jail, JailPlan, MachineUid};
use crate::spec::{MachineId, Network};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::Command;

/// What is executed in the end: a directory, so nothing.
const NOTHING: &str = "/";

/// The first version of Landlock with all that the jail counts on: signals and abstract sockets stay inside.
const COMPLETE_LANDLOCK: u32 = 6;

/// One layer of the jail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Its name: `user`, `namespaces`, `root`, `landlock`, `cgroup`.
    pub name: &'static str,
    /// Whether engines get it here.
    pub on: bool,
    /// What it does, or why it is missing.
    pub told: String,
    /// How to switch it on, or to complete it.
    pub hint: Option<String>,
}

/// Finds out which layers a machine of this caller gets. Forks once, executes nothing, leaves nothing, and takes a few
/// milliseconds.
pub fn layers(uid: Option<MachineUid>) -> Vec<Layer> {
    let report = plain(uid).and_then(try_out);
    let [namespaces, root, landlock] = match report {
        Ok(report) => [report.namespaces, report.root, report.landlock].map(told),
        Err(error) => [(); 3].map(|()| Some(error.to_string())),
    };
    vec![
        user(uid),
        host_layer(
            "namespaces",
            "no network, messages or host name of the host",
            namespaces,
        ),
        host_layer(
            "root",
            "a file system of programs and libraries, read-only",
            root,
        ),
        landlock_layer(landlock_version(), landlock),
        cgroup(),
    ]
}

/// The jail of an engine that is given nothing.
fn plain(uid: Option<MachineUid>) -> io::Result<Jail> {
    Jail::new(JailPlan {
        program: Path::new(NOTHING),
        uid,
        group: None,
        inherit: Vec::new(),
        devices: &[],
        network: Network::Off,
        cgroup: None,
        workplace: None,
    })
    .map_err(io::Error::other)
}

/// Has a child enter `jail` and tell how far it got.
pub(super) fn try_out(jail: Jail) -> io::Result<Report> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let jail = jail.reporting_to(writer);
    let mut command = Command::new(NOTHING);
    command.env_clear();
    jail.confine(&mut command);
    // It always fails: what the child has said before that counts, or else why it said nothing.
    let failed = command.output().err();
    drop(command);
    let mut report = EncodedReport::default();
    match File::from(reader).read_exact(report.as_flattened_mut()) {
        Ok(()) => Ok(Report::decode(report)),
        Err(error) => Err(failed.unwrap_or(error)),
    }
}

fn told(refused: Option<Errno>) -> Option<String> {
    refused.map(|errno| io::Error::from(errno).to_string())
}

fn user(uid: Option<MachineUid>) -> Layer {
    let on = uid.is_some();
    Layer {
        name: "user",
        on,
        told: if on {
            "each engine is a user of its own, who owns no file".into()
        } else {
            "engines are the user who starts them: only root can give them users of their own"
                .into()
        },
        hint: None,
    }
}

fn host_layer(name: &'static str, what: &str, refused: Option<String>) -> Layer {
    match refused {
        None => Layer {
            name,
            on: true,
            told: what.into(),
            hint: None,
        },
        Some(reason) => Layer {
            name,
            on: false,
            told: format!("this host refuses them: {reason}"),
            hint: Some(refusal_hint()),
        },
    }
}

/// What forbids namespaces, by the switches that distributions have for that.
fn refusal_hint() -> String {
    if rustix::process::geteuid().is_root() {
        return "root lacks the capability SYS_ADMIN, as in most containers: give the container that, or run `pyro` outside"
            .into();
    }
    let switches = [
        ("kernel.apparmor_restrict_unprivileged_userns", '1', "0"),
        ("kernel.unprivileged_userns_clone", '0', "1"),
        ("user.max_user_namespaces", '0', "10000"),
    ];
    for (name, off, on) in switches {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        let value = std::fs::read_to_string(path).unwrap_or_default();
        if value.trim() == off.to_string() {
            return format!("permit user namespaces: `sysctl -w {name}={on}` as root");
        }
    }
    "permit user namespaces to ordinary users; containers usually forbid them".into()
}

fn landlock_layer(version: u32, refused: Option<String>) -> Layer {
    let on = refused.is_none();
    let (told, hint) = match (version, refused) {
        (0, _) => (
            "this kernel does not offer it".to_owned(),
            Some(
                "boot a kernel with Landlock (5.13 or later) and `landlock` among its `lsm=`"
                    .to_owned(),
            ),
        ),
        (_, Some(reason)) => (
            format!("no process can be put under its rules here: {reason}"),
            Some("mend what is told, and ask again".to_owned()),
        ),
        (version, None) if version < COMPLETE_LANDLOCK => (
            format!(
                "opens nothing but its own files (version {version}); may send signals to processes of its user"
            ),
            Some("Linux 6.12 or later keeps signals inside, too".to_owned()),
        ),
        (version, None) => (
            format!("opens nothing but its own files, signals nobody (version {version})"),
            None,
        ),
    };
    Layer {
        name: "landlock",
        on,
        told,
        hint,
    }
}

fn cgroup() -> Layer {
    let any = MachineId::new("000000000000").expect("these are twelve digits");
    let place = CgroupPath::find(&any);
    let above = place
        .as_ref()
        .ok()
        .and_then(|place| place.as_path().parent());
    Layer {
        name: "cgroup",
        on: place.is_ok(),
        told: match (above, &place) {
            (Some(above), _) => format!(
                "the engine's memory and threads are limited, in `{}`",
                above.display()
            ),
            (None, Ok(_)) => "the engine's memory and threads are limited".into(),
            (None, Err(refused)) => refused.to_string(),
        },
        hint: place.err().map(|refused| refused.hint().into()),
    }
}
