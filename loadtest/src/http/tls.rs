//! Whom to trust.

use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};

/// TLS to a server.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Whom to trust.
    pub config: Arc<rustls::ClientConfig>,
    /// Who the server must be.
    pub name: ServerName<'static>,
}

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate, or none that can be trusted.
    #[error("no usable certificate is given to trust")]
    CertificateUnusable,
    /// The name of the server.
    #[error("the server's name can stand in no certificate")]
    NameUnusable,
    /// The library refuses.
    #[error("TLS is not available: {0}")]
    Unavailable(#[from] rustls::Error),
}

impl Tls {
    /// Trusts the certificates of a PEM text, which may be those of authorities or the server's own.
    pub fn trusting(certificates: &[u8], host: &str) -> Result<Tls, TlsError> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(certificates) {
            let certificate = certificate.map_err(|_| TlsError::CertificateUnusable)?;
            roots.add(certificate).map_err(|_| TlsError::CertificateUnusable)?;
        }
        if roots.is_empty() {
            return Err(TlsError::CertificateUnusable);
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::NameUnusable)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Tls { config: Arc::new(config), name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_certificates_are_trusted() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let pem = made.cert.pem();
        assert!(Tls::trusting(pem.as_bytes(), "localhost").is_ok());
        assert!(Tls::trusting(pem.as_bytes(), "127.0.0.1").is_ok());
        let check = |pem: &str, host: &str, expected: &str| {
            let error = Tls::trusting(pem.as_bytes(), host).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        };
        check("", "localhost", "no usable certificate");
        check(&made.signing_key.serialize_pem(), "localhost", "no usable certificate");
        check("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "x", "no usable");
        check(&pem, "no host", "the server's name");
    }
}
