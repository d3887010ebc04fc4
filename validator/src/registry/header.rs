//! What stands at the beginning of a registry.

use engine::calendar::{Day, Timestamp, UtcOffset};
use engine::ids::OrganizationId;

use crate::registry::RegistryError;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 64;
/// The format that this program writes and reads.
pub const FORMAT: u16 = 1;

const MAGIC: [u8; 8] = *b"eligoREG";

/// Whose registry this is, which one, and until when it counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// Whose.
    pub organization: OrganizationId,
    /// Which one.
    pub version: u64,
    /// When it was built, milliseconds since 1970-01-01T00:00:00Z.
    pub built_at_ms: i64,
    /// Until when it is valid, likewise.
    pub valid_until_ms: i64,
    /// The clock on the organization's wall, which tells what "today" is.
    pub utc_offset: UtcOffset,
    /// Who signed it.
    pub signer: u32,
    /// How many entries there are.
    pub count: u64,
    /// How many lists the dictionary has.
    pub lists: u32,
    /// Bytes of the dictionary.
    pub dictionary_bytes: u32,
}

impl Header {
    /// When it was built.
    pub fn built_at(&self) -> Timestamp {
        Timestamp(self.built_at_ms.saturating_mul(1_000))
    }

    /// Until when it is valid.
    pub fn valid_until(&self) -> Timestamp {
        Timestamp(self.valid_until_ms.saturating_mul(1_000))
    }

    /// The local date at `now`.
    pub fn day(&self, now: Timestamp) -> Day {
        now.local_day(self.utc_offset)
    }

    /// The bytes.
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut places = bytes.iter_mut();
        let mut put = |field: &[u8]| {
            field.iter().zip(&mut places).for_each(|(byte, place)| *place = *byte);
        };
        put(&MAGIC);
        put(&FORMAT.to_le_bytes());
        put(&[0; 2]);
        put(&self.organization.0.to_le_bytes());
        put(&self.version.to_le_bytes());
        put(&self.built_at_ms.to_le_bytes());
        put(&self.valid_until_ms.to_le_bytes());
        put(&self.utc_offset.0.to_le_bytes());
        put(&self.signer.to_le_bytes());
        put(&self.count.to_le_bytes());
        put(&self.lists.to_le_bytes());
        put(&self.dictionary_bytes.to_le_bytes());
        bytes
    }

    /// The header at the beginning of `bytes`.
    pub fn read(bytes: &[u8]) -> Result<Header, RegistryError> {
        let mut fields = Fields { rest: bytes };
        if fields.take::<8>()? != MAGIC {
            return Err(RegistryError::Foreign);
        }
        let format = u16::from_le_bytes(fields.take()?);
        if format != FORMAT {
            return Err(RegistryError::Format(format));
        }
        if fields.take::<2>()? != [0; 2] {
            return Err(RegistryError::Damaged("its header"));
        }
        Ok(Header {
            organization: OrganizationId(u32::from_le_bytes(fields.take()?)),
            version: u64::from_le_bytes(fields.take()?),
            built_at_ms: i64::from_le_bytes(fields.take()?),
            valid_until_ms: i64::from_le_bytes(fields.take()?),
            utc_offset: UtcOffset(i32::from_le_bytes(fields.take()?)),
            signer: u32::from_le_bytes(fields.take()?),
            count: u64::from_le_bytes(fields.take()?),
            lists: u32::from_le_bytes(fields.take()?),
            dictionary_bytes: u32::from_le_bytes(fields.take()?),
        })
    }
}

/// Takes fields of fixed length from the beginning of bytes.
pub struct Fields<'a> {
    /// What was not taken yet.
    pub rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The next `N` bytes.
    pub fn take<const N: usize>(&mut self) -> Result<[u8; N], RegistryError> {
        let (field, rest) = self.rest.split_first_chunk().ok_or(RegistryError::Damaged(SHORT))?;
        self.rest = rest;
        Ok(*field)
    }

    /// The next `count` bytes.
    pub fn take_slice(&mut self, count: usize) -> Result<&'a [u8], RegistryError> {
        let field = self.rest.split_at_checked(count);
        let (field, rest) = field.ok_or(RegistryError::Damaged(SHORT))?;
        self.rest = rest;
        Ok(field)
    }
}

const SHORT: &str = "its end is missing";
