//! The decision core of eligo.

pub mod calendar;
pub mod history;
pub mod ids;
pub mod journal;
pub mod ledger {
    /*! Skeleton. */
    pub struct Ledger;
}
pub mod limits;
pub mod record;
pub mod snapshot;
pub mod transaction;
