//! The secrets of a deployment: one file in the data directory, made at the first start.
//!
//! It is created with mode 0600 and never overwritten; a file that others may read is refused.
//! Without it no stored identifier can be found again, so it belongs into the backup, apart from
//! the data.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use engine::identifier::{CardKey, DigestKey};
use engine::keys::{Keys, SecretKey};
use serde::{Deserialize, Serialize};

/// The name of the file.
const FILE_NAME: &str = "keys.toml";
/// Bytes of a file that can be one of ours.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// The secrets of a deployment.
pub struct KeyRing {
    /// What the engine hashes with.
    pub engine: Keys,
    /// Keys the cache of verified tokens and the generation of credentials.
    pub tokens: [u8; 16],
    /// Makes the key that signs holder registries and tickets.
    pub kit_seed: [u8; 32],
    /// Signs tokens: RSA-2048, PKCS #8 in PEM.
    pub signing_pem: String,
}

impl KeyRing {
    /// Reads the key file of `data_dir`, after making directory and file where they are missing.
    pub fn open(data_dir: &Path) -> Result<KeyRing, KeysError> {
        make_directory(data_dir)?;
        let path = data_dir.join(FILE_NAME);
        match OpenOptions::new().read(true).open(&path) {
            Ok(file) => read(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create(data_dir, &path)?;
                read(File::open(&path)?)
            }
            Err(error) => Err(KeysError::Io(error)),
        }
    }
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("KeyRing(secret)")
    }
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file is there, but not as it was written.
    #[error("the key file `keys.toml` is damaged")]
    Damaged,
    /// The operating system made no keys.
    #[error("keys cannot be generated")]
    Generate,
    /// The file cannot be read or written.
    #[error("the key file `keys.toml` cannot be used: {0}")]
    Io(#[from] io::Error),
    /// Others than the owner may use the file.
    #[error("the key file `keys.toml` has mode {0:o}, expected 600")]
    Permissions(u32),
}

/// The stored form of the keys.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct StoredKeys {
    version: u32,
    identifier_key: String,
    /// Absent in files from before validators: cards have the key of the persons then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    card_key: Option<String>,
    secret_key: String,
    /// Absent in files from before validators: derived from the secret key then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kit_key: Option<String>,
    token_key: String,
    signing_key: String,
}

fn read(file: File) -> Result<KeyRing, KeysError> {
    let mode = file.metadata()?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeysError::Permissions(mode));
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    let stored: StoredKeys = toml::from_str(&text).map_err(|_| KeysError::Damaged)?;
    if stored.version != 1 {
        return Err(KeysError::Damaged);
    }
    let mut identifiers = DigestKey::new(bytes(&stored.identifier_key)?);
    if let Some(card_key) = &stored.card_key {
        identifiers = identifiers.with_cards(CardKey::new(bytes(card_key)?));
    }
    let secret = bytes(&stored.secret_key)?;
    let kit = match &stored.kit_key {
        Some(seed) => bytes(seed)?,
        None => blake3::derive_key("eligo 2025 signer of holder registries and tickets", &secret),
    };
    Ok(KeyRing {
        engine: Keys { identifiers, secrets: SecretKey::new(secret) },
        tokens: bytes(&stored.token_key)?,
        kit_seed: kit,
        signing_pem: stored.signing_key,
    })
}

/// Makes a directory that a power cut does not take away.
fn make_directory(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    for parent in missing.into_iter().filter_map(Path::parent) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

fn create(data_dir: &Path, path: &Path) -> Result<(), KeysError> {
    let signing_key = KeyPair::generate(KeySize::Rsa2048).map_err(|_| KeysError::Generate)?;
    let signing_key: Pkcs8V1Der<'_> = signing_key.as_der().map_err(|_| KeysError::Generate)?;
    let stored = StoredKeys {
        version: 1,
        identifier_key: BASE64.encode(random::<16>()?),
        card_key: Some(BASE64.encode(random::<16>()?)),
        secret_key: BASE64.encode(random::<32>()?),
        kit_key: Some(BASE64.encode(random::<32>()?)),
        token_key: BASE64.encode(random::<16>()?),
        signing_key: pem(signing_key.as_ref()),
    };
    let text = toml::to_string(&stored).map_err(|_| KeysError::Generate)?;
    let owner_only = fs::Permissions::from_mode(0o600);
    let mut file =
        tempfile::Builder::new().permissions(owner_only).prefix(".keys").tempfile_in(data_dir)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    // Two starts at once: the first file stays, whoever comes second reads it.
    match file.persist_noclobber(path) {
        Ok(_) => {}
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(KeysError::Io(error.error)),
    }
    File::open(data_dir)?.sync_all()?;
    Ok(())
}

fn bytes<const LENGTH: usize>(text: &str) -> Result<[u8; LENGTH], KeysError> {
    let decoded = BASE64.decode(text).map_err(|_| KeysError::Damaged)?;
    decoded.try_into().map_err(|_| KeysError::Damaged)
}

fn random<const LENGTH: usize>() -> Result<[u8; LENGTH], KeysError> {
    let mut bytes = [0; LENGTH];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| KeysError::Generate)?;
    Ok(bytes)
}

fn pem(der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
    let mut rest = text.as_str();
    while let Some((line, after)) = rest.split_at_checked(64) {
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str(rest);
    pem.push_str("\n-----END PRIVATE KEY-----\n");
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_once_and_stay() {
        let parent = tempfile::tempdir().unwrap();
        let data_dir = parent.path().join("new");
        let first = KeyRing::open(&data_dir).unwrap();
        let second = KeyRing::open(&data_dir).unwrap();
        assert_eq!(first.tokens, second.tokens);
        assert_eq!(first.signing_pem, second.signing_pem);
        let digest = |keys: &KeyRing| keys.engine.identifiers.client_code("AAABBBCCC");
        assert_eq!(digest(&first), digest(&second));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&data_dir.join(FILE_NAME)), 0o600);
        assert_eq!(mode(&data_dir), 0o700);
        assert_eq!(fs::read_dir(&data_dir).unwrap().count(), 1);
    }

    #[test]
    fn a_file_from_before_validators_finds_cards_and_signs() {
        let data_dir = tempfile::tempdir().unwrap();
        let split = KeyRing::open(data_dir.path()).unwrap().engine.identifiers;
        let path = data_dir.path().join(FILE_NAME);
        let text = fs::read_to_string(&path).unwrap();
        let old: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with("card_key") && !line.starts_with("kit_key"))
            .collect();
        fs::write(&path, old.join("\n")).unwrap();
        let [ring, again] = [(); 2].map(|()| KeyRing::open(data_dir.path()).unwrap());
        assert_eq!(ring.kit_seed, again.kit_seed);
        let one = ring.engine.identifiers;
        assert_eq!(one.snils("11223344595"), split.snils("11223344595"));
        assert_ne!(one.client_code("AAABBBCCC"), split.client_code("AAABBBCCC"));
        let stored: StoredKeys = toml::from_str(&text).unwrap();
        let persons = bytes(&stored.identifier_key).unwrap();
        assert_eq!(one.client_code("A1"), CardKey::new(persons).client_code("A1"));
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let data_dir = tempfile::tempdir().unwrap();
        KeyRing::open(data_dir.path()).unwrap();
        let path = data_dir.path().join(FILE_NAME);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(KeyRing::open(data_dir.path()), Err(KeysError::Permissions(0o640))));
    }

    #[test]
    fn a_damaged_file_is_not_replaced() {
        let data_dir = tempfile::tempdir().unwrap();
        KeyRing::open(data_dir.path()).unwrap();
        let path = data_dir.path().join(FILE_NAME);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("identifier_key", "identifier_kex")).unwrap();
        assert!(matches!(KeyRing::open(data_dir.path()), Err(KeysError::Damaged)));
    }
}
