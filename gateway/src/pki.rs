//! Certificates of the validators' link: who may speak as which terminal.
//!
//! One authority signs the certificates of servers and devices. Everything is plain files in one
//! directory; the server needs of them its own certificate and key, the authority's certificate, the
//! list of revoked serial numbers, and `issued` to revoke a terminal that is not connected. The
//! authority's key and those of devices can be kept elsewhere.
//!
//! | file | what it is | who writes it |
//! |---|---|---|
//! | `authority.pem`, `authority.key` | the authority | `eligo pki init` |
//! | `server.pem`, `server.key` | the server | `eligo pki server` |
//! | `devices/TERMINAL.pem`, `.key` | the newest certificate of a terminal | `eligo pki device` |
//! | `issued` | a line for each device certificate: serial number, terminal, last second | the same |
//! | `revoked` | a line for each revoked serial number | `eligo pki revoke`, `POST /admin/revoke` |
//!
//! Keys have mode 0600. Nothing here is ever taken back: a revoked number stays revoked.
//!
//! # Why
//! A list of numbers instead of a signed list of revocations: it lies beside the server's key, whose
//! owner could replace either, and the server itself must be able to revoke without the authority.

use std::{fmt, io};

use engine::ids::TerminalId;

pub mod authority;
pub mod command;
pub mod files;
pub mod trust;

/// What the name of a device begins with, in the URI of its certificate.
const TERMINAL_URI: &str = "eligo:terminal:";

/// The serial number of a certificate that this authority made.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Serial([u8; 16]);

impl Serial {
    /// A random one.
    pub fn random() -> io::Result<Serial> {
        let mut bytes = [0; 16];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("no random numbers"))?;
        // Positive and of full length, so that its stored form has always 16 bytes.
        if let Some(first) = bytes.first_mut() {
            *first = *first & 0x3f | 0x40;
        }
        Ok(Serial(bytes))
    }

    /// From the bytes in a certificate.
    pub fn from_der(bytes: &[u8]) -> Option<Serial> {
        bytes.try_into().ok().map(Serial)
    }

    /// From 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Serial> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        Some(Serial(u128::from_str_radix(text, 16).ok()?.to_be_bytes()))
    }

    /// As in a certificate.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// The name of a terminal in a certificate.
pub fn terminal_uri(terminal: TerminalId) -> String {
    format!("{TERMINAL_URI}{terminal}")
}

/// The terminal of such a name.
pub fn terminal_of_uri(uri: &str) -> Option<TerminalId> {
    let number = uri.strip_prefix(TERMINAL_URI)?;
    let plain = number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0');
    if plain { number.parse().ok().map(TerminalId) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_and_names_come_back() {
        let serial = Serial::random().unwrap();
        assert_eq!(Serial::parse(&serial.to_string()), Some(serial));
        assert_eq!(Serial::from_der(serial.bytes()), Some(serial));
        assert_eq!(Serial::parse("12"), None);
        assert_eq!(Serial::parse(&"+".repeat(32)), None);
        assert_eq!(terminal_of_uri(&terminal_uri(TerminalId(7))), Some(TerminalId(7)));
        for wrong in ["eligo:terminal:", "eligo:terminal:+7", "eligo:terminal:07", "x:7"] {
            assert_eq!(terminal_of_uri(wrong), None, "{wrong}");
        }
    }
}
