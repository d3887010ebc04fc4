//! Threads for work that may wait: they get the processor only when nobody else wants it.
//!
//! An import and a snapshot compute for seconds. On a machine whose cores are all busy they would
//! take their share of each from the requests, some milliseconds at a time. Here a request that
//! arrives takes the core at once; in return, on a machine that is overloaded without a pause, such
//! work hardly gets on.

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
        let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        let set = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy);
        if let Err(error) = set {
            tracing::warn!(?error, "a background thread runs like any other");
        }
        work()
    })
}
