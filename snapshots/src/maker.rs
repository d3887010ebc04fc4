//! The thread that makes segments ahead, so that the committer finds the next one ready.
//!
//! It owns nothing but its queue of orders (at most `ORDERS_MAX`; one more is refused, and the
//! committer makes that segment itself). If it dies, every order fails, with the same result.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use crate::files::{Files, StoredFile};
use crate::segment::{NewSegment, make_segment};

/// Orders that may wait; every log has at most one.
const ORDERS_MAX: usize = 64;

type Made = io::Result<Box<dyn StoredFile>>;

/// Takes orders for segments.
#[derive(Debug)]
pub struct SegmentMaker {
    orders: Option<SyncSender<(NewSegment, SyncSender<Made>)>>,
    thread: Option<JoinHandle<()>>,
}

impl SegmentMaker {
    /// Starts the thread.
    pub fn start(files: Arc<dyn Files>) -> io::Result<SegmentMaker> {
        let (orders, queue) = sync_channel::<(NewSegment, SyncSender<Made>)>(ORDERS_MAX);
        let thread = Builder::new().name("segment-maker".to_owned()).spawn(move || {
            for (new, made) in queue {
                // A log that no longer waits finds the segment, or what is left of it, on its next
                // acquisition.
                let _unwanted = made.send(make_segment(&*files, &new));
            }
        })?;
        Ok(SegmentMaker { orders: Some(orders), thread: Some(thread) })
    }

    /// Orders a segment.
    pub fn order(&self, new: NewSegment) -> OrderedSegment {
        let (made, delivery) = sync_channel(1);
        if let Some(orders) = &self.orders {
            // Refused, the order drops its sender, and `wait` says so.
            let _refused = orders.try_send((new, made));
        }
        OrderedSegment { delivery }
    }
}

impl Drop for SegmentMaker {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has failed all its orders already.
            let _panicked = thread.join();
        }
    }
}

/// A segment that is being made.
#[derive(Debug)]
pub struct OrderedSegment {
    delivery: Receiver<Made>,
}

impl OrderedSegment {
    /// Waits until it is made, or until making it has failed.
    pub fn wait(self) -> Made {
        self.delivery.recv().unwrap_or_else(|_| Err(io::Error::other("the order was refused")))
    }
}
