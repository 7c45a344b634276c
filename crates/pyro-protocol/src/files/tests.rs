//! Requests about files, right and wrong.

use super::*;
use crate::request::Request;

fn parse(line: &str) -> Result<FileRequest, ErrorReply> {
    match Request::parse(line.as_bytes())? {
        Request::Files(request) => Ok(*request),
        other => panic!("{other:?} is no file request"),
    }
}

#[test]
fn paths_come_as_text_or_base64() {
    let target = Target::workspace(b"a\xff".as_slice());
    let json = serde_json::to_value(FileStat {
        target: target.clone(),
        follow: false,
    })
    .unwrap();
    assert_eq!(json["path_b64"], "Yf8=");
    assert_eq!(
        serde_json::from_value::<FileStat>(json).unwrap().target,
        target
    );
    let FileRequest::Rename(rename) =
        parse(r#"{"action": "file_rename", "path": "a", "to_b64": "Yf8=", "root": "/"}"#).unwrap()
    else {
        panic!("another action")
    };
    assert_eq!(rename.to.0, b"a\xff");
    assert_eq!(rename.target.root.as_deref(), Some("/"));
}

#[test]
fn bounds_are_checked() {
    for line in [
        r#"{"action": "file_stat"}"#,
        r#"{"action": "file_stat", "path": ""}"#,
        r#"{"action": "file_stat", "path": "a\u0000"}"#,
        r#"{"action": "file_stat", "path": "a", "path_b64": "YQ=="}"#,
        r#"{"action": "file_stat", "path": "a", "root": "srv"}"#,
        r#"{"action": "file_rename", "path": "a"}"#,
        r#"{"action": "file_list", "path": "a", "limit": 0}"#,
        r#"{"action": "file_list", "path": "a", "limit": 1001}"#,
        r#"{"action": "file_list", "path": "a", "max_depth": 0}"#,
        r#"{"action": "file_read", "path": "a", "text": true, "length": 1048577}"#,
        r#"{"action": "file_write", "path": "a", "mode": 65536}"#,
        r#"{"action": "file_write", "path": "a", "content": "", "content_b64": ""}"#,
        r#"{"action": "file_write", "path": "a", "append": true, "must_not_exist": true}"#,
        r#"{"action": "file_glob", "path": "a", "patterns": []}"#,
        r#"{"action": "file_grep", "path": "a", "pattern": "x", "context": 1000}"#,
        r#"{"action": "file_grep", "path": "a", "pattern": "x", "max_matches": 0}"#,
        r#"{"action": "read_workspace_file", "path": "a", "max_bytes": 0}"#,
        r#"{"action": "read_workspace_file", "path": "a", "max_bytes": 1048577}"#,
    ] {
        let error = parse(line).unwrap_err();
        assert_eq!(
            error.code,
            crate::code::ErrorCode::InvalidArgument,
            "{line}"
        );
    }
}
