//! Answers for a place where many calls wait, a thread or a stream: posted one by one, announced
//! once.
//!
//! # Why
//! The committer answers dozens of calls at a time. A wake-up for each of them lets the waiting
//! thread, where it shares a core with the committer, take over for one answer and go back to sleep,
//! as many times as there are answers. Announcing all of them at once made durable confirms over HTTP
//! on one core a fifth faster.

use std::cell::RefCell;
use std::collections::HashMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use crossbeam::queue::SegQueue;
use foldhash::fast::FixedState;
use tokio::sync::Notify;

use crate::command::{CheckAnswer, SettleAnswer};

/// Names a call that waits at its place.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Ticket(pub u64);

/// An answer in a box.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Posted {
    /// To a check that is itself the recorded fact.
    Check(CheckAnswer),
    /// To a confirm or a cancel.
    Settle(SettleAnswer),
}

/// What reaches a place from other threads. As many answers as there are calls under way.
#[derive(Default)]
pub struct Postbox {
    answers: SegQueue<(Ticket, Posted)>,
    announced: Notify,
    /// Whether somebody is going to announce.
    noted: AtomicBool,
}

impl Postbox {
    /// Puts an answer in; who waits hears of it when it is announced.
    pub fn post(&self, ticket: Ticket, answer: Posted) {
        self.answers.push((ticket, answer));
    }

    /// Tells who waits to look.
    pub fn announce(&self) {
        self.announced.notify_one();
    }

    /// Waits until something was announced since the last such wait.
    pub async fn announced(&self) {
        self.announced.notified().await;
    }

    /// Takes an answer out.
    pub fn take(&self) -> Option<(Ticket, Posted)> {
        self.answers.pop()
    }
}

/// Boxes that hold answers nobody was told of yet; tells on drop.
#[derive(Default)]
pub struct Announcements(Vec<Arc<Postbox>>);

impl Announcements {
    /// Remembers a box, unless somebody is going to announce it anyway.
    pub fn add(&mut self, postbox: Arc<Postbox>) {
        if !postbox.noted.swap(true, Ordering::AcqRel) {
            self.0.push(postbox);
        }
    }
}

impl Drop for Announcements {
    fn drop(&mut self) {
        for postbox in &self.0 {
            // Taken back first: whoever posts from here on announces again.
            postbox.noted.swap(false, Ordering::AcqRel);
            postbox.announce();
        }
    }
}

thread_local! {
    static DESK: RefCell<Option<Rc<Desk>>> = const { RefCell::new(None) };
}

/// The calls that wait on this thread.
#[derive(Default)]
pub struct Desk {
    postbox: Arc<Postbox>,
    calls: RefCell<Calls>,
}

#[derive(Default)]
struct Calls {
    last: u64,
    waiting: HashMap<Ticket, Call, FixedState>,
}

enum Call {
    Answered(Posted),
    Waiting(Option<Waker>),
}

/// Lets the calls of this thread, which must run actix's system, wait at one desk from now on.
pub fn open_desk() {
    let desk = Rc::new(Desk::default());
    let of_thread = Rc::clone(&desk);
    let is_new = DESK.with(|mine| mine.borrow_mut().get_or_insert(of_thread).is(&desk));
    if is_new {
        actix_rt::spawn(async move {
            loop {
                desk.postbox.announced().await;
                desk.hand_out();
            }
        });
    }
}

/// The desk of this thread, if it has one.
pub fn desk() -> Option<Rc<Desk>> {
    DESK.with(|mine| mine.borrow().clone())
}

impl Desk {
    /// Lets a call wait: what answers it, and the future of its answer.
    pub fn wait(self: Rc<Desk>) -> (Arc<Postbox>, Ticket, Waiting) {
        let ticket = {
            let mut calls = self.calls.borrow_mut();
            calls.last += 1;
            let ticket = Ticket(calls.last);
            calls.waiting.insert(ticket, Call::Waiting(None));
            ticket
        };
        (Arc::clone(&self.postbox), ticket, Waiting { desk: self, ticket })
    }

    fn is(&self, other: &Desk) -> bool {
        std::ptr::eq(self, other)
    }

    /// Gives the answers that are there to the calls that still wait.
    fn hand_out(&self) {
        let mut calls = self.calls.borrow_mut();
        while let Some((ticket, answer)) = self.postbox.take() {
            let Some(call) = calls.waiting.get_mut(&ticket) else { continue };
            if let Call::Waiting(Some(waker)) = std::mem::replace(call, Call::Answered(answer)) {
                waker.wake();
            }
        }
    }
}

/// The future of an answer.
pub struct Waiting {
    desk: Rc<Desk>,
    ticket: Ticket,
}

impl Future for Waiting {
    type Output = Posted;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Posted> {
        let mut calls = self.desk.calls.borrow_mut();
        match calls.waiting.get_mut(&self.ticket) {
            Some(Call::Answered(answer)) => Poll::Ready(*answer),
            Some(Call::Waiting(waker)) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
            // Removed only on drop.
            None => Poll::Pending,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.desk.calls.borrow_mut().waiting.remove(&self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(answer: SettleAnswer) -> Posted {
        Posted::Settle(answer)
    }

    #[test]
    fn answers_find_their_calls_and_late_ones_nobody() {
        actix_rt::System::new().block_on(async {
            open_desk();
            open_desk();
            let (postbox, first, first_waits) = desk().unwrap().wait();
            let (_, second, second_waits) = desk().unwrap().wait();
            let (_, third, third_waits) = desk().unwrap().wait();
            drop(third_waits);
            let thread = std::thread::spawn(move || {
                let mut announcements = Announcements::default();
                for (ticket, answer) in [
                    (third, SettleAnswer::Unavailable),
                    (second, SettleAnswer::Done),
                    (first, SettleAnswer::Unavailable),
                ] {
                    postbox.post(ticket, settle(answer));
                    announcements.add(Arc::clone(&postbox));
                }
                assert_eq!(announcements.0.len(), 1);
            });
            assert_eq!(first_waits.await, settle(SettleAnswer::Unavailable));
            assert_eq!(second_waits.await, settle(SettleAnswer::Done));
            thread.join().unwrap();
            assert!(desk().unwrap().calls.borrow().waiting.is_empty());
        });
    }
}
