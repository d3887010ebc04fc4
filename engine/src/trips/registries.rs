//! The port to the holder registries: what a device could have read in the version that it had.

use crate::calendar::Timestamp;
use crate::identifier::Digest;
use crate::ids::{CategoryId, OrganizationId, ServiceId};
use crate::trips::trip::RegistryVersion;

/// Every holder registry that devices may have had. Calls may read from the disk.
pub trait HolderRegistries: Send + Sync + 'static {
    /// What the version says of an identifier, by the same look-up as on the device.
    fn right(&self, question: &RightQuestion<'_>) -> RightAnswer;
}

/// Which right is asked for.
#[derive(Clone, Copy, Debug)]
pub struct RightQuestion<'a> {
    /// The carrier whose registry it is.
    pub organization: OrganizationId,
    /// The version that the device had.
    pub version: RegistryVersion,
    /// The card.
    pub identifier: &'a Digest,
    /// What for.
    pub service: ServiceId,
    /// The instant of the tap. Its local date is the registry's affair: the carrier may have moved to
    /// another clock since.
    pub at: Timestamp,
}

/// What a version says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RightAnswer {
    /// The version is there, and the right that wins in it, if any.
    Known(RegistryLife, Option<RegistryRight>),
    /// No version was ever built for this carrier: its trips are judged by the present registry.
    NoneBuilt,
    /// It cannot be read now.
    Unavailable,
    /// There is no such version (any more).
    UnknownVersion,
}

/// How long a version may be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RegistryLife {
    /// When it was built.
    pub built_at: Timestamp,
    /// Until when a device may grant by it.
    pub valid_until: Timestamp,
}

/// A right in a registry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RegistryRight {
    /// By which category.
    pub category: CategoryId,
    /// Size of the benefit, percent.
    pub discount_percent: u8,
    /// Whether a companion travels on the same right.
    pub companion: bool,
}

/// No registry was ever built.
pub struct NoRegistries;

impl HolderRegistries for NoRegistries {
    fn right(&self, _: &RightQuestion<'_>) -> RightAnswer {
        RightAnswer::NoneBuilt
    }
}
