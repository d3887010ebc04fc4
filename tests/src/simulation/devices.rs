//! Devices and the engine on one thread: real agents on disks that lose their power, the real engine
//! on a journal that fails, and links between them that lose, repeat, delay and reorder.
//!
//! [`server`] answers the messages of devices out of a [`crate::simulation::node::Node`] and the
//! gateway's holder registries, [`mod@unit`] is a device, [`traffic`] what lies between them, [`story`]
//! what happens, [`audit`] what must hold.

pub mod audit;
pub mod server;
pub mod story;
pub mod traffic;
pub mod unit;
