//! The whole engine on one thread: a seed chooses what happens next, a plain model says what must
//! come of it.
//!
//! [`node`] is the engine with its threads taken away, [`town`] a registry and [`book`] the
//! transactions as a naive reader of the rules would keep them, [`story`] what happens, [`audit`] what
//! must hold in between, [`travel`] trips and claims. [`devices`] is another story: agents of validators
//! and links around the same engine.

pub mod audit;
pub mod book;
pub mod call;
pub mod devices;
pub mod edit;
pub mod node;
pub mod settle;
pub mod storage;
pub mod story;
pub mod town;
mod trace;
pub mod travel;
