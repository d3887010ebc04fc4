//! The link between a device and the server: one QUIC connection, frames on long-lived streams.
//!
//! A device opens bidirectional streams as it likes, sends requests and reads answers, which carry
//! the correlation of their request and come in any order. The server opens one unidirectional
//! stream, on which it pushes.
//!
//! | module | what it is |
//! |---|---|
//! | [`message`], [`request`] | the messages, and which answers which |
//! | [`frame`], [`wire`], [`quick`] | frames, and messages as bytes |
//! | [`transport`], [`close`] | how both sides set QUIC up, and why a side ends a connection |
//! | [`client`], [`lane`], [`identity`] | the device's side |

pub mod client;
pub mod close;
pub mod frame;
pub mod identity;
pub mod lane;
pub mod message;
pub mod quick;
pub mod request;
pub mod transport;
pub mod wire;
