//! The holder registries of a device: fetched, verified, switched to at once; the one before is kept.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use engine::calendar::Timestamp;
use engine::identifier::Digest;
use engine::ids::ServiceId;
use serde_bytes::ByteArray;

use crate::device::{Found, HolderRegistry, Life, Right};
use crate::link::message::{RegistryForm, RegistryOffer, Signer};
use crate::registry::RegistryError;
use crate::registry::delta::{DELTA_BYTES_MAX, Delta};
use crate::registry::reader::RegistryFile;
use crate::registry::rights::Entitlement;

/// Bytes of the largest registry.
pub const REGISTRY_BYTES_MAX: u64 = 512 << 20;
/// Registries that are kept: the one in use and the one before.
const KEPT: usize = 2;

/// Where a device keeps its registries. One is fetched at a time.
pub trait RegistryStore {
    /// A registry that was verified.
    type Registry: HolderRegistry + Send + 'static;

    /// The newest registry of the organization that one of `signers` signed and that is whole.
    fn open(&mut self, signers: &[Signer], organization: u32)
    -> io::Result<Option<Self::Registry>>;

    /// A registry or a delta follows.
    fn begin(&mut self, offer: &RegistryOffer) -> Result<(), StoreError>;

    /// The next piece of it.
    fn push(&mut self, bytes: &[u8]) -> Result<(), StoreError>;

    /// It is all there: what verifies and keeps it, on a thread that may take its time. It must be of
    /// the organization, and no older than the version. Until that has ended, nothing else is begun
    /// or abandoned.
    fn install(
        &mut self,
        signers: &[Signer],
        have: (u32, u64),
    ) -> Result<Installation<Self::Registry>, StoreError>;

    /// Nothing comes of what was begun.
    fn abandon(&mut self);
}

/// Verifies and keeps a registry.
pub type Installation<R> = Box<dyn FnOnce() -> Result<Installed<R>, StoreError> + Send>;

/// A registry that was installed.
#[derive(Debug)]
pub struct Installed<R> {
    /// It.
    pub registry: R,
    /// The SHA-256 of its file.
    pub sha256: ByteArray<32>,
}

/// Why a registry is not installed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk failed.
    #[error("the disk failed: {0}")]
    Disk(#[from] io::Error),
    /// It is of another organization.
    #[error("the registry is of another organization")]
    Foreign,
    /// It is damaged or not to be trusted.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Not as many bytes came as were offered.
    #[error("the registry did not come whole")]
    Length,
    /// It is older than the one that is there.
    #[error("the registry is older")]
    Old,
    /// It is too long.
    #[error("the registry is too long")]
    TooLong,
}

/// The registries of a directory: `registry-` and the version in 20 digits.
pub struct RegistryDirectory {
    home: Home,
    incoming: Option<Incoming>,
}

#[derive(Clone)]
struct Home(PathBuf);

struct Incoming {
    form: RegistryForm,
    missing: u64,
    file: BufWriter<File>,
}

impl RegistryDirectory {
    /// The registries of a directory, which is made if it is missing.
    pub fn new(path: &Path) -> io::Result<RegistryDirectory> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Ok(RegistryDirectory { home: Home(path.to_owned()), incoming: None })
    }
}

impl RegistryStore for RegistryDirectory {
    type Registry = RegistryFile;

    fn open(&mut self, signers: &[Signer], organization: u32) -> io::Result<Option<RegistryFile>> {
        let readable = self.home.versions()?.into_iter().find_map(|version| {
            let file = RegistryFile::open(&self.home.path_of(version)).ok()?;
            let is_own = file.header().organization.0 == organization;
            (is_own && file.verify(signers).is_ok()).then_some(file)
        });
        Ok(readable)
    }

    fn begin(&mut self, offer: &RegistryOffer) -> Result<(), StoreError> {
        let bytes_max = match offer.form {
            RegistryForm::Delta => DELTA_BYTES_MAX as u64,
            _ => REGISTRY_BYTES_MAX,
        };
        if offer.bytes > bytes_max {
            return Err(StoreError::TooLong);
        }
        let file = BufWriter::new(self.home.create(INCOMING)?);
        self.incoming = Some(Incoming { form: offer.form, missing: offer.bytes, file });
        Ok(())
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let incoming = self.incoming.as_mut().ok_or(StoreError::Length)?;
        let missing = incoming.missing.checked_sub(bytes.len() as u64);
        incoming.missing = missing.ok_or(StoreError::Length)?;
        Ok(incoming.file.write_all(bytes)?)
    }

    fn install(
        &mut self,
        signers: &[Signer],
        have: (u32, u64),
    ) -> Result<Installation<RegistryFile>, StoreError> {
        let incoming = self.incoming.take().filter(|incoming| incoming.missing == 0);
        let incoming = incoming.ok_or(StoreError::Length)?;
        let (home, signers) = (self.home.clone(), signers.to_vec());
        Ok(Box::new(move || home.install(incoming, &signers, have)))
    }

    fn abandon(&mut self) {
        self.incoming = None;
        for name in [INCOMING, FRESH] {
            // Most of the time they are not there; the next registry overwrites them.
            let _missing = fs::remove_file(self.home.0.join(name));
        }
    }
}

impl Home {
    fn install(
        &self,
        Incoming { form, file, .. }: Incoming,
        signers: &[Signer],
        (organization, have): (u32, u64),
    ) -> Result<Installed<RegistryFile>, StoreError> {
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        if form == RegistryForm::Delta {
            self.apply_delta(signers, have)?;
        } else {
            fs::rename(self.0.join(INCOMING), self.0.join(FRESH))?;
        }
        let registry = RegistryFile::open(&self.0.join(FRESH))?;
        if registry.header().organization.0 != organization {
            return Err(StoreError::Foreign);
        }
        if registry.header().version < have {
            return Err(StoreError::Old);
        }
        let sha256 = ByteArray::new(registry.verify(signers)?);
        fs::rename(self.0.join(FRESH), self.path_of(registry.header().version))?;
        File::open(&self.0)?.sync_all()?;
        self.clean();
        Ok(Installed { registry, sha256 })
    }

    /// The file that a delta makes of the one it is for.
    fn apply_delta(&self, signers: &[Signer], have: u64) -> Result<(), StoreError> {
        let delta = Delta::read(File::open(self.0.join(INCOMING))?, signers)?;
        let old = RegistryFile::open(&self.path_of(have))?;
        let fresh = delta.apply(&old, BufWriter::new(self.create(FRESH)?))?;
        fresh.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        Ok(())
    }

    fn create(&self, name: &str) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).write(true).mode(0o600).open(self.0.join(name))
    }

    /// Those that nobody needs any more; what cannot be removed now is removed after the next one.
    fn clean(&self) {
        for version in self.versions().unwrap_or_default().into_iter().skip(KEPT) {
            let _later = fs::remove_file(self.path_of(version));
        }
    }

    /// The versions that are there, newest first.
    fn versions(&self) -> io::Result<Vec<u64>> {
        let mut versions = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let name = entry?.file_name();
            let version = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
            versions.extend(version.and_then(|version| version.parse::<u64>().ok()));
        }
        versions.sort_unstable_by(|a, b| b.cmp(a));
        Ok(versions)
    }

    fn path_of(&self, version: u64) -> PathBuf {
        self.0.join(format!("{PREFIX}{version:020}"))
    }
}

impl HolderRegistry for RegistryFile {
    fn life(&self) -> Life {
        let header = self.header();
        Life {
            organization: header.organization.0,
            version: header.version,
            built_at_ms: header.built_at_ms,
            valid_until_ms: header.valid_until_ms,
        }
    }

    fn look_up(&self, digest: &Digest, service: ServiceId, at: Timestamp) -> Found {
        match self.right(digest, service, self.header().day(at)) {
            Ok(Entitlement::NoRight) => Found::NoRight,
            Ok(Entitlement::Right(right)) => Found::Right(Right {
                category: right.category.0,
                discount: right.discount_percent,
                companion: right.companion,
                offline: right.offline,
            }),
            Ok(Entitlement::Unknown) => Found::Unknown,
            Err(_) => Found::Unreadable,
        }
    }
}

const FRESH: &str = "fresh";
const INCOMING: &str = "incoming";
const PREFIX: &str = "registry-";

#[cfg(test)]
mod tests;
