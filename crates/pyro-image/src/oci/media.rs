//! The media types that are taken, and no others.

/// Documents that are asked for, in the words of the `Accept` header.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// An OCI index.
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An OCI manifest.
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI config.
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// What a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DocumentKind {
    /// One image per platform.
    Index,
    /// One image.
    Manifest,
}

/// How a layer's tar is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerMediaType {
    /// Not at all.
    Plain,
    /// With gzip.
    Gzip,
    /// With zstd.
    Zstd,
}

impl LayerMediaType {
    /// The OCI media type.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// Why a type is not taken.
pub(super) type Remedy = &'static str;

/// What a document of this type is; the error says what to do.
pub(super) fn document_kind(media_type: &str) -> Result<DocumentKind, Remedy> {
    match media_type {
        "application/vnd.oci.image.index.v1+json"
        | "application/vnd.docker.distribution.manifest.list.v2+json" => Ok(DocumentKind::Index),
        OCI_MANIFEST | "application/vnd.docker.distribution.manifest.v2+json" => {
            Ok(DocumentKind::Manifest)
        }
        "application/vnd.docker.distribution.manifest.v1+json"
        | "application/vnd.docker.distribution.manifest.v1+prettyjws" => Err(
            "Docker's schema 1 cannot be verified and is given up by everybody: push the image again with a current tool",
        ),
        _ => Err("use an image with an OCI or Docker v2 manifest"),
    }
}

/// Whether this is the config of a container image.
pub(super) fn is_config(media_type: &str) -> bool {
    matches!(
        media_type,
        OCI_CONFIG | "application/vnd.docker.container.image.v1+json"
    )
}

/// What a layer of this type is; the error says what to do.
pub(super) fn layer(media_type: &str) -> Result<LayerMediaType, Remedy> {
    match media_type {
        "application/vnd.oci.image.layer.v1.tar"
        | "application/vnd.docker.image.rootfs.diff.tar" => Ok(LayerMediaType::Plain),
        "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Ok(LayerMediaType::Gzip),
        "application/vnd.oci.image.layer.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Ok(LayerMediaType::Zstd),
        foreign
            if foreign.starts_with("application/vnd.oci.image.layer.nondistributable.")
                || foreign.starts_with("application/vnd.docker.image.rootfs.foreign.") =>
        {
            Err(
                "foreign layers lie on other hosts and are never fetched: use an image without them",
            )
        }
        _ => Err("use an image whose layers are tar, tar+gzip or tar+zstd"),
    }
}
