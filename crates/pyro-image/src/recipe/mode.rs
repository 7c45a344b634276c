//! By which means a whole system can be built on this host by this user.
//!
//! Whatever the means, the builder runs in its own process namespace where possible, so that
//! all of its children end with it. Nothing here builds.

use std::ffi::OsString;
use std::fs;
use std::time::Duration;

use crate::host::{HostError, HostProgram, Invocation};
use crate::recipe::RecipeError;

/// Trying out a namespace takes milliseconds.
const PROBE_DEADLINE: Duration = Duration::from_secs(20);

/// How a layer is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildMode {
    /// As root, in its own mount and process namespaces.
    Root,
    /// As root of a container that may not make namespaces.
    PlainRoot,
    /// As an ordinary user who is root in a user namespace with subordinate users.
    UserNamespace,
    /// As an ordinary user, with a library that pretends.
    Fakechroot,
}

impl BuildMode {
    /// The name of the builder's mode. In the user namespace of ours it finds itself root; its
    /// own kind of user namespace could not reach a private cache directory.
    pub(super) fn builder_mode(self) -> &'static str {
        match self {
            Self::Root | Self::PlainRoot | Self::UserNamespace => "root",
            Self::Fakechroot => "fakechroot",
        }
    }

    /// The command that the builder is started through.
    pub(super) fn wrapper(self) -> Vec<OsString> {
        let arguments: &[&str] = match self {
            Self::Root => &[
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "--",
            ],
            Self::UserNamespace => &[
                "--user",
                "--map-root-user",
                "--map-auto",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "--",
            ],
            Self::PlainRoot | Self::Fakechroot => return Vec::new(),
        };
        std::iter::once(HostProgram::Unshare.name())
            .chain(arguments.iter().copied())
            .map(OsString::from)
            .collect()
    }

    /// Whether its namespaces can be made here: tried out, because kernel settings, containers
    /// and security modules all have a say.
    async fn works(self) -> Result<(), HostError> {
        HostProgram::Unshare.require()?;
        Invocation::new(HostProgram::Setpriv, PROBE_DEADLINE)
            .wrapped(self.wrapper())
            .args(["--version"])
            .answer()
            .await
            .map(|_| ())
    }
}

/// The best mode that works.
pub(super) async fn select() -> Result<BuildMode, RecipeError> {
    let user = rustix::process::geteuid();
    if user.is_root() {
        return Ok(match BuildMode::Root.works().await {
            Ok(()) => BuildMode::Root,
            Err(_) => BuildMode::PlainRoot,
        });
    }
    let problem = match namespace_problem(user.as_raw()) {
        None => match BuildMode::UserNamespace.works().await {
            Ok(()) => return Ok(BuildMode::UserNamespace),
            Err(error) => NamespaceProblem::Refused(error),
        },
        Some(problem) => problem,
    };
    if HostProgram::Fakechroot.find().is_some() {
        return Ok(BuildMode::Fakechroot);
    }
    Err(problem.into_error())
}

#[derive(Debug)]
enum NamespaceProblem {
    NoProgram,
    NoSubordinates(&'static str),
    Refused(HostError),
}

impl NamespaceProblem {
    fn into_error(self) -> RecipeError {
        match self {
            Self::NoProgram => RecipeError::NoBuildMode {
                problem: "`newuidmap` is not installed".to_owned(),
                cure: format!("apt-get install {}", HostProgram::Newuidmap.package()),
            },
            Self::NoSubordinates(file) => RecipeError::NoBuildMode {
                problem: format!("`{file}` gives you no subordinate ids"),
                cure: "as root, run `usermod --add-subuids 100000-165535 --add-subgids \
                       100000-165535 USER` with a range that nobody else has"
                    .to_owned(),
            },
            Self::Refused(error) => RecipeError::Host(error),
        }
    }
}

fn namespace_problem(user: u32) -> Option<NamespaceProblem> {
    if HostProgram::Newuidmap.find().is_none() {
        return Some(NamespaceProblem::NoProgram);
    }
    let name = user_name(&fs::read_to_string("/etc/passwd").unwrap_or_default(), user);
    ["/etc/subuid", "/etc/subgid"]
        .into_iter()
        .find(|file| {
            let text = fs::read_to_string(file).unwrap_or_default();
            !has_subordinates(&text, user, name.as_deref())
        })
        .map(NamespaceProblem::NoSubordinates)
}

fn user_name(passwd: &str, user: u32) -> Option<String> {
    let id = user.to_string();
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id).then(|| name.to_owned())
    })
}

fn has_subordinates(text: &str, user: u32, name: Option<&str>) -> bool {
    let id = user.to_string();
    text.lines().any(|line| {
        let mut fields = line.split(':');
        let owner = fields.next();
        let count = fields
            .nth(1)
            .and_then(|count| count.trim().parse::<u64>().ok());
        // A Debian system has users up to 65534.
        (owner == Some(id.as_str()) || (owner.is_some() && owner == name))
            && count.is_some_and(|count| count >= 65_534)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinates_are_found_by_name_and_number() {
        let passwd = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/srv/ann:/bin/sh\n";
        assert_eq!(user_name(passwd, 1000).as_deref(), Some("ann"));
        assert_eq!(user_name(passwd, 1001), None);
        let text = "ann:100000:65536\n1002:165536:65536\nbob:1:10\n";
        assert!(has_subordinates(text, 1000, Some("ann")));
        assert!(has_subordinates(text, 1002, None));
        assert!(!has_subordinates(text, 1003, Some("bob")));
        assert!(!has_subordinates("", 1000, None));
    }

    #[test]
    fn problems_name_their_cure() {
        let error = NamespaceProblem::NoProgram.into_error();
        assert_eq!(error.hint().unwrap(), "apt-get install uidmap");
        let error = NamespaceProblem::NoSubordinates("/etc/subuid").into_error();
        assert!(error.hint().unwrap().contains("usermod"));
    }

    #[tokio::test]
    async fn this_host_has_a_mode_or_says_why_not() {
        match select().await {
            Ok(mode) => assert!(["root", "fakechroot"].contains(&mode.builder_mode())),
            Err(error) => assert!(error.hint().is_some(), "{error}"),
        }
    }
}
