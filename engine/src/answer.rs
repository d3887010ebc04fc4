//! Answers on their way back: to whom, and what, once it is durable.

use tokio::sync::oneshot;

use crate::command::{CheckAnswer, SettleAnswer};

/// Somebody who waits for one answer. Dropped without one, it answers Unavailable.
pub struct Reply<T>(Option<Receiver<T>>);

enum Receiver<T> {
    Call(Box<dyn FnOnce(Option<T>) + Send>),
    Channel(oneshot::Sender<T>),
}

impl<T: Send + 'static> Reply<T> {
    /// Hands the answer to `receive`, which must be quick: it runs on the committing thread.
    pub fn new(receive: impl FnOnce(Option<T>) + Send + 'static) -> Reply<T> {
        Reply(Some(Receiver::Call(Box::new(receive))))
    }

    /// A reply and the future of its answer.
    pub fn channel() -> (Reply<T>, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (Reply(Some(Receiver::Channel(sender))), receiver)
    }

    /// Gives the answer.
    pub fn answer(mut self, answer: T) {
        match self.0.take() {
            Some(Receiver::Call(receive)) => receive(Some(answer)),
            Some(Receiver::Channel(sender)) => {
                // A caller that went away wants no answer.
                let _ = sender.send(answer);
            }
            None => {}
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if let Some(Receiver::Call(receive)) = self.0.take() {
            receive(None);
        }
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
    /// Sends it.
    pub fn send(self) {
        match self {
            Answer::Check(reply, answer) => reply.answer(answer),
            Answer::Durable(reply) => reply.answer(()),
            Answer::Settle(reply, answer) => reply.answer(answer),
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
