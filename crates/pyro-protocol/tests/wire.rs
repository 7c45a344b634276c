//! The wire of generation 1, as a snapshot: what an older or newer peer will meet. The
//! surface only grows; a changed line is a new generation.

use std::collections::BTreeMap;

use pyro_protocol::archive::export::{
    Compression, ExportArchive, ExportArchiveHeader, Exported, PathList, TreeExport, TreeExportEnd,
    TreeExportHeader, TreeExportProgress,
};
use pyro_protocol::archive::import::{
    ArchiveExtracted, ExtractArchive, ImportEnd, ImportOwner, ImportProgress, InstallSecrets,
    TreeImport,
};
use pyro_protocol::code::{ErrorCode, ErrorReply};
use pyro_protocol::exec::{ExecEnd, ExecReply, ExecRequest};
use pyro_protocol::files::{ArtifactType, Target};
use pyro_protocol::index::{
    BaselineInfo, BaselineList, BaselineName, ChangeCounts, ChangeStatus, Reference, Told,
    TreeBaseline, TreeChange, TreeChanges, TreeDigest, TreeEnd, TreeEntry, TreeHeader, TreeIndex,
    TreeNode, TreeProgress, TreeScope,
};
use pyro_protocol::request::{BootTimes, BuildProgress, BuildRoot, Hello, LayerDisk, actions};
use pyro_protocol::service::{
    FollowEnd, FollowGap, FollowReason, LastExit, LogCursors, Readiness, RestartWhen, ServiceLogs,
    ServiceName, ServiceRecord, ServiceState, ServiceWaited, StopReason, WaitedReason,
};
use pyro_protocol::supervise::{
    ControlReply, ControlRequest, EndReason, EndRecord, EngineChoice, EngineFinding, Event, Expiry,
    Failure, FailureCause, JailLayer, Journal, Lease, MachineOrder, MachineStatus, ProbeOrder,
    ProbeReport, Ready, Role, SnapshotMade, Start, StartKind, SweepOrder, SweepReport,
    SweptMachine, VmmIdentity,
};
use serde::Serialize;

fn json(name: &str, value: &impl Serialize) -> String {
    format!(
        "{name}: {}\n",
        serde_json::to_string(value).expect("every message is JSON")
    )
}

#[test]
fn the_agents_messages() {
    let exec = ExecRequest {
        env: Some(BTreeMap::from([("A".into(), "b".into())])),
        cwd: Some("/tmp".into()),
        timeout_ms: Some(1500),
        stream: true,
        stdin: true,
        ..ExecRequest::argv(&[b"ls".to_vec()])
    };
    let boot = BootTimes {
        init_us: 1,
        modules_us: 2,
        mounts_us: 3,
        link_us: 4,
    };
    let error = ErrorReply::new(ErrorCode::NotFound, "`x` does not exist in the guest");
    let text = [
        json("exec", &exec),
        json("exec, bytes", &ExecRequest::argv(&[b"\xff".to_vec()])),
        json("exec, shell", &ExecRequest::shell("true")),
        json(
            "exec reply",
            &ExecReply {
                stdout: String::new(),
                stderr: String::new(),
                exit_code: 0,
                duration_ms: 1,
                timed_out: false,
                truncated: false,
            },
        ),
        json(
            "exec end",
            &ExecEnd {
                exit_code: 127,
                signal: Some(9),
                timed_out: false,
                duration_ms: 1,
                output_left_open: false,
                usage: None,
                error: Some(error.clone()),
            },
        ),
        json("error", &error),
        json(
            "hello",
            &Hello {
                generation: 1,
                version: "0".into(),
                build_id: "0".into(),
                kernel: "6.1".into(),
                actions: actions().map(ToOwned::to_owned).collect(),
                boot,
            },
        ),
        json(
            "build_root",
            &BuildRoot {
                target: "target".into(),
                layers: vec![LayerDisk {
                    disk: "layer-0".into(),
                    offset: 2,
                    size: 1,
                }],
            },
        ),
        json(
            "build progress",
            &BuildProgress {
                entries: 1,
                bytes: 2,
            },
        ),
    ];
    insta::assert_snapshot!(text.concat());
}

#[test]
fn the_agents_words_about_services() {
    let name = ServiceName::parse("web").expect("a name");
    let record = ServiceRecord {
        service_name: name,
        command: "serve".into(),
        cwd: "/workspace".into(),
        state: ServiceState::Failed,
        started_at: 1.5,
        readiness: Some(Readiness::Tcp {
            address: "127.0.0.1:80".into(),
        }),
        ready_at: None,
        ended_at: Some(2.5),
        exit_code: Some(137),
        pid: 7,
        stop_reason: Some(StopReason::StartFailed),
        signal: Some(9),
        restart: RestartWhen::OnFailure,
        restarts: 1,
        last_exit: Some(LastExit {
            ended_at: 1.25,
            exit_code: 1,
            signal: None,
            stop_reason: Some(StopReason::ProcessExitedBeforeReady),
        }),
        version: 4,
        error: Some(ErrorReply::new(ErrorCode::NotFound, "gone")),
    };
    let since = LogCursors {
        stdout: 1,
        stderr: 2,
    };
    let text = [
        json("service", &record),
        json(
            "service logs",
            &ServiceLogs {
                record: record.clone(),
                stdout: "o".into(),
                stderr: "e".into(),
                tail_lines: Some(1),
                truncated: true,
                since,
                dropped: LogCursors::default(),
            },
        ),
        json(
            "service waited",
            &ServiceWaited {
                record: record.clone(),
                reason: WaitedReason::Changed,
            },
        ),
        json("service gap", &FollowGap { lost: since, since }),
        json(
            "service followed",
            &FollowEnd {
                record,
                reason: FollowReason::Detached,
                since,
            },
        ),
    ];
    insta::assert_snapshot!(text.concat());
}

#[test]
fn the_supervisors_messages() {
    let order = MachineOrder {
        id: "0123456789ab".into(),
        engine: EngineChoice::Auto,
        qemu: None,
        firecracker: None,
        firecracker_installed: "/f".into(),
        search_path: "/usr/bin".into(),
        vcpu_count: 1,
        mem_mib: 1024,
        disk_mib_per_second: None,
        kernel: "/k".into(),
        initramfs: "/i".into(),
        role: Role::Environment {
            root_image: "/r".into(),
            root_digest: "d".into(),
            kernel_digest: "k".into(),
            upper_mib: 1,
            use_lock: "/u".into(),
        },
        start: Start::Warm {
            templates_dir: "/w".into(),
            max_bytes: 1,
            environment: "e".into(),
            anew: false,
        },
        network: false,
        kept_disk: Some("/d".into()),
        end_record: Some("/e".into()),
        expiry: Expiry::Idle { ttl_ms: 1 },
        boot_deadline_ms: 1,
        lease: Lease::Owner,
        machines_dir: "/m".into(),
        runtime_dir: "/x".into(),
        logs_dir: "/l".into(),
        probe_cache: "/p".into(),
        blank_dir: "/b".into(),
    };
    let builder = Role::Builder {
        layers: vec!["/t".into()],
        target: "/d".into(),
        target_mib: 1,
    };
    let ready = Ready {
        agent_socket: "/a".into(),
        control_socket: "/c".into(),
        engine: EngineChoice::QemuTcg,
        vmm_pid: 1,
        prepare_ms: 2,
        started: StartKind::Made,
        template: Some("t".into()),
        not_warm: Some("n".into()),
        boot_ms: 3,
        guest_boot: BootTimes::default(),
        kernel: "6.1".into(),
    };
    let failure = Failure {
        code: ErrorCode::GuestError,
        message: "m".into(),
        hint: Some("h".into()),
        cause: FailureCause::Kernel,
        console_tail: vec!["line".into()],
        exit_reason: Some("exit status 0".into()),
        log_dir: Some("/l".into()),
    };
    let finding = EngineFinding {
        engine: EngineChoice::QemuKvm,
        usable: false,
        reason: "r".into(),
        hint: None,
        elapsed_ms: 1,
    };
    let swept = SweptMachine {
        id: "0".into(),
        processes: vec![1],
        directories: vec!["/m".into()],
        error: None,
    };
    let text = [
        json("order", &order),
        json("builder", &builder),
        json("detached", &Lease::Detached),
        json(
            "phase",
            &Event::Phase {
                phase: "boot".into(),
            },
        ),
        json("ready", &Event::Ready(ready)),
        json("failed", &Event::Failed(failure.clone())),
        json(
            "ended",
            &Event::Ended {
                reason: EndReason::OwnerGone,
            },
        ),
        json("cold", &Start::Cold),
        json(
            "from a snapshot",
            &Start::Snapshot {
                directory: "/s".into(),
                or_boot: true,
            },
        ),
        json("on the kept disk", &Start::KeptDisk),
        json(
            "on a copy of a disk",
            &Start::CopyOfDisk { disk: "/d".into() },
        ),
        json("booted from a disk", &StartKind::BootedFromDisk),
        json("aging", &Expiry::Age { ttl_ms: 1 }),
        json("living on", &Expiry::Never),
        json("stop", &ControlRequest::Stop { orderly: true }),
        json("status", &ControlRequest::Status),
        json(
            "set expiry",
            &ControlRequest::SetExpiry {
                expiry: Expiry::Never,
            },
        ),
        json("copy disk", &ControlRequest::CopyDisk { to: "/c".into() }),
        json("pause", &ControlRequest::Pause),
        json("resume", &ControlRequest::Resume),
        json("detach", &ControlRequest::Detach),
        json(
            "snapshot",
            &ControlRequest::Snapshot {
                directory: "/s".into(),
                passing: true,
            },
        ),
        json("paused", &ControlReply::Paused),
        json("resumed", &ControlReply::Resumed),
        json("detached", &ControlReply::Detached),
        json(
            "snapshot made",
            &ControlReply::Snapshot(SnapshotMade {
                directory: "/s".into(),
                bytes: 1,
                paused_ms: 2,
                took_ms: 3,
            }),
        ),
        json("expiry set", &ControlReply::ExpirySet),
        json(
            "told status",
            &ControlReply::Status(MachineStatus {
                paused: true,
                open_streams: 1,
                idle_ms: 2,
                expires_in_ms: Some(3),
                vmm_pid: 4,
                memory_bytes: Some(5),
            }),
        ),
        json(
            "least told status",
            &ControlReply::Status(MachineStatus {
                paused: false,
                open_streams: 0,
                idle_ms: 0,
                expires_in_ms: None,
                vmm_pid: 1,
                memory_bytes: None,
            }),
        ),
        json(
            "end record",
            &EndRecord {
                machine_id: "0123456789ab".into(),
                reason: EndReason::Failed,
                orderly: false,
                at_ms: 1,
                failure: Some(failure.clone()),
            },
        ),
        json("refused", &ControlReply::Refused(failure)),
        json(
            "journal",
            &Journal {
                schema: 1,
                id: "0".into(),
                supervisor_pid: 1,
                runtime_dir: "/x".into(),
                uid_slot: Some(1),
                cgroup: Some("/sys/fs/cgroup/pyro-0".into()),
                vmm: Some(VmmIdentity {
                    pid: 1,
                    start_time: 2,
                }),
                unfinished: vec!["/t/.partial-0".into()],
                created_at: 1,
                expires_at: Some(2),
            },
        ),
        json(
            "probe order",
            &ProbeOrder {
                qemu: None,
                firecracker: None,
                firecracker_installed: "/f".into(),
                search_path: "/usr/bin".into(),
                probe_cache: "/p".into(),
                again: true,
            },
        ),
        json(
            "probe report",
            &ProbeReport {
                chosen: Some(EngineChoice::QemuTcg),
                qemu: None,
                qemu_version: None,
                firecracker: None,
                firecracker_version: None,
                engines: vec![finding],
                jail: vec![JailLayer {
                    name: "landlock".into(),
                    on: false,
                    reason: "why".into(),
                    hint: Some("how".into()),
                }],
            },
        ),
        json(
            "sweep order",
            &SweepOrder {
                machines_dir: "/m".into(),
                templates_dir: "/t".into(),
                dry_run: true,
            },
        ),
        json(
            "sweep report",
            &SweepReport {
                machines: vec![swept],
            },
        ),
    ];
    insta::assert_snapshot!(text.concat());
}

#[test]
fn the_exports_messages() {
    let export = TreeExport {
        root: Some("/srv".into()),
        what: Exported::Several(vec![b"a".to_vec(), vec![0xff]]),
        compression: Compression::Gzip,
        exclude: vec!["*.o".into()],
        include_root: true,
        special: true,
        mounts: true,
        max_bytes: Some(1),
        max_entries: Some(2),
    };
    let none = PathList::default();
    let text = [
        json("tree_export", &TreeExport::workspace("a")),
        json("tree_export, all", &export),
        json(
            "header",
            &TreeExportHeader {
                ok: true,
                frames: true,
                path: "/workspace".into(),
                artifact_type: ArtifactType::Directory,
                compression: Compression::Zstd,
            },
        ),
        json(
            "progress",
            &TreeExportProgress {
                entries: 1,
                bytes: 2,
            },
        ),
        json(
            "end",
            &TreeExportEnd {
                entry_count: 1,
                bytes_written: 2,
                archive_size: 3,
                digest: "sha256:00".into(),
                skipped: PathList {
                    count: 1,
                    paths: vec!["a".into()],
                },
                changed: none.clone(),
                vanished: none.clone(),
                unreadable: none,
            },
        ),
        json(
            "export_archive",
            &ExportArchive {
                path: "/workspace".into(),
            },
        ),
        json(
            "export_archive header",
            &ExportArchiveHeader {
                workspace_path: "/workspace".into(),
                artifact_type: ArtifactType::Directory,
                archive_size: 1,
                entry_count: 2,
                bytes_written: 3,
            },
        ),
    ];
    insta::assert_snapshot!(text.concat());
}

#[test]
fn the_messages_about_trees() {
    let digest = TreeDigest([0xab; 32]);
    let name = BaselineName::try_from("v1".to_owned()).expect("a name");
    let scope = TreeScope {
        target: Target::workspace(*b"src"),
        exclude: vec!["*.o".into()],
        hash: true,
    };
    let file = TreeNode {
        artifact_type: ArtifactType::File,
        mode: 0o644,
        uid: 1,
        gid: 2,
        size_bytes: 3,
        mtime_ns: 4,
        sha256: Some(digest),
        link_target: None,
        link_target_b64: None,
        device: None,
    };
    let link = TreeNode {
        artifact_type: ArtifactType::Symlink,
        sha256: None,
        link_target: Some("\u{fffd}".into()),
        link_target_b64: Some("/w==".into()),
        ..file.clone()
    };
    let device = TreeNode {
        artifact_type: ArtifactType::CharDevice,
        sha256: None,
        device: Some(259),
        ..file.clone()
    };
    let changes = ChangeCounts {
        added: 1,
        deleted: 2,
        modified: 3,
        type_changed: 4,
        mode_changed: 5,
    };
    let end = TreeEnd {
        generation: digest,
        entries: 1,
        files: 2,
        bytes: 3,
        files_hashed: 4,
        bytes_hashed: 5,
        reused: 6,
        unreadable: 7,
        unsettled: 8,
        lines: 9,
        changes: None,
        elapsed_ms: 10,
    };
    let mut text = [
        json(
            "index",
            &TreeIndex {
                scope: scope.clone(),
                entries: Told::None,
                include: vec!["src".into()],
                changed_since: Some(digest),
                fresh: false,
            },
        ),
        json(
            "baseline",
            &TreeBaseline {
                name: name.clone(),
                scope,
            },
        ),
        json(
            "changes",
            &TreeChanges {
                name: Reference::Image,
                to: Some(name),
                include: vec!["src".into()],
                exclude: vec!["*.o".into()],
                entries: Told::All,
            },
        ),
        json(
            "header",
            &TreeHeader {
                frames: true,
                path: "/workspace".into(),
            },
        ),
        json(
            "progress",
            &TreeProgress {
                entries: 1,
                files_hashed: 2,
                bytes_hashed: 3,
            },
        ),
        json("end", &end),
        json(
            "end, compared",
            &TreeEnd {
                changes: Some(changes),
                ..end
            },
        ),
        json(
            "baselines",
            &BaselineList {
                baselines: vec![BaselineInfo {
                    name: "v1".into(),
                    path: "/workspace".into(),
                    generation: digest,
                    entries: 1,
                    created_ns: 2,
                    stored_bytes: 3,
                }],
                damaged: vec!["v2".into()],
            },
        ),
    ]
    .concat();
    for node in [&file, &link, &device] {
        let entry = TreeEntry {
            path: "\u{fffd}".into(),
            path_b64: Some("/w==".into()),
            node: node.clone(),
        };
        text += &json("entry", &entry);
    }
    for status in [
        ChangeStatus::Added,
        ChangeStatus::Deleted,
        ChangeStatus::Modified,
        ChangeStatus::TypeChanged,
        ChangeStatus::ModeChanged,
    ] {
        let change = TreeChange {
            path: "a".into(),
            path_b64: None,
            status,
            old: (status != ChangeStatus::Added).then(|| file.clone()),
            new: (status != ChangeStatus::Deleted).then(|| link.clone()),
        };
        text += &json("change", &change);
    }
    insta::assert_snapshot!(text);
}

#[test]
fn the_messages_about_imports() {
    let text = [
        json("tree_import", &TreeImport::workspace()),
        json(
            "tree_import, all",
            &TreeImport {
                owner: ImportOwner::Numbers { uid: 1, gid: 2 },
                max_bytes: Some(3),
                sha256: Some([0xab; 32]),
                ..TreeImport::workspace()
            },
        ),
        json(
            "import progress",
            &ImportProgress {
                entries: 1,
                bytes: 2,
            },
        ),
        json(
            "import end",
            &ImportEnd {
                destination: "/workspace".into(),
                entries: 1,
                bytes_written: 2,
                attributes_left_out: 3,
            },
        ),
        json(
            "extract_archive",
            &ExtractArchive {
                destination: "/workspace".into(),
                archive_size: 1,
            },
        ),
        json("install_secrets", &InstallSecrets { archive_size: 1 }),
        json(
            "archive extracted",
            &ArchiveExtracted {
                destination: "/workspace".into(),
                entry_count: 1,
                bytes_written: 2,
            },
        ),
    ];
    insta::assert_snapshot!(text.concat());
}
