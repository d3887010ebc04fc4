//! The holder registry: a file that tells a device, without a link, which card has which right.
//!
//! Content: for every identifier of every card that is entitled to a service of one organization the
//! first 56 bits of its keyed digest, and which rights it has. No name, no SNILS and no card number,
//! neither plain nor hashed without the deployment's key.
//!
//! # Bytes
//! Numbers are little-endian. The same content always makes the same bytes.
//!
//! | part | bytes | what |
//! |---|---|---|
//! | header | 8 | `eligoREG` |
//! | | 2 | format, 1 |
//! | | 2 | 0 |
//! | | 4 | organization |
//! | | 8 | version, growing, over all organizations of the deployment |
//! | | 8 | when it was built, milliseconds since 1970-01-01T00:00:00Z |
//! | | 8 | until when it is valid, likewise |
//! | | 4 | seconds that the organization's clock is ahead of UTC |
//! | | 4 | number of the signer |
//! | | 8 | entries |
//! | | 4 | lists in the dictionary |
//! | | 4 | bytes of the dictionary |
//! | dictionary | | lists of rights, ascending, each once; a list is its length (2) and its rights |
//! | a right | 4, 4 | service, category |
//! | | 4, 4 | first and last date, days since 1970-01-01; the least and the greatest number where the right has no such end within the life of the file |
//! | | 1 | size of the benefit, percent |
//! | | 1 | 1 a companion travels on it, 2 its uses are limited, 4 a device may grant it alone |
//! | blocks | | of 128 entries each, the last one of the rest |
//! | a block | 1 | bits of a gap, `g`: as many as the largest gap of the block needs |
//! | | | a string of bits, the lowest of each byte first, the last byte filled up with zeros: for every entry but the first its digest minus the one before (`g`), then for every entry the number of its list in the dictionary (as many bits as the greatest number of a list needs, 0 for one list) |
//! | index | 8 | for each block: the digest of its first entry, |
//! | | 4 | the place of the block, counted from the first one, |
//! | | 4 | its CRC-32 |
//! | end | 4 | CRC-32 of header, dictionary and index |
//! | | 32 | SHA-256 of everything before |
//! | | 64 | Ed25519 signature of `eligo holder registry 1`, a zero byte and that SHA-256 |
//!
//! A digest of 56 bits is the first seven bytes of the keyed digest as a number. Entries ascend by
//! it. Within a list rights stand in the order in which they win.
//!
//! # Reading
//! Header, dictionary and index are held in memory (16 bytes for 128 entries); a look-up reads one
//! block from the file and checks its CRC. Before a device trusts a file it has all of it verified
//! once: [`reader::RegistryFile::verify`].
//!
//! # Why
//! *Gaps of one width for a block.* Digests are evenly spread, so a gap of a million entries has 34
//! to 37 bits. Rice codes would save one bit of 44 and cost a look-up twice as much.
//!
//! *Two entries with the same 56 bits are left out.* Among three million entries that happens once in
//! 15,000 files. Keeping one of them would give one person the rights of another.
//!
//! *No memory map.* It would need `unsafe`; reading a block that the system has in memory costs less
//! than a microsecond.

pub mod block;
pub mod delta;
pub mod header;
pub mod reader;
pub mod rights;
pub mod writer;

use engine::identifier::Digest;

/// Bytes at the end of a file that are not covered by the hash: the hash and the signature.
pub const SEAL_BYTES: usize = 32 + crate::signing::SIGNATURE_BYTES;

/// The SHA-256 of a file, all of it but its seal.
pub type Sha256 = [u8; 32];

/// The first 56 bits of a keyed digest.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ShortDigest(u64);

impl ShortDigest {
    /// Bits of it.
    pub const BITS: u32 = 56;

    /// The beginning of `digest`.
    #[inline]
    pub fn of(digest: &Digest) -> ShortDigest {
        ShortDigest(digest.spread() & (u64::MAX >> (u64::BITS - ShortDigest::BITS)))
    }

    /// It as a number.
    #[inline]
    pub fn number(self) -> u64 {
        self.0
    }

    /// The one with this number; none past 56 bits.
    pub fn from_number(number: u64) -> Option<ShortDigest> {
        (number >> ShortDigest::BITS == 0).then_some(ShortDigest(number))
    }
}

impl std::fmt::Debug for ShortDigest {
    /// Two bytes only: enough to tell two apart in a test, useless for anything else.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:04x}…", self.0 & 0xffff)
    }
}

/// One identifier of a card, and which list of the dictionary it has.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Entry {
    /// Of which identifier.
    pub digest: ShortDigest,
    /// The place of its rights in the dictionary.
    pub rights: u32,
}

/// Why a registry cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// It is not as it was written.
    #[error("the registry is damaged: {0}")]
    Damaged(&'static str),
    /// It is something else.
    #[error("not a holder registry")]
    Foreign,
    /// It has a format that this program does not know.
    #[error("format {0} of the registry is not known")]
    Format(u16),
    /// The system cannot read or write it.
    #[error("the registry cannot be read or written")]
    Io(#[from] std::io::Error),
    /// It is not signed by whom it should be.
    #[error("the registry is not to be trusted")]
    Signature(#[from] crate::signing::SignatureError),
    /// It holds more than the format can hold.
    #[error("the registry is too large")]
    TooLarge,
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod mutations;
