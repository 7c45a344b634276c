//! A repository, fetched into a directory that is removed afterwards.
//!
//! Nothing that a repository holds is started: no hooks, no templates, no program that a
//! submodule names. Only its own protocol is used; submodules are never read from files of this
//! host, which a repository could name to have them sent into a guest. Nobody is asked for
//! credentials.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pyro_image::{Progress, ProgressSink};
use tempfile::TempDir;

use super::TreeError;
use super::git::{Call, Deadline, Ended, HostGit, Protocols};

/// Longest that a clone may take, with its submodules.
const DEADLINE: Duration = Duration::from_mins(15);

/// Longest address and name of a revision, in bytes.
const MAX_TEXT: usize = 4096;

/// A commit id and a newline.
const MAX_COMMIT: usize = 128;

/// A clone, for as long as it is needed.
#[derive(Debug)]
pub(super) struct Clone {
    directory: TempDir,
    origin_ref: String,
}

impl Clone {
    /// The top level of its checkout.
    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn origin_ref(&self) -> &str {
        &self.origin_ref
    }
}

/// Clones `url` at `git_ref` into a new directory below `staging`.
pub(super) fn clone(
    git: &HostGit,
    url: &str,
    git_ref: Option<&str>,
    staging: &Path,
    progress: &ProgressSink,
) -> Result<Clone, TreeError> {
    let address = Address::parse(url)?;
    let git_ref = git_ref.map(revision).transpose()?;
    let directory = tempfile::Builder::new()
        .prefix("clone-")
        .tempdir_in(staging)
        .map_err(TreeError::io("make a directory in", staging))?;
    let fetching = Fetching {
        git,
        address,
        directory: directory.path(),
        deadline: Deadline::after(DEADLINE),
        progress,
    };
    let commit = fetching.run(git_ref)?;
    Ok(Clone {
        origin_ref: format!("{}@{commit}", fetching.address.shown),
        directory,
    })
}

struct Fetching<'a> {
    git: &'a HostGit,
    address: Address,
    directory: &'a Path,
    deadline: Deadline,
    progress: &'a ProgressSink,
}

impl<'a> Fetching<'a> {
    /// The commit that was checked out.
    fn run(&self, git_ref: Option<&str>) -> Result<String, TreeError> {
        (self.progress)(Progress::Phase {
            phase: "clone".into(),
            detail: self.address.shown.clone(),
        });
        self.call("making a repository")
            .args(["init", "--quiet", "--template=", "."])
            .run(|_| Ok(()), |_| {})?
            .success()?;
        // Relative addresses of submodules are told from this one.
        self.call("making a repository")
            .args(["config", "remote.origin.url", &self.address.url])
            .run(|_| Ok(()), |_| {})?
            .success()?;
        let fetched = self.fetch(&["--depth=1"], &[git_ref.unwrap_or("HEAD")])?;
        let commit = if fetched.is_success() {
            "FETCH_HEAD^{commit}".to_owned()
        } else {
            self.fetch_all(&fetched, git_ref)?
        };
        self.call("checking out")
            .args(["checkout", "--quiet", "--force", "--detach", &commit, "--"])
            .run(|_| Ok(()), |_| {})?
            .success()?;
        self.submodules()?;
        self.head()
    }

    /// Fetches every branch and tag for a revision that the other side does not know by this
    /// name: a part of a commit id, or a commit that it gives to nobody who asks for it alone.
    fn fetch_all(&self, failed: &Ended, git_ref: Option<&str>) -> Result<String, TreeError> {
        let could_be_commit = git_ref.is_some_and(|text| {
            (4..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        let unknown = failed.lines.iter().any(|line| {
            line.contains("couldn't find remote ref")
                || line.contains("not our ref")
                || line.contains("unadvertised object")
        });
        let Some(git_ref) = git_ref.filter(|_| unknown) else {
            return Err(failed.failure());
        };
        let no_such = || TreeError::NoSuchRef {
            url: self.address.shown.clone(),
            git_ref: git_ref.to_owned(),
        };
        if !could_be_commit {
            return Err(no_such());
        }
        let everything = [
            "+refs/heads/*:refs/remotes/origin/*",
            "+refs/tags/*:refs/tags/*",
        ];
        self.fetch(&[], &everything)?.success()?;
        let commit = format!("{git_ref}^{{commit}}");
        let known = self
            .call("looking for the commit")
            .args([
                "rev-parse",
                "--quiet",
                "--verify",
                "--end-of-options",
                &commit,
            ])
            .run(|_| Ok(()), |_| {})?;
        if known.is_success() {
            Ok(commit)
        } else {
            Err(no_such())
        }
    }

    fn fetch(&self, options: &[&str], what: &[&str]) -> Result<Ended, TreeError> {
        self.call("fetching the repository")
            .protocols(self.address.protocols)
            .args([
                "fetch",
                "--progress",
                "--no-tags",
                "--no-recurse-submodules",
            ])
            .args(options.iter().map(OsStr::new))
            .args(["--end-of-options", &self.address.url])
            .args(what.iter().map(OsStr::new))
            .run(|_| Ok(()), |line| self.say(line))
    }

    fn submodules(&self) -> Result<(), TreeError> {
        if !self.directory.join(".gitmodules").is_file() {
            return Ok(());
        }
        self.call("fetching the submodules")
            // Never files of this host, whatever the repository's own address is.
            .protocols(Protocols::Network)
            .args(["submodule", "update", "--init", "--recursive", "--depth=1"])
            .args(["--progress"])
            .run(|_| Ok(()), |line| self.say(line))?
            .success()
            .map(|_| ())
    }

    fn head(&self) -> Result<String, TreeError> {
        let call = self.call("reading the commit");
        let call = call.args(["rev-parse", "--verify", "HEAD^{commit}"]);
        let (ended, output) = call.output(MAX_COMMIT)?;
        ended.success()?;
        Ok(String::from_utf8_lossy(&output).trim().to_owned())
    }

    fn call(&self, doing: &'static str) -> Call<'a> {
        self.git
            .call(doing, self.deadline)
            .directory(self.directory)
    }

    fn say(&self, line: &str) {
        (self.progress)(Progress::Step {
            text: line.to_owned(),
        });
    }
}

/// Where a repository is.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    url: String,
    /// Without credentials.
    shown: String,
    protocols: Protocols,
}

impl Address {
    fn parse(text: &str) -> Result<Self, TreeError> {
        let shown = redacted(text);
        let refused = |why| TreeError::Repository {
            text: shown.clone(),
            why,
        };
        if text.is_empty() || text.len() > MAX_TEXT {
            return Err(refused("it is empty or too long"));
        }
        if text.starts_with('-') {
            return Err(refused("it looks like an option"));
        }
        if text.chars().any(char::is_control) {
            return Err(refused("it holds a control character"));
        }
        // `ext::` and its like name a program.
        if text
            .split('/')
            .next()
            .is_some_and(|first| first.contains("::"))
        {
            return Err(refused("it names a program as its transport"));
        }
        let (url, protocols) = match text.split_once("://") {
            Some((scheme, rest)) => match scheme.to_ascii_lowercase().as_str() {
                "https" | "http" | "ssh" | "git" if rest.starts_with('-') => {
                    return Err(refused("its host looks like an option"));
                }
                "https" | "http" | "ssh" | "git" => (text.to_owned(), Protocols::Network),
                "file" => (text.to_owned(), Protocols::File),
                _ => return Err(refused("its protocol is not used")),
            },
            None if is_remote(text) => (text.to_owned(), Protocols::Network),
            None => (local(text)?, Protocols::File),
        };
        Ok(Self {
            url,
            shown,
            protocols,
        })
    }
}

/// Whether it is `HOST:PATH`, by Git's rule: the colon comes before any slash.
fn is_remote(text: &str) -> bool {
    text.find(':')
        .is_some_and(|colon| !text[..colon].contains('/'))
}

/// A path of this host that means the same in every directory.
fn local(text: &str) -> Result<String, TreeError> {
    let path = PathBuf::from(text);
    let path = std::fs::canonicalize(&path).map_err(TreeError::io("open", &path))?;
    let path = path.into_os_string().into_string();
    path.map_err(|_| TreeError::Repository {
        text: text.to_owned(),
        why: "its path is no UTF-8",
    })
}

/// An address without the credentials that stand in it.
fn redacted(text: &str) -> String {
    let clean = |text: &str| text.replace(char::is_control, "\u{fffd}");
    let Some((scheme, rest)) = text.split_once("://") else {
        return clean(text);
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = match authority.rsplit_once('@') {
        Some((user, _)) if scheme.eq_ignore_ascii_case("ssh") && !user.contains(':') => authority,
        Some((_, host)) => host,
        None => authority,
    };
    // A query may hold a token.
    let path = path.split(['?', '#']).next().unwrap_or(path);
    clean(&format!("{scheme}://{host}{path}"))
}

/// A name that stands for nothing but a branch, a tag or a commit.
fn revision(text: &str) -> Result<&str, TreeError> {
    let refused = |why| {
        Err(TreeError::Repository {
            text: text.chars().take(100).collect(),
            why,
        })
    };
    // What Git forbids in names (git-check-ref-format), and what is more than a name.
    let forbidden = |letter: char| {
        letter.is_control() || letter.is_whitespace() || "~^:?*[\\+".contains(letter)
    };
    if text.is_empty() || text.len() > MAX_TEXT {
        return refused("it is empty or too long");
    }
    if text.starts_with('-') {
        return refused("it looks like an option");
    }
    if text.contains(forbidden) || text.contains("..") || text.contains("@{") {
        return refused("it is no name of a branch, tag or commit");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_names_a_repository_is_taken() {
        for url in [
            "https://host/a",
            "HTTP://host/a",
            "ssh://me@host/a",
            "git://host:1/a",
            "me@host:a/b",
            "host:a",
        ] {
            let address = Address::parse(url).unwrap();
            assert_eq!(address.protocols, Protocols::Network, "{url}");
        }
        let local = Address::parse("file:///somewhere").unwrap();
        assert_eq!(local.protocols, Protocols::File);
        for url in [
            "",
            "-uprogram",
            "--upload-pack=program",
            "ext::sh -c program",
            "fd::3",
            "ext::sh://host/a",
            "ftp://host/a",
            "ssh://-oProxyCommand=program/a",
            "https://host/\na",
        ] {
            let refused = Address::parse(url);
            assert!(
                matches!(refused, Err(TreeError::Repository { .. })),
                "{url}"
            );
        }
        let missing = Address::parse("/nowhere/at/all");
        assert!(matches!(missing, Err(TreeError::Io { .. })));
        for name in [
            "", "-x", "--all", "a..b", "a:b", "+a", "a^", "a~1", "a b", "@{u}", "a\n",
        ] {
            assert!(revision(name).is_err(), "{name}");
        }
        for name in ["main", "v1.0", "feature/x", "refs/heads/a", "0123abcd"] {
            assert_eq!(revision(name).unwrap(), name);
        }
    }

    #[test]
    fn credentials_are_not_told() {
        for (url, shown) in [
            ("https://me:token@host/a?private=1", "https://host/a"),
            ("https://a@b@host:1/c@d", "https://host:1/c@d"),
            ("https://token@host", "https://host"),
            ("me@host:a", "me@host:a"),
            ("/a/b", "/a/b"),
            // The user of SSH is a name, and part of the address.
            ("ssh://git@host/a", "ssh://git@host/a"),
            ("ssh://me:pass@host/a", "ssh://host/a"),
        ] {
            assert_eq!(redacted(url), shown);
        }
    }
}
