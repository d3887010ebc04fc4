//! Newtypes of the numbers that name things, so that no two of them can be exchanged by mistake.
//!
//! Registry ids are positive integers given by the regional system; transaction ids are given by us.

use std::fmt;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident($inner:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    )*};
}

ids! {
    /// An area (район) of a region.
    AreaId(u32);
    /// A benefit category (льготная категория).
    CategoryId(u32);
    /// A holder (держатель); on the wire of D0 it is `clientId`.
    HolderId(u64);
    /// An organization that serves the card (акцептант).
    OrganizationId(u32);
    /// A log of its own: the unit of ownership, fencing and recovery.
    PartitionId(u16);
    /// A region, by its two-digit code.
    RegionCode(u8);
    /// A state of the registry; every import makes a new one.
    RevisionId(u64);
    /// A service (услуга).
    ServiceId(u32);
    /// One of the shards among which holders are divided.
    ShardId(u16);
    /// A terminal of an organization.
    TerminalId(u64);
    /// A check and what became of it. Never repeats, not even after a crash.
    TransactionId(u64);
}

/// An amount of money in kopecks (1/100 ruble), `0..=i64::MAX`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Kopecks(pub u64);
