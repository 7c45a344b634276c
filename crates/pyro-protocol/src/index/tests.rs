//! Requests about trees, right and wrong.

use super::*;
use crate::code::ErrorCode;
use crate::request::Request;

fn parse(line: &str) -> Result<TreeRequest, ErrorReply> {
    match Request::parse(line.as_bytes())? {
        Request::Tree(request) => Ok(*request),
        other => panic!("{other:?} is no request about trees"),
    }
}

#[test]
fn what_is_not_said_has_its_default() {
    let TreeRequest::Index(index) = parse(r#"{"action": "tree_index", "path": "."}"#).unwrap()
    else {
        panic!("another action")
    };
    assert!(index.scope.hash && index.scope.exclude.is_empty() && !index.fresh);
    assert_eq!(index.entries, Told::All);
    assert_eq!(index.changed_since, None);
    assert_eq!(index.scope.target, Target::workspace(*b"."));
    let TreeRequest::Changes(changes) =
        parse(r#"{"action": "tree_changes", "name": "image"}"#).unwrap()
    else {
        panic!("another action")
    };
    assert_eq!(changes.name, Reference::Image);
}

#[test]
fn bounds_are_checked() {
    let long = "x".repeat(MAX_BASELINE_NAME + 1);
    let pattern = "p".repeat(MAX_PATTERN);
    let many = vec![pattern.as_str(); MAX_TREE_PATTERNS / MAX_PATTERN + 1];
    let digest = "A".repeat(64);
    for line in [
        r#"{"action": "tree_index"}"#.to_owned(),
        r#"{"action": "tree_index", "path": "a", "entries": "some"}"#.into(),
        r#"{"action": "tree_index", "path": "a", "changed_since": "12"}"#.into(),
        format!(r#"{{"action": "tree_index", "path": "a", "changed_since": "{digest}"}}"#),
        format!(
            r#"{{"action": "tree_index", "path": "a", "exclude": {}}}"#,
            serde_json::to_string(&many).unwrap()
        ),
        r#"{"action": "tree_changes"}"#.into(),
        r#"{"action": "tree_changes", "name": "image", "to": "b"}"#.into(),
        r#"{"action": "tree_changes", "name": "b", "to": "image"}"#.into(),
        r#"{"action": "tree_baseline", "name": "image", "path": "."}"#.into(),
        r#"{"action": "tree_baseline", "name": "../x", "path": "."}"#.into(),
        r#"{"action": "tree_baseline", "name": ".x", "path": "."}"#.into(),
        r#"{"action": "tree_baseline", "name": "", "path": "."}"#.into(),
        format!(r#"{{"action": "tree_baseline_remove", "name": "{long}"}}"#),
    ] {
        let error = parse(&line).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArgument, "{line}");
    }
}

#[test]
fn a_digest_is_written_as_it_is_read() {
    let digest = TreeDigest(std::array::from_fn(|at| {
        u8::try_from(at * 7).expect("32 times 7 is a byte")
    }));
    let text = String::from(digest);
    assert_eq!(text, digest.to_string());
    assert_eq!(TreeDigest::try_from(text), Ok(digest));
}
