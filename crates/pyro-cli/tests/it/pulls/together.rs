//! Many processes pull, prune, list and remove at once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pyro_testing::Finished;
use serde_json::Value;

use super::Site;
use super::image::Image;

const ROUNDS: usize = 50;

/// Sets it in the end, also of a test that fails: others wait for it.
struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What was pulled, or told as gone each time that it was looked at.
fn judge(pulled: &Finished, name: &str) {
    let told = pulled.stdout_text();
    assert_eq!(pulled.code(), 0, "{told}{}", pulled.stderr_text());
    let answer = pulled.json();
    assert_eq!(answer["name"], name, "{told}");
    assert_eq!(answer["installed"], true, "{told}");
    assert_eq!(answer["invalid_reason"], Value::Null, "{told}");
    assert!(answer["install_manifest"]["artifacts"]["vmlinux"].is_object());
}

#[test]
fn pulls_and_prunes_at_once_never_leave_a_half() {
    let image = Image::artifacts(1 << 20, 1);
    let site = Site::with(&image);
    let name = site.name();
    // Another name of the same blobs and the same root image, which have locks of their own.
    image.push(&site.registry, "a/other", "t");
    let other = format!("{}/a/other:t", site.server.host());
    let (over, disturbed) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let (site, name, over) = (&site, name.as_str(), &over);
        for round in 0..ROUNDS {
            over.store(false, Ordering::SeqCst);
            let at_end = AtEnd(over);
            let disturber = scope.spawn(move || {
                let mut number = round;
                let mut count = 0;
                while !over.load(Ordering::SeqCst) {
                    let arguments: &[&str] = match number % 7 {
                        2 => &["env", "list"],
                        4 => &["env", "remove", name],
                        6 => &["env", "inspect", name],
                        _ => &["env", "prune", "--all"],
                    };
                    let done = site.pyro(arguments).run();
                    if number % 7 == 4 && done.code() != 0 {
                        let code = &done.json()["error"]["code"];
                        assert!(code == "not_found" || code == "conflict", "{code}");
                    } else {
                        let told = done.stdout_text();
                        assert_eq!(done.code(), 0, "{arguments:?}: {told}");
                        count += usize::from(done.json()["count"].as_u64() >= Some(1));
                    }
                    number += 1;
                }
                count
            });
            let always = round % 3 == 0;
            let flags: &[&str] = if always { &["--pull", "always"] } else { &[] };
            let pulls = [(name, flags), (name, &[]), (other.as_str(), flags)]
                .map(|(name, flags)| (name, scope.spawn(move || site.pull_of(name, flags))));
            for (name, pull) in pulls {
                judge(&pull.join().unwrap(), name);
            }
            drop(at_end);
            disturbed.fetch_add(disturber.join().unwrap(), Ordering::SeqCst);
            for name in [name, &other] {
                judge(&site.pull_of(name, &[]), name);
                site.assert_intact(name);
            }
        }
    });
    // It was a race indeed.
    assert!(
        disturbed.load(Ordering::SeqCst) >= ROUNDS / 5,
        "{disturbed:?}"
    );
    site.assert_nothing_half_done();
    let pruned = site.pyro(&["env", "prune"]).run().json();
    assert_eq!(pruned["count"], 0, "{pruned}");
    assert_eq!(pruned["deleted_blobs"], 0, "{pruned}");
    let pruned = site.pyro(&["env", "prune", "--all"]).run().json();
    assert_eq!(pruned["count"], 2, "{pruned}");
    assert!(pruned["deleted_blobs"].as_u64().unwrap() >= 5, "{pruned}");
}

#[test]
fn prunes_at_once_do_not_trip_over_each_other() {
    let image = Image::artifacts(64 << 10, 1);
    let site = Site::with(&image);
    for _ in 0..10 {
        assert_eq!(site.pull(&[]).code(), 0);
        std::thread::scope(|scope| {
            let prunes: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| site.pyro(&["env", "prune", "--all"]).run()))
                .collect();
            let mut removed = 0;
            for prune in prunes {
                let done = prune.join().unwrap();
                assert_eq!(done.code(), 0, "{}", done.stdout_text());
                removed += done.json()["count"].as_u64().unwrap();
            }
            assert_eq!(removed, 1);
        });
        site.assert_absent(&site.name());
    }
}
