//! What the host asks for on the kernel's command line, under `pyro.`.

use super::fault::Fault;

/// The wishes, parsed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cmdline {
    /// The disks to make the root from; a builder machine has none.
    pub(super) root: Option<RootDisks>,
    /// Bring up the user-mode network card.
    pub(super) network: bool,
}

/// The disks of an environment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RootDisks {
    /// Id of the read-only image.
    pub(super) image: String,
    /// Id of the disk that takes what is written.
    pub(super) upper: String,
}

impl Cmdline {
    /// Reads `/proc/cmdline`.
    pub(super) fn read() -> Result<Self, Fault> {
        let text = std::fs::read_to_string("/proc/cmdline")
            .map_err(|error| Fault::kernel(format!("reading the command line: {error}")))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self, Fault> {
        let value = |name: &str| {
            text.split_ascii_whitespace()
                .filter_map(|word| word.split_once('='))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.to_owned())
        };
        let root = match (value("pyro.root"), value("pyro.upper")) {
            (Some(image), Some(upper)) => Some(RootDisks { image, upper }),
            (None, None) => None,
            _ => return Err(Fault::agent("`pyro.root` and `pyro.upper` go together")),
        };
        Ok(Self {
            root,
            network: value("pyro.net").is_some_and(|net| net == "user"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_only_its_own_words() {
        let parsed =
            Cmdline::parse("quiet root=/dev/sda pyro.root=root pyro.upper=upper\n").unwrap();
        assert_eq!(
            parsed.root,
            Some(RootDisks {
                image: "root".into(),
                upper: "upper".into()
            })
        );
        assert!(!parsed.network);
        assert!(Cmdline::parse("pyro.net=user").unwrap().network);
        assert!(Cmdline::parse("pyro.root=root").is_err());
    }
}
