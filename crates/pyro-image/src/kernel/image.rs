//! Tells what kind of kernel image a file is, by its first bytes. Never changes or unpacks it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use crate::disk::DiskError;
use crate::kernel::KernelError;

/// The setup header of a bzImage ends well before this offset.
const HEADER_BYTES: u64 = 0x300;
/// Where a bzImage says `HdrS`.
const MAGIC_OFFSET: usize = 0x202;
/// Where a bzImage points to its version text, relative to 0x200.
const VERSION_OFFSET: usize = 0x20e;
/// A version text is shorter than this.
const VERSION_BYTES: u64 = 256;

/// How a kernel image is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelFormat {
    /// Linux/x86 boot protocol, usually called `vmlinuz` or `bzImage`.
    BzImage,
    /// An uncompressed ELF file, usually called `vmlinux`.
    Elf,
}

/// What an image tells about itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) format: KernelFormat,
    pub(super) release: Option<String>,
}

/// Looks at the beginning of an image.
pub(super) fn inspect(path: &Path) -> Result<Image, KernelError> {
    let failed = |source| DiskError::new("read", path, source);
    let mut file = File::open(path).map_err(failed)?;
    let mut head = Vec::new();
    (&mut file)
        .take(HEADER_BYTES)
        .read_to_end(&mut head)
        .map_err(failed)?;
    if head.starts_with(b"\x7fELF") {
        return Ok(Image {
            format: KernelFormat::Elf,
            release: None,
        });
    }
    if head.get(MAGIC_OFFSET..MAGIC_OFFSET + 4) == Some(b"HdrS") {
        return Ok(Image {
            format: KernelFormat::BzImage,
            release: release(&mut file, &head).unwrap_or(None),
        });
    }
    Err(KernelError::NotAnImage {
        path: path.to_owned(),
        found: describe(&head),
    })
}

fn release(file: &mut File, head: &[u8]) -> io::Result<Option<String>> {
    let Some(&[low, high]) = head.get(VERSION_OFFSET..VERSION_OFFSET + 2) else {
        return Ok(None);
    };
    let pointer = u16::from_le_bytes([low, high]);
    if pointer == 0 {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(0x200 + u64::from(pointer)))?;
    let mut text = Vec::new();
    file.take(VERSION_BYTES).read_to_end(&mut text)?;
    let end = text
        .iter()
        .position(|&byte| !byte.is_ascii_graphic())
        .unwrap_or(text.len());
    Ok((end > 0).then(|| String::from_utf8_lossy(&text[..end]).into_owned()))
}

fn describe(head: &[u8]) -> String {
    let known: [(&[u8], &str); 6] = [
        (b"\x1f\x8b", "a gzip file"),
        (b"\xfd7zXZ", "an xz file"),
        (b"\x28\xb5\x2f\xfd", "a zstd file"),
        (b"!<arch>\n", "a package or an archive"),
        (b"#!", "a script"),
        (b"QFI\xfb", "a disk image"),
    ];
    if head.is_empty() {
        return "the file is empty".to_owned();
    }
    if let Some((_, name)) = known.iter().find(|(magic, _)| head.starts_with(magic)) {
        return format!("it looks like {name}");
    }
    let start: Vec<_> = head
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("it begins with the bytes {}", start.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspected(content: &[u8]) -> Result<Image, KernelError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        inspect(file.path())
    }

    #[test]
    fn both_kinds_of_image_are_told_apart() {
        let elf = inspected(b"\x7fELF rest").unwrap();
        assert_eq!(elf.format, KernelFormat::Elf);

        let mut content = vec![0; 0x400];
        content[MAGIC_OFFSET..MAGIC_OFFSET + 4].copy_from_slice(b"HdrS");
        content[VERSION_OFFSET..VERSION_OFFSET + 2].copy_from_slice(&0x180_u16.to_le_bytes());
        content[0x380..0x38d].copy_from_slice(b"6.1.0-x (me@y");
        let image = inspected(&content).unwrap();
        assert_eq!(image.format, KernelFormat::BzImage);
        assert_eq!(image.release.as_deref(), Some("6.1.0-x"));
    }

    #[test]
    fn anything_else_is_named() {
        for (content, found) in [
            (&b""[..], "the file is empty"),
            (b"\x1f\x8b\x08", "it looks like a gzip file"),
            (b"abc", "it begins with the bytes 61 62 63"),
        ] {
            let error = inspected(content).unwrap_err();
            assert!(error.to_string().ends_with(found), "{error}");
            assert!(error.hint().unwrap().contains("vmlinux"));
        }
    }
}
