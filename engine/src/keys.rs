//! The secrets of a deployment that the engine needs.

use crate::directory::SecretDigest;
use crate::identifier::DigestKey;
use crate::ids::OrganizationId;

/// Made once at the first start; losing them makes every stored identifier unfindable.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Hashes identifiers.
    pub identifiers: DigestKey,
    /// Hashes client secrets.
    pub secrets: SecretKey,
}

/// The secret that client secrets are hashed with.
#[derive(Clone)]
pub struct SecretKey([u8; 32]);

impl SecretKey {
    /// A key from 32 random bytes.
    pub fn new(bytes: [u8; 32]) -> SecretKey {
        SecretKey(bytes)
    }

    /// The digest under which the secret of an organization is kept. Comparing two digests leaks
    /// nothing about the secret, so their comparison need not take constant time.
    pub fn digest(&self, organization: OrganizationId, secret: &str) -> SecretDigest {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&organization.0.to_le_bytes());
        hasher.update(secret.as_bytes());
        SecretDigest(*hasher.finalize().as_bytes())
    }
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("SecretKey(secret)")
    }
}
