//! Compressed archives, made by the programs that people use.

use std::io::{BufReader, Read, Write};
use std::process::{Command, Stdio};

use pyro_archive::codec::decode::{Compression, Decoder};
use pyro_archive::extract::options::Options;
use pyro_archive::extract::{ExtractError, Replacing};

use crate::world::World;
use pyro_testing::forge::{Entry, Forge};

/// `plain` in every form that is understood.
pub(crate) fn compressed(plain: &[u8]) -> Vec<Vec<u8>> {
    let half = plain.len() / 2;
    let pieces =
        |program: &[&str]| [run(program, &plain[..half]), run(program, &plain[half..])].concat();
    // A frame that zstd's readers pass over.
    let skippable = [
        &b"\x50\x2a\x4d\x18\x05\0\0\0hello"[..],
        &run(&["zstd", "-3"], plain),
    ]
    .concat();
    vec![
        run(&["gzip", "-1"], plain),
        run(&["gzip", "-9"], plain),
        pieces(&["gzip"]),
        run(&["zstd", "-1"], plain),
        run(&["zstd", "-19"], plain),
        run(&["zstd", "--no-check", "--long=23"], plain),
        pieces(&["zstd"]),
        skippable,
    ]
}

/// What `program` makes of `input`.
pub(crate) fn run(program: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program[0])
        .args(&program[1..])
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program is installed");
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.to_vec();
    let feed = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("it ends");
    feed.join().expect("it does not panic").expect("it is read");
    assert!(output.status.success());
    output.stdout
}

fn decode(bytes: &[u8], said: Compression) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    Decoder::new(BufReader::new(bytes), said)?.read_to_end(&mut plain)?;
    Ok(plain)
}

/// Bytes that compress somewhat.
fn text() -> Vec<u8> {
    let mut state = 7_u32;
    let mut bytes = Vec::new();
    while bytes.len() < 3_000_000 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes.extend_from_slice(format!("{} and {}\n", state >> 20, state % 1000).as_bytes());
    }
    bytes
}

#[test]
fn every_form_comes_back() {
    let plain = text();
    for (number, bytes) in compressed(&plain).into_iter().enumerate() {
        assert!(
            decode(&bytes, Compression::Auto).unwrap() == plain,
            "form {number}"
        );
    }
    assert!(decode(&plain, Compression::Auto).unwrap() == plain);
    assert!(decode(&plain, Compression::None).unwrap() == plain);
    assert!(decode(&[], Compression::Auto).unwrap().is_empty());
}

#[test]
fn every_form_is_checked_to_its_end() {
    let plain = text();
    for (number, bytes) in compressed(&plain).into_iter().enumerate() {
        let end = bytes.len();
        for cut in [end - 1, end - 5, end / 2, 20] {
            let cut_off = decode(&bytes[..cut], Compression::Auto);
            assert!(cut_off.is_err(), "form {number} cut at {cut}");
        }
        // `--no-check` leaves nothing to check by.
        if number != 5 {
            let mut damaged = bytes;
            damaged[end / 2 + 7] ^= 0x10;
            let damaged = decode(&damaged, Compression::Auto);
            assert!(damaged.map_or(true, |read| read != plain), "form {number}");
        }
    }
}

#[test]
fn other_forms_are_named() {
    for (program, name) in [("xz", "xz"), ("bzip2", "bzip2")] {
        let bytes = match program {
            "bzip2" => b"BZh91AY&SY".to_vec(),
            _ => run(&[program], b"x"),
        };
        let error = decode(&bytes, Compression::Auto).unwrap_err().to_string();
        assert!(
            error.contains(name) && error.contains("gzip or zstd"),
            "{error}"
        );
    }
    let error = decode(b"plain", Compression::Gzip).unwrap_err();
    assert!(
        error.to_string().contains("not compressed with gzip"),
        "{error}"
    );
}

#[test]
fn a_plain_archive_may_begin_like_another_form() {
    for name in ["BZh", "LZIP", "PK\x03\x04"] {
        let world = World::new();
        world
            .import(&Forge::new().file(name, "x").finish())
            .unwrap();
        assert!(world.root().join(name).is_file());
    }
}

#[test]
fn a_window_beyond_the_limit_is_refused() {
    let plain = vec![0; 40_000_000];
    let bytes = run(&["zstd", "--long=24"], &plain);
    let error = decode(&bytes, Compression::Auto).unwrap_err().to_string();
    assert!(error.contains("window of 16777216 bytes"), "{error}");
    // The largest window that is allowed.
    let bytes = run(&["zstd", "--long=23"], &plain);
    assert!(decode(&bytes, Compression::Auto).unwrap() == plain);
}

#[test]
fn a_bomb_stops_at_the_limit() {
    let huge = Entry::new(b'0', "huge").size(2_000_000_000);
    let many = Forge::new().entry(huge).padded(&vec![0; 2_000_000]).cut();
    let limit = Options {
        max_bytes: 10_000_000,
        ..Options::import()
    };
    let zeros = Entry::new(b'0', "zeros").content(vec![0; 20_000_000]);
    let zeros = Forge::new().entry(zeros).finish();
    for plain in [many, zeros] {
        for program in [&["gzip", "-9"][..], &["zstd", "-19"]] {
            let world = World::lived_in();
            let before = world.survey();
            let bytes = run(program, &plain);
            let imported = world.import_at(&bytes, ".", limit, Replacing::AllButDirectories);
            let error = imported.unwrap_err();
            assert!(matches!(error, ExtractError::Limit { .. }), "{error}");
            assert_eq!(world.survey(), before);
        }
    }
}

#[test]
fn zeros_without_end_behind_the_archive_are_not_read_for_ever() {
    let mut plain = Forge::new().file("file", "x").finish();
    plain.resize(100_000_000, 0);
    let world = World::new();
    let error = world.import(&run(&["gzip", "-1"], &plain)).unwrap_err();
    assert!(
        error.to_string().contains("what follows the end"),
        "{error}"
    );
    plain.truncate(10_000_000);
    world.import(&run(&["gzip", "-1"], &plain)).unwrap();
}
