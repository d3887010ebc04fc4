//! The actix actor of a shard: a thread of its own that lets a [`ShardWorker`] drain the mailbox.
//!
//! Mailbox and batch limits are those of [`crate::shard`]; the actor's own mailbox only ever holds
//! wake-ups, of which one at a time is under way. The supervisor starts and replaces it.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, Addr, Context, Handler, Message};
use actix_rt::System;

use crate::partition::Partition;
use crate::shard::{Shard, ShardWorker, WorkerHandle};

/// Puts a new actor in charge of `shard`, on a thread of its own.
pub fn start(partition: &Arc<Partition>, shard: &Arc<Shard>) -> std::io::Result<()> {
    let generation = shard.start_generation();
    let worker = ShardWorker::new(partition.clone(), shard.clone(), generation);
    let (sender, receiver) = crossbeam::channel::bounded(1);
    std::thread::Builder::new().name(format!("shard-{}", shard.id())).spawn(move || {
        let runner = System::new();
        let addr = runner.block_on(async { ShardActor { worker }.start() });
        // Nobody waits any more only when the engine is gone.
        let _ = sender.send((addr, System::current()));
        runner.run()
    })?;
    let (addr, system) = receiver.recv().map_err(std::io::Error::other)?;
    shard.employ(Box::new(ActorHandle { addr, system }));
    Ok(())
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
    system: System,
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
        self.system.stop();
    }
}
