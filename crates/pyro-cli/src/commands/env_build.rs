//! `pyro env build`: what the build says goes to stderr as it comes.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use pyro::{BuildOptions, BuildOutput, EnvironmentOptions, Error, Pyro};

use crate::args::BuildArgs;
use crate::commands::{print, print_json};
use crate::exit_code::ExitCode;
use crate::render::{Talk, environment};

pub(super) async fn build(pyro: &Pyro, args: BuildArgs, talk: &Talk) -> Result<ExitCode, Error> {
    let options = EnvironmentOptions {
        pull: args.pull.into(),
        force: false,
    };
    let build = build_options(&args)?;
    let progress = talk.progress("build", args.json);
    let live = !args.json && !talk.is_quiet();
    let on_output = |output: BuildOutput<'_>| {
        let (BuildOutput::Stdout(bytes) | BuildOutput::Stderr(bytes)) = output;
        if live {
            // A stderr that nobody reads is no reason to fail.
            let _ = std::io::stderr().write_all(bytes);
        }
    };
    let built = pyro
        .build_environment(&args.name, &build, options, on_output, &progress)
        .await?;
    drop(progress);
    if args.json {
        return print_json(&built);
    }
    Ok(print(&environment::details("Built", &built.report)))
}

fn build_options(args: &BuildArgs) -> Result<BuildOptions, Error> {
    let mut options = BuildOptions::new(args.directory.clone());
    options.dockerfile.clone_from(&args.file);
    options.build_args = pairs(&args.build_arg, "--build-arg")?.collect::<BTreeMap<_, _>>();
    for (name, image) in pairs(&args.image, "--image")? {
        let image = image
            .parse::<pyro::oci::ImageReference>()
            .map_err(|error| Error::InvalidArgument {
                hint: error.hint(),
                message: error.to_string(),
            })?;
        options.images.insert(name, image);
    }
    options.target.clone_from(&args.target);
    options.network = args.network;
    options.vcpu_count = args.vcpu_count;
    options.mem_mib = args.mem_mib;
    options.timeout = Duration::from_secs(args.timeout_seconds);
    Ok(options)
}

fn pairs<'a>(
    given: &'a [String],
    flag: &str,
) -> Result<impl Iterator<Item = (String, String)> + 'a, Error> {
    if let Some(wrong) = given.iter().find(|pair| !pair.contains('=')) {
        return Err(Error::InvalidArgument {
            message: format!("`{wrong}` is no pair"),
            hint: Some(format!("write `{flag} NAME=VALUE`")),
        });
    }
    let split = given.iter().filter_map(|pair| pair.split_once('='));
    Ok(split.map(|(name, value)| (name.to_owned(), value.to_owned())))
}
