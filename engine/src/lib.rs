//! The decision core of eligo.

pub mod calendar;
pub mod command;
pub mod directory;
pub mod engine;
pub mod history;
pub mod identifier;
pub mod ids;
pub mod journal;
pub mod keys;
pub mod ledger {
    /*! Skeleton. */
    /** x */
    pub struct Ledger;
}
pub mod limits;
pub mod record;
pub mod snapshot;
pub mod transaction;
