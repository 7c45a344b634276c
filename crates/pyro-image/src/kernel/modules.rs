//! Which kernel modules a guest needs, and in which order they load.
//!
//! Dependencies come from each module's own `.modinfo` section, not from `modules.dep`, which
//! only an installation creates. This module reads files; it never loads a module.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use object::{Object, ObjectSection};

use crate::disk::DiskError;
use crate::kernel::{KernelError, ModuleLoad};

/// What a guest needs, in the order of loading. Whatever is built in is skipped.
const WANTED: [(&str, ModuleLoad); 8] = [
    ("virtio_mmio", ModuleLoad::Boot),
    ("virtio_blk", ModuleLoad::Boot),
    ("virtio_console", ModuleLoad::Boot),
    ("ext4", ModuleLoad::Boot),
    ("overlay", ModuleLoad::Boot),
    // What the guest frees is given back to the host. Kernels that were installed before it was wanted do without.
    ("virtio_balloon", ModuleLoad::Boot),
    ("virtio_net", ModuleLoad::Network),
    ("vmw_vsock_virtio_transport", ModuleLoad::Vsock),
];
/// Dependency chains of real kernels are a few links long.
const MAX_DEPTH: usize = 64;

/// The modules of an unpacked kernel package.
#[derive(Debug, Default)]
pub(super) struct ModuleIndex {
    /// Path by name, for loadable modules.
    files: BTreeMap<String, PathBuf>,
    /// Names of what the kernel contains already.
    builtin: BTreeSet<String>,
}

/// How a module file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    /// Not at all.
    None,
    /// With xz.
    Xz,
}

impl ModuleIndex {
    /// Indexes `lib/modules/<release>` of an unpacked package.
    pub(super) fn read(directory: &Path) -> Result<Self, KernelError> {
        let mut this = Self::default();
        let builtin = directory.join("modules.builtin");
        let text = fs::read_to_string(&builtin)
            .map_err(|source| DiskError::new("read", &builtin, source))?;
        this.builtin = text
            .lines()
            .filter_map(|line| module_name(Path::new(line)))
            .collect();
        this.walk(&directory.join("kernel"))?;
        Ok(this)
    }

    /// The file of a loadable module.
    pub(super) fn file(&self, name: &str) -> Option<&Path> {
        self.files.get(name).map(PathBuf::as_path)
    }

    /// The modules a guest needs with their dependencies, each before those that need it.
    /// `depends` gives the names that a module depends on.
    pub(super) fn load_order(
        &self,
        depends: impl FnMut(&str) -> Result<Vec<String>, KernelError>,
    ) -> Result<Vec<(String, ModuleLoad)>, KernelError> {
        let mut walk = LoadOrder {
            index: self,
            depends,
            order: Vec::new(),
            seen: BTreeSet::new(),
        };
        for (name, load) in WANTED {
            walk.add(name, load, "the guest", 0)?;
        }
        Ok(walk.order)
    }

    fn walk(&mut self, directory: &Path) -> Result<(), KernelError> {
        let failed = |source| DiskError::new("list", directory, source);
        for entry in fs::read_dir(directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            let path = entry.path();
            if kind.is_dir() {
                self.walk(&path)?;
            } else if kind.is_file()
                && let Some(name) = module_name(&path)
            {
                self.files.insert(name, path);
            }
        }
        Ok(())
    }
}

struct LoadOrder<'a, F> {
    index: &'a ModuleIndex,
    depends: F,
    order: Vec<(String, ModuleLoad)>,
    seen: BTreeSet<String>,
}

impl<F: FnMut(&str) -> Result<Vec<String>, KernelError>> LoadOrder<'_, F> {
    fn add(
        &mut self,
        name: &str,
        load: ModuleLoad,
        needed_by: &str,
        depth: usize,
    ) -> Result<(), KernelError> {
        if self.index.builtin.contains(name) || !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        if self.index.file(name).is_none() || depth > MAX_DEPTH {
            return Err(KernelError::ModuleMissing {
                module: name.to_owned(),
                needed_by: needed_by.to_owned(),
            });
        }
        for dependency in (self.depends)(name)? {
            self.add(&dependency, load, name, depth + 1)?;
        }
        self.order.push((name.to_owned(), load));
        Ok(())
    }
}

/// How a module file is compressed, by its name.
pub(super) fn compression(path: &Path) -> Result<Compression, KernelError> {
    match path.extension().and_then(OsStr::to_str) {
        Some("ko") => Ok(Compression::None),
        Some("xz") => Ok(Compression::Xz),
        other => Err(KernelError::ModuleCompression {
            module: module_name(path).unwrap_or_default(),
            compression: other.unwrap_or("unknown").to_owned(),
        }),
    }
}

/// The names that an uncompressed module depends on.
pub(super) fn dependencies(path: &Path) -> Result<Vec<String>, KernelError> {
    let content = fs::read(path).map_err(|source| DiskError::new("read", path, source))?;
    parse_dependencies(&content).map_err(|problem| KernelError::ModuleUnreadable {
        path: path.to_owned(),
        problem,
    })
}

fn parse_dependencies(content: &[u8]) -> Result<Vec<String>, String> {
    let file = object::File::parse(content).map_err(|error| error.to_string())?;
    let section = file
        .section_by_name(".modinfo")
        .ok_or("it has no section `.modinfo`")?;
    let data = section.data().map_err(|error| error.to_string())?;
    let depends = data
        .split(|&byte| byte == 0)
        .find_map(|entry| entry.strip_prefix(b"depends="))
        .ok_or("it does not tell what it depends on")?;
    Ok(depends
        .split(|&byte| byte == b',')
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).replace('-', "_"))
        .collect())
}

/// `kernel/fs/ext4/ext4.ko.xz` is `ext4`; dashes in file names are underscores in module names.
fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let (name, end) = file.split_once(".ko")?;
    (end.is_empty() || end.starts_with('.')).then(|| name.replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(files: &[&str], builtin: &[&str]) -> ModuleIndex {
        ModuleIndex {
            files: files
                .iter()
                .map(|&name| (name.to_owned(), PathBuf::from(format!("{name}.ko"))))
                .collect(),
            builtin: builtin.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    #[expect(
        clippy::unnecessary_wraps,
        reason = "it stands in for a function that reads files"
    )]
    fn depends(name: &str) -> Result<Vec<String>, KernelError> {
        let names: &[&str] = match name {
            "virtio_mmio" | "virtio_console" => &["virtio_ring", "virtio"],
            "virtio_balloon" | "virtio_blk" | "virtio_ring" => &["virtio"],
            "virtio_net" => &["net_failover", "virtio_ring"],
            "net_failover" => &["failover"],
            "vmw_vsock_virtio_transport" => &["vsock", "virtio"],
            _ => &[],
        };
        Ok(names.iter().map(|&name| name.to_owned()).collect())
    }

    const FILES: [&str; 12] = [
        "failover",
        "net_failover",
        "overlay",
        "virtio",
        "virtio_balloon",
        "virtio_blk",
        "virtio_console",
        "virtio_mmio",
        "virtio_net",
        "virtio_ring",
        "vmw_vsock_virtio_transport",
        "vsock",
    ];

    #[test]
    fn dependencies_load_first_and_once() {
        let order = index(&FILES, &["ext4"]).load_order(depends).unwrap();
        let names: Vec<_> = order.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "virtio",
                "virtio_ring",
                "virtio_mmio",
                "virtio_blk",
                "virtio_console",
                "overlay",
                "virtio_balloon",
                "failover",
                "net_failover",
                "virtio_net",
                "vsock",
                "vmw_vsock_virtio_transport",
            ]
        );
        assert_eq!(order[0].1, ModuleLoad::Boot);
        assert_eq!(order[7].1, ModuleLoad::Network);
        assert_eq!(order[10].1, ModuleLoad::Vsock);
    }

    #[test]
    fn a_missing_module_names_who_needs_it() {
        let without: Vec<_> = FILES.into_iter().filter(|&name| name != "vsock").collect();
        let error = index(&without, &["ext4"]).load_order(depends).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the kernel has no module `vsock`, which vmw_vsock_virtio_transport needs"
        );
        let error = index(&FILES, &[]).load_order(depends).unwrap_err();
        assert!(error.to_string().contains("`ext4`"), "{error}");
    }

    #[test]
    fn names_and_compression_come_from_the_file_name() {
        let name = |path| module_name(Path::new(path));
        assert_eq!(name("kernel/a/virtio-rng.ko").unwrap(), "virtio_rng");
        assert_eq!(name("a/overlay.ko.xz").unwrap(), "overlay");
        assert_eq!(name("modules.order"), None);
        let kind = |path| compression(Path::new(path));
        assert_eq!(kind("a.ko").unwrap(), Compression::None);
        assert_eq!(kind("a.ko.xz").unwrap(), Compression::Xz);
        let error = kind("a.ko.zst").unwrap_err();
        assert!(error.to_string().contains("`zst`"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_module_is_refused() {
        assert!(parse_dependencies(b"not ELF").is_err());
    }
}
