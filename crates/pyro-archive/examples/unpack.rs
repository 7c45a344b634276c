//! Unpacks an archive staged, for comparing its speed with `tar x`: `unpack ARCHIVE DIRECTORY`.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use pyro_archive::beneath::{Relative, Root};
use pyro_archive::codec::decode::{Compression, Decoder};
use pyro_archive::extract::options::{Options, Progress};
use pyro_archive::extract::{Replacing, Stage};
use pyro_archive::tar::read::Reader;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [archive, directory] = &arguments[..] else {
        return Err("usage: unpack ARCHIVE DIRECTORY".into());
    };
    let input = BufReader::with_capacity(64 * 1024, File::open(archive)?);
    let plain = Decoder::new(input, Compression::Auto)?;
    let mut reader = Reader::new(BufReader::with_capacity(64 * 1024, plain));
    let progress = Progress::default();
    let stage = Stage::open(Root::open(Path::new(directory))?, Relative::root())?;
    let mut extractor = stage.extractor(Options::import(), &progress)?;
    extractor.unpack(&mut reader)?;
    reader.finish()?;
    stage.commit(extractor, Replacing::AllButDirectories)?;
    Ok(())
}
