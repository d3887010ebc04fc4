//! The link between a device and the server: one QUIC connection, frames on long-lived streams.
//!
//! A device opens bidirectional streams as it likes, sends requests and reads answers, which carry
//! the correlation of their request and come in any order. The server opens one unidirectional
//! stream, on which it pushes.

pub mod frame;
pub mod message;
