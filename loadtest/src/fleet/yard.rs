//! A runtime in a thread of its own, for devices that do not tap.
//!
//! # Why
//! Two thousand handshakes take seconds of a processor. On the generator's thread they would make
//! taps late, and the run would blame the server for it. This thread gives way to that one.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustix::process::setpriority_process;
use tokio::runtime::{Builder, Handle};
use tokio::sync::Notify;

/// How much less of a processor the thread gets than others.
const NICE: i32 = 10;

/// A runtime; ends when dropped.
#[derive(Debug)]
pub struct Yard {
    handle: Handle,
    over: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Yard {
    /// Starts one.
    pub fn open() -> io::Result<Yard> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let over = Arc::new(Notify::new());
        let until = Arc::clone(&over);
        let live = move || {
            // Without it the thread is as good as the others, which lateness shows.
            let _not_nice = setpriority_process(Some(rustix::thread::gettid()), NICE);
            runtime.block_on(until.notified());
        };
        let thread = thread::Builder::new().name("yard".to_owned()).spawn(live)?;
        Ok(Yard { handle, over, thread: Some(thread) })
    }

    /// The runtime.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        self.over.notify_one();
        if let Some(thread) = self.thread.take() {
            // One that panicked has told so.
            let _panicked = thread.join();
        }
    }
}
