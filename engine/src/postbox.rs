//! A place where many calls wait, a thread or a stream: their answers are posted one by one and
//! announced once, and the shards that a thread's calls handed commands to are woken once.
//!
//! # Why
//! The committer answers dozens of calls at a time. A wake-up for each of them lets the waiting
//! thread, where it shares a core with the committer, take over for one answer and go back to sleep,
//! as many times as there are answers. Announcing all of them at once made durable confirms over HTTP
//! on one core a fifth faster. The other way it is the same: a shard that is woken for the first of
//! many commands takes the core for that one. Woken when a turn of the thread's loop brings no more,
//! it is handed what 64 callers send in a few pieces. A lone command waits for one empty turn. Who
//! hands over all that has arrived in one go needs no turn: it says so ([`gather_commands`]).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crossbeam::queue::SegQueue;
use foldhash::fast::FixedState;
use tokio::sync::Notify;

use crate::command::{CheckAnswer, SettleAnswer};
use crate::shard::Shard;

/// How long commands may gather before their shards are woken.
const GATHER_MAX: Duration = Duration::from_micros(500);

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
    /// The shards that [`gather_commands`] is going to wake.
    static GATHERED: RefCell<Option<Vec<Arc<Shard>>>> = const { RefCell::new(None) };
}

/// The calls that wait on this thread.
#[derive(Default)]
pub struct Desk {
    postbox: Arc<Postbox>,
    calls: RefCell<Calls>,
    /// Shards with commands that they were not told of yet.
    unaware: RefCell<Vec<Arc<Shard>>>,
    /// Commands handed over so far.
    handed: Cell<u64>,
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
                if !desk.unaware.borrow().is_empty() {
                    desk.gather_commands().await;
                }
            }
        });
    }
}

/// The desk of this thread, if it has one.
pub fn desk() -> Option<Rc<Desk>> {
    DESK.with(|mine| mine.borrow().clone())
}

/// Wakes the shards that this thread handed commands to; called before work that is long for one
/// turn.
pub fn wake_shards() {
    if let Some(desk) = desk() {
        desk.wake_shards();
    }
    let gathered = GATHERED.with_borrow_mut(|gathered| gathered.as_mut().map(std::mem::take));
    gathered.into_iter().flatten().for_each(|shard| shard.wake());
}

/// Has the shards that `hand_over` hands commands to on this thread woken behind it, each once.
pub fn gather_commands<T>(hand_over: impl FnOnce() -> T) -> T {
    struct Gathering;
    impl Drop for Gathering {
        fn drop(&mut self) {
            wake_shards();
            GATHERED.set(None);
        }
    }
    GATHERED.set(Some(Vec::new()));
    let _gathering = Gathering;
    hand_over()
}

/// Has a shard woken once the commands that this thread hands over now are gathered; at once where
/// they are not.
pub fn wake_gathered(shard: &Arc<Shard>) {
    let is_gathered = GATHERED.with_borrow_mut(|gathered| {
        if let Some(gathered) = gathered
            && !gathered.iter().any(|known| Arc::ptr_eq(known, shard))
        {
            gathered.push(Arc::clone(shard));
        }
        gathered.is_some()
    });
    if is_gathered {
        return;
    }
    match desk() {
        Some(desk) => desk.wake_later(shard),
        None => shard.wake(),
    }
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

    /// Has a shard woken once the calls that are ready have had their turn.
    fn wake_later(&self, shard: &Arc<Shard>) {
        let mut unaware = self.unaware.borrow_mut();
        self.handed.set(self.handed.get() + 1);
        if unaware.is_empty() {
            // The desk's task stands behind theirs in the queue of this thread.
            self.postbox.announce();
        }
        if !unaware.iter().any(|known| Arc::ptr_eq(known, shard)) {
            unaware.push(Arc::clone(shard));
        }
    }

    /// Wakes those shards once a turn brings no further command.
    async fn gather_commands(&self) {
        let begun = Instant::now();
        loop {
            let before = self.handed.get();
            tokio::task::yield_now().await;
            self.hand_out();
            if self.handed.get() == before || begun.elapsed() > GATHER_MAX {
                return self.wake_shards();
            }
        }
    }

    fn wake_shards(&self) {
        self.unaware.borrow_mut().drain(..).for_each(|shard| shard.wake());
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::ids::ShardId;
    use crate::shard::WorkerHandle;
    use crate::shard_actor::Fault;

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

    #[test]
    fn a_shard_is_woken_once_behind_commands_that_are_handed_over_together() {
        let shard = Arc::new(Shard::new(ShardId(0)));
        let woken = Arc::new(AtomicUsize::new(0));
        shard.employ(Box::new(Worker(Arc::clone(&woken))));
        gather_commands(|| {
            wake_gathered(&shard);
            wake_gathered(&shard);
            assert_eq!(woken.load(Ordering::Acquire), 0);
        });
        assert_eq!(woken.load(Ordering::Acquire), 1);
        shard.employ(Box::new(Worker(Arc::clone(&woken))));
        wake_gathered(&shard);
        assert_eq!(woken.load(Ordering::Acquire), 2);
    }

    #[test]
    fn a_shard_is_woken_once_the_calls_that_are_ready_had_their_turn() {
        let shard = Arc::new(Shard::new(ShardId(0)));
        let woken = Arc::new(AtomicUsize::new(0));
        shard.employ(Box::new(Worker(Arc::clone(&woken))));
        actix_rt::System::new().block_on(async {
            open_desk();
            let hand_over = |shard: Arc<Shard>, woken: Arc<AtomicUsize>| async move {
                desk().unwrap().wake_later(&shard);
                woken.load(Ordering::Relaxed)
            };
            let calls = [(); 3].map(|()| hand_over(Arc::clone(&shard), Arc::clone(&woken)));
            for call in calls.map(actix_rt::spawn) {
                assert_eq!(call.await.unwrap(), 0);
            }
            while woken.load(Ordering::Relaxed) == 0 {
                tokio::task::yield_now().await;
            }
            desk().unwrap().wake_later(&shard);
            shard.employ(Box::new(Worker(Arc::clone(&woken))));
            wake_shards();
            assert_eq!(woken.load(Ordering::Relaxed), 2);
            assert!(desk().unwrap().unaware.borrow().is_empty());
        });
    }

    struct Worker(Arc<AtomicUsize>);

    impl WorkerHandle for Worker {
        fn wake(&self) -> bool {
            self.0.fetch_add(1, Ordering::Relaxed);
            true
        }

        fn is_alive(&self) -> bool {
            true
        }

        fn inject(&self, _: Fault) {}
    }
}
