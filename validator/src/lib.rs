//! The device side of eligo, and the words that devices and server share.
//!
//! # Map
//! | module | what it is |
//! |---|---|
//! | [`link`] | messages between a device and the server, and the frames that carry them |
//! | [`registry`] | the file that tells which card has which right, and its deltas |
//! | [`signing`] | signatures of registries and tickets |
//! | [`ticket`] | a signed permission to use a service, as a QR code |
//! | [`trip`] | one use of a right, as a device records and reports it |
//! | [`verdict`] | what a device decides at a tap |
//!
//! The crate knows nothing of the server's inside: of [`engine`] it takes identifiers, ids and the
//! calendar.

pub mod link;
pub mod registry;
pub mod signing;
pub mod ticket;
pub mod trip;
pub mod verdict;
