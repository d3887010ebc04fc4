//! Bodies that must be refused, and how: rows Y6 and Y7 of the acceptance table, strict dialect.
//!
//! All of them are refused before anything is looked up, so they name nobody.

use crate::registry::directory::ConnectionType;

/// A body and its refusal.
pub struct Malformed {
    /// The body.
    pub body: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// The `errorCode`.
    pub code: u32,
}

const fn row(body: &'static str, code: u32) -> Malformed {
    Malformed { body, status: 400, code }
}

const ONE: &[Malformed] = &[
    row(r#"{"serviceId":1,"organizationTerminalId":2}"#, 101),
    row(
        r#"{"serviceId":1,"organizationTerminalId":2,"clientCode":"A","clientSnils":"59492311630"}"#,
        104,
    ),
    row(r#"{"serviceId":1,"organizationTerminalId":2,"cardNumber":"9643901401015000019"}"#, 101),
    row(r#"{"serviceId":1,"organizationTerminalId":2,"clientCode":"1234567890123456"}"#, 105),
    row(
        r#"{"serviceId":1,"organizationTerminalId":2,"cardNumber":"964390140101500001X","cardSeries":"14010125"}"#,
        105,
    ),
    row(r#"{"serviceId":1,"organizationTerminalId":2,"clientSnils":"59492311630"}"#, 102),
    row(r#"{"serviceId":1,"organizationTerminalId":2,"clientCode":"A","price":150.5}"#, 102),
    row(r#"{"serviceId":1 "organizationTerminalId":2,"clientCode":"A"}"#, 100),
];
const TWO: &[Malformed] = &[
    row(r#"{"serviceId":1,"organizationTerminalId":20}"#, 101),
    row(r#"{"serviceId":1,"organizationTerminalId":20,"clientCode":"A"}"#, 102),
    row(r#"{"serviceId":1,"organizationTerminalId":20,"clientSnils":"59492311631"}"#, 105),
    row(
        r#"{"serviceId":1,"organizationTerminalId":20,"clientCode":"A","clientSnils":"59492311630"}"#,
        104,
    ),
    row(r#"{"serviceId":1 "organizationTerminalId":20}"#, 100),
];
const THREE: &[Malformed] = &[
    row(r#"{"serviceId":3,"organizationTerminalId":30,"price":150.5}"#, 101),
    row(r#"{"serviceId":3,"organizationTerminalId":30,"clientSnils":"59492311630"}"#, 102),
    row(r#"{"serviceId":3,"organizationTerminalId":30,"cardNumber":"9643901401015000019"}"#, 101),
    row(r#"{"serviceId":3,"organizationTerminalId":30,"clientCode":"1234567890123456"}"#, 105),
];

/// The bodies for a connection type.
pub fn rows(connection: ConnectionType) -> &'static [Malformed] {
    match connection {
        ConnectionType::One => ONE,
        ConnectionType::Two => TWO,
        ConnectionType::Three => THREE,
    }
}
