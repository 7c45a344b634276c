//! Takes the uncompressed kernel out of a bzImage.
//!
//! A bzImage is an ELF file, compressed, behind code that unpacks it. A machine that is given the
//! ELF file itself need not run that code, which emulation makes slow. This module never changes
//! the bzImage and never decides whether it is trusted.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use object::LittleEndian;
use object::elf::FileHeader64;
use object::read::elf::{FileHeader, ProgramHeader};
use object::read::{ReadCache, ReadRef};
use tokio::io::AsyncReadExt;

use crate::disk::DiskError;
use crate::host::{HostError, HostProgram, Invocation};
use crate::kernel::{KernelError, lz4};

/// Number of 512-byte sectors of real-mode code after the first one.
const SETUP_SECTORS_OFFSET: usize = 0x1f1;
/// Where a bzImage says `HdrS`.
const MAGIC_OFFSET: usize = 0x202;
/// Version of the boot protocol.
const PROTOCOL_OFFSET: usize = 0x206;
/// Where the payload begins, relative to the protected-mode code.
const PAYLOAD_OFFSET: usize = 0x248;
/// How long the payload is.
const PAYLOAD_SIZE: usize = 0x24c;
/// The first boot protocol that tells where the payload is: 2.08, of Linux 2.6.26.
const PAYLOAD_PROTOCOL: u16 = 0x0208;
/// Debian's cloud kernels have some 50 MiB; more than this is not a kernel.
const MAX_CONTENT_BYTES: u64 = 256 * 1024 * 1024;
/// xz needs half a second.
const DECOMPRESS_DEADLINE: Duration = Duration::from_mins(2);
/// The note with the entry that QEMU needs for an ELF kernel (`XEN_ELFNOTE_PHYS32_ENTRY`).
const PVH_ENTRY_NOTE: u32 = 18;

/// Why a bzImage does not give its uncompressed kernel.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExtractError {
    /// There is no setup header.
    #[error("it has no setup header")]
    NoSetupHeader,
    /// The boot protocol does not know of payloads.
    #[error(
        "its boot protocol {}.{:02} does not tell where the payload is",
        protocol >> 8,
        protocol & 0xff
    )]
    OldProtocol {
        /// The version as the header has it.
        protocol: u16,
    },
    /// The header points beyond the file.
    #[error("its payload does not lie inside the file")]
    PayloadOutOfRange,
    /// Nothing here undoes this compression.
    #[error("its payload is compressed as `{compression}`, which is not supported")]
    Unsupported {
        /// Its name.
        compression: &'static str,
    },
    /// The payload begins like no compression that a kernel may have.
    #[error("its payload is compressed in an unknown way")]
    UnknownCompression,
    /// The content is larger than any kernel.
    #[error("its content is said to have {length} bytes")]
    TooLarge {
        /// The length that the payload tells.
        length: u64,
    },
    /// The payload cannot be decompressed.
    #[error("its payload is damaged: {problem}")]
    Damaged {
        /// What is wrong with it.
        problem: String,
    },
    /// The content is longer or shorter than the payload says.
    #[error("its content does not have the {length} bytes that it should have")]
    Length {
        /// The length that the payload tells.
        length: u64,
    },
    /// The content is no ELF file, or one that QEMU cannot start.
    #[error("its content is not an ELF file with a PVH entry")]
    NotBootable,
    /// The work failed for a reason that is not in the image.
    #[error(transparent)]
    Work(#[from] KernelError),
}

/// How a payload is compressed, as far as it can be undone here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    Gzip,
    Lz4,
    Xz,
    Zstd,
}

/// The part of a bzImage that holds the kernel proper.
#[derive(Debug, PartialEq, Eq)]
struct Payload<'a> {
    compression: Compression,
    compressed: &'a [u8],
    /// Length of the content in bytes.
    length: u64,
}

/// Writes the uncompressed kernel of `bz_image` to `vmlinux`. The file `scrap` is overwritten.
pub(super) async fn extract(
    bz_image: &Path,
    scrap: &Path,
    vmlinux: &Path,
) -> Result<(), ExtractError> {
    let failed =
        |action, path| move |source| KernelError::from(DiskError::new(action, path, source));
    let image = fs::read(bz_image).map_err(failed("read", bz_image))?;
    let payload = Payload::find(&image)?;
    decompress(&payload, scrap, vmlinux).await?;
    let file = File::open(vmlinux).map_err(failed("read", vmlinux))?;
    match has_pvh_entry(&ReadCache::new(file)) {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(ExtractError::NotBootable),
    }
}

async fn decompress(payload: &Payload<'_>, scrap: &Path, to: &Path) -> Result<(), ExtractError> {
    let program = match payload.compression {
        Compression::Gzip => HostProgram::Gzip,
        Compression::Lz4 => return decompress_lz4(payload, to),
        Compression::Xz => HostProgram::Xz,
        Compression::Zstd => HostProgram::Zstd,
    };
    fs::write(scrap, payload.compressed)
        .map_err(|source| KernelError::from(DiskError::new("write", scrap, source)))?;
    let mut output = tokio::fs::File::create(to)
        .await
        .map_err(|source| KernelError::from(DiskError::new("create", to, source)))?;
    let mut written = 0;
    let finished = Invocation::new(program, DECOMPRESS_DEADLINE)
        .args(["-dc".as_ref(), "--".as_ref(), scrap.as_os_str()])
        .start()
        .map_err(KernelError::from)?
        .finish(
            async |stdout| {
                // A byte too many is enough to know.
                let mut bounded = stdout.take(payload.length + 1);
                written = tokio::io::copy(&mut bounded, &mut output).await?;
                output.sync_all().await
            },
            |_| {},
        )
        .await;
    match finished {
        Ok(()) if written == payload.length => Ok(()),
        Ok(()) => Err(ExtractError::Length {
            length: payload.length,
        }),
        Err(error @ HostError::Failed { .. }) => Err(ExtractError::Damaged {
            problem: error.to_string(),
        }),
        Err(error) => Err(KernelError::from(error).into()),
    }
}

fn decompress_lz4(payload: &Payload<'_>, to: &Path) -> Result<(), ExtractError> {
    let limit = usize::try_from(payload.length).unwrap_or(usize::MAX);
    let content = lz4::decode(payload.compressed, limit).ok_or_else(|| ExtractError::Damaged {
        problem: "it is not valid lz4, or too long".to_owned(),
    })?;
    if content.len() != limit {
        return Err(ExtractError::Length {
            length: payload.length,
        });
    }
    fs::write(to, content)
        .map_err(|source| KernelError::from(DiskError::new("write", to, source)))?;
    Ok(())
}

/// Whether a kernel has the entry that QEMU starts ELF files at.
fn has_pvh_entry<'a>(data: impl ReadRef<'a>) -> object::Result<bool> {
    let header = FileHeader64::<LittleEndian>::parse(data)?;
    let endian = header.endian()?;
    for segment in header.program_headers(endian, data)? {
        let Some(mut notes) = segment.notes(endian, data)? else {
            continue;
        };
        while let Some(note) = notes.next()? {
            if note.name() == b"Xen" && note.n_type(endian).0 == PVH_ENTRY_NOTE {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

impl Compression {
    fn of(payload: &[u8]) -> Result<Self, ExtractError> {
        let known: [(&[u8], Result<Self, &'static str>); 7] = [
            (b"\x1f\x8b", Ok(Self::Gzip)),
            (&lz4::MAGIC, Ok(Self::Lz4)),
            (b"\xfd7zXZ\0", Ok(Self::Xz)),
            (b"\x28\xb5\x2f\xfd", Ok(Self::Zstd)),
            (b"\x89LZO", Err("lzo")),
            (b"BZh", Err("bzip2")),
            (b"\x5d\0\0", Err("lzma")),
        ];
        let (_, found) = known
            .into_iter()
            .find(|(magic, _)| payload.starts_with(magic))
            .ok_or(ExtractError::UnknownCompression)?;
        found.map_err(|compression| ExtractError::Unsupported { compression })
    }
}

impl<'a> Payload<'a> {
    fn find(image: &'a [u8]) -> Result<Self, ExtractError> {
        if field(image, MAGIC_OFFSET)? != *b"HdrS" {
            return Err(ExtractError::NoSetupHeader);
        }
        let protocol = u16::from_le_bytes(field(image, PROTOCOL_OFFSET)?);
        if protocol < PAYLOAD_PROTOCOL {
            return Err(ExtractError::OldProtocol { protocol });
        }
        let sectors = match field(image, SETUP_SECTORS_OFFSET)? {
            // What the boot protocol lays down for old images.
            [0] => 4,
            [sectors] => usize::from(sectors),
        };
        let offset = u32::from_le_bytes(field(image, PAYLOAD_OFFSET)?) as usize;
        let size = u32::from_le_bytes(field(image, PAYLOAD_SIZE)?) as usize;
        let payload = image
            .get((sectors + 1) * 512 + offset..)
            .and_then(|rest| rest.get(..size))
            .ok_or(ExtractError::PayloadOutOfRange)?;
        let compression = Compression::of(payload)?;
        // The kernel's build puts the length of the content at the end; gzip does so itself.
        let (rest, length) = payload
            .split_last_chunk()
            .ok_or(ExtractError::PayloadOutOfRange)?;
        let length = u64::from(u32::from_le_bytes(*length));
        if length > MAX_CONTENT_BYTES {
            return Err(ExtractError::TooLarge { length });
        }
        Ok(Self {
            compression,
            compressed: match compression {
                Compression::Gzip => payload,
                Compression::Lz4 | Compression::Xz | Compression::Zstd => rest,
            },
            length,
        })
    }
}

fn field<const N: usize>(image: &[u8], offset: usize) -> Result<[u8; N], ExtractError> {
    image
        .get(offset..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .ok_or(ExtractError::NoSetupHeader)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Real-mode code of one sector, then 16 bytes of other code, then the payload.
    fn bz_image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 2 * 512 + 16];
        image[SETUP_SECTORS_OFFSET] = 1;
        image[MAGIC_OFFSET..][..4].copy_from_slice(b"HdrS");
        image[PROTOCOL_OFFSET..][..2].copy_from_slice(&0x020f_u16.to_le_bytes());
        image[PAYLOAD_OFFSET..][..4].copy_from_slice(&16_u32.to_le_bytes());
        let size = u32::try_from(payload.len()).unwrap();
        image[PAYLOAD_SIZE..][..4].copy_from_slice(&size.to_le_bytes());
        image.extend(payload);
        image.extend(b"code after the payload");
        image
    }

    /// An ELF file with one note of the kernel's kind, and nothing to run.
    fn elf(note: u32) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        file.extend([2, 0, 62, 0, 1, 0, 0, 0]); // executable, x86-64, version 1
        file.extend(0_u64.to_le_bytes());
        file.extend(64_u64.to_le_bytes()); // program headers
        file.extend([0; 12]); // no section headers, no flags
        file.extend([64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]); // sizes and numbers of headers
        file.extend([4_u32, 4].map(u32::to_le_bytes).concat()); // a note, readable
        for value in [120_u64, 0, 0, 24, 24, 4] {
            file.extend(value.to_le_bytes());
        }
        file.extend([4, 8, note].map(u32::to_le_bytes).concat());
        file.extend(b"Xen\0");
        file.extend([0; 8]);
        file.extend(b"code ".repeat(10_000));
        file
    }

    fn compressed(program: &str, arguments: &[&str], content: &[u8]) -> Vec<u8> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        let output = std::process::Command::new(program)
            .args(arguments)
            .arg("-c")
            .arg(file.path())
            .output()
            .unwrap();
        assert!(output.status.success());
        output.stdout
    }

    /// What no program would write: a block without any match.
    fn lz4_of_literals(content: &[u8]) -> Vec<u8> {
        let more = content.len() - 15;
        let mut block = vec![0xf0];
        block.extend(vec![0xff; more / 255]);
        block.push(u8::try_from(more % 255).unwrap());
        block.extend(content);
        let mut file = lz4::MAGIC.to_vec();
        file.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
        file.extend(block);
        file
    }

    fn with_length(mut compressed: Vec<u8>, length: usize) -> Vec<u8> {
        compressed.extend(u32::try_from(length).unwrap().to_le_bytes());
        compressed
    }

    async fn extracted(image: &[u8]) -> Result<Vec<u8>, ExtractError> {
        let dir = tempfile::tempdir().unwrap();
        let path = |name| dir.path().join(name);
        fs::write(path("vmlinuz"), image).unwrap();
        extract(&path("vmlinuz"), &path("scrap"), &path("vmlinux")).await?;
        Ok(fs::read(path("vmlinux")).unwrap())
    }

    #[tokio::test]
    async fn the_kernel_comes_out_as_it_went_in() {
        let kernel = elf(PVH_ENTRY_NOTE);
        // As the kernel's build calls them.
        let xz = compressed(
            "xz",
            &["--check=crc32", "--x86", "--lzma2=dict=1MiB"],
            &kernel,
        );
        let zstd = compressed("zstd", &["-q", "-19"], &kernel);
        for payload in [
            with_length(xz, kernel.len()),
            with_length(zstd, kernel.len()),
            compressed("gzip", &["-n", "-9"], &kernel),
            with_length(lz4_of_literals(&kernel), kernel.len()),
        ] {
            assert!(extracted(&bz_image(&payload)).await.unwrap() == kernel);
        }
    }

    #[tokio::test]
    async fn content_that_cannot_be_booted_is_refused() {
        let xz = |content: &[u8]| compressed("xz", &[], content);
        let other = elf(PVH_ENTRY_NOTE + 1);
        let script = b"#!/bin/sh".as_slice();
        for content in [&other, script, &other[..100]] {
            let image = bz_image(&with_length(xz(content), content.len()));
            let error = extracted(&image).await.unwrap_err();
            assert!(matches!(error, ExtractError::NotBootable), "{error}");
        }
        for length in [script.len() - 1, script.len() + 1, 0] {
            let image = bz_image(&with_length(xz(script), length));
            let error = extracted(&image).await.unwrap_err();
            assert!(matches!(error, ExtractError::Length { .. }), "{error}");
        }
        for lz4 in [b"\x30abc".as_slice(), b"\x50abcde", b"\x40abc"] {
            let mut payload = lz4::MAGIC.to_vec();
            payload.extend(u32::try_from(lz4.len()).unwrap().to_le_bytes());
            payload.extend(lz4);
            let image = bz_image(&with_length(payload, 4));
            let error = extracted(&image).await.unwrap_err();
            assert!(
                matches!(
                    error,
                    ExtractError::Length { .. } | ExtractError::Damaged { .. }
                ),
                "{error}"
            );
        }
        let mut damaged = with_length(xz(script), script.len());
        damaged[20] ^= 1;
        let error = extracted(&bz_image(&damaged)).await.unwrap_err();
        assert!(matches!(error, ExtractError::Damaged { .. }), "{error}");
    }

    #[test]
    fn the_payload_is_found() {
        let image = bz_image(b"\xfd7zXZ\0...\x00\x01\0\0");
        let payload = Payload {
            compression: Compression::Xz,
            compressed: b"\xfd7zXZ\0...",
            length: 256,
        };
        assert_eq!(Payload::find(&image).unwrap(), payload);
    }

    #[test]
    fn a_header_is_never_believed_blindly() {
        let image = bz_image(b"\xfd7zXZ\0...\x00\x01\0\0");
        let refused = |image: &[u8]| Payload::find(image).unwrap_err().to_string();
        for length in [0, MAGIC_OFFSET, PROTOCOL_OFFSET + 1, PAYLOAD_SIZE + 3] {
            assert_eq!(refused(&image[..length]), "it has no setup header");
        }
        let changed = |offset: usize, bytes: &[u8]| {
            let mut image = image.clone();
            image[offset..][..bytes.len()].copy_from_slice(bytes);
            refused(&image)
        };
        assert_eq!(changed(MAGIC_OFFSET, b"HdrX"), "it has no setup header");
        assert_eq!(
            changed(PROTOCOL_OFFSET, &[7, 2]),
            "its boot protocol 2.07 does not tell where the payload is"
        );
        let outside = "its payload does not lie inside the file";
        assert_eq!(changed(PAYLOAD_OFFSET, &[0xff; 4]), outside);
        assert_eq!(changed(PAYLOAD_SIZE, &[0xff; 4]), outside);
        assert_eq!(changed(SETUP_SECTORS_OFFSET, &[0]), outside);
        assert_eq!(changed(SETUP_SECTORS_OFFSET, &[0xff]), outside);
        assert_eq!(changed(PAYLOAD_SIZE, &[40, 0, 0, 0]), outside);
        assert_eq!(
            changed(PAYLOAD_SIZE, &[0; 4]),
            "its payload is compressed in an unknown way"
        );
        assert_eq!(refused(&bz_image(b"\x1f\x8b")), outside);
    }

    #[test]
    fn what_cannot_be_undone_is_named() {
        let refused = |payload: &[u8]| Payload::find(&bz_image(payload)).unwrap_err().to_string();
        for (payload, name) in [
            (b"\x89LZO\0\r\n\x1a\n".as_slice(), "lzo"),
            (b"BZh91AY&SY", "bzip2"),
            (b"\x5d\0\0\x80\0", "lzma"),
        ] {
            let expected = format!("its payload is compressed as `{name}`, which is not supported");
            assert_eq!(refused(payload), expected);
        }
        assert_eq!(
            refused(b"\xfd7zXZ\0\xff\xff\xff\xff"),
            "its content is said to have 4294967295 bytes"
        );
    }
}
