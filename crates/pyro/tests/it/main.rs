//! The SDK's work on the host that needs no machine, against Git, GNU tar and hostile archives.

mod apply;
mod checkout;
mod clone;
mod local;
mod seed;
mod unpack;
mod world;
