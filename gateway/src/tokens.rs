//! Access tokens: RS256 JSON web tokens that die with the credential they were given for.
//!
//! Every token carries the generation of the client's credential, a keyed digest of client id and
//! stored secret. Each request compares it with the directory of that moment, so a rotated secret,
//! an exclusion or a deletion ends all tokens of the client at the next request.
//!
//! # Why
//! An RSA verification costs tens of microseconds, more than everything else that a check does. A
//! token that was verified once is therefore remembered under a keyed 128-bit digest of its whole
//! text: whoever does not know the key cannot find another text with the same digest, so the digest
//! stands for the signature. The digest of a whole token still costs as much as the decision of a
//! check, so the tokens in use now are also remembered by their text and compared with it. What can
//! change afterwards (expiry, state of the organization, its credential) is not remembered but
//! compared each time. The issuer claim is not compared: the key belongs to this deployment alone,
//! and its address may change.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use dashmap::DashMap;
use engine::calendar::Timestamp;
use engine::directory::{Directory, Organization, OrganizationState, SecretDigest};
use engine::ids::OrganizationId;
use jsonwebtoken::jwk::{Jwk, JwkSet, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128, SipHasher24};

use crate::keys::KeyRing;

/// The longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 4_096;
/// Tokens that are remembered by their text, about a kilobyte each.
const RECENT_MAX: usize = 1_024;

/// What a token allows.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Scopes(u8);

impl Scopes {
    /// Every call needs it.
    pub const ECS_WEB_API: Scopes = Scopes(1);
    /// The calls of acceptors need it too.
    pub const ORGANIZATION_API: Scopes = Scopes(2);
    /// Both.
    pub const ACCEPTOR: Scopes = Scopes(3);

    /// One scope by its name on the wire.
    pub fn named(name: &str) -> Option<Scopes> {
        match name {
            "ECS.WebAPI" => Some(Scopes::ECS_WEB_API),
            "OrganizationAPI" => Some(Scopes::ORGANIZATION_API),
            _ => None,
        }
    }

    /// These and `other`.
    pub fn with(self, other: Scopes) -> Scopes {
        Scopes(self.0 | other.0)
    }

    /// Whether all of `needed` are among these.
    pub fn include(self, needed: Scopes) -> bool {
        self.0 & needed.0 == needed.0
    }
}

/// Gives out tokens and recognises them.
pub struct Tokens {
    signing_key: EncodingKey,
    verifying_key: DecodingKey,
    header: Header,
    public_keys: JwkSet,
    validation: Validation,
    issuer: String,
    lifetime_seconds: i64,
    digest_key: [u8; 16],
    verified: DashMap<[u8; 16], Verified, foldhash::fast::FixedState>,
    verified_max: usize,
    recent: Box<[ArcSwapOption<Recent>]>,
}

/// How tokens are given out.
pub struct TokenSettings {
    /// Who says so: the public address of the server.
    pub issuer: String,
    /// How long a token lives.
    pub lifetime_seconds: i64,
    /// How many verified tokens are remembered.
    pub verified_max: usize,
}

/// A token for a client whose secret was right.
pub struct IssuedToken {
    /// Its text.
    pub text: String,
    /// How long it lives.
    pub expires_in_seconds: i64,
}

/// A token that is good at this moment.
pub struct Access<'a> {
    /// Whose it is.
    pub id: OrganizationId,
    /// The same, as the directory has it now.
    pub organization: &'a Organization,
    /// What it allows.
    pub scopes: Scopes,
}

/// What is remembered of a verified token.
#[derive(Clone, Copy)]
struct Verified {
    organization: OrganizationId,
    scopes: Scopes,
    expires_at: i64,
    generation: Generation,
}

/// A token that was good a moment ago, and for which credential.
struct Recent {
    token: Box<[u8]>,
    client_id: String,
    secret: SecretDigest,
    verified: Verified,
}

/// Changes whenever client id or secret do.
#[derive(Clone, Copy, Eq, PartialEq)]
struct Generation([u8; 16]);

#[derive(Deserialize, Serialize)]
struct Claims {
    iss: String,
    sub: String,
    client_id: String,
    scope: String,
    iat: i64,
    exp: i64,
    jti: String,
    credential: String,
}

impl Tokens {
    /// Tokens signed with the key of `keys`.
    pub fn new(keys: &KeyRing, settings: TokenSettings) -> Result<Tokens, TokenError> {
        let signing_key = EncodingKey::from_rsa_pem(keys.signing_pem.as_bytes())?;
        let mut public_key = Jwk::from_encoding_key(&signing_key, Algorithm::RS256)?;
        let verifying_key = DecodingKey::from_jwk(&public_key)?;
        let name = blake3::hash(serde_json::to_string(&public_key.algorithm)?.as_bytes());
        let key_id: String = name.to_hex().chars().take(16).collect();
        public_key.common.key_id = Some(key_id.clone());
        public_key.common.public_key_use = Some(PublicKeyUse::Signature);
        public_key.common.key_operations = Some(vec![KeyOperations::Verify]);
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some(key_id);
        let mut validation = Validation::new(Algorithm::RS256);
        // Expiry is compared with the engine's clock, not with the machine's.
        validation.validate_exp = false;
        validation.validate_aud = false;
        Ok(Tokens {
            signing_key,
            verifying_key,
            header,
            public_keys: JwkSet { keys: vec![public_key] },
            validation,
            issuer: settings.issuer,
            lifetime_seconds: settings.lifetime_seconds,
            digest_key: keys.tokens,
            verified: DashMap::with_hasher(foldhash::fast::FixedState::default()),
            verified_max: settings.verified_max,
            recent: (0..RECENT_MAX).map(|_| ArcSwapOption::empty()).collect(),
        })
    }

    /// A token for `organization`, good from `now`, with `scope` as it was asked for.
    pub fn issue(
        &self,
        organization: &Organization,
        scope: &str,
        now: Timestamp,
    ) -> Result<IssuedToken, TokenError> {
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| TokenError::Random)?;
        let claims = Claims {
            iss: self.issuer.clone(),
            sub: organization.client_id.clone(),
            client_id: organization.client_id.clone(),
            scope: scope.to_string(),
            iat: now.unix_seconds(),
            exp: now.unix_seconds().saturating_add(self.lifetime_seconds),
            jti: hex(&id),
            credential: hex(&self.generation(organization).0),
        };
        let text = jsonwebtoken::encode(&self.header, &claims, &self.signing_key)?;
        Ok(IssuedToken { text, expires_in_seconds: self.lifetime_seconds })
    }

    /// Whose token this is, if it is good at `now` for an organization of `directory`.
    pub fn access<'a>(
        &self,
        directory: &'a Directory,
        token: &[u8],
        now: Timestamp,
    ) -> Option<Access<'a>> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let slot = self.slot(token)?;
        let recent = slot.load();
        if let Some(recent) = recent.as_ref().filter(|recent| recent.is(token)) {
            let organization = directory.organization(recent.verified.organization)?;
            if recent.has_credential_of(organization) {
                return recent.verified.access(organization, now);
            }
        }
        let digest = self.digest(&[token]);
        let remembered = self.verified.get(&digest).map(|verified| *verified);
        let verified = match remembered {
            Some(verified) => verified,
            None => self.verify(directory, token)?,
        };
        let organization = directory.organization(verified.organization)?;
        if self.generation(organization) != verified.generation {
            return None;
        }
        let access = verified.access(organization, now)?;
        if remembered.is_none() {
            self.remember(digest, verified, now);
        }
        slot.store(Some(Arc::new(Recent::new(token, organization, verified))));
        Some(access)
    }

    /// The public key set of RFC 7517, as text.
    pub fn public_keys(&self) -> Result<String, TokenError> {
        Ok(serde_json::to_string(&self.public_keys)?)
    }

    /// Who gives out the tokens.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Where a token is remembered by its text. The end of its signature tells tokens apart.
    fn slot(&self, token: &[u8]) -> Option<&ArcSwapOption<Recent>> {
        let mut hasher = foldhash::fast::FixedState::default().build_hasher();
        hasher.write(token.last_chunk::<16>()?);
        self.recent.get(usize::try_from(hasher.finish()).ok()? % RECENT_MAX)
    }

    fn verify(&self, directory: &Directory, token: &[u8]) -> Option<Verified> {
        let decoded =
            jsonwebtoken::decode::<Claims>(token, &self.verifying_key, &self.validation).ok()?;
        let claims = decoded.claims;
        let (organization, _) = directory.client(&claims.client_id)?;
        let scopes = claims.scope.split(' ').try_fold(Scopes::default(), |scopes, name| {
            Scopes::named(name).map(|scope| scopes.with(scope))
        })?;
        let generation = Generation(unhex(&claims.credential)?);
        Some(Verified { organization, scopes, expires_at: claims.exp, generation })
    }

    fn remember(&self, digest: [u8; 16], verified: Verified, now: Timestamp) {
        if self.verified.len() >= self.verified_max {
            self.verified.retain(|_, verified| now.unix_seconds() < verified.expires_at);
        }
        // Still full: all start anew, which costs each one verification.
        if self.verified.len() >= self.verified_max {
            self.verified.clear();
        }
        self.verified.insert(digest, verified);
    }

    fn generation(&self, organization: &Organization) -> Generation {
        Generation(self.digest(&[&organization.secret.0, organization.client_id.as_bytes()]))
    }

    fn digest(&self, parts: &[&[u8]]) -> [u8; 16] {
        let mut hasher = SipHasher24::new_with_key(&self.digest_key);
        for part in parts {
            hasher.write(part);
        }
        hasher.finish128().as_bytes()
    }
}

impl Verified {
    /// What the token allows at `now`, if it still does.
    fn access(self, organization: &Organization, now: Timestamp) -> Option<Access<'_>> {
        let expired = now.unix_seconds() >= self.expires_at;
        if expired || organization.state == OrganizationState::Excluded {
            return None;
        }
        Some(Access { id: self.organization, organization, scopes: self.scopes })
    }
}

impl Recent {
    fn new(token: &[u8], organization: &Organization, verified: Verified) -> Recent {
        Recent {
            token: token.into(),
            client_id: organization.client_id.clone(),
            secret: organization.secret,
            verified,
        }
    }

    /// Compares in a time that tells nothing of where texts differ.
    fn is(&self, token: &[u8]) -> bool {
        verify_slices_are_equal(&self.token, token).is_ok()
    }

    fn has_credential_of(&self, organization: &Organization) -> bool {
        self.secret == organization.secret && self.client_id == organization.client_id
    }
}

/// Why tokens cannot be given out.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The signing key cannot be used.
    #[error("the signing key cannot be used: {0}")]
    Key(#[from] jsonwebtoken::errors::Error),
    /// The public key cannot be written.
    #[error("the public key cannot be written")]
    Print(#[from] serde_json::Error),
    /// The operating system gives no random bytes.
    #[error("no random bytes")]
    Random,
}

fn hex(bytes: &[u8; 16]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 16]> {
    let value = u128::from_str_radix(text, 16).ok()?;
    (text.len() == 32).then(|| value.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use engine::directory::{Connection, SecretDigest};

    use super::*;
    use crate::fixture;

    fn tokens() -> Tokens {
        let settings = TokenSettings {
            issuer: "http://localhost".to_string(),
            lifetime_seconds: 3_600,
            verified_max: 4,
        };
        Tokens::new(fixture::keys(), settings).unwrap()
    }

    fn text(tokens: &Tokens, directory: &Directory, at: i64) -> String {
        let organization = directory.organization(OrganizationId(1)).unwrap();
        let scope = "ECS.WebAPI OrganizationAPI";
        tokens.issue(organization, scope, Timestamp(at * 1_000_000)).unwrap().text
    }

    fn good(tokens: &Tokens, directory: &Directory, text: &str, at: i64) -> bool {
        tokens.access(directory, text.as_bytes(), Timestamp(at * 1_000_000)).is_some()
    }

    #[test]
    fn a_token_lives_until_it_expires() {
        let (tokens, directory) = (tokens(), fixture::directory(|_| ()));
        let text = text(&tokens, &directory, 1_000);
        assert_eq!(text.split('.').count(), 3);
        let access = tokens.access(&directory, text.as_bytes(), Timestamp(1_000_000_000)).unwrap();
        assert_eq!(access.id, OrganizationId(1));
        assert!(access.scopes.include(Scopes::ACCEPTOR));
        assert!(good(&tokens, &directory, &text, 4_599));
        assert!(!good(&tokens, &directory, &text, 4_600));
    }

    #[test]
    fn a_token_dies_with_its_credential() {
        let tokens = tokens();
        let before = fixture::directory(|_| ());
        let text = text(&tokens, &before, 0);
        let check = |change: fn(&mut Organization), expected: bool| {
            let after = fixture::directory(|items| {
                let item = items.organizations.get_mut(&OrganizationId(1)).unwrap();
                change(&mut item.value);
            });
            tokens.verified.clear();
            assert_eq!(good(&tokens, &after, &text, 1), expected);
            assert!(good(&tokens, &before, &text, 1));
            assert_eq!(good(&tokens, &after, &text, 1), expected, "remembered");
        };
        check(|_| (), true);
        check(|organization| organization.secret = SecretDigest([9; 32]), false);
        check(|organization| organization.client_id = "112".to_string(), false);
        check(|organization| organization.state = OrganizationState::Excluded, false);
        check(|organization| organization.state = OrganizationState::Suspending, true);
        check(|organization| organization.connection = Connection::T3, true);
        let gone = fixture::directory(|items| {
            items.organizations.get_mut(&OrganizationId(1)).unwrap().deleted = true;
        });
        assert!(!good(&tokens, &gone, &text, 1));
    }

    #[test]
    fn no_changed_token_is_good() {
        let (tokens, directory) = (tokens(), fixture::directory(|_| ()));
        let text = text(&tokens, &directory, 0);
        assert!(good(&tokens, &directory, &text, 1));
        for at in (0..text.len()).step_by(7) {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(!good(&tokens, &directory, &changed, 1), "byte {at}");
        }
        for bad in ["", ".", "..", "a.b.c", "eyJhbGciOiJub25lIn0.e30."] {
            assert!(!good(&tokens, &directory, bad, 1), "{bad}");
        }
    }

    #[test]
    fn tokens_that_share_a_slot_do_not_share_access() {
        let (tokens, directory) = (tokens(), fixture::directory(|_| ()));
        let text = text(&tokens, &directory, 0);
        assert!(good(&tokens, &directory, &text, 1));
        let tail = &text[text.len() - 16..];
        for changed in [tail.to_string(), format!("x{text}"), text.replacen('.', "..", 1)] {
            assert!(!good(&tokens, &directory, &changed, 1));
        }
        assert!(good(&tokens, &directory, &text, 1));
    }

    #[test]
    fn the_memory_of_tokens_is_bounded() {
        let (tokens, directory) = (tokens(), fixture::directory(|_| ()));
        for at in 0..20 {
            let text = text(&tokens, &directory, at);
            assert!(good(&tokens, &directory, &text, at));
            assert!(tokens.verified.len() <= 4);
        }
    }
}
