//! Requests to the agent, parsed once from their line into types that cannot be wrong.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::archive::export::{ExportArchive, TreeExport};
use crate::archive::import::{IMPORT_ACTIONS, ImportRequest};
use crate::code::{ErrorCode, ErrorReply};
use crate::exec::{Exec, ExecRequest};
use crate::files::{FILE_ACTIONS, FileRequest};
use crate::guest::{
    ConnectTcp, ConnectTcpRequest, Freeze, FreezeRequest, Identity, IdentityRequest, PowerOff,
    PowerOffRequest, Quiesce, QuiesceRequest, Revive, ReviveRequest, Seed, SeedRequest, Sync,
    SyncRequest,
};
use crate::index::{TREE_ACTIONS, TreeRequest};
use crate::job::JobRequest;
use crate::limits::{MAX_LAYERS, MAX_PING_BYTES};
use crate::service::{self, ServiceRequest};
use crate::shell::{self, ShellRequest};

/// A request, checked.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Who are you, and what can you do?
    Hello,
    /// Are you there? Then that many raw zero bytes after the reply line.
    Ping {
        /// Bytes to send after the reply line, for measuring the link.
        reply_bytes: u64,
    },
    /// Run a command.
    Exec(Exec),
    /// Set the guest's wall clock.
    SetClock {
        /// Nanoseconds since the epoch.
        unix_ns: u64,
    },
    /// Unpack image layers onto an empty disk (builder machines only).
    BuildRoot(BuildRoot),
    /// Something about shells.
    Shell(ShellRequest),
    /// Look at files, or change them.
    Files(Box<FileRequest>),
    /// Pack a tree and send it.
    TreeExport(Box<TreeExport>),
    /// The original's export.
    ExportArchive(ExportArchive),
    /// Something about manifests of trees.
    Tree(Box<TreeRequest>),
    /// Unpack an archive that follows.
    Import(Box<ImportRequest>),
    /// Something about jobs.
    Job(JobRequest),
    /// Something about services.
    Service(ServiceRequest),
    /// Connect the stream to a port of the guest.
    ConnectTcp(ConnectTcp),
    /// How is the machine doing?
    Metrics,
    /// Mix bytes of the host's into the entropy pool.
    ReseedEntropy(Seed),
    /// Renew the machine's names.
    SetIdentity(Identity),
    /// Write the root file system back.
    Sync(Sync),
    /// Come to rest before a snapshot.
    Quiesce(Quiesce),
    /// Let nothing write to a disk.
    Freeze(Freeze),
    /// Let it be written again.
    Thaw,
    /// Take up work again after one.
    Revive(Revive),
    /// End every process, sync, power off. The reply comes before the power goes.
    PowerOff(PowerOff),
}

/// The actions that belong to no area.
const OWN_ACTIONS: &[&str] = &[
    "hello",
    "ping",
    "exec",
    "tree_export",
    "export_archive",
    "set_clock",
    "build_root",
    "power_off",
    "connect_tcp",
    "metrics",
    "reseed_entropy",
    "set_identity",
    "sync",
    "quiesce",
    "freeze",
    "thaw",
    "revive",
];

/// The actions of this generation, as `hello` lists them.
pub fn actions() -> impl Iterator<Item = &'static str> {
    let areas: [&'static [&'static str]; 7] = [
        OWN_ACTIONS,
        &JobRequest::ACTIONS,
        FILE_ACTIONS,
        TREE_ACTIONS,
        IMPORT_ACTIONS,
        shell::ACTIONS,
        service::ACTIONS,
    ];
    areas.into_iter().flatten().copied()
}

impl Request {
    /// Parses one request line.
    ///
    /// A request without `action` is an exec, as in the original. An unknown action is an
    /// error, never a command.
    pub fn parse(line: &[u8]) -> Result<Self, ErrorReply> {
        let value: Value = serde_json::from_slice(line)
            .map_err(|error| invalid(format!("the request is no JSON object: {error}")))?;
        let Value::Object(ref fields) = value else {
            return Err(invalid("the request must be a JSON object"));
        };
        let action = match fields.get("action") {
            None | Some(Value::Null) => "exec",
            Some(Value::String(action)) => action.as_str(),
            Some(_) => return Err(invalid("`action` must be a string")),
        };
        match action {
            "hello" => Ok(Self::Hello),
            "ping" => {
                let ping: PingRequest = decode(value)?;
                if ping.reply_bytes > MAX_PING_BYTES {
                    return Err(invalid(format!("`reply_bytes` exceeds {MAX_PING_BYTES}")));
                }
                Ok(Self::Ping {
                    reply_bytes: ping.reply_bytes,
                })
            }
            "exec" => Ok(Self::Exec(decode::<ExecRequest>(value)?.check()?)),
            action if JobRequest::ACTIONS.contains(&action) => {
                let action = action.to_owned();
                JobRequest::parse(&action, value)
                    .unwrap_or_else(|| Err(invalid("no action about jobs")))
                    .map(Self::Job)
            }
            "set_clock" => {
                let clock: SetClockRequest = decode(value)?;
                Ok(Self::SetClock {
                    unix_ns: clock.unix_ns,
                })
            }
            "build_root" => {
                let build: BuildRoot = decode(value)?;
                if build.layers.is_empty() || build.layers.len() > MAX_LAYERS {
                    return Err(invalid(format!(
                        "`layers` must name 1 to {MAX_LAYERS} disks"
                    )));
                }
                Ok(Self::BuildRoot(build))
            }
            "power_off" => Ok(Self::PowerOff(decode::<PowerOffRequest>(value)?.check()?)),
            "connect_tcp" => Ok(Self::ConnectTcp(
                decode::<ConnectTcpRequest>(value)?.check()?,
            )),
            "tree_export" => Ok(Self::TreeExport(Box::new(
                decode::<TreeExport>(value)?.check()?,
            ))),
            "export_archive" => Ok(Self::ExportArchive(decode(value)?)),
            "metrics" => Ok(Self::Metrics),
            "reseed_entropy" => Ok(Self::ReseedEntropy(decode::<SeedRequest>(value)?.check()?)),
            "set_identity" => Ok(Self::SetIdentity(
                decode::<IdentityRequest>(value)?.check()?,
            )),
            "sync" => Ok(Self::Sync(decode::<SyncRequest>(value)?.check()?)),
            "quiesce" => Ok(Self::Quiesce(decode::<QuiesceRequest>(value)?.check()?)),
            "freeze" => Ok(Self::Freeze(decode::<FreezeRequest>(value)?.check()?)),
            "thaw" => Ok(Self::Thaw),
            "revive" => Ok(Self::Revive(decode::<ReviveRequest>(value)?.check()?)),
            name if shell::ACTIONS.contains(&name) => {
                let action = name.to_owned();
                Ok(Self::Shell(ShellRequest::parse(&action, value)?))
            }
            name if service::ACTIONS.contains(&name) => {
                let action = name.to_owned();
                Ok(Self::Service(ServiceRequest::parse(&action, value)?))
            }
            file if FILE_ACTIONS.contains(&file) => {
                let file = file.to_owned();
                Ok(Self::Files(Box::new(FileRequest::parse(&file, value)?)))
            }
            tree if TREE_ACTIONS.contains(&tree) => {
                let tree = tree.to_owned();
                Ok(Self::Tree(Box::new(TreeRequest::parse(&tree, value)?)))
            }
            import if IMPORT_ACTIONS.contains(&import) => {
                let import = import.to_owned();
                Ok(Self::Import(Box::new(ImportRequest::parse(
                    &import, value,
                )?)))
            }
            unknown => Err(ErrorReply::new(
                ErrorCode::Unsupported,
                format!("unknown action `{}`", shorten(unknown)),
            )),
        }
    }
}

/// `build_root`: make a root file system out of layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRoot {
    /// Id of the empty ext4 disk to fill.
    pub target: String,
    /// The layers, lowest first.
    pub layers: Vec<LayerDisk>,
}

/// A layer tar attached as a read-only disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerDisk {
    /// Id of the disk.
    pub disk: String,
    /// Where on the disk the tar begins, in bytes.
    #[serde(default)]
    pub offset: u64,
    /// Bytes of the tar; the disk is padded to whole sectors.
    pub size: u64,
}

/// How far `build_root` has come, and its outcome in the end frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildProgress {
    /// Archive members unpacked.
    pub entries: u64,
    /// Bytes of layer tars read.
    pub bytes: u64,
}

/// The reply to `hello`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Highest protocol generation that the agent speaks.
    pub generation: u32,
    /// Version of the agent.
    pub version: String,
    /// Identity of the agent's build.
    pub build_id: String,
    /// The guest's kernel release.
    pub kernel: String,
    /// Actions that the agent serves.
    pub actions: Vec<String>,
    /// What the boot took, by stage.
    pub boot: BootTimes,
}

/// Where the guest's boot time went: microseconds of the guest's monotonic clock, which
/// starts with its kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootTimes {
    /// The agent's first instruction: what the kernel took.
    pub init_us: u64,
    /// Kernel modules are loaded.
    pub modules_us: u64,
    /// The root file system is in place.
    pub mounts_us: u64,
    /// The link is open.
    pub link_us: u64,
}

#[derive(Deserialize)]
struct PingRequest {
    #[serde(default)]
    reply_bytes: u64,
}

#[derive(Deserialize)]
struct SetClockRequest {
    unix_ns: u64,
}

pub(crate) fn invalid(message: impl Into<String>) -> ErrorReply {
    ErrorReply::new(ErrorCode::InvalidArgument, message)
}

fn decode<T: for<'de> Deserialize<'de>>(value: Value) -> Result<T, ErrorReply> {
    serde_json::from_value(value).map_err(|error| invalid(format!("malformed request: {error}")))
}

/// Keeps a quoted piece of foreign text short.
fn shorten(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> ErrorReply {
        Request::parse(line.as_bytes()).unwrap_err()
    }

    #[test]
    fn no_action_is_an_exec_and_an_unknown_one_never() {
        assert!(matches!(
            Request::parse(br#"{"command": "true"}"#),
            Ok(Request::Exec(_))
        ));
        let error = refused(r#"{"action": "rm", "command": "true"}"#);
        assert_eq!(error.code, ErrorCode::Unsupported);
        assert_eq!(error.error, "unknown action `rm`");
    }

    #[test]
    fn malformed_requests_are_named() {
        for (line, part) in [
            ("", "no JSON object"),
            ("[1]", "must be a JSON object"),
            (r#"{"action": 3}"#, "`action` must be a string"),
            (
                r#"{"action": "ping", "reply_bytes": 99999999999}"#,
                "`reply_bytes` exceeds",
            ),
            (r#"{"action": "set_clock"}"#, "missing field `unix_ns`"),
            (
                r#"{"action": "build_root", "target": "root", "layers": []}"#,
                "`layers`",
            ),
        ] {
            let error = refused(line);
            assert_eq!(error.code, ErrorCode::InvalidArgument, "{line}");
            assert!(error.error.contains(part), "{line}: {}", error.error);
        }
    }

    #[test]
    fn every_listed_action_is_known() {
        for action in actions() {
            let line = format!(r#"{{"action": "{action}"}}"#);
            if let Err(error) = Request::parse(line.as_bytes()) {
                assert_ne!(error.code, ErrorCode::Unsupported, "{action}");
            }
        }
    }
}
