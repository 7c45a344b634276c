//! Our patches, applied by `git apply`: there and back again.

use proptest::prelude::*;
use pyro_patch::diff::{BinaryFiles, Options, Similarity, Status, diff, pair_renames};
use pyro_testing::trees::generate::change;
use pyro_testing::trees::{Files, Repository};

use crate::tree::changes;

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
        let all = changes(&old, &new);
        let changes = match pairing {
            0 => all,
            1 => pair_renames(all, None),
            _ => pair_renames(all, Some(Similarity::HALF)),
        };
        let options = Options { context, binary: BinaryFiles::Whole, ..Options::default() };
        let diff = diff(changes, &options);
        prop_assert_eq!(diff.files.is_empty(), before == after);
        if diff.files.is_empty() {
            return Ok(());
        }
        prop_assert!(diff.files.iter().all(|file| file.omitted.is_none()));
        let patch = diff.patch();
        let mut arguments = Vec::new();
        if context == 0 {
            arguments.push("--unidiff-zero");
        }
        let shown = String::from_utf8_lossy(&patch);
        let own = repository.git(&["diff", "--binary", "--no-renames", &before, &after]);
        let takes = |tree: &Files, arguments: &[&str]| {
            let taken = repository.takes(tree, arguments, &patch, &own);
            taken.map_err(TestCaseError::fail)
        };
        if !takes(&old, &arguments)? {
            return Ok(());
        }
        prop_assert_eq!(repository.id_of_work_tree(), after.clone(), "{}", shown);
        arguments.push("--index");
        prop_assert!(takes(&old, &arguments)?);
        prop_assert_eq!(repository.id_of_index(), after, "{}", shown);
        arguments.push("-R");
        if !takes(&new, &arguments)? {
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
        let diff = diff(changes(&old, &new), &options);
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
