//! What `git diff` prints, applied by ours: it must give exactly the tree that git has.

use proptest::prelude::*;
use proptest::sample::select;
use pyro_patch::parse::{self, parse};
use pyro_patch::plan::{Options, PlanError, plan};
use pyro_testing::trees::generate::change;
use pyro_testing::trees::{Files, Repository};

use crate::tree::{Planned, carry_out};

/// Ways to ask git for a patch, each with all contents in it.
const WAYS: [&[&str]; 14] = [
    &[],
    &["--no-renames"],
    &["-M"],
    &["-M1%"],
    &["-C", "--find-copies-harder"],
    &["-B", "-M"],
    &["--no-prefix"],
    &["--no-prefix", "-M", "-U1"],
    &["-U0"],
    &["-U0", "-M", "-C"],
    &["--full-index", "-U7", "--histogram"],
    &["--src-prefix=old/", "--dst-prefix=new/"],
    &["--function-context"],
    &["--patch-with-stat", "--summary"],
];

/// Applies `patch` to `tree`.
fn applied(patch: &[u8], tree: &Files) -> Result<Files, String> {
    let mut tree = tree.clone();
    if patch.is_empty() {
        return Ok(tree);
    }
    let patch = parse(patch, &parse::Options::default())
        .map_err(|error| format!("{error}: {}", error.problem))?;
    let plan = match plan(&patch, &Planned(&tree), &Options::default()) {
        Ok(plan) => plan,
        Err(PlanError::Refused(report)) => {
            let failed: Vec<_> = report.failed().collect();
            return Err(format!("{failed:#?}"));
        }
        Err(PlanError::Tree { source, .. }) => match source {},
    };
    carry_out(&mut tree, &plan.operations);
    Ok(tree)
}

/// Whether `patch`, made in some way, gives `new`, by ours and by git. Where git does not take
/// its own patch, as happens where `-B` meets symlinks, ours need not either.
fn judge(patch: &[u8], way: &[&str], old: &Files, new: &Files) -> Result<(), TestCaseError> {
    let result = applied(patch, old);
    if result.as_ref() == Ok(new) {
        return Ok(());
    }
    let repository = Repository::new();
    let wanted = repository.hold(new);
    repository.hold(old);
    let file = repository.patch_file(patch);
    let strip = if way.contains(&"--no-prefix") {
        "-p0"
    } else {
        "-p1"
    };
    let by_git = repository.try_git(&["apply", "--index", "--unidiff-zero", strip, &file]);
    let is_taken = by_git.status.success() && repository.id_of_index() == wanted;
    prop_assert!(
        !is_taken && result.is_err(),
        "{result:#?}\nwanted {new:#?}\n{}",
        String::from_utf8_lossy(patch)
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_patch_of_git_gives_the_tree_of_git(
        (old, new) in change(),
        way in select(&WAYS[..]),
        quoted in any::<bool>(),
    ) {
        let repository = Repository::new();
        let (before, after) = (repository.hold(&old), repository.hold(&new));
        let quoting = format!("core.quotePath={quoted}");
        let mut arguments = vec!["-c", &quoting, "diff", "--binary"];
        arguments.extend(way);
        arguments.extend([&before[..], &after]);
        judge(&repository.git(&arguments), way, &old, &new)?;
    }

    #[test]
    fn the_same_backwards((old, new) in change(), way in select(&WAYS[..])) {
        let repository = Repository::new();
        let (before, after) = (repository.hold(&old), repository.hold(&new));
        let mut arguments = vec!["-c", "diff.mnemonicPrefix=true", "diff", "--binary", "-R"];
        arguments.extend(way);
        arguments.extend([&before[..], &after]);
        judge(&repository.git(&arguments), way, &new, &old)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, failure_persistence: None, ..ProptestConfig::default() })]

    /// Commits in a mailbox, each for the tree that those before it have made.
    #[test]
    fn a_mailbox_is_applied_commit_by_commit(
        (first, second) in change(),
        (third, fourth) in change(),
    ) {
        prop_assume!(first != second || second != third || third != fourth);
        let repository = Repository::new();
        for (number, files) in [&first, &second, &third, &fourth].into_iter().enumerate() {
            repository.hold(files);
            let message = format!("state {number}\n\n--- a/x\n\n diff of nothing\n");
            repository.git(&[
                "-c", "user.name=A", "-c", "user.email=a@example.org",
                "commit", "--quiet", "--allow-empty", "--message", &message,
            ]);
        }
        let patch = repository.git(&["format-patch", "--stdout", "--binary", "-M", "HEAD~3"]);
        prop_assert_eq!(applied(&patch, &first), Ok(fourth));
    }
}
