//! A patch from anywhere: read or refused, placed in a tree or refused, and within every bound.
#![no_main]

use std::convert::Infallible;

use libfuzzer_sys::fuzz_target;
use pyro_patch::apply::{self, Fuzz, HunkStatus, Whitespace};
use pyro_patch::limits::{SHOWN_BYTES, SHOWN_LINES};
use pyro_patch::parse::{self, parse};
use pyro_patch::plan::{Entry, Operation, Options, PlanError, Tree, plan};

/// Largest content that may come out, in bytes.
const MAX_CONTENT: usize = 64 * 1024;

/// A tree of a few entries with the names that the seeds use.
struct Few;

impl Tree for Few {
    type Error = Infallible;

    fn entry(&self, path: &[u8]) -> Result<Option<Entry>, Infallible> {
        let file = |content: &[u8], executable| Entry::File {
            content: content.to_vec(),
            executable,
        };
        Ok(match path {
            b"a" => Some(file(b"one\ntwo\nthree\nfour\nfive\nsix\nseven\n", false)),
            b"b" => Some(file(b"one\r\ntwo\r\n\r\nthree", true)),
            b"dir" => Some(Entry::Directory),
            b"dir/c" => Some(file(b"a\0binary\n", false)),
            b"dir/empty" => Some(file(b"", false)),
            b"link" => Some(Entry::Symlink {
                target: b"a".to_vec(),
            }),
            b"large" => Some(Entry::TooLarge { executable: true }),
            b"pipe" => Some(Entry::Other),
            _ => None,
        })
    }

    fn names(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, Infallible> {
        assert_eq!(path, b"dir");
        Ok(vec![b"c".to_vec(), b"empty".to_vec()])
    }
}

fuzz_target!(|bytes: &[u8]| {
    let options = parse::Options {
        root: Some(b"/workspace".to_vec()),
    };
    let Ok(patch) = parse(bytes, &options) else {
        return;
    };
    let options = Options {
        hunks: apply::Options {
            fuzz: Fuzz::new(Fuzz::MAX).expect("it is the most"),
            whitespace: Whitespace::IgnoreLineEnds,
            max_content: MAX_CONTENT,
        },
        max_plan: 4 * MAX_CONTENT,
    };
    let files = match plan(&patch, &Few, &options) {
        Ok(plan) => {
            for operation in &plan.operations {
                if let Operation::Write { content, .. } = operation {
                    assert!(content.len() <= MAX_CONTENT);
                }
            }
            plan.files
        }
        Err(PlanError::Refused(report)) => {
            assert!(report.failed().count() > 0);
            report.files
        }
        Err(PlanError::Tree { source, .. }) => match source {},
    };
    assert_eq!(files.len(), patch.files.len());
    for hunk in files.iter().flat_map(|file| &file.hunks) {
        if let HunkStatus::Failed(failure) = &hunk.status {
            for shown in [&failure.expected, &failure.found] {
                assert!(shown.lines.len() <= SHOWN_LINES);
                // What is not UTF-8 becomes three bytes, and what is cut has a mark of three.
                assert!(
                    shown
                        .lines
                        .iter()
                        .all(|line| line.len() <= 3 * SHOWN_BYTES + 3)
                );
            }
        }
    }
});
