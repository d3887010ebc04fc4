//! The device side of eligo, and the words that devices and server share.
//!
//! # Map
//! | module | what it is |
//! |---|---|
//! | [`agent`] | the device as a whole: it decides, remembers and reports |
//! | [`clock`] | a device's clocks, and the server's as it knows it |
//! | [`device`] | what a device decides at a tap, pure |
//! | [`files`] | the disk of a device, as a port |
//! | [`link`] | messages between a device and the server, and the frames that carry them |
//! | [`queue`] | the trips that the server does not have yet, on disk |
//! | [`random`] | random numbers that a seed repeats |
//! | [`registry`] | the file that tells which card has which right, and its deltas |
//! | [`signing`] | signatures of registries and tickets |
//! | [`store`] | the holder registries of a device |
//! | [`ticket`] | a signed permission to use a service, as a QR code |
//! | [`trip`] | one use of a right, as a device records and reports it |
//! | [`verdict`] | what a device decides at a tap |
//!
//! The crate knows nothing of the server's inside: of [`engine`] it takes identifiers, ids and the
//! calendar.

pub mod agent;
pub mod clock;
pub mod device;
pub mod files;
pub mod link;
pub mod queue;
pub mod random;
pub mod registry;
pub mod signing;
pub mod store;
pub mod ticket;
pub mod trip;
pub mod verdict;
