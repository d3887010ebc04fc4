//! Answers on their way back: to whom, and what, once it is durable.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::command::{CheckAnswer, Deadline, SettleAnswer};
use crate::postbox::{self, Announcements, Postbox, Posted, Ticket, Waiting};

/// Somebody who waits for one answer. Dropped without one, it answers Unavailable.
pub struct Reply<T: Postable>(Option<Receiver<T>>);

enum Receiver<T> {
    Call(Box<dyn FnOnce(Option<T>) + Send>),
    Channel(oneshot::Sender<T>),
    Post(Arc<Postbox>, Ticket),
}

/// What can be answered.
pub trait Postable: Send + 'static {
    /// What is answered when nothing can be.
    fn unavailable() -> Option<Posted>;

    /// As a thread's postbox holds it.
    fn posted(self) -> Option<Posted>;

    /// Back from there.
    fn from_posted(posted: Posted) -> Option<Self>
    where
        Self: Sized;
}

impl<T: Postable> Reply<T> {
    /// Hands the answer to `receive`, which must be quick: it runs on the committing thread.
    pub fn new(receive: impl FnOnce(Option<T>) + Send + 'static) -> Reply<T> {
        Reply(Some(Receiver::Call(Box::new(receive))))
    }

    /// Posts the answer under `ticket`.
    pub fn post(postbox: Arc<Postbox>, ticket: Ticket) -> Reply<T> {
        Reply(Some(Receiver::Post(postbox, ticket)))
    }

    /// A reply and the future of its answer, which comes through the desk of this thread if it has
    /// one.
    pub fn channel() -> (Reply<T>, Awaited<T>) {
        if let Some(desk) = postbox::desk() {
            let (postbox, ticket, waiting) = desk.wait();
            return (Reply(Some(Receiver::Post(postbox, ticket))), Awaited::Posted(waiting));
        }
        let (sender, receiver) = oneshot::channel();
        (Reply(Some(Receiver::Channel(sender))), Awaited::Channel(receiver))
    }

    /// Gives the answer.
    pub fn answer(self, answer: T) {
        self.answer_later(answer, &mut Announcements::default());
    }

    /// Gives the answer; a thread with a desk hears of it with `announcements`.
    pub fn answer_later(mut self, answer: T, announcements: &mut Announcements) {
        match self.0.take() {
            Some(Receiver::Call(receive)) => receive(Some(answer)),
            Some(Receiver::Channel(sender)) => {
                // A caller that went away wants no answer.
                let _ = sender.send(answer);
            }
            Some(Receiver::Post(postbox, ticket)) => {
                if let Some(posted) = answer.posted() {
                    postbox.post(ticket, posted);
                    announcements.add(postbox);
                }
            }
            None => {}
        }
    }
}

impl<T: Postable> Drop for Reply<T> {
    fn drop(&mut self) {
        match self.0.take() {
            Some(Receiver::Call(receive)) => receive(None),
            Some(Receiver::Post(postbox, ticket)) => {
                if let Some(posted) = T::unavailable() {
                    postbox.post(ticket, posted);
                    postbox.announce();
                }
            }
            Some(Receiver::Channel(_)) | None => {}
        }
    }
}

/// The future of an answer.
pub enum Awaited<T> {
    /// On a thread without a desk.
    Channel(oneshot::Receiver<T>),
    /// At the desk of this thread.
    Posted(Waiting),
}

impl<T: Postable> Awaited<T> {
    /// The answer, unless none comes in time.
    pub async fn in_time(self, deadline: Deadline) -> Option<T> {
        let deadline = deadline.0.into();
        match self {
            Awaited::Channel(receiver) => {
                tokio::time::timeout_at(deadline, receiver).await.ok()?.ok()
            }
            Awaited::Posted(waiting) => {
                T::from_posted(tokio::time::timeout_at(deadline, waiting).await.ok()?)
            }
        }
    }
}

impl Postable for CheckAnswer {
    fn unavailable() -> Option<Posted> {
        CheckAnswer::Unavailable.posted()
    }

    fn posted(self) -> Option<Posted> {
        Some(Posted::Check(self))
    }

    fn from_posted(posted: Posted) -> Option<CheckAnswer> {
        match posted {
            Posted::Check(answer) => Some(answer),
            Posted::Settle(_) => None,
        }
    }
}

impl Postable for SettleAnswer {
    fn unavailable() -> Option<Posted> {
        SettleAnswer::Unavailable.posted()
    }

    fn posted(self) -> Option<Posted> {
        Some(Posted::Settle(self))
    }

    fn from_posted(posted: Posted) -> Option<SettleAnswer> {
        match posted {
            Posted::Settle(answer) => Some(answer),
            Posted::Check(_) => None,
        }
    }
}

/// Who waits only for durability is never a caller at a desk.
impl Postable for () {
    fn unavailable() -> Option<Posted> {
        None
    }

    fn posted(self) -> Option<Posted> {
        None
    }

    fn from_posted(_: Posted) -> Option<()> {
        None
    }
}

/// An answer that waits for durability.
pub enum Answer {
    /// To a check that is itself the recorded fact.
    Check(Reply<CheckAnswer>, CheckAnswer),
    /// To someone who only waits for everything before it.
    Durable(Reply<()>),
    /// To a confirm or a cancel.
    Settle(Reply<SettleAnswer>, SettleAnswer),
}

impl Answer {
    /// Sends it; threads with a desk hear of it with `announcements`.
    pub fn send(self, announcements: &mut Announcements) {
        match self {
            Answer::Check(reply, answer) => reply.answer_later(answer, announcements),
            Answer::Durable(reply) => reply.answer_later((), announcements),
            Answer::Settle(reply, answer) => reply.answer_later(answer, announcements),
        }
    }

    /// Sends "Unavailable" instead.
    pub fn refuse(self) {
        match self {
            Answer::Check(reply, _) => reply.answer(CheckAnswer::Unavailable),
            Answer::Durable(reply) => drop(reply),
            Answer::Settle(reply, _) => reply.answer(SettleAnswer::Unavailable),
        }
    }
}
