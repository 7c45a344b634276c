//! Writing through symlinks, and what a replaced file hands on to the new one.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use rustix::fs::XattrFlags;
use serde_json::json;

use crate::files::with_workspace;

fn is_link(path: impl AsRef<Path>) -> bool {
    fs::symlink_metadata(path).unwrap().is_symlink()
}

#[test]
fn a_write_goes_to_what_a_link_names_and_leaves_the_link() {
    with_workspace(async |bench| {
        fs::create_dir_all(bench.path("real/deep")).unwrap();
        fs::write(bench.path("real/file"), "old").unwrap();
        fs::set_permissions(bench.path("real/file"), fs::Permissions::from_mode(0o640)).unwrap();
        symlink("real/file", bench.path("link")).unwrap();
        symlink("link", bench.path("twice")).unwrap();
        symlink("/real/new", bench.path("absolute")).unwrap();
        symlink("real/deep", bench.path("directory")).unwrap();
        symlink("../file", bench.path("real/deep/up")).unwrap();
        for (path, target) in [
            ("link", "real/file"),
            ("twice", "real/file"),
            ("absolute", "real/new"),
            ("directory/up", "real/file"),
        ] {
            let before = fs::metadata(bench.path(target))
                .map(|found| found.ino())
                .ok();
            let request = json!({"action": "file_write", "path": path, "content": path});
            let written = bench.done(request).await;
            assert_eq!(written["path"], format!("/workspace/{path}"));
            assert_eq!(written["created"], before.is_none(), "{path}");
            assert!(is_link(bench.path(path)), "{path}");
            assert_eq!(fs::read_to_string(bench.path(target)).unwrap(), path);
            // Another file: a reader of the old one is not disturbed.
            let after = fs::metadata(bench.path(target)).unwrap();
            assert_ne!(Some(after.ino()), before);
            if target == "real/file" {
                assert_eq!(after.mode() & 0o7777, 0o640);
            }
        }
        let add = json!({"action": "file_write", "path": "link", "content": "+", "append": true});
        bench.done(add).await;
        assert_eq!(
            fs::read_to_string(bench.path("real/file")).unwrap(),
            "directory/up+"
        );
        bench.assert_tidy().await;
    });
}

#[test]
fn a_link_is_refused_where_no_file_can_be() {
    with_workspace(async |bench| {
        fs::create_dir(bench.path("real")).unwrap();
        fs::write(bench.outside().join("secret"), "hidden").unwrap();
        symlink("round", bench.path("round")).unwrap();
        symlink("real", bench.path("directory")).unwrap();
        symlink("real/none/file", bench.path("nowhere")).unwrap();
        symlink(bench.outside().join("secret"), bench.path("out")).unwrap();
        symlink("../secret", bench.path("up")).unwrap();
        symlink("real/there", bench.path("dangling")).unwrap();
        let write = |path: &str| json!({"action": "file_write", "path": path, "content": "x"});
        for (path, code) in [
            ("round", "failed_precondition"),
            ("directory", "failed_precondition"),
            ("nowhere", "not_found"),
            ("out", "not_found"),
        ] {
            bench.refused(write(path), code, path).await;
        }
        let mut anew = write("dangling");
        anew["must_not_exist"] = true.into();
        bench.refused(anew, "already_exists", "dangling").await;
        assert!(!bench.path("real/there").exists());
        // However far up, it is the root.
        bench.done(write("up")).await;
        assert_eq!(fs::read(bench.path("secret")).unwrap(), b"x");
        assert_eq!(fs::read(bench.outside().join("secret")).unwrap(), b"hidden");
        bench.assert_tidy().await;
    });
}

#[test]
fn what_is_replaced_hands_on_its_attributes() {
    with_workspace(async |bench| {
        let file = bench.path("file");
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o751)).unwrap();
        // Only root gives files away; anybody else keeps them.
        let owner = chown(&file, Some(12345), Some(54321)).map_or(None, |()| Some((12345, 54321)));
        let marked = rustix::fs::setxattr(&file, "user.mark", b"a\0b", XattrFlags::empty()).is_ok();
        let request = json!({"action": "file_write", "path": "file", "content": "new"});
        bench.done(request).await;
        let found = fs::metadata(&file).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(found.mode() & 0o7777, 0o751);
        if let Some(owner) = owner {
            assert_eq!((found.uid(), found.gid()), owner);
        }
        if marked {
            let mut value = [0; 8];
            let length = rustix::fs::getxattr(&file, "user.mark", &mut value[..]).unwrap();
            assert_eq!(value[..length], *b"a\0b");
        }
    });
}
