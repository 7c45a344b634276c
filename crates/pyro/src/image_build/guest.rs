//! The work inside the builder machine: its store of images, the build, the image that comes out.
//!
//! The machine's root is an overlay, on which the builder cannot put another one. So the ext4 below
//! it is mounted a second time, and the builder's store lies there.

use std::path::Path;
use std::time::Duration;

use pyro_archive::tar::header::{Kind, Member, Time};
use pyro_archive::tar::write::Writer;
use pyro_protocol::archive::import::{ImportOwner, OwnerWord, TreeImport};
use pyro_protocol::files::Target;
use tokio::io::{AsyncRead, AsyncWriteExt};

use super::tail::Tail;
use super::{BuildOptions, BuildOutput, ImageBuildError};
use crate::error::Error;
use crate::exec::{ExecOptions, ExecOutput, Program};
use crate::machine::Machine;

/// The Dockerfile and its own ignore file, in the guest.
pub(super) const INPUT: &str = "/var/lib/pyro-build/input";
/// What the Dockerfile copies.
pub(super) const CONTEXT: &str = "/var/lib/pyro-build/context";
/// The images that it builds on, until they are in the builder's store.
pub(super) const IMAGES: &str = "/var/lib/pyro-build/images";
/// The Dockerfile's name in [`INPUT`].
pub(super) const DOCKERFILE: &str = "Dockerfile";
/// The ignore file's name in [`INPUT`].
pub(super) const IGNORE: &str = "dockerignore";

/// The image's name in the builder's store.
const RESULT: &str = "localhost/pyro-build-result:latest";

/// Longest time to make the store ready.
const PREPARE_DEADLINE: Duration = Duration::from_mins(2);

/// Longest time to take the images in, and to give the result out.
const COPY_DEADLINE: Duration = Duration::from_hours(1);

/// Makes the store ready. The disk is found by the serial that every machine's has.
const PREPARE: &str = r#"set -eu
for disk in /sys/block/*; do
    if [ "$(cat "$disk/serial" 2>/dev/null)" = upper ]; then device=/dev/${disk##*/}; fi
done
mkdir -p /run/pyro-build/disk
mount -t ext4 "$device" /run/pyro-build/disk
mkdir -p /run/pyro-build/disk/containers
cat > /etc/containers/storage.conf <<'END'
[storage]
driver = "overlay"
runroot = "/run/pyro-build/run"
graphroot = "/run/pyro-build/disk/containers"
END
"#;

/// Takes images in: directory and name of each.
const LOAD: &str = r#"set -eu
while [ $# -gt 0 ]; do
    id=$(buildah pull --quiet "dir:$1")
    buildah tag "$id" "$2"
    rm -rf "$1"
    shift 2
done
"#;

/// What a build is told and tells.
pub(super) struct Guest<'a, F> {
    pub(super) machine: &'a mut Machine,
    pub(super) options: &'a BuildOptions,
    pub(super) on_output: F,
}

impl<F: FnMut(BuildOutput<'_>)> Guest<'_, F> {
    /// Unpacks a tar into the new directory `destination`.
    pub(super) async fn import(
        &mut self,
        destination: &str,
        archive: impl AsyncRead,
    ) -> Result<(), Error> {
        let request = TreeImport {
            destination: Target {
                root: Some("/".into()),
                path: destination.into(),
            },
            // The machine holds nothing that a half of it could harm.
            staged: false,
            // Set-id bits are kept with owners alone. Who owns what here is nothing to the builder.
            owner: ImportOwner::Word(OwnerWord::Archive),
            ..TreeImport::workspace()
        };
        self.machine
            .import(&request, archive, |_| {})
            .await
            .map(drop)
    }

    /// Makes the builder ready and gives it the images: directory and name of each.
    pub(super) async fn load(&mut self, images: &[(String, String)]) -> Result<(), Error> {
        let step = "making the builder ready";
        self.run(step, Program::shell(PREPARE), PREPARE_DEADLINE)
            .await?;
        if images.is_empty() {
            return Ok(());
        }
        let mut argv = vec!["/bin/sh", "-c", LOAD, "sh"];
        for (directory, name) in images {
            argv.extend([directory.as_str(), name.as_str()]);
        }
        let step = "taking in the images";
        self.run(step, Program::argv(argv), COPY_DEADLINE).await
    }

    /// Builds.
    pub(super) async fn build(&mut self, own_ignore_file: bool) -> Result<(), Error> {
        let mut argv: Vec<String> = [
            "buildah",
            "build",
            // The machine is the isolation; namespaces and cgroups in it would protect nobody.
            "--isolation=chroot",
            "--pull=never",
            // Docker's form of the config alone keeps `HEALTHCHECK`, `SHELL` and `ONBUILD`.
            "--format=docker",
            // Nothing of the builder is kept, so steps on their own would be of no use.
            "--layers=false",
        ]
        .map(str::to_owned)
        .into();
        argv.push(format!("--file={INPUT}/{DOCKERFILE}"));
        argv.push(format!("--tag={RESULT}"));
        if own_ignore_file {
            argv.push(format!("--ignorefile={INPUT}/{IGNORE}"));
        }
        if let Some(target) = &self.options.target {
            argv.push(format!("--target={target}"));
        }
        for (name, value) in &self.options.build_args {
            argv.push(format!("--build-arg={name}={value}"));
        }
        argv.push(CONTEXT.into());
        self.run("the build", Program::argv(argv), self.options.timeout)
            .await
    }

    /// Writes the image to the new file `archive` in the form of `docker save`; its bytes.
    pub(super) async fn save(&mut self, archive: &Path) -> Result<u64, Error> {
        let failed = |source| Error::Io {
            action: "write",
            path: archive.to_owned(),
            source,
        };
        let program = [
            "buildah",
            "push",
            "--quiet",
            RESULT,
            "docker-archive:/dev/stdout",
        ];
        let mut exec = self
            .machine
            .exec(&options(Program::argv(program), COPY_DEADLINE))
            .await?;
        let file = tokio::fs::File::create_new(archive).await.map_err(failed)?;
        let mut file = tokio::io::BufWriter::with_capacity(1 << 20, file);
        let mut size = 0_u64;
        let mut tail = Tail::default();
        loop {
            match exec.next().await {
                Ok(ExecOutput::Stdout(bytes)) => {
                    size += bytes.len() as u64;
                    if size > self.options.max_archive_bytes {
                        let limit = self.options.max_archive_bytes;
                        return Err(ImageBuildError::TooLarge { limit }.into());
                    }
                    file.write_all(&bytes).await.map_err(failed)?;
                }
                Ok(ExecOutput::Stderr(bytes)) => {
                    tail.push(&bytes);
                    (self.on_output)(BuildOutput::Stderr(&bytes));
                }
                Ok(ExecOutput::End(end)) => {
                    self.judge("saving the image", end.exit_code, end.timed_out, tail)?;
                    file.flush().await.map_err(failed)?;
                    return Ok(size);
                }
                Err(error) => return Err(self.machine.why_ended(error).await),
            }
        }
    }

    async fn run(
        &mut self,
        step: &'static str,
        program: Program,
        timeout: Duration,
    ) -> Result<(), Error> {
        let mut exec = self.machine.exec(&options(program, timeout)).await?;
        let mut tail = Tail::default();
        loop {
            match exec.next().await {
                Ok(ExecOutput::Stdout(bytes)) => {
                    tail.push(&bytes);
                    (self.on_output)(BuildOutput::Stdout(&bytes));
                }
                Ok(ExecOutput::Stderr(bytes)) => {
                    tail.push(&bytes);
                    (self.on_output)(BuildOutput::Stderr(&bytes));
                }
                Ok(ExecOutput::End(end)) => {
                    return self.judge(step, end.exit_code, end.timed_out, tail);
                }
                Err(error) => return Err(self.machine.why_ended(error).await),
            }
        }
    }

    fn judge(
        &self,
        step: &'static str,
        exit_code: i32,
        timed_out: bool,
        tail: Tail,
    ) -> Result<(), Error> {
        let last_lines = tail.into_lines();
        let error = if timed_out {
            ImageBuildError::TimedOut {
                limit: self.options.timeout,
                last_lines,
            }
        } else if exit_code != 0 {
            ImageBuildError::Failed {
                step,
                exit_code,
                last_lines,
                network: self.options.network,
            }
        } else {
            return Ok(());
        };
        Err(error.into())
    }
}

fn options(program: Program, timeout: Duration) -> ExecOptions {
    ExecOptions {
        timeout,
        ..ExecOptions::new(program)
    }
}

/// A tar of the Dockerfile and its ignore file.
pub(super) fn input(dockerfile: &str, ignore: Option<&[u8]>) -> std::io::Result<Vec<u8>> {
    let mut writer = Writer::new(Vec::new());
    let files = [(DOCKERFILE, Some(dockerfile.as_bytes())), (IGNORE, ignore)];
    for (path, content) in files {
        let Some(content) = content else { continue };
        writer.member(&Member {
            path: path.as_bytes(),
            kind: Kind::File(content.len() as u64),
            mode: 0o644,
            uid: 0,
            gid: 0,
            modified: Time::default(),
            attributes: &[],
        })?;
        writer.content(content)?;
    }
    writer.finish()?;
    Ok(writer.into_inner())
}
