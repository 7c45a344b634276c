//! Places that the text of a public repository must not name.

use super::Violation;

/// This file, which must name them.
const HERE: &str = "xtask/src/tidy/places.rs";

/// Where people's own directories lie.
const HOMES: [&str; 2] = ["/home/", "/Users/"];

/// Hosts that serve packages and images.
const DOWNLOAD_HOSTS: [&str; 5] = [
    "deb.debian.org",
    "security.debian.org",
    "snapshot.debian.org",
    "ftp.debian.org",
    "registry-1.docker.io",
];

/// The repository works wherever it is cloned.
pub(crate) fn names_no_home(path: &str, text: &str) -> Vec<Violation> {
    // Tests make users of their own.
    if path.contains("/tests/") {
        return Vec::new();
    }
    named(path, text, &HOMES, |place| {
        format!(
            "a path below `{place}` exists on one machine only: take one that is given or made at run time"
        )
    })
}

/// One crate knows where packages come from.
pub(crate) fn names_no_download_host(path: &str, text: &str) -> Vec<Violation> {
    if path.starts_with("crates/pyro-image/") {
        return Vec::new();
    }
    named(path, text, &DOWNLOAD_HOSTS, |host| {
        format!("`{host}`: only pyro-image names hosts that it downloads from")
    })
}

fn named(path: &str, text: &str, places: &[&str], cure: fn(&str) -> String) -> Vec<Violation> {
    if path == HERE {
        return Vec::new();
    }
    let mut found: Vec<(usize, &str)> = Vec::new();
    for place in places {
        found.extend(text.match_indices(place));
    }
    found.sort_unstable();
    found
        .into_iter()
        .map(|(at, place)| Violation::at(path, text, at, cure(place)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::assert_text_reports;
    use super::*;

    #[test]
    fn somebodys_home_is_reported() {
        let text = "cp /home/me/a b\nls /workspace /tmp/x ~/a\ncp /Users/me/a b\n";
        assert_text_reports(names_no_home, "docs/a.md", text, &[1, 3]);
        assert_text_reports(names_no_home, "crates/a/tests/it/b.rs", text, &[]);
    }

    #[test]
    fn a_download_host_elsewhere_is_reported() {
        let text = "a = 1\nhttp://deb.debian.org/debian\nhttps://registry-1.docker.io/v2\n";
        let check = names_no_download_host;
        assert_text_reports(check, "crates/pyro-vm/src/a.rs", text, &[2, 3]);
        assert_text_reports(check, "crates/pyro-image/src/a.rs", text, &[]);
    }
}
