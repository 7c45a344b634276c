//! The stable code of each failure of the crates below.

use pyro_image::artifacts::ArtifactError;
use pyro_image::directory::DirectoryError;
use pyro_image::layers::LayerError;
use pyro_image::policy::PolicyViolation;
use pyro_image::publish::PublishError;
use pyro_image::{
    BlobError, CatalogError, DiskError, HostError, KernelError, OciError, RecipeError,
    RuntimeError, StoreError,
};
use pyro_protocol::code::ErrorCode;

pub(super) fn store_code(error: &StoreError) -> ErrorCode {
    match error {
        StoreError::Catalog(CatalogError::UnknownEnvironment { .. })
        | StoreError::NotInstalled { .. } => ErrorCode::NotFound,
        StoreError::Catalog(CatalogError::Reference(_) | CatalogError::Name(_)) => {
            ErrorCode::InvalidArgument
        }
        StoreError::Disk(error) => disk_code(error),
        StoreError::Locked { .. } | StoreError::InUse { .. } => ErrorCode::Conflict,
        StoreError::NoRootImage { .. } => ErrorCode::Internal,
    }
}

pub(super) fn kernel_code(error: &KernelError) -> ErrorCode {
    match error {
        KernelError::Disk(error) => disk_code(error),
        KernelError::Host(error) => host_code(error),
        KernelError::Locked { .. } => ErrorCode::Conflict,
        KernelError::Invalid { .. } => ErrorCode::DigestMismatch,
        KernelError::NotAnImage { .. } => ErrorCode::InvalidArgument,
        KernelError::NotInstalled { .. } => ErrorCode::NotFound,
        KernelError::PackageUnknown { .. }
        | KernelError::PackageUnusable { .. }
        | KernelError::ModuleCompression { .. }
        | KernelError::ModuleMissing { .. }
        | KernelError::ModuleUnreadable { .. } => ErrorCode::HostUnavailable,
    }
}

pub(super) fn recipe_code(error: &RecipeError) -> ErrorCode {
    match error {
        RecipeError::Host(error) => host_code(error),
        RecipeError::Disk(error) => disk_code(error),
        RecipeError::UnknownDistribution { .. } => ErrorCode::Unsupported,
        RecipeError::NoBuildMode { .. } => ErrorCode::HostUnavailable,
    }
}

pub(super) fn host_code(error: &HostError) -> ErrorCode {
    match error {
        HostError::HostProgramMissing { .. } | HostError::Run { .. } => ErrorCode::HostUnavailable,
        HostError::Failed { stderr, .. } if stderr.contains("No space left on device") => {
            ErrorCode::NoSpace
        }
        HostError::Failed { .. } => ErrorCode::HostUnavailable,
        HostError::TimedOut { .. } => ErrorCode::Timeout,
    }
}

pub(crate) fn disk_code(error: &DiskError) -> ErrorCode {
    match error {
        DiskError::AccessDenied { .. } => ErrorCode::PermissionDenied,
        DiskError::NoSpace { .. } => ErrorCode::NoSpace,
        DiskError::Io { source, .. } => io_code(source),
        DiskError::SubordinateFiles { .. } => ErrorCode::PermissionDenied,
    }
}

pub(crate) fn io_code(error: &std::io::Error) -> ErrorCode {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
            ErrorCode::PermissionDenied
        }
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorCode::NoSpace,
        std::io::ErrorKind::NotFound => ErrorCode::NotFound,
        _ => ErrorCode::Internal,
    }
}

pub(crate) fn oci_code(error: &OciError) -> ErrorCode {
    match error {
        OciError::Reference(_) | OciError::Setting { .. } | OciError::Directory { .. } => {
            ErrorCode::InvalidArgument
        }
        OciError::Store(error) => disk_code(error),
        OciError::Locked(error) => blob_code(error),
        OciError::Unreachable { .. } | OciError::Busy { .. } => ErrorCode::NetworkError,
        OciError::NotFound { .. } => ErrorCode::NotFound,
        OciError::Unauthorized { .. }
        | OciError::Credentials { .. }
        | OciError::PushDenied { .. } => ErrorCode::AuthFailed,
        OciError::Policy(violation) => policy_code(violation),
        OciError::ReadOnly { .. } => ErrorCode::PermissionDenied,
        OciError::RefusedAsTooLarge { .. } => ErrorCode::LimitExceeded,
        OciError::NeedsTag { .. } => ErrorCode::InvalidArgument,
        OciError::Source(error) => publish_code(error),
        OciError::Status { .. } | OciError::Protocol { .. } => ErrorCode::NetworkError,
        OciError::TooLarge { .. } => ErrorCode::LimitExceeded,
        OciError::WrongDigest { .. } | OciError::WrongSize { .. } => ErrorCode::DigestMismatch,
        OciError::MediaType { .. } | OciError::Document { .. } | OciError::Platform { .. } => {
            ErrorCode::Unsupported
        }
        OciError::Offline { .. } => ErrorCode::FailedPrecondition,
    }
}

fn blob_code(error: &BlobError) -> ErrorCode {
    match error {
        BlobError::Disk(error) => disk_code(error),
        BlobError::Locked { .. } => ErrorCode::Conflict,
        BlobError::TooLong { .. } | BlobError::TooShort { .. } | BlobError::WrongDigest { .. } => {
            ErrorCode::DigestMismatch
        }
    }
}

pub(super) fn runtime_code(error: &RuntimeError) -> ErrorCode {
    match error {
        RuntimeError::Offline { .. } => ErrorCode::FailedPrecondition,
        RuntimeError::Address { .. } => ErrorCode::InvalidArgument,
        RuntimeError::Fetch(error) => oci_code(error),
        RuntimeError::Archive { .. } | RuntimeError::Missing { .. } => ErrorCode::Unsupported,
        RuntimeError::WrongDigest { .. } => ErrorCode::DigestMismatch,
        RuntimeError::Locked { .. } => ErrorCode::Conflict,
        RuntimeError::Disk(error) => disk_code(error),
        // A kind that this crate does not know yet.
        _ => ErrorCode::Internal,
    }
}

pub(super) fn layer_code(error: &LayerError) -> ErrorCode {
    match error {
        LayerError::Blob(error) => disk_code(error),
        LayerError::Write { source, .. } => io_code(source),
        LayerError::NotAsSaid { .. } | LayerError::Corrupt { .. } => ErrorCode::Unsupported,
        LayerError::TooLarge { .. } => ErrorCode::LimitExceeded,
        LayerError::DiffIdMismatch { .. } => ErrorCode::DigestMismatch,
    }
}

pub(super) fn directory_code(error: &DirectoryError) -> ErrorCode {
    match error {
        DirectoryError::Disk(error) => disk_code(error),
        DirectoryError::Pack { .. } => ErrorCode::LimitExceeded,
        DirectoryError::Incomplete { .. } => ErrorCode::FailedPrecondition,
        DirectoryError::GivenUp => ErrorCode::Cancelled,
    }
}

pub(super) fn artifact_code(error: &ArtifactError) -> ErrorCode {
    match error {
        ArtifactError::Layer(error) => layer_code(error),
        ArtifactError::Disk(error) => disk_code(error),
        ArtifactError::TooManyMembers { .. } | ArtifactError::TooLarge { .. } => {
            ErrorCode::LimitExceeded
        }
        ArtifactError::Archive { .. }
        | ArtifactError::Missing { .. }
        | ArtifactError::Metadata { .. } => ErrorCode::Unsupported,
    }
}

pub(super) fn publish_code(error: &PublishError) -> ErrorCode {
    match error {
        PublishError::Disk(error) => disk_code(error),
        PublishError::Name { .. } | PublishError::NotAFile { .. } => ErrorCode::InvalidArgument,
        PublishError::SourceChanged { .. } => ErrorCode::Conflict,
        PublishError::Occupied { .. } => ErrorCode::AlreadyExists,
    }
}

fn policy_code(violation: &PolicyViolation) -> ErrorCode {
    match violation {
        PolicyViolation::Registry { .. }
        | PolicyViolation::LocalImage { .. }
        | PolicyViolation::DigestRequired { .. } => ErrorCode::PermissionDenied,
        PolicyViolation::Unsigned { .. }
        | PolicyViolation::OtherKey { .. }
        | PolicyViolation::OtherImage { .. }
        | PolicyViolation::OtherRepository { .. }
        | PolicyViolation::Claim { .. } => ErrorCode::SignatureInvalid,
    }
}
