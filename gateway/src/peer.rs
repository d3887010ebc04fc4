//! Who is calling: the client's address, through trusted proxies only.
//!
//! `X-Forwarded-For` is written by anybody, so it counts only when the connection itself comes from
//! a configured proxy, and it is read from the right: every entry was added by the hop after it, and
//! the first one that is not a trusted proxy is the client.

use std::net::{IpAddr, SocketAddr};

use actix_web::http::header::{HeaderMap, X_FORWARDED_FOR};
use ipnet::IpNet;

/// The proxies whose word counts.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(pub Vec<IpNet>);

impl TrustedProxies {
    /// The address of the client, or nothing where a proxy sent something unreadable.
    pub fn client(&self, connection: Option<SocketAddr>, headers: &HeaderMap) -> Option<IpAddr> {
        let connection = connection?.ip().to_canonical();
        if self.0.is_empty() || !self.trusts(connection) {
            return Some(connection);
        }
        let mut client = connection;
        let lines: Vec<_> = headers.get_all(X_FORWARDED_FOR).collect();
        for line in lines.into_iter().rev() {
            for entry in line.to_str().ok()?.rsplit(',') {
                client = address(entry.trim())?;
                if !self.trusts(client) {
                    return Some(client);
                }
            }
        }
        Some(client)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// Whether an organization named this address; an empty list names nobody.
pub fn allowed(networks: &[IpNet], client: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&client))
}

/// An entry of `X-Forwarded-For`: an address, with or without a port.
fn address(entry: &str) -> Option<IpAddr> {
    let plain = entry.parse::<IpAddr>().ok();
    let address = plain.or_else(|| entry.parse::<SocketAddr>().ok().map(|socket| socket.ip()))?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn check(connection: &str, forwarded: &[&str], expected: Option<&str>) {
        let proxies = TrustedProxies(vec!["10.0.0.0/8".parse().unwrap()]);
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_str(line).unwrap());
        }
        let client = proxies.client(connection.parse().ok(), &headers);
        assert_eq!(client, expected.map(|text| text.parse().unwrap()), "{forwarded:?}");
    }

    #[test]
    fn forwarded_addresses_count_only_behind_a_proxy() {
        check("192.0.2.1:80", &["198.51.100.7"], Some("192.0.2.1"));
        check("10.0.0.1:80", &["198.51.100.7"], Some("198.51.100.7"));
        check("10.0.0.1:80", &[], Some("10.0.0.1"));
        check("[::ffff:10.0.0.1]:80", &["198.51.100.7"], Some("198.51.100.7"));
    }

    #[test]
    fn forwarded_addresses_are_read_from_the_right() {
        check("10.0.0.1:80", &["203.0.113.9, 198.51.100.7, 10.0.0.2"], Some("198.51.100.7"));
        check("10.0.0.1:80", &["203.0.113.9", "198.51.100.7,10.0.0.2"], Some("198.51.100.7"));
        check("10.0.0.1:80", &["198.51.100.7:4711"], Some("198.51.100.7"));
        check("10.0.0.1:80", &["[2001:db8::1]:4711"], Some("2001:db8::1"));
        check("10.0.0.1:80", &["10.0.0.3, 10.0.0.2"], Some("10.0.0.3"));
        check("10.0.0.1:80", &["198.51.100.7, what"], None);
        check("10.0.0.1:80", &["what, 198.51.100.7"], Some("198.51.100.7"));
    }

    #[test]
    fn an_empty_list_allows_nobody() {
        let client = "127.0.0.1".parse().unwrap();
        assert!(!allowed(&[], client));
        assert!(allowed(&["127.0.0.1/32".parse().unwrap()], client));
        assert!(!allowed(&["127.0.0.2/32".parse().unwrap()], client));
    }
}
