//! Templates for people.

use std::fmt::Write;

use pyro::{TemplateListing, TemplatePruneResult};

use super::printable;
use super::size::size;

/// `template list`.
pub(crate) fn listing(templates: &[TemplateListing]) -> String {
    if templates.is_empty() {
        return "There are no templates\n".into();
    }
    let mut text = String::new();
    for one in templates {
        let _ = writeln!(text, "{}", line(one));
    }
    let bytes = templates.iter().map(|one| one.bytes).sum();
    let _ = writeln!(text, "{} on disk in all", size(bytes));
    text
}

/// `template prune`.
pub(crate) fn pruned(pruned: &TemplatePruneResult) -> String {
    let verb = if pruned.dry_run {
        "Would remove"
    } else {
        "Removed"
    };
    let count = pruned.removed.len();
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{verb} {count} {}, {} in all",
        if count == 1 { "template" } else { "templates" },
        size(pruned.freed_bytes)
    );
    for one in &pruned.removed {
        let _ = writeln!(text, "- {}", line(one));
    }
    text
}

fn line(one: &TemplateListing) -> String {
    let mut line = one.key.clone();
    if let (Some(environment), Some(engine), Some(vcpus), Some(memory), Some(network)) = (
        &one.environment,
        &one.engine,
        one.vcpu_count,
        one.mem_mib,
        one.network,
    ) {
        let network = if network { ", network" } else { "" };
        let _ = write!(
            line,
            " {} ({engine}, {vcpus} vcpu, {memory} MiB{network})",
            printable(environment)
        );
    }
    let _ = write!(line, ": {}", size(one.bytes));
    if let Some(reason) = &one.reason {
        let _ = write!(line, ", of no use: {}", printable(reason));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_has_a_line() {
        let good = TemplateListing {
            key: "0123456789abcdef".into(),
            environment: Some("debian:12".into()),
            root_digest: None,
            kernel_digest: None,
            initramfs: None,
            network: Some(true),
            engine: Some("qemu-tcg".into()),
            vcpu_count: Some(2),
            mem_mib: Some(512),
            bytes: 3 * 1024 * 1024,
            created_at: Some(1),
            used_at: 1,
            reason: None,
        };
        let broken = TemplateListing {
            environment: None,
            reason: Some("it is\u{1b}half".into()),
            ..good.clone()
        };
        assert_eq!(
            listing(&[good.clone(), broken]),
            "0123456789abcdef debian:12 (qemu-tcg, 2 vcpu, 512 MiB, network): 3.0 MiB\n\
             0123456789abcdef: 3.0 MiB, of no use: it is\\u{1b}half\n\
             6.0 MiB on disk in all\n"
        );
        let result = TemplatePruneResult {
            dry_run: true,
            freed_bytes: good.bytes,
            removed: vec![good],
        };
        assert_eq!(
            pruned(&result),
            "Would remove 1 template, 3.0 MiB in all\n\
             - 0123456789abcdef debian:12 (qemu-tcg, 2 vcpu, 512 MiB, network): 3.0 MiB\n"
        );
    }
}
