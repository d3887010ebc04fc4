//! Which kind a message has, and which message answers which.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::link::message::{
    Ack, BlockPush, Cancel, Check, CheckResult, Confirm, Failure, Hello, Kind, Ping, Pong,
    RegistryAck, RegistryOffer, RegistryPart, RegistryPull, TripBatch, TripResults, Welcome,
};

/// A message of the link.
pub trait Message: DeserializeOwned + Serialize {
    /// Its number on the wire.
    const KIND: Kind;
}

/// A message that one message answers.
pub trait Request: Message {
    /// The answer.
    type Answer: Message;
}

macro_rules! messages {
    ($($name:ident),*) => {$(
        impl Message for $name {
            const KIND: Kind = Kind::$name;
        }
    )*};
}

macro_rules! requests {
    ($($name:ident => $answer:ident),*) => {$(
        impl Request for $name {
            type Answer = $answer;
        }
    )*};
}

messages! {
    Ack, BlockPush, Cancel, Check, CheckResult, Confirm, Failure, Hello, Ping, Pong, RegistryAck,
    RegistryOffer, RegistryPart, RegistryPull, TripBatch, TripResults, Welcome
}

requests! {
    Cancel => Ack,
    Check => CheckResult,
    Confirm => Ack,
    Hello => Welcome,
    Ping => Pong,
    RegistryAck => Ack,
    RegistryPull => RegistryOffer,
    TripBatch => TripResults
}
