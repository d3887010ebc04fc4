//! `POST /api/v2/trips`: trips of a carrier's terminals, up to 16,384 a call, each answered by itself.
//!
//! Three forms by content type: JSON (`{"trips":[…]}`, also where no type is given), NDJSON
//! (`application/x-ndjson`, a trip a line) and the link's own message (`application/msgpack`,
//! answered in kind). The body is taken apart before anything is recorded; a wrong trip spoils only
//! itself. A trip that cannot be read at all has no name and is answered as rejected without a
//! record; everything else that is not "unavailable" is durable when it is answered.

use std::borrow::Cow;
use std::fmt::Write;

use actix_web::dev::RequestHead;
use actix_web::http::header::{CONTENT_TYPE, HeaderValue};
use engine::command::Deadline;
use engine::identifier::{Digest, DigestKey};
use engine::ids::OrganizationId;
use engine::limits::UPLOAD_TRIPS_MAX;
use engine::trips::clerk::UploadScope;
use engine::trips::trip::{Trip, TripOutcome, TripReason};
use serde::Deserialize;
use serde_json::value::RawValue;
use validator::link::message::{TripBatch, TripResults};
use validator::trip::{self as wire, TripResult};
use validator::verdict::Verdict;

use crate::api::fields::{self, Field};
use crate::api::items::Items;
use crate::api::{Answer, Caller};
use crate::errors::ApiError;
use crate::gateway::Gateway;
use crate::metrics::Outcome;
use crate::money;
use crate::trips::{reason_name, result_of, trip_of};

/// Trips after which other requests of the worker get a turn.
const TURN_TRIPS: usize = 512;

/// How trips are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    Json,
    Lines,
    MessagePack,
}

/// Answers an upload.
pub async fn answer(
    gateway: &Gateway,
    caller: &Caller<'_>,
    request: &RequestHead,
    body: &[u8],
    deadline: Deadline,
) -> Result<Answer, ApiError> {
    let form = form_of(request.headers.get(CONTENT_TYPE));
    let key = &gateway.engine.keys().identifiers;
    let reader = Reader { organization: caller.id, key };
    let read = match form {
        Form::Json => reader.json(body).await?,
        Form::Lines => reader.lines(body).await?,
        Form::MessagePack => reader.message(body)?,
    };
    let numbers: Vec<u64> = read
        .iter()
        .map(|trip| trip.as_ref().map_or_else(|seq| *seq, |trip| trip.name.seq.0))
        .collect();
    let is_named: Vec<bool> = read.iter().map(Result::is_ok).collect();
    let trips: Vec<Trip> = read.into_iter().flatten().collect();
    let scope = UploadScope { organization: caller.id, terminal: None };
    let outcomes = if trips.is_empty() {
        Vec::new()
    } else {
        gateway.engine.trips().upload(scope, trips, deadline).await
    };
    let mut outcomes = outcomes.into_iter();
    let malformed = TripOutcome::Refused(TripReason::Malformed);
    let outcome = |named: &bool| {
        if *named { outcomes.next().unwrap_or(TripOutcome::Unavailable) } else { malformed }
    };
    let outcomes: Vec<TripOutcome> = is_named.iter().map(outcome).collect();
    let results: Vec<TripResult> =
        numbers.iter().zip(outcomes).map(|(seq, outcome)| result_of(*seq, outcome)).collect();
    match form {
        Form::MessagePack => message(results),
        Form::Json | Form::Lines => Ok(Answer::json(Outcome::Done, write(&results).await)),
    }
}

fn form_of(content_type: Option<&HeaderValue>) -> Form {
    let given = content_type.and_then(|value| value.to_str().ok());
    match given.and_then(|value| value.split(';').next()).map(str::trim) {
        Some("application/x-ndjson" | "application/ndjson") => Form::Lines,
        Some("application/msgpack" | "application/x-msgpack") => Form::MessagePack,
        _ => Form::Json,
    }
}

/// Reads trips of a carrier.
struct Reader<'a> {
    organization: OrganizationId,
    key: &'a DigestKey,
}

/// A trip, or the number of one that cannot be read.
type Read = Result<Trip, u64>;

#[derive(Deserialize)]
struct UploadFields<'a> {
    #[serde(borrow)]
    trips: Field<'a>,
}

/// A trip on the wire. Names and money are as in the other calls, instants as RFC 3339.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TripFields<'a> {
    seq: u64,
    terminal_id: u64,
    #[serde(borrow, default)]
    trip_id: Option<Cow<'a, str>>,
    event: wire::TripEvent,
    mode: wire::TripMode,
    #[serde(borrow)]
    at: Cow<'a, str>,
    #[serde(default)]
    clock_offset_ms: i64,
    service_id: u32,
    #[serde(default)]
    route: String,
    #[serde(default)]
    vehicle: String,
    #[serde(default)]
    from_stop: String,
    #[serde(default)]
    to_stop: String,
    #[serde(borrow, default)]
    id_hash: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    mifare_uid: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    num_sid: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    client_code: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    card_number: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    card_series: Option<Cow<'a, str>>,
    #[serde(default)]
    registry_version: u64,
    verdict: Verdict,
    #[serde(default)]
    benefit_category_id: Option<u32>,
    #[serde(default)]
    companion: bool,
    #[serde(borrow, default)]
    tariff: Field<'a>,
    #[serde(default)]
    discount: u8,
    #[serde(borrow, default)]
    benefit: Field<'a>,
    #[serde(default)]
    ticket: String,
    #[serde(default)]
    transaction_id: Option<u64>,
}

/// What is told of a trip that cannot be read.
#[derive(Deserialize)]
struct NumberFields {
    seq: u64,
}

impl Reader<'_> {
    async fn json(&self, body: &[u8]) -> Result<Vec<Read>, ApiError> {
        let given = fields::parse::<UploadFields<'_>>(body)?;
        let text = fields::required(given.trips)?.get();
        if !text.starts_with('[') {
            return Err(ApiError::BadFormat);
        }
        let Items(items) = serde_json::from_str::<Items<&RawValue, UPLOAD_TRIPS_MAX>>(text)
            .map_err(|_| ApiError::BadJson)?;
        self.texts(items.iter().map(|item| item.get())).await
    }

    async fn lines(&self, body: &[u8]) -> Result<Vec<Read>, ApiError> {
        let text = std::str::from_utf8(body).map_err(|_| ApiError::BadJson)?;
        self.texts(text.lines().filter(|line| !line.trim().is_empty())).await
    }

    async fn texts<'t>(&self, texts: impl Iterator<Item = &'t str>) -> Result<Vec<Read>, ApiError> {
        let mut read = Vec::new();
        for text in texts {
            if read.len() == UPLOAD_TRIPS_MAX {
                return Err(ApiError::BadFormat);
            }
            read.push(self.trip(text));
            if read.len().is_multiple_of(TURN_TRIPS) {
                tokio::task::yield_now().await;
            }
        }
        Ok(read)
    }

    fn message(&self, body: &[u8]) -> Result<Vec<Read>, ApiError> {
        let batch: TripBatch = rmp_serde::from_slice(body).map_err(|_| ApiError::BadJson)?;
        if batch.trips.len() > UPLOAD_TRIPS_MAX {
            return Err(ApiError::BadFormat);
        }
        let trips = batch.trips.into_iter();
        Ok(trips.map(|trip| Ok(trip_of(trip, self.organization, None))).collect())
    }

    fn trip(&self, text: &str) -> Read {
        let fields = fields::parse_text::<TripFields<'_>>(text).ok();
        let trip = fields.and_then(|fields| self.understood(fields));
        trip.ok_or_else(|| {
            serde_json::from_str::<NumberFields>(text).map_or(0, |fields| fields.seq)
        })
    }

    fn understood(&self, fields: TripFields<'_>) -> Option<Trip> {
        let identifier = self.identifier(&fields)?;
        let at = engine::calendar::Timestamp::parse(&fields.at)?;
        let key = fields.trip_id.as_deref().map(uuid);
        let money = |field: Field<'_>| match field {
            None => Some(0),
            Some(field) => money::parse(field.get()).map(|amount| amount.0),
        };
        let trip = wire::Trip {
            seq: fields.seq,
            terminal: Some(fields.terminal_id),
            trip_id: match key {
                None => None,
                Some(key) => Some(serde_bytes::ByteArray::new(key?)),
            },
            event: fields.event,
            mode: fields.mode,
            at_ms: at.0.div_euclid(1_000),
            clock_offset_ms: fields.clock_offset_ms,
            service: fields.service_id,
            route: fields.route,
            vehicle: fields.vehicle,
            from_stop: fields.from_stop,
            to_stop: fields.to_stop,
            id_hash: serde_bytes::ByteArray::new(identifier.0),
            registry_version: fields.registry_version,
            verdict: fields.verdict,
            category: fields.benefit_category_id,
            companion: fields.companion,
            tariff: money(fields.tariff)?,
            discount: fields.discount,
            benefit: money(fields.benefit)?,
            ticket: fields.ticket,
            tx: fields.transaction_id,
        };
        Some(trip_of(trip, self.organization, None))
    }

    /// The digest of the one identifier that is given.
    fn identifier(&self, fields: &TripFields<'_>) -> Option<Digest> {
        let card = fields.card_number.as_deref().zip(fields.card_series.as_deref());
        let half = fields.card_number.is_some() != fields.card_series.is_some();
        let given = [&fields.id_hash, &fields.mifare_uid, &fields.num_sid, &fields.client_code];
        if half
            || given.iter().filter(|one| one.is_some()).count() + usize::from(card.is_some()) != 1
        {
            return None;
        }
        let key = self.key;
        if let Some(hash) = fields.id_hash.as_deref() {
            return hex(hash).map(Digest);
        }
        let digest = match (card, &fields.mifare_uid, &fields.num_sid, &fields.client_code) {
            (Some((number, series)), ..) => key.social_card(number, series),
            (_, Some(uid), ..) => key.mifare_uid(uid),
            (_, _, Some(num_sid), _) => key.num_sid(num_sid),
            (.., Some(code)) => key.client_code(code),
            _ => return None,
        };
        digest.ok()
    }
}

/// 32 hexadecimal digits.
fn hex(text: &str) -> Option<[u8; 16]> {
    let plain = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let value = plain.then(|| u128::from_str_radix(text, 16).ok()).flatten()?;
    Some(value.to_be_bytes())
}

/// A UUID in its usual form.
fn uuid(text: &str) -> Option<[u8; 16]> {
    let dashes = text.bytes().enumerate().filter(|(_, byte)| *byte == b'-').map(|(at, _)| at);
    let plain: String = text.chars().filter(|letter| *letter != '-').collect();
    dashes.eq([8, 13, 18, 23]).then(|| hex(&plain)).flatten()
}

async fn write(results: &[TripResult]) -> String {
    let mut out = String::with_capacity(32 + 48 * results.len());
    out.push_str("{\"results\":[");
    for (at, result) in results.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        // Writing into a string cannot fail.
        let _infallible =
            write!(out, "{{\"seq\":{},\"status\":\"{}\"", result.seq, status_name(result.status));
        if let Some(reason) = result.reason {
            let _infallible = write!(out, ",\"reason\":\"{}\"", reason_name(reason));
        }
        if let Some(first) = result.first {
            let _infallible = write!(out, ",\"first\":\"{}\"", status_name(first));
        }
        out.push('}');
        if at % TURN_TRIPS == TURN_TRIPS - 1 {
            tokio::task::yield_now().await;
        }
    }
    out.push_str("]}");
    out
}

fn message(results: Vec<TripResult>) -> Result<Answer, ApiError> {
    let packed =
        rmp_serde::to_vec_named(&TripResults { results }).map_err(|_| ApiError::Unavailable)?;
    let mut answer = Answer::json(Outcome::Done, packed);
    let msgpack = HeaderValue::from_static("application/msgpack");
    answer.response.headers_mut().insert(CONTENT_TYPE, msgpack);
    Ok(answer)
}

fn status_name(status: wire::TripStatus) -> &'static str {
    match status {
        wire::TripStatus::Accepted => "accepted",
        wire::TripStatus::Conflict => "conflict",
        wire::TripStatus::Disputed => "disputed",
        wire::TripStatus::Duplicate => "duplicate",
        wire::TripStatus::Rejected => "rejected",
        wire::TripStatus::Unavailable => "unavailable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    const GOOD: &str = r#"{"seq":7,"terminalId":2,"event":"boarding","mode":"offline","at":"2025-06-02T12:00:00+03:00","serviceId":1,"clientCode":"AAABBBCCC","verdict":"GRANT","tariff":250.5,"discount":100}"#;

    fn read(text: &str) -> Read {
        let key = &fixture::keys().engine.identifiers;
        Reader { organization: OrganizationId(1), key }.trip(text)
    }

    #[test]
    fn trips_are_read_as_they_are_meant() {
        let trip = read(GOOD).unwrap();
        assert_eq!(trip.at().to_string(), "2025-06-02T09:00:00.000000Z");
        assert_eq!((trip.name.terminal.0, trip.name.seq.0, trip.tariff.0), (2, 7, 25_050));
        let code = fixture::keys().engine.identifiers.client_code("AAABBBCCC").unwrap();
        assert_eq!(trip.identifier, code);
        let hashed = GOOD.replace(
            r#""clientCode":"AAABBBCCC""#,
            r#""idHash":"000102030405060708090a0b0c0d0e0f","tripId":"00010203-0405-0607-0809-0A0B0C0D0E0F""#,
        );
        let trip = read(&hashed).unwrap();
        assert_eq!(trip.identifier.0[15], 15);
        assert_eq!(trip.key.unwrap().0[15], 15);
    }

    #[test]
    fn what_cannot_be_read_keeps_its_number() {
        let check = |from: &str, to: &str, expected: u64| {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD);
            assert_eq!(read(&text).err(), Some(expected), "{to}");
        };
        check("\"terminalId\":2,", "", 7);
        check("\"seq\":7", "\"seq\":-7", 0);
        check("250.5", "250.555", 7);
        check("\"GRANT\"", "\"MAYBE\"", 7);
        check("2025-06-02T12:00:00+03:00", "yesterday", 7);
        check("AAABBBCCC", "AAA BBB", 7);
        check("\"seq\":7,", "\"seq\":7,\"mifareUid\":\"04A1B2C3\",", 7);
        check("\"seq\":7,", "\"seq\":7,\"cardSeries\":\"14010125\",", 7);
        check("\"seq\":7,", "\"seq\":7,\"tripId\":\"0001\",", 7);
        check("100}", "256}", 7);
        check(GOOD, "[]", 0);
    }
}
