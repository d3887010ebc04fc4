//! Who a device is, and whom it trusts.

use std::path::Path;
use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::link::transport::{self, ALPN};

/// Who a device is, and whom it trusts.
pub struct Identity {
    /// The authority that servers must be certified by.
    pub authority: Vec<CertificateDer<'static>>,
    /// The device's certificate, its own first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads PEM files.
    pub fn read(
        authority: &Path,
        certificate: &Path,
        key: &Path,
    ) -> Result<Identity, IdentityError> {
        let certificates = |path: &Path| {
            CertificateDer::pem_file_iter(path)
                .and_then(|found| found.collect::<Result<Vec<_>, _>>())
                .map_err(|_| IdentityError::Certificate)
        };
        Ok(Identity {
            authority: certificates(authority)?,
            chain: certificates(certificate)?,
            key: PrivateKeyDer::from_pem_file(key).map_err(|_| IdentityError::Key)?,
        })
    }

    /// What quinn connects with; keeps the tickets of the sessions that it makes.
    pub fn client_config(self) -> Result<quinn::ClientConfig, IdentityError> {
        let mut roots = RootCertStore::empty();
        for certificate in self.authority {
            roots.add(certificate).map_err(|_| IdentityError::Certificate)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|_| IdentityError::Certificate)?
            .with_root_certificates(roots)
            .with_client_auth_cert(self.chain, self.key)
            .map_err(|_| IdentityError::Key)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.enable_early_data = true;
        let config = QuicClientConfig::try_from(config).map_err(|_| IdentityError::Certificate)?;
        let mut config = quinn::ClientConfig::new(Arc::new(config));
        config.transport_config(Arc::new(transport::device()));
        Ok(config)
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Identity(secret)")
    }
}

/// Why files make no identity.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum IdentityError {
    /// The authority's or the device's certificate.
    #[error("a certificate cannot be used")]
    Certificate,
    /// The private key.
    #[error("the private key cannot be used")]
    Key,
}
