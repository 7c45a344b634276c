//! The crate against a real QEMU; what is below `kvm` needs a working `/dev/kvm` and a Firecracker.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its fixtures too"
)]

mod guest;
mod kvm;
mod machine;
mod probe;
mod qmp;
mod restore;
