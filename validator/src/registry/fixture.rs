//! What tests make registries of.

use engine::calendar::{Day, UtcOffset};
use engine::ids::{CategoryId, OrganizationId, ServiceId};

use crate::link::message::Signer;
use crate::registry::header::Header;
use crate::registry::rights::Right;
use crate::signing::SigningKey;

/// Whose registries they are.
pub const ORGANIZATION: OrganizationId = OrganizationId(3);

/// Signs everything.
pub fn key() -> SigningKey {
    SigningKey::from_seed(&[5; 32]).unwrap()
}

/// Those who trust it.
pub fn signers() -> Vec<Signer> {
    vec![key().signer().clone()]
}

/// Everything free, for ever.
pub fn right(service: u32, category: u32) -> Right {
    Right {
        service: ServiceId(service),
        category: CategoryId(category),
        valid_from: Day::BEGINNING,
        valid_to: Day::FOREVER,
        discount_percent: 100,
        companion: false,
        limited: false,
        offline: true,
    }
}

/// Of two days.
pub fn header(version: u64, count: usize) -> Header {
    Header {
        organization: ORGANIZATION,
        version,
        built_at_ms: 1_748_822_400_000,
        valid_until_ms: 1_748_995_200_000,
        utc_offset: UtcOffset(18_000),
        signer: key().signer().id,
        count: u64::try_from(count).unwrap(),
        lists: 0,
        dictionary_bytes: 0,
    }
}
