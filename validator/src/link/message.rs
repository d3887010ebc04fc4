//! The messages of the link (catalogue §10.6). Fields that a reader does not know are skipped;
//! fields that it needs and that are missing make the message malformed. Times are milliseconds
//! since 1970-01-01T00:00:00Z; money is kopecks; identifiers go as keyed digests of 16 bytes.

use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};

use crate::trip::{Trip, TripResult};

/// Which message a frame holds. Numbers are never reused.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u16)]
pub enum Kind {
    /// [`Hello`], answered by [`Welcome`].
    Hello = 1,
    /// [`Welcome`].
    Welcome = 2,
    /// [`Check`], answered by [`CheckResult`].
    Check = 3,
    /// [`CheckResult`].
    CheckResult = 4,
    /// [`Confirm`], answered by [`Ack`].
    Confirm = 5,
    /// [`Cancel`], answered by [`Ack`].
    Cancel = 6,
    /// [`Ack`].
    Ack = 7,
    /// [`TripBatch`], answered by [`TripResults`].
    TripBatch = 8,
    /// [`TripResults`].
    TripResults = 9,
    /// [`RegistryPull`], answered by one [`RegistryOffer`], then its [`RegistryPart`]s.
    RegistryPull = 10,
    /// [`RegistryOffer`].
    RegistryOffer = 11,
    /// [`RegistryPart`].
    RegistryPart = 12,
    /// [`RegistryAck`], answered by [`Ack`].
    RegistryAck = 13,
    /// [`BlockPush`], from the server, never answered.
    BlockPush = 14,
    /// [`Ping`], answered by [`Pong`].
    Ping = 15,
    /// [`Pong`].
    Pong = 16,
    /// [`Failure`], in place of any answer.
    Failure = 17,
}

impl Kind {
    /// The kind from its number.
    pub fn from_wire(number: u16) -> Option<Kind> {
        Some(match number {
            1 => Kind::Hello,
            2 => Kind::Welcome,
            3 => Kind::Check,
            4 => Kind::CheckResult,
            5 => Kind::Confirm,
            6 => Kind::Cancel,
            7 => Kind::Ack,
            8 => Kind::TripBatch,
            9 => Kind::TripResults,
            10 => Kind::RegistryPull,
            11 => Kind::RegistryOffer,
            12 => Kind::RegistryPart,
            13 => Kind::RegistryAck,
            14 => Kind::BlockPush,
            15 => Kind::Ping,
            16 => Kind::Pong,
            17 => Kind::Failure,
            _ => return None,
        })
    }
}

/// The first message of a connection.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Hello {
    /// The oldest version of these messages that the device speaks.
    pub version_min: u16,
    /// The newest one.
    pub version_max: u16,
    /// The terminal that the device takes itself for; must be the one of its certificate.
    pub terminal: u64,
    /// The holder registry that it has installed, 0 for none.
    pub registry_version: u64,
    /// Its clock.
    pub clock_ms: i64,
}

/// The server's answer to [`Hello`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Welcome {
    /// The version to speak: the newest that both know.
    pub version: u16,
    /// The server's clock.
    pub clock_ms: i64,
    /// The organization of the terminal: the carrier.
    pub organization: u32,
    /// The newest holder registry for this organization, 0 for none.
    pub registry_version: u64,
    /// Keys the digests of card identifiers.
    pub card_key: ByteArray<16>,
    /// The Ed25519 keys that sign holder registries and tickets.
    pub signers: Vec<Signer>,
    /// What the device must keep to on its own.
    pub rules: Rules,
    /// Requests that may be under way at the same time.
    pub in_flight_max: u32,
}

/// A key that signs registries and tickets.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Signer {
    /// Its number, which signatures name.
    pub id: u32,
    /// The public key.
    pub key: ByteArray<32>,
}

/// Rules that a device keeps to on its own (catalogue §6.6).
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Rules {
    /// Seconds between two grants for one card at one stop; 0 switches the rule off.
    pub passback_seconds: u32,
    /// Hours past its end during which a registry still grants; 0 by default (fail closed).
    pub grace_hours: u32,
}

/// "Which benefit has this card here and now?"
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Check {
    /// For which service.
    pub service: u32,
    /// The digest of the identifier.
    pub id_hash: ByteArray<16>,
    /// The full price, where the device knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<u64>,
}

/// The answer to [`Check`].
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct CheckResult {
    /// The business code of D0 A7: 0 granted, else the reason.
    pub code: u8,
    /// What to confirm or cancel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tx: Option<u64>,
    /// Whose right it is; confirm and cancel repeat it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<u64>,
    /// The winning category.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<u32>,
    /// Size of the benefit, percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discount: Option<u8>,
    /// Last date of the right, days since 1970-01-01; absent where it has no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_to: Option<i32>,
    /// Whether a companion travels on the same right.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub companion: bool,
}

/// "The service was delivered."
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Confirm {
    /// For which check.
    pub tx: u64,
    /// As [`CheckResult`] had it.
    pub holder: u64,
    /// As [`CheckResult`] had it.
    pub category: u32,
    /// The full price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<u64>,
    /// What the holder paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discounted: Option<u64>,
}

/// "The holder refused."
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Cancel {
    /// For which check.
    pub tx: u64,
    /// As [`CheckResult`] had it.
    pub holder: u64,
}

/// The answer to [`Confirm`], [`Cancel`] and [`RegistryAck`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Ack {
    /// What became of it.
    pub code: AckCode,
}

/// What became of a settlement.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AckCode {
    /// Done now or by an earlier identical message, and durable.
    Done,
    /// Holder or category are not the answered ones.
    Mismatch,
    /// There is no such transaction (any more).
    NotFound,
    /// The server cannot answer now; repeat.
    Unavailable,
    /// It was settled otherwise before.
    WrongState,
}

/// Trips to record; at most [`crate::trip::BATCH_TRIPS_MAX`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TripBatch {
    /// The trips, in any order, repeated as often as the device likes.
    pub trips: Vec<Trip>,
}

/// One result for each trip of a [`TripBatch`], in its order; durable.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TripResults {
    /// The results.
    pub results: Vec<TripResult>,
}

/// "Bring my holder registry up to date."
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RegistryPull {
    /// The version that the device has, 0 for none.
    pub have: u64,
}

/// The answer to [`RegistryPull`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RegistryOffer {
    /// What follows in [`RegistryPart`]s.
    pub form: RegistryForm,
    /// The version that the device has afterwards.
    pub version: u64,
    /// Bytes that follow.
    pub bytes: u64,
}

/// How a registry is brought up to date.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RegistryForm {
    /// A delta from the version that the device has.
    Delta,
    /// The whole file.
    Full,
    /// There is no registry for this organization.
    None,
    /// Nothing follows.
    UpToDate,
}

/// A piece of a registry file or delta, in order.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RegistryPart {
    /// The piece.
    pub bytes: ByteBuf,
}

/// "I installed this registry."
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RegistryAck {
    /// Which.
    pub version: u64,
    /// The SHA-256 of the installed file.
    pub sha256: ByteArray<32>,
}

/// "This card must (not) be granted anything from now on", ahead of the next registry.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct BlockPush {
    /// The digest of the identifier.
    pub id_hash: ByteArray<16>,
    /// False where an earlier block is lifted.
    pub blocked: bool,
    /// When the server learned of it.
    pub at_ms: i64,
}

/// "Are you there, and what time is it?"
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Ping {
    /// The device's clock.
    pub clock_ms: i64,
}

/// The answer to [`Ping`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Pong {
    /// The server's clock.
    pub clock_ms: i64,
}

/// In place of an answer: why there is none.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Failure {
    /// Why.
    pub code: FailureCode,
}

/// Why a message has no answer.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The message's time was up before it was worked on.
    DeadlinePassed,
    /// [`Hello`] did not come first, or came twice.
    HelloExpected,
    /// The message is not what its kind promises.
    Malformed,
    /// The device has used up its budget for now.
    TooMany,
    /// Early data may not change anything: send it again once the handshake is complete.
    TooEarly,
    /// The server cannot answer now; repeat.
    Unavailable,
    /// No message has this kind.
    UnknownKind,
    /// There is no version that both speak.
    UnknownVersion,
    /// The terminal is not the one of the certificate, or not active.
    WrongTerminal,
}
