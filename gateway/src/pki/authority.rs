//! The authority: makes certificates.

use std::fs;
use std::io;

use engine::ids::TerminalId;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use time::OffsetDateTime;

use crate::pki::files::{Issued, PkiDirectory, write_pair};
use crate::pki::{Serial, terminal_uri};

/// The name of every authority; which one it is tell its keys.
const AUTHORITY_NAME: &str = "eligo authority";
/// Device certificates that are noted together.
const NOTED_TOGETHER: usize = 256;

/// From when and until when a certificate is valid.
#[derive(Clone, Copy, Debug)]
pub struct Term {
    /// The first moment.
    pub from: OffsetDateTime,
    /// The last one.
    pub until: OffsetDateTime,
}

/// An authority with its key.
pub struct Authority {
    directory: PkiDirectory,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new one; there must be none yet.
    pub fn create(directory: &PkiDirectory, term: Term) -> Result<(), PkiError> {
        directory.create()?;
        let files = directory.authority();
        if files.certificate.exists() || files.key.exists() {
            return Err(PkiError::AuthorityExists);
        }
        let key = KeyPair::generate()?;
        let mut params = authority_params();
        limit(&mut params, term);
        params.serial_number = Some(serial_number(Serial::random()?));
        let certificate = params.self_signed(&key)?;
        Ok(write_pair(&files, &certificate.pem(), &key.serialize_pem())?)
    }

    /// The one of `directory`.
    pub fn open(directory: &PkiDirectory) -> Result<Authority, PkiError> {
        let key = fs::read_to_string(directory.authority().key).map_err(PkiError::NoAuthority)?;
        let issuer = Issuer::new(authority_params(), KeyPair::from_pem(&key)?);
        Ok(Authority { directory: directory.clone(), issuer })
    }

    /// Makes the server's certificate for names and addresses under which devices know it.
    pub fn issue_server(&self, names: &[String], term: Term) -> Result<(), PkiError> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "eligo server");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        limit(&mut params, term);
        params.serial_number = Some(serial_number(Serial::random()?));
        let (certificate, key) = self.sign(&params)?;
        Ok(write_pair(&self.directory.server(), &certificate, &key)?)
    }

    /// Makes a certificate for each terminal.
    pub fn issue_devices(&self, terminals: &[TerminalId], term: Term) -> Result<(), PkiError> {
        for some in terminals.chunks(NOTED_TOGETHER) {
            let until_unix_seconds = term.until.unix_timestamp();
            let issued = |terminal: &TerminalId| {
                let serial = Serial::random()?;
                Ok(Issued { serial, terminal: *terminal, until_unix_seconds })
            };
            let issued = some.iter().map(issued).collect::<io::Result<Vec<Issued>>>()?;
            // Noted first: what is not noted could not be revoked by its terminal.
            self.directory.note_issued(&issued)?;
            issued.iter().try_for_each(|issued| self.issue_device(issued, term))?;
        }
        Ok(())
    }

    fn issue_device(&self, issued: &Issued, term: Term) -> Result<(), PkiError> {
        let Issued { serial, terminal, .. } = *issued;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("terminal {terminal}"));
        params.subject_alt_names = vec![SanType::URI(terminal_uri(terminal).try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        limit(&mut params, term);
        params.serial_number = Some(serial_number(serial));
        let (certificate, key) = self.sign(&params)?;
        Ok(write_pair(&self.directory.device(terminal), &certificate, &key)?)
    }

    fn sign(&self, params: &CertificateParams) -> Result<(String, String), PkiError> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, AUTHORITY_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn limit(params: &mut CertificateParams, term: Term) {
    params.not_before = term.from;
    params.not_after = term.until;
}

fn serial_number(serial: Serial) -> SerialNumber {
    SerialNumber::from_slice(serial.bytes())
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A second authority in one directory.
    #[error("there is an authority already")]
    AuthorityExists,
    /// A certificate cannot be made.
    #[error("a certificate cannot be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A file cannot be read or written.
    #[error("the directory of certificates cannot be used: {0}")]
    Io(#[from] io::Error),
    /// The authority's key is not here.
    #[error("there is no authority: {0}")]
    NoAuthority(#[source] io::Error),
}
