//! Signatures of registries and tickets: Ed25519, with the signer's number beside each.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde_bytes::ByteArray;

use crate::link::message::Signer;

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// What is signed, so that a signature of one thing never fits another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// The SHA-256 of a delta.
    Delta,
    /// The SHA-256 of a registry.
    Registry,
    /// The fields of a ticket.
    Ticket,
}

impl Purpose {
    fn prefix(self) -> &'static [u8] {
        match self {
            Purpose::Delta => b"eligo holder registry delta 1\0",
            Purpose::Registry => b"eligo holder registry 1\0",
            Purpose::Ticket => b"eligo ticket 1\0",
        }
    }

    fn message(self, content: &[u8]) -> Vec<u8> {
        [self.prefix(), content].concat()
    }
}

/// The secret half of a signer.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    signer: Signer,
}

impl SigningKey {
    /// The key of 32 random bytes; none where the library refuses them.
    pub fn from_seed(seed: &[u8; 32]) -> Option<SigningKey> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        let key: [u8; 32] = pair.public_key().as_ref().try_into().ok()?;
        let signer = Signer { id: number_of(&key), key: ByteArray::new(key) };
        Some(SigningKey { pair, signer })
    }

    /// The public half. Its number is the beginning of the key's SHA-256.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// The signature of `content`; none where the library fails.
    pub fn sign(&self, purpose: Purpose, content: &[u8]) -> Option<[u8; SIGNATURE_BYTES]> {
        let signature = self.pair.try_sign(&purpose.message(content)).ok()?;
        signature.as_ref().try_into().ok()
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "SigningKey({}, secret)", self.signer.id)
    }
}

/// Whether `signature` is one by `id`, who must be among `signers`.
pub fn verify(
    signers: &[Signer],
    id: u32,
    (purpose, content): (Purpose, &[u8]),
    signature: &[u8],
) -> Result<(), SignatureError> {
    let signer = signers.iter().find(|signer| signer.id == id);
    let signer = signer.ok_or(SignatureError::Signer(id))?;
    let key = UnparsedPublicKey::new(&ED25519, signer.key.as_slice());
    let message = purpose.message(content);
    key.verify(&message, signature).map_err(|_| SignatureError::Mismatch)
}

/// Why a signature is not good.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SignatureError {
    /// It is not of this content or not by this signer.
    #[error("the signature does not match")]
    Mismatch,
    /// Nobody with this number is trusted.
    #[error("signer {0} is not known")]
    Signer(u32),
}

fn number_of(key: &[u8; 32]) -> u32 {
    let hash = digest(&SHA256, key);
    hash.as_ref().first_chunk().copied().map(u32::from_le_bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_of_one_content_purpose_and_signer() {
        let [ours, other] = [[1; 32], [2; 32]].map(|seed| SigningKey::from_seed(&seed).unwrap());
        let signature = ours.sign(Purpose::Ticket, b"abc").unwrap();
        let (signers, id) = ([ours.signer().clone()], ours.signer().id);
        let check = |id, purpose, content: &[u8], expected| {
            assert_eq!(verify(&signers, id, (purpose, content), &signature), expected);
        };
        check(id, Purpose::Ticket, b"abc", Ok(()));
        check(id, Purpose::Delta, b"abc", Err(SignatureError::Mismatch));
        check(id, Purpose::Ticket, b"abd", Err(SignatureError::Mismatch));
        let stranger = other.signer().id;
        check(stranger, Purpose::Ticket, b"abc", Err(SignatureError::Signer(stranger)));
    }
}
