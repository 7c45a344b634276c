//! Whose a command is: a user of the guest, looked up in its own files.
//!
//! Never through libc, which would load code of the guest into the agent.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use pyro_protocol::code::{ErrorCode, ErrorReply};
use rustix::fs::OFlags;
use rustix::thread::{Gid, Uid};

/// Most bytes that are read of `/etc/passwd` and `/etc/group` each.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// A user to run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    pub(super) groups: Vec<Gid>,
    pub(super) name: String,
    pub(super) home: String,
}

impl Identity {
    /// Looks `wanted` up: a name or a number, and behind a colon a group or a number.
    pub(super) fn find(wanted: &str) -> Result<Self, ErrorReply> {
        Self::find_in(wanted, &read("/etc/passwd"), &read("/etc/group"))
    }

    fn find_in(wanted: &str, passwd: &str, group: &str) -> Result<Self, ErrorReply> {
        let (user, primary) = match wanted.split_once(':') {
            Some((user, primary)) => (user, Some(primary)),
            None => (wanted, None),
        };
        let unknown = |what: &str, name: &str| {
            ErrorReply::new(
                ErrorCode::NotFound,
                format!("the guest has no {what} `{name}`"),
            )
        };
        let entry = passwd
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.len() >= 6 && (fields[0] == user || fields[2] == user));
        let (uid, gid, name, home) = if let Some(fields) = &entry {
            let uid = number(fields[2]).ok_or_else(|| unknown("usable user", user))?;
            let gid = number(fields[3]).ok_or_else(|| unknown("usable group of the user", user))?;
            (uid, gid, fields[0].to_owned(), fields[5].to_owned())
        } else {
            // A number needs no entry; its group is then root's, as images count on it.
            let uid = number(user).ok_or_else(|| unknown("user", user))?;
            (uid, 0, uid.to_string(), "/".to_owned())
        };
        let gid = match primary {
            Some(primary) => {
                group_number(primary, group).ok_or_else(|| unknown("group", primary))?
            }
            None => gid,
        };
        let mut groups: Vec<Gid> = members_groups(&name, group).map(Gid::from_raw).collect();
        groups.insert(0, Gid::from_raw(gid));
        groups.dedup();
        Ok(Self {
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(gid),
            groups,
            name,
            home,
        })
    }
}

/// A user or group id: any but the one that means "leave it as it is".
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

fn group_number(wanted: &str, group: &str) -> Option<u32> {
    let named = group.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(wanted))
            .then(|| fields.nth(1).and_then(number))
            .flatten()
    });
    named.or_else(|| number(wanted))
}

fn members_groups<'a>(name: &'a str, group: &'a str) -> impl Iterator<Item = u32> + 'a {
    group.lines().filter_map(move |line| {
        let fields: Vec<&str> = line.split(':').collect();
        let members = fields.get(3)?;
        members
            .split(',')
            .any(|member| member == name)
            .then(|| number(fields[2]))
            .flatten()
    })
}

fn read(path: &str) -> String {
    let mut bytes = Vec::new();
    // An image may have a pipe there, at which an open that waits would wait for ever.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path);
    if let Ok(file) = file
        && file.metadata().is_ok_and(|metadata| metadata.is_file())
    {
        // What cannot be read names nobody.
        let _ = file.take(MAX_FILE).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000::/srv/ann:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:\nann:x:1000:\ndocker:x:999:bob,ann\nstaff:x:50:ann\n";

    fn found(wanted: &str) -> (u32, Vec<u32>, String) {
        let identity = Identity::find_in(wanted, PASSWD, GROUP).unwrap();
        assert_eq!(identity.gid, identity.groups[0]);
        (
            identity.uid.as_raw(),
            identity.groups.iter().map(|gid| gid.as_raw()).collect(),
            identity.home,
        )
    }

    #[test]
    fn a_pipe_in_the_place_of_a_file_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("passwd");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        assert_eq!(read(path.to_str().unwrap()), "");
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        let ann = (1000, vec![1000, 999, 50], "/srv/ann".to_owned());
        assert_eq!(found("ann"), ann);
        assert_eq!(found("1000"), ann);
        assert_eq!(found("ann:docker").1, [999, 50]);
        assert_eq!(found("4321"), (4321, vec![0], "/".into()));
        assert_eq!(found("4321:50").1, [50]);
        for nobody in ["eve", "ann:nope", "", "-1", "4294967295", "broken"] {
            let error = Identity::find_in(nobody, PASSWD, GROUP).unwrap_err();
            assert_eq!(error.code, ErrorCode::NotFound, "{nobody}");
        }
    }
}
