//! The crate against a real QEMU.

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
