//! Our patches, applied by `git apply`: there and back again.

use proptest::prelude::*;
use pyro_patch::diff::{BinaryFiles, Options, Similarity, Status, diff, pair_renames};

use crate::generate::change;
use crate::repository::Repository;
use crate::tree::Files;

/// Git, and what it would have printed itself.
struct Judge<'r> {
    repository: &'r Repository,
    /// Git's own patch.
    own: Vec<u8>,
}

impl Judge<'_> {
    /// Applies the patch in `file` to `tree`. False if git takes its own patch no more than ours,
    /// as where a symlink to itself becomes a directory.
    fn takes(&self, tree: &Files, arguments: &[&str], file: &str) -> Result<bool, TestCaseError> {
        self.repository.hold(tree);
        let ours = self.repository.try_git(&[arguments, &[file]].concat());
        if ours.status.success() {
            return Ok(true);
        }
        let patch = std::fs::read(file).expect("it is ours");
        self.repository.hold(tree);
        let file = self.repository.patch_file(&self.own);
        let own = self.repository.try_git(&[arguments, &[&file]].concat());
        prop_assert!(
            !own.status.success(),
            "{}\n{}",
            String::from_utf8_lossy(&ours.stderr),
            String::from_utf8_lossy(&patch)
        );
        Ok(false)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn git_applies_our_patches_and_takes_them_back(
        (old, new) in change(),
        context in 0..5_usize,
        pairing in 0..3_u8,
    ) {
        let repository = Repository::new();
        let after = repository.hold(&new);
        let before = repository.hold(&old);
        let changes = old.changes(&new);
        let changes = match pairing {
            0 => changes,
            1 => pair_renames(changes, None),
            _ => pair_renames(changes, Some(Similarity::HALF)),
        };
        let options = Options { context, binary: BinaryFiles::Whole, ..Options::default() };
        let diff = diff(changes, &options);
        prop_assert_eq!(diff.files.is_empty(), before == after);
        if diff.files.is_empty() {
            return Ok(());
        }
        prop_assert!(diff.files.iter().all(|file| file.omitted.is_none()));
        let patch = diff.patch();
        let file = repository.patch_file(&patch);
        let mut arguments = vec!["apply", "--whitespace=nowarn"];
        if context == 0 {
            arguments.push("--unidiff-zero");
        }
        let shown = String::from_utf8_lossy(&patch);
        let own = repository.git(&["diff", "--binary", "--no-renames", &before, &after]);
        let own = Judge { repository: &repository, own };
        if !own.takes(&old, &arguments, &file)? {
            return Ok(());
        }
        prop_assert_eq!(repository.id_of_work_tree(), after.clone(), "{}", shown);
        arguments.push("--index");
        prop_assert!(own.takes(&old, &arguments, &file)?);
        prop_assert_eq!(repository.id_of_index(), after, "{}", shown);
        arguments.push("-R");
        if !own.takes(&new, &arguments, &file)? {
            return Ok(());
        }
        let back = repository.id_of_index();
        // Git 2.47 forgets the mode of what was deleted, of its own patches too.
        let mut known = old.clone();
        for file in &diff.files {
            if matches!(file.status, Status::Deleted | Status::TypeChanged)
                && let Some(node) = known.0.get_mut(&file.path)
            {
                *node = node.without_mode();
            }
        }
        prop_assert_eq!(repository.hold(&known), back, "{}", shown);
    }

    /// The lines that are told are those that git counts in our patch.
    #[test]
    fn git_counts_the_lines_that_we_tell((old, new) in change()) {
        let repository = Repository::new();
        repository.hold(&old);
        let options = Options { binary: BinaryFiles::Whole, ..Options::default() };
        let diff = diff(old.changes(&new), &options);
        if diff.files.is_empty() {
            return Ok(());
        }
        let file = repository.patch_file(&diff.patch());
        let counted = repository.git(&["apply", "--numstat", "-z", &file]);
        let counted = counted.split(|byte| *byte == 0).filter(|line| !line.is_empty());
        let mut told = Vec::new();
        for file in &diff.files {
            let (added, deleted) = if file.is_text {
                (file.added_lines.to_string(), file.deleted_lines.to_string())
            } else {
                ("-".to_owned(), "-".to_owned())
            };
            // A change of type is a deletion and a creation, which git counts one by one.
            if file.status != Status::TypeChanged {
                told.push([added.as_bytes(), b"\t", deleted.as_bytes(), b"\t", &file.path].concat());
            }
        }
        let counted: Vec<&[u8]> = counted.collect();
        for told in told {
            let is_binary_without_change = told.starts_with(b"-");
            prop_assert!(
                counted.contains(&&told[..]) || is_binary_without_change,
                "{}", told.escape_ascii()
            );
        }
    }
}
