//! The builders, as far as they need no packages.

use pyro_image::{Catalog, KernelStore, build_layer};

fn assert_send<T: Send>(value: T) -> T {
    value
}

#[test]
fn the_work_may_move_between_threads() {
    let dir = tempfile::tempdir().unwrap();
    let store = KernelStore::new(dir.path());
    let catalog = Catalog::builtin();
    let entry = catalog.get("debian:12").unwrap();
    let sink = pyro_image::progress::ignore();
    drop(assert_send(store.ensure(&sink)));
    drop(assert_send(build_layer(
        entry,
        dir.path(),
        dir.path(),
        &sink,
    )));
}
