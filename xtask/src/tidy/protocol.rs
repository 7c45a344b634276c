//! What `pyro-protocol` must not know.

use super::Violation;
use super::source::Source;

/// The modules of what the client and the supervisor say: both run on the host, and paths there are the host's own.
const HOST_TO_HOST: &str = "crates/pyro-protocol/src/supervise";

/// The protocol is data: no files, no clock, no randomness, no runtime. Sockets are another
/// check's business; an address is data.
pub(crate) fn is_pure(source: &Source<'_>) -> Vec<Violation> {
    if source.crate_name() != "pyro-protocol" || !source.is_product() {
        return Vec::new();
    }
    let mut found = source.uses("std", &["fs", "process", "env", "thread"]);
    for name in ["Instant", "SystemTime", "RandomState", "tokio", "rand"] {
        found.extend(source.words(name).into_iter().map(|at| (at, name)));
    }
    source
        .outside_tests(found)
        .map(|(at, name)| {
            let cure = format!(
                "`{name}`: pyro-protocol does no I/O and knows no time; do it in the caller"
            );
            source.violation(at, cure)
        })
        .collect()
}

/// What the guest says never becomes a path of the host.
pub(crate) fn has_no_paths_of_the_guest(source: &Source<'_>) -> Vec<Violation> {
    let is_guests = source.crate_name() == "pyro-protocol"
        && source.is_product()
        && !source.path.starts_with(HOST_TO_HOST);
    if !is_guests {
        return Vec::new();
    }
    let mut found = Vec::new();
    for name in ["Path", "PathBuf", "OsString", "OsStr"] {
        found.extend(source.words(name).into_iter().map(|at| (at, name)));
    }
    source
        .outside_tests(found)
        .map(|(at, name)| {
            let cure = format!(
                "`{name}`: a message of the guest holds no path; say what is meant in another way"
            );
            source.violation(at, cure)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_reports, on};
    use super::*;

    const IN_PROTOCOL: &str = "crates/pyro-protocol/src/other.rs";
    const ELSEWHERE: &str = "crates/pyro-vm/src/other.rs";

    #[test]
    fn a_protocol_that_acts_is_reported() {
        let text = "use std::{fmt, fs::File};\nuse std::process::Command;\nuse std::time::{Duration, Instant};\n\
                    async fn a() { tokio::spawn(b); }\nuse std::io::Read;\n";
        assert_reports(is_pure, IN_PROTOCOL, text, &[1, 2, 3, 4]);
        assert_reports(is_pure, ELSEWHERE, text, &[]);
        let clock = on(is_pure, IN_PROTOCOL, "fn a(b: SystemTime) {}");
        assert!(clock[0].contains("`SystemTime`"), "{clock:?}");
    }

    #[test]
    fn a_path_in_a_message_is_reported() {
        let text = "struct Reply {\n    /// A Path.\n    file: PathBuf,\n    cwd: String,\n    name: std::ffi::OsString,\n}\n";
        assert_reports(has_no_paths_of_the_guest, IN_PROTOCOL, text, &[3, 5]);
        assert_reports(has_no_paths_of_the_guest, HOST_TO_HOST, text, &[]);
        assert_reports(has_no_paths_of_the_guest, ELSEWHERE, text, &[]);
    }
}
