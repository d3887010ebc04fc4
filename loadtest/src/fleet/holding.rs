//! Holder registries as devices hold them, kept once for all devices that hold the same.
//!
//! The first device that pulls a file or a delta verifies it; the bytes of every other one are
//! compared with those.

use std::collections::HashMap;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex, PoisonError};

use engine::calendar::Timestamp;
use engine::identifier::Digest;
use engine::ids::ServiceId;
use validator::link::message::Signer;
use validator::registry::delta::Delta;
use validator::registry::reader::RegistryFile;
use validator::registry::rights::Entitlement;
use validator::registry::{RegistryError, Sha256};
use validator::verdict::Verdict;

/// A holder registry.
#[derive(Debug)]
pub struct Holding {
    file: RegistryFile,
    sha256: Sha256,
}

/// What a device decided on its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Decided {
    /// Grant, or why not.
    pub verdict: Verdict,
    /// By which category.
    pub category: Option<u32>,
    /// Size of the benefit, percent.
    pub discount: u8,
}

impl Holding {
    /// Which one it is.
    pub fn version(&self) -> u64 {
        self.file.header().version
    }

    /// Whose it is.
    pub fn organization(&self) -> u32 {
        self.file.header().organization.0
    }

    /// When it was built, milliseconds since 1970.
    pub fn built_at_ms(&self) -> i64 {
        self.file.header().built_at_ms
    }

    /// The hash that a device acknowledges.
    pub fn sha256(&self) -> Sha256 {
        self.sha256
    }

    /// What the rules say of a tap.
    pub fn decide(&self, digest: &Digest, service: u32, at_ms: i64) -> Decided {
        let denied = |verdict| Decided { verdict, category: None, discount: 0 };
        let header = self.file.header();
        if at_ms > header.valid_until_ms {
            return denied(Verdict::DenyStale);
        }
        let day = header.day(Timestamp(at_ms.saturating_mul(1_000)));
        match self.file.right(digest, ServiceId(service), day) {
            Ok(Entitlement::Right(right)) if right.offline => Decided {
                verdict: Verdict::Grant,
                category: Some(right.category.0),
                discount: right.discount_percent,
            },
            Ok(Entitlement::Right(_) | Entitlement::NoRight) => denied(Verdict::DenyNoRight),
            Ok(Entitlement::Unknown) => denied(Verdict::DenyUnknown),
            // Our own temporary file cannot be read: fail closed.
            Err(_unreadable) => denied(Verdict::DenyStale),
        }
    }

    fn verified(mut file: std::fs::File, signers: &[Signer]) -> Result<Holding, RegistryError> {
        file.flush()?;
        file.seek(SeekFrom::Start(0))?;
        let file = RegistryFile::read(file)?;
        let sha256 = file.verify(signers)?;
        Ok(Holding { file, sha256 })
    }
}

/// All that were ever pulled.
#[derive(Debug, Default)]
pub struct Holdings {
    /// A std lock: held while one registry is verified, by the only thread there is.
    pulled: Mutex<HashMap<Pulled, Verified>>,
}

/// What was pulled, and what it made.
#[derive(Debug)]
struct Verified {
    bytes: Vec<u8>,
    holding: Arc<Holding>,
}

/// What was pulled: for whom, from which version, to which.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Pulled {
    organization: u32,
    have: u64,
    version: u64,
}

impl Holdings {
    /// Takes a whole file.
    pub fn full(
        &self,
        organization: u32,
        version: u64,
        bytes: Vec<u8>,
        signers: &[Signer],
    ) -> Result<Arc<Holding>, RegistryError> {
        self.known_or(Pulled { organization, have: 0, version }, bytes, |bytes| {
            let mut file = tempfile::tempfile()?;
            file.write_all(bytes)?;
            Holding::verified(file, signers)
        })
    }

    /// Takes a delta for a registry.
    pub fn delta(
        &self,
        old: &Holding,
        version: u64,
        bytes: Vec<u8>,
        signers: &[Signer],
    ) -> Result<Arc<Holding>, RegistryError> {
        let (organization, have) = (old.organization(), old.version());
        self.known_or(Pulled { organization, have, version }, bytes, |bytes| {
            let delta = Delta::read(bytes, signers)?;
            let file = delta.apply(&old.file, BufWriter::new(tempfile::tempfile()?))?;
            let file = file.into_inner().map_err(|error| error.into_error())?;
            Holding::verified(file, signers)
        })
    }

    fn known_or(
        &self,
        pulled: Pulled,
        bytes: Vec<u8>,
        make: impl FnOnce(&[u8]) -> Result<Holding, RegistryError>,
    ) -> Result<Arc<Holding>, RegistryError> {
        let mut known = self.pulled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(verified) = known.get(&pulled)
            && verified.bytes == bytes
        {
            return Ok(Arc::clone(&verified.holding));
        }
        let holding = Arc::new(make(&bytes)?);
        let header = (holding.organization(), holding.version());
        if header != (pulled.organization, pulled.version) {
            return Err(RegistryError::Foreign);
        }
        known.insert(pulled, Verified { bytes, holding: Arc::clone(&holding) });
        Ok(holding)
    }
}
