//! Whom the server trusts: device certificates of its authority that nobody has revoked.
//!
//! The same judgement is passed at the handshake, behind it (a resumed session brings its
//! certificate along and is not verified by TLS again), and from time to time while a connection is
//! open.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use engine::ids::TerminalId;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use webpki::EndEntityCert;

use crate::pki::files::{Pair, PkiDirectory, RevokedList};
use crate::pki::{Serial, terminal_of_uri};
use crate::settings::SettingsError;

/// Sessions that are remembered, each for one resumption.
const SESSIONS_MAX: usize = 65_536;

/// Who a connection speaks as.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Device {
    /// The terminal.
    pub terminal: TerminalId,
    /// The number of the certificate.
    pub serial: Serial,
}

/// Why a certificate gives no device.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Distrust {
    /// It is over, or not begun.
    Expired,
    /// It was revoked.
    Revoked,
    /// It is no device certificate of the authority.
    Unknown,
}

/// What certificates are judged by.
#[derive(Debug)]
pub struct Trust {
    directory: PkiDirectory,
    chains: Arc<dyn ClientCertVerifier>,
    revoked: ArcSwap<HashSet<Serial>>,
    /// A std lock: held for the length of a reading by the thread that watches.
    seen: Mutex<Option<Stamp>>,
}

/// What tells one state of a file from the next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Trust {
    /// Reads the authority and the revoked numbers of a directory.
    pub fn open(directory: PkiDirectory) -> Result<Arc<Trust>, SettingsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(directory.authority().certificate)? {
            roots.add(certificate).map_err(|error| unusable("authority.pem", &error))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chains = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| unusable("authority.pem", &error))?;
        let trust = Trust {
            directory,
            chains,
            revoked: ArcSwap::from_pointee(HashSet::new()),
            seen: Mutex::new(None),
        };
        // From the beginning a list that cannot be read is no list.
        trust.reread().map_err(|error| unusable("revoked", &error))?;
        Ok(Arc::new(trust))
    }

    /// The device of a certificate, if it is trusted now.
    pub fn device(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<Device, Distrust> {
        let Some((own, others)) = chain.split_first() else { return Err(Distrust::Unknown) };
        self.chains.verify_client_cert(own, others, now).map_err(|error| match error {
            Error::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            ) => Distrust::Expired,
            _ => Distrust::Unknown,
        })?;
        let certificate = EndEntityCert::try_from(own).map_err(|_| Distrust::Unknown)?;
        let mut names = certificate.valid_uri_names();
        let (Some(name), None) = (names.next(), names.next()) else {
            return Err(Distrust::Unknown);
        };
        let serial = Serial::from_der(certificate.serial()).ok_or(Distrust::Unknown)?;
        let terminal = terminal_of_uri(name).ok_or(Distrust::Unknown)?;
        if self.is_revoked(serial) {
            return Err(Distrust::Revoked);
        }
        Ok(Device { terminal, serial })
    }

    /// Whether a certificate was revoked.
    pub fn is_revoked(&self, serial: Serial) -> bool {
        self.revoked.load().contains(&serial)
    }

    /// Reads the list again if it has changed; tells whether there is anything new. After an error
    /// the list before stays in force.
    pub fn reread(&self) -> io::Result<bool> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = match fs::metadata(self.directory.revoked_path()) {
            Ok(metadata) => Stamp { bytes: metadata.len(), modified: metadata.modified().ok() },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Stamp { bytes: 0, modified: None }
            }
            Err(error) => return Err(error),
        };
        if *seen == Some(stamp) {
            return Ok(false);
        }
        let RevokedList { serials: listed, damaged_lines } = self.directory.revoked()?;
        if damaged_lines > 0 {
            tracing::error!(damaged_lines, "the list of revoked certificates is damaged");
        }
        let before = self.revoked.load();
        let is_new = !listed.is_subset(&before);
        // A number that was once revoked stays so, whatever becomes of the file.
        self.revoked.store(Arc::new(before.union(&listed).copied().collect()));
        *seen = Some(stamp);
        Ok(is_new)
    }

    /// Revokes all certificates of a terminal that are known here, or one by its number; tells how
    /// many. `connected` is the one that the terminal shows now: it is revoked whatever becomes of
    /// the rest.
    pub fn revoke(&self, whom: Revoked, connected: Option<Serial>) -> io::Result<usize> {
        let issued = whom.serials(&self.directory);
        let listed = issued.as_deref().unwrap_or_default().iter().copied();
        let serials: BTreeSet<Serial> = listed.chain(connected).collect();
        if !serials.is_empty() {
            self.directory.revoke(&Vec::from_iter(serials.iter().copied()))?;
            self.reread()?;
        }
        issued.map(|_| serials.len())
    }

    /// The server's side of TLS.
    pub fn server_config(self: &Arc<Self>) -> Result<ServerConfig, SettingsError> {
        let Pair { certificate, key } = self.directory.server();
        let chain = certificates(certificate)?;
        let key =
            PrivateKeyDer::from_pem_file(key).map_err(|error| unusable("server.key", &error))?;
        let verifier: Arc<dyn ClientCertVerifier> = Arc::<Trust>::clone(self);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| unusable("server.pem", &error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| unusable("server.pem", &error))?;
        config.alpn_protocols = vec![validator::link::transport::ALPN.to_vec()];
        // Remembered here and good for one resumption, so that early data cannot be replayed.
        config.session_storage = rustls::server::ServerSessionMemoryCache::new(SESSIONS_MAX);
        config.send_tls13_tickets = 1;
        config.max_early_data_size = u32::MAX;
        Ok(config)
    }
}

/// Whose certificates to revoke.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Revoked {
    /// The one with this number.
    Serial(Serial),
    /// All that were made for this terminal and noted in the file `issued`.
    Terminal(TerminalId),
}

impl Revoked {
    /// The numbers.
    pub fn serials(self, directory: &PkiDirectory) -> io::Result<Vec<Serial>> {
        match self {
            Revoked::Serial(serial) => Ok(vec![serial]),
            Revoked::Terminal(terminal) => {
                let issued = directory.issued()?.into_iter();
                let of_terminal = issued.filter(|issued| issued.terminal == terminal);
                Ok(of_terminal.map(|issued| issued.serial).collect())
            }
        }
    }
}

impl ClientCertVerifier for Trust {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let mut chain = vec![own.clone()];
        chain.extend_from_slice(others);
        match self.device(&chain, now) {
            Ok(_device) => Ok(ClientCertVerified::assertion()),
            Err(distrust) => Err(Error::InvalidCertificate(match distrust {
                Distrust::Expired => CertificateError::Expired,
                Distrust::Revoked => CertificateError::Revoked,
                Distrust::Unknown => CertificateError::UnknownIssuer,
            })),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

fn certificates(path: PathBuf) -> Result<Vec<CertificateDer<'static>>, SettingsError> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    CertificateDer::pem_file_iter(path)
        .and_then(|found| found.collect::<Result<Vec<_>, _>>())
        .map_err(|error| unusable(&name, &error))
}

fn unusable(file: &str, error: &dyn std::fmt::Display) -> SettingsError {
    SettingsError::new("quic_pki_dir", format!("`{file}` cannot be used: {error}"))
}
