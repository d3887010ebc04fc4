//! Where the server is, and how many connections to it there are.

use std::net::SocketAddr;

use super::Tls;

/// Where the server is and how it is spoken to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its address.
    pub address: SocketAddr,
    /// Its name for the head `Host`, with the port where it is not the usual one.
    pub host: String,
    /// TLS, if it speaks it.
    pub tls: Option<Tls>,
    /// Connections that are opened ahead.
    pub connections: u32,
    /// The most connections, at least those.
    pub connections_max: u32,
}
