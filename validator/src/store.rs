//! The holder registries of a device: fetched, verified, switched to at once; the one before is kept.

use std::io;

use serde_bytes::ByteArray;

use crate::device::HolderRegistry;
use crate::link::message::{RegistryOffer, Signer};

/// Where a device keeps its registries. One is fetched at a time.
pub trait RegistryStore {
    /// A registry that was verified.
    type Registry: HolderRegistry;

    /// The newest registry that one of `signers` signed and that is whole.
    fn open(&mut self, signers: &[Signer]) -> io::Result<Option<Self::Registry>>;

    /// A registry or a delta follows.
    fn begin(&mut self, offer: &RegistryOffer) -> Result<(), StoreError>;

    /// The next piece of it.
    fn push(&mut self, bytes: &[u8]) -> Result<(), StoreError>;

    /// It is all there: verifies and keeps it. It must be of `organization` and newer than `have`.
    fn install(
        &mut self,
        signers: &[Signer],
        have: (u32, u64),
    ) -> Result<Installed<Self::Registry>, StoreError>;

    /// Nothing comes of what was begun.
    fn abandon(&mut self);
}

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
    /// Not as many bytes came as were offered.
    #[error("the registry did not come whole")]
    Length,
    /// It is not newer than the one that is there.
    #[error("the registry is not newer")]
    Old,
    /// It is too long.
    #[error("the registry is too long")]
    TooLong,
}
