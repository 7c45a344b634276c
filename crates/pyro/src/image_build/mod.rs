//! A Dockerfile, built inside a machine: no root and no Docker on the host.
//!
//! ```text
//! host:  Dockerfile ─▶ names of images ─▶ pulled by our own client ─▶ blobs
//!            │                                                         │
//!            └─ names rewritten ─┐             directory               │
//!                                ▼                 ▼                   ▼
//! guest:                  buildah build ◀── context (tar)     store ◀── images (tar)
//!                                │
//! host:                   image.tar ◀── `docker save` form, streamed
//! ```
//!
//! Owns the order of these steps. Images are fetched on the host, so that log-ins, mirrors,
//! digests and policy are those of every other pull, and the guest needs no network for them.
//! Names in the Dockerfile are replaced by whole ones that the builder has, so that it never
//! guesses a registry. A name that only the build itself could find out is left to the builder,
//! which has no such image and says so.
//!
//! Each build starts from nothing: there is no cache between builds, and so no way to turn it
//! off. Packages of the guest are those of [`pyro_image::catalog::IMAGE_BUILDER`].

mod context;
mod dockerfile;
mod error;
mod guest;
mod ignored;
mod images;
mod tail;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pyro_image::catalog::IMAGE_BUILDER;
use pyro_image::oci::{Client, PullOptions};
use pyro_image::{BlobStore, ImageReference, OciError, PulledImage, Sha256Digest};
use pyro_protocol::supervise::Expiry;

pub use dockerfile::DockerfileError;
pub use error::ImageBuildError;

use crate::error::Error;
use crate::machine::MachineOptions;
use crate::tree::pipe;
use crate::{Progress, ProgressSink, Pyro};
use dockerfile::Dockerfile;
use guest::{CONTEXT, Guest, IMAGES, INPUT};

/// The image's file in the staging directory.
pub const ARCHIVE: &str = "image.tar";

/// How much longer than the build its machine may live: images and files go in, the image out.
const AROUND_THE_BUILD: Duration = Duration::from_hours(1);

/// Most build arguments, and most bytes of them together: they are a command's arguments.
const MAX_BUILD_ARGS: usize = 512;
const MAX_BUILD_ARG_BYTES: usize = 256 * 1024;

/// What to build and in which machine.
#[derive(Clone, Debug)]
pub struct BuildOptions {
    /// The directory that `COPY` copies from. It is sent into the machine but for what its
    /// `.dockerignore` names. Symbolic links stay links.
    pub context: PathBuf,
    /// The Dockerfile; `Dockerfile` in the directory if absent. It may lie elsewhere.
    pub dockerfile: Option<PathBuf>,
    /// Values of its `ARG`s.
    pub build_args: BTreeMap<String, String>,
    /// The stage to build; the last one if absent.
    pub target: Option<String>,
    /// Images that stand for names in the Dockerfile, such as an `oci:` layout for `base`.
    pub images: BTreeMap<String, ImageReference>,
    /// Whether `RUN` has a network. Images are fetched in any case, by the host.
    pub network: bool,
    /// Virtual processors, 1 to 8.
    pub vcpu_count: u8,
    /// Memory in MiB, 256 to 32768.
    pub mem_mib: u32,
    /// Longest time of the build itself.
    pub timeout: Duration,
    /// Most bytes of the image's file.
    pub max_archive_bytes: u64,
}

impl BuildOptions {
    /// A build in `context` with 2 processors, 2048 MiB, no network and an hour of time.
    pub fn new(context: impl Into<PathBuf>) -> Self {
        Self {
            context: context.into(),
            dockerfile: None,
            build_args: BTreeMap::new(),
            target: None,
            images: BTreeMap::new(),
            network: false,
            vcpu_count: 2,
            mem_mib: 2048,
            timeout: Duration::from_hours(1),
            max_archive_bytes: 8 * 1024 * 1024 * 1024,
        }
    }

    fn machine(&self) -> MachineOptions {
        MachineOptions {
            vcpu_count: self.vcpu_count,
            mem_mib: self.mem_mib,
            network: self.network,
            expiry: Expiry::at_age(self.timeout.saturating_add(AROUND_THE_BUILD)),
            ..MachineOptions::default()
        }
    }

    fn check(&self) -> Result<(), Error> {
        self.machine().check()?;
        let bytes = |(name, value): (&String, &String)| name.len() + value.len();
        let is_name = |name: &String| !name.is_empty() && !name.contains(['=', '\0']);
        if self.build_args.len() > MAX_BUILD_ARGS
            || self.build_args.iter().map(bytes).sum::<usize>() > MAX_BUILD_ARG_BYTES
        {
            return Err(Error::invalid(
                format!(
                    "there are more than {MAX_BUILD_ARGS} build arguments or {MAX_BUILD_ARG_BYTES} bytes of them"
                ),
                "put long values into a file beside the Dockerfile",
            ));
        }
        if !self.build_args.keys().all(is_name) {
            return Err(Error::invalid(
                "a build argument has no name",
                "write `--build-arg NAME=VALUE`",
            ));
        }
        if self.timeout.is_zero() {
            return Err(Error::invalid(
                "a build cannot end within no time",
                "give at least 1 second",
            ));
        }
        Ok(())
    }
}

/// How images that a Dockerfile builds on are fetched.
#[derive(Clone, Copy, Debug)]
pub struct ImageSource<'a> {
    /// What fetches them.
    pub client: &'a Client,
    /// Where they are kept.
    pub store: &'a BlobStore,
    /// When they are looked up, and their bounds.
    pub options: &'a PullOptions,
}

/// What the builder says while it works. Anybody's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildOutput<'a> {
    /// It wrote to standard output.
    Stdout(&'a [u8]),
    /// It wrote to standard error.
    Stderr(&'a [u8]),
}

/// An image that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltImage {
    /// The image in the form of `docker save`: [`ARCHIVE`] in the staging directory.
    pub archive: PathBuf,
    /// Its bytes.
    pub archive_bytes: u64,
    /// What it was built on: each name in the Dockerfile, and the digest that it meant.
    pub base_images: Vec<(String, Sha256Digest)>,
    /// Wall time of the build inside the machine, images and files not counted.
    pub build_time: Duration,
}

impl Pyro {
    /// Builds a Dockerfile into the file [`ARCHIVE`] of the directory `staging`, which is the
    /// caller's, private, and without that file. The environment [`IMAGE_BUILDER`] is made ready
    /// first if it is missing. After an error, or when dropped, a part of the file may be left.
    ///
    /// # Errors
    /// [`Error::ImageBuild`] for all that the Dockerfile, its directory and its images can be
    /// blamed for; others as of any machine.
    pub async fn build_image(
        &self,
        options: &BuildOptions,
        source: ImageSource<'_>,
        staging: &Path,
        on_output: impl FnMut(BuildOutput<'_>),
        progress: &ProgressSink,
    ) -> Result<BuiltImage, Error> {
        options.check()?;
        let path = options
            .dockerfile
            .clone()
            .unwrap_or_else(|| options.context.join("Dockerfile"));
        let bytes = context::dockerfile(&path)?;
        let ignore = context::own_ignore_file(&path)?;
        let ignored = context::ignored(&options.context, ignore.as_deref())?;
        let dockerfile = Dockerfile::parse(&bytes, &options.build_args, options.target.as_deref())
            .map_err(ImageBuildError::from)?;
        let bases = pull(&dockerfile.images(), options, source, progress).await?;
        let local = bases
            .iter()
            .map(|base| (base.name.clone(), base.local.clone()));
        let rewritten = dockerfile.rewritten(&local.collect());

        phase(progress, "image-builder", IMAGE_BUILDER.to_owned());
        let mut machine = self
            .order_machine(IMAGE_BUILDER, &options.machine(), progress)
            .await?;
        let built = async {
            machine.wait_ready(|_| {}).await?;
            let mut guest = Guest {
                machine: &mut machine,
                options,
                on_output,
            };
            phase(
                progress,
                "image-context",
                options.context.display().to_string(),
            );
            let input = guest::input(&rewritten, ignore.as_deref()).map_err(unpacked)?;
            guest.import(INPUT, input.as_slice()).await?;
            send_context(&mut guest, ignored).await?;
            send_images(&mut guest, &bases, source.store).await?;
            phase(progress, "image-build", path.display().to_string());
            let begun = Instant::now();
            guest.build(ignore.is_some()).await?;
            let build_time = begun.elapsed();
            phase(progress, "image-save", ARCHIVE.to_owned());
            let archive = staging.join(ARCHIVE);
            let archive_bytes = guest.save(&archive).await?;
            Ok(BuiltImage {
                archive,
                archive_bytes,
                base_images: Vec::new(),
                build_time,
            })
        }
        .await;
        // Nothing in it is worth an orderly end, and the image is whole already.
        let _ = machine.stop(false).await;
        built.map(|built| BuiltImage {
            base_images: bases
                .into_iter()
                .map(|base| (base.name, base.image.resolved_digest))
                .collect(),
            ..built
        })
    }
}

/// An image that the Dockerfile names.
struct Base {
    /// As the Dockerfile calls it.
    name: String,
    /// As the builder's store calls it.
    local: String,
    image: PulledImage,
}

async fn pull(
    names: &[&str],
    options: &BuildOptions,
    source: ImageSource<'_>,
    progress: &ProgressSink,
) -> Result<Vec<Base>, Error> {
    let mut bases = Vec::with_capacity(names.len());
    for (index, &name) in names.iter().enumerate() {
        let refused = |error| ImageBuildError::BaseImage {
            name: name.to_owned(),
            source: Box::new(error),
        };
        let reference = match options.images.get(name) {
            Some(reference) => reference.clone(),
            None => ImageReference::Registry(
                name.parse()
                    .map_err(|error| refused(OciError::Reference(error)))?,
            ),
        };
        let pulled = source
            .client
            .pull(&reference, source.store, source.options, progress);
        bases.push(Base {
            name: name.to_owned(),
            local: local_name(index, &reference),
            image: pulled.await.map_err(refused)?,
        });
    }
    Ok(bases)
}

/// The whole name of an image, as the builder shows it. A digest becomes a tag, because the
/// builder knows an image by its own digest alone, not by that of an index.
fn local_name(index: usize, reference: &ImageReference) -> String {
    match reference {
        // The builder takes no address in brackets for a host.
        ImageReference::Registry(reference) if !reference.host().as_str().starts_with('[') => {
            let tag = match (reference.digest(), reference.tag()) {
                (Some(digest), _) => format!("sha256-{}", digest.hex()),
                (None, Some(tag)) => tag.as_str().to_owned(),
                (None, None) => "latest".to_owned(),
            };
            let (host, repository) = (reference.host(), reference.repository());
            format!("{}/{}:{tag}", host.as_str(), repository.as_str())
        }
        _ => format!("localhost/base-image-{index}:latest"),
    }
}

async fn send_context<F: FnMut(BuildOutput<'_>)>(
    guest: &mut Guest<'_, F>,
    ignored: ignored::Ignored,
) -> Result<(), Error> {
    let directory = guest.options.context.clone();
    let (stream, packing) = pipe::spawn({
        let directory = directory.clone();
        move |out| context::pack(&directory, ignored, out)
    })
    .map_err(unpacked)?;
    let sent = guest.import(CONTEXT, stream).await;
    let summary = match (pipe::joined(packing).await, sent) {
        // Only the consequence of a guest that takes no more.
        (Err(pyro_archive::pack::PackError::Output(_)) | Ok(_), Err(error)) => return Err(error),
        (Err(source), _) => {
            let path = directory;
            return Err(ImageBuildError::Context { path, source }.into());
        }
        (Ok(summary), Ok(())) => summary,
    };
    Ok(context::check(&summary)?)
}

async fn send_images<F: FnMut(BuildOutput<'_>)>(
    guest: &mut Guest<'_, F>,
    bases: &[Base],
    store: &BlobStore,
) -> Result<(), Error> {
    if !bases.is_empty() {
        let (images, store): (Vec<PulledImage>, BlobStore) = (
            bases.iter().map(|base| base.image.clone()).collect(),
            store.clone(),
        );
        let (stream, packing) = pipe::spawn(move |out| {
            let mut tar = images::ImagesTar::new(&store, out);
            for (index, image) in images.iter().enumerate() {
                tar.image(index, image)?;
            }
            tar.finish()
        })
        .map_err(unpacked)?;
        let sent = guest.import(IMAGES, stream).await;
        match (pipe::joined(packing).await, sent) {
            (Err(source), _) if source.kind() != std::io::ErrorKind::BrokenPipe => {
                return Err(unpacked(source));
            }
            (_, sent) => sent?,
        }
    }
    let named = bases.iter().enumerate();
    let named: Vec<_> = named
        .map(|(index, base)| (format!("{IMAGES}/{index}"), base.local.clone()))
        .collect();
    guest.load(&named).await
}

fn unpacked(source: std::io::Error) -> Error {
    Error::Stream {
        action: "read",
        source,
    }
}

fn phase(progress: &ProgressSink, phase: &'static str, detail: String) {
    progress(Progress::Phase {
        phase: phase.into(),
        detail,
    });
}
