//! TLS of the public listener: 1.3 and 1.2, certificate and key from PEM files.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::settings::{SettingsError, TlsFiles};

/// Reads certificate and key; an error names the setting that is to blame.
pub fn config(files: &TlsFiles) -> Result<ServerConfig, SettingsError> {
    let certificate_error = |error: &dyn std::fmt::Display| {
        SettingsError::new("tls_certificate", format!("cannot be used: {error}"))
    };
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|error| certificate_error(&error))?;
    if chain.is_empty() {
        return Err(SettingsError::new("tls_certificate", "no certificate in the file"));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| SettingsError::new("tls_key", format!("cannot be used: {error}")))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| certificate_error(&error))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| certificate_error(&error))?;
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(|error| certificate_error(&error))?;
    Ok(config)
}
