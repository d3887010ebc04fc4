//! Threads for work that may wait: they get a core when nobody else wants it, and a little of it
//! even when somebody always does.
//!
//! An import and a snapshot compute for seconds. On a machine whose cores are all busy they would
//! take their share of each from the requests, some milliseconds at a time. At the lowest nice value
//! a request that arrives takes the core almost at once; beside one thread that never rests such work
//! gets a seventieth of the core (weight 15 against 1,024).
//!
//! # Why
//! With the policy for idle cores (weight 3) the share is a fifth of that: a snapshot would take a
//! quarter of an hour there, and the journal would grow meanwhile.

use std::io;
use std::thread::{self, JoinHandle};

use thread_priority::ThreadPriority;
use thread_priority::unix::{
    NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};

/// Runs `work` on a thread of its own that yields to all others, as do the threads that it starts.
pub fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Other);
        let set = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy);
        if let Err(error) = set {
            tracing::warn!(?error, "a background thread runs like any other");
        }
        work()
    })
}
