//! The actix actor of a shard: a thread of its own that lets a [`ShardWorker`] drain the mailbox.
//!
//! Mailbox and batch limits are those of [`crate::shard`]; the actor's own mailbox only ever holds
//! wake-ups, of which one at a time is under way. The supervisor starts and replaces it.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, Addr, Context, Handler, Message};
use actix_rt::Arbiter;

use crate::partition::Partition;
use crate::shard::{Shard, ShardWorker, WorkerHandle};

/// Puts a new actor in charge of `shard`, on a thread of its own.
pub fn start(partition: &Arc<Partition>, shard: &Arc<Shard>) {
    let generation = shard.start_generation();
    let worker = ShardWorker::new(partition.clone(), shard.clone(), generation);
    let arbiter = Arbiter::new();
    let addr = ShardActor::start_in_arbiter(&arbiter.handle(), |_| ShardActor { worker });
    shard.employ(Box::new(ActorHandle { addr, arbiter }));
}

/// Lets the actor of `shard` die as by a bug, or hang for a while; for tests of the supervisor.
#[derive(Clone, Copy, Debug, Eq, Message, PartialEq)]
#[rtype(result = "()")]
pub enum Fault {
    /// The actor ends.
    Die,
    /// The actor's thread does nothing for this long.
    Hang(Duration),
}

struct ShardActor {
    worker: ShardWorker,
}

impl Actor for ShardActor {
    type Context = Context<ShardActor>;
}

#[derive(Message)]
#[rtype(result = "()")]
struct Drain;

impl Handler<Drain> for ShardActor {
    type Result = ();

    fn handle(&mut self, _: Drain, context: &mut Self::Context) {
        if !self.worker.drain() {
            context.stop();
        }
    }
}

impl Handler<Fault> for ShardActor {
    type Result = ();

    fn handle(&mut self, fault: Fault, context: &mut Self::Context) {
        match fault {
            Fault::Die => context.stop(),
            Fault::Hang(pause) => std::thread::sleep(pause),
        }
    }
}

struct ActorHandle {
    addr: Addr<ShardActor>,
    arbiter: Arbiter,
}

impl WorkerHandle for ActorHandle {
    fn wake(&self) -> bool {
        self.addr.try_send(Drain).is_ok()
    }

    fn is_alive(&self) -> bool {
        self.addr.connected()
    }

    fn inject(&self, fault: Fault) {
        // A dead actor needs no fault.
        let _ = self.addr.try_send(fault);
    }
}

impl Drop for ActorHandle {
    fn drop(&mut self) {
        self.arbiter.stop();
    }
}
