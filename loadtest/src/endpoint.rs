//! Where a server listens, and how to speak to it.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use crate::client::ClientError;

/// A listener of the server.
#[derive(Clone)]
pub struct Endpoint {
    address: SocketAddr,
    host: String,
    tls: Option<(ServerName<'static>, Arc<ClientConfig>)>,
}

impl Endpoint {
    /// A listener without TLS.
    pub fn plain(address: SocketAddr) -> Endpoint {
        Endpoint { address, host: address.to_string(), tls: None }
    }

    /// Reads `http://host:port` or `https://host:port`; the latter needs the file of the authority
    /// that signed the server's certificate, and trusts no other.
    pub fn parse(url: &str, authority: Option<&Path>) -> Result<Endpoint, ClientError> {
        let (scheme, rest) = url.split_once("://").ok_or(ClientError::Url)?;
        let host = rest.strip_suffix('/').unwrap_or(rest);
        if host.is_empty() || host.contains(['/', '?', '#', '@', ' ']) {
            return Err(ClientError::Url);
        }
        let default_port = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return Err(ClientError::Url),
        };
        let (name, port) = split_port(host, default_port)?;
        let address = (name, port).to_socket_addrs().map_err(ClientError::Resolve)?.next();
        let address = address.ok_or(ClientError::Url)?;
        let tls = match scheme {
            "https" => {
                let name = ServerName::try_from(name.to_string()).map_err(|_| ClientError::Url)?;
                Some((name, trust(authority.ok_or(ClientError::Authority)?)?))
            }
            _ => None,
        };
        Ok(Endpoint { address, host: host.to_string(), tls })
    }

    /// The address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What goes into the header `Host`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The name on the server's certificate and whom to trust, where TLS is spoken.
    pub fn tls(&self) -> Option<(ServerName<'static>, Arc<ClientConfig>)> {
        self.tls.clone()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        write!(formatter, "{scheme}://{}", self.host)
    }
}

fn split_port(host: &str, default_port: u16) -> Result<(&str, u16), ClientError> {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => {
            (name, port.parse().map_err(|_| ClientError::Url)?)
        }
        _ => (host, default_port),
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    Ok((bare, port))
}

fn trust(authority: &Path) -> Result<Arc<ClientConfig>, ClientError> {
    let unreadable = |_| ClientError::AuthorityFile;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority).map_err(unreadable)? {
        roots.add(certificate.map_err(unreadable)?)?;
    }
    if roots.is_empty() {
        return Err(ClientError::AuthorityFile);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(Arc::new(config?.with_root_certificates(roots).with_no_client_auth()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::time::Duration;

    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ServerConfig, ServerConnection, StreamOwned};

    use super::*;
    use crate::client::Client;

    #[test]
    fn urls_name_a_host_and_a_port() {
        let parse = |url: &str| Endpoint::parse(url, None);
        let endpoint = parse("http://127.0.0.1:8080/").unwrap();
        assert_eq!(endpoint.address(), "127.0.0.1:8080".parse().unwrap());
        assert_eq!(parse("http://127.0.0.1").unwrap().address().port(), 80);
        assert_eq!(parse("http://[::1]:81").unwrap().address(), "[::1]:81".parse().unwrap());
        for url in ["127.0.0.1:80", "ftp://127.0.0.1", "http://", "http://a/b", "http://u@h:1"] {
            assert!(matches!(parse(url), Err(ClientError::Url)), "{url}");
        }
        assert!(matches!(parse("https://127.0.0.1:1"), Err(ClientError::Authority)));
    }

    /// A server with a fresh certificate for 127.0.0.1, for one exchange, and the certificate.
    fn secured() -> (SocketAddr, String) {
        let key = rcgen::generate_simple_self_signed(["127.0.0.1".into()]).unwrap();
        let chain = vec![key.cert.der().clone()];
        let secret = PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, secret)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (tcp, _) = listener.accept().unwrap();
            let connection = ServerConnection::new(Arc::new(config)).unwrap();
            let mut stream = StreamOwned::new(connection, tcp);
            // A client that does not trust it leaves.
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
            let _ = stream.flush();
        });
        (address, key.cert.pem())
    }

    fn status(address: SocketAddr, authority: &str) -> Result<u16, ClientError> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("authority.pem");
        std::fs::write(&file, authority).unwrap();
        let endpoint = Endpoint::parse(&format!("https://{address}"), Some(&file))?;
        let mut client = Client::connect(&endpoint, Duration::from_secs(30))?;
        Ok(client.get("/", &[])?.status)
    }

    #[test]
    fn only_the_named_authority_is_trusted() {
        let (address, authority) = secured();
        assert_eq!(status(address, &authority).unwrap(), 200);
        let (address, _) = secured();
        assert!(status(address, &authority).is_err());
        assert!(matches!(status(address, ""), Err(ClientError::AuthorityFile)));
    }
}
