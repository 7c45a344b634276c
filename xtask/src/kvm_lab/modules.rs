//! Which kernel modules the lab loads at its start, and in which order.
//!
//! Pure: reads the text of `modules.dep`. All others are loaded when a program needs them.

use std::collections::HashMap;

use anyhow::{Context as _, Result};

/// What the lab needs before it can reach the host's files, and what its machines need: KVM, taps, vsocks.
/// ext4 asks for the checksum by a name that `modules.dep` does not know.
const WANTED: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "virtio-rng",
    "crc32c_generic",
    "ext4",
    "9pnet_virtio",
    "9p",
    "overlay",
    "tun",
    "vhost_vsock",
    "kvm-amd",
];

/// Paths of the modules below their directory, each after those that it needs.
pub(super) fn load_order(modules_dep: &str) -> Result<Vec<&str>> {
    let needs: HashMap<&str, Vec<&str>> = modules_dep
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needed)| (path, needed.split_ascii_whitespace().collect()))
        .collect();
    let mut order = Vec::new();
    for name in WANTED {
        let path = needs
            .keys()
            .copied()
            .find(|path| file_name(path).strip_suffix(".ko") == Some(name))
            .with_context(|| format!("the kernel has no module `{name}`"))?;
        // The list of a module is complete, and what is needed first stands last in it.
        for &needed in needs[path].iter().rev().chain([&path]) {
            if !order.contains(&needed) {
                order.push(needed);
            }
        }
    }
    Ok(order)
}

/// The last part of a module's path.
pub(super) fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_comes_first_and_nothing_comes_twice() {
        let mut text: String = WANTED
            .iter()
            .filter(|name| !["virtio_blk", "virtio_pci"].contains(name))
            .flat_map(|name| ["kernel/", name, ".ko:\n"])
            .collect();
        text.push_str("kernel/d/virtio_pci.ko: kernel/d/virtio.ko kernel/d/virtio_ring.ko\n");
        text.push_str("kernel/d/virtio_blk.ko: kernel/d/virtio.ko kernel/d/virtio_ring.ko\n");
        text.push_str("kernel/d/virtio.ko: kernel/d/virtio_ring.ko\nkernel/d/virtio_ring.ko:\nkernel/d/unused.ko:\n");
        let order = load_order(&text).unwrap();
        assert_eq!(
            order[..5],
            [
                "kernel/d/virtio_ring.ko",
                "kernel/d/virtio.ko",
                "kernel/d/virtio_pci.ko",
                "kernel/d/virtio_blk.ko",
                "kernel/virtio_console.ko",
            ]
        );
        assert_eq!(order.len(), WANTED.len() + 2);
        assert!(
            load_order("kernel/x.ko:\n")
                .unwrap_err()
                .to_string()
                .contains("virtio_pci")
        );
    }
}
