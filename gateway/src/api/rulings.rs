//! `POST /api/v2/trips/rulings`: the ministry decides on disputed trips, up to 1,000 a call, each
//! answered by itself.
//!
//! A repeated ruling gets its first answer. It may be changed until a claim with the trip was handed
//! in; from then on trips are refused in the claim.

use std::fmt::Write;

use engine::command::Deadline;
use engine::ids::TerminalId;
use engine::limits::{REFUSAL_CHARACTERS_MAX, RULINGS_MAX};
use engine::trips::ruling::{Ruling, RulingOutcome, RulingVerdict};
use engine::trips::trip::{TripName, TripSeq};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::api::Answer;
use crate::api::fields::{self, Field};
use crate::api::items::Items;
use crate::errors::ApiError;
use crate::gateway::Gateway;
use crate::metrics::Outcome;

/// Bytes of a body here: as many rulings as there may be, with the longest reasons.
pub const BODY_BYTES_MAX: usize = RULINGS_MAX * (REFUSAL_CHARACTERS_MAX * 6 + 128);

/// Answers a call.
pub async fn answer(
    gateway: &Gateway,
    body: &[u8],
    deadline: Deadline,
) -> Result<Answer, ApiError> {
    let rulings = read(body)?;
    let names: Vec<TripName> = rulings.iter().map(|ruling| ruling.name).collect();
    let outcomes = if rulings.is_empty() {
        Vec::new()
    } else {
        gateway.engine.trips().rule(rulings, deadline).await
    };
    let mut out = String::with_capacity(32 + 64 * names.len());
    out.push_str("{\"results\":[");
    for (at, (name, outcome)) in names.iter().zip(outcomes).enumerate() {
        if at > 0 {
            out.push(',');
        }
        let (terminal, seq, status) = (name.terminal, name.seq.0, status_name(outcome));
        // Writing into a string cannot fail.
        let _infallible =
            write!(out, "{{\"terminalId\":{terminal},\"seq\":{seq},\"status\":\"{status}\"}}");
    }
    out.push_str("]}");
    Ok(Answer::json(Outcome::Done, out))
}

/// The word of a verdict.
pub fn verdict_name(verdict: RulingVerdict) -> &'static str {
    match verdict {
        RulingVerdict::Accepted => "accepted",
        RulingVerdict::Rejected => "rejected",
    }
}

fn status_name(outcome: RulingOutcome) -> &'static str {
    match outcome {
        RulingOutcome::Claimed => "claimed",
        RulingOutcome::NotDisputed => "not_disputed",
        RulingOutcome::NotFound => "not_found",
        RulingOutcome::Ruled(verdict) => verdict_name(verdict),
        RulingOutcome::Unavailable => "unavailable",
    }
}

#[derive(Deserialize)]
struct RulingsFields<'a> {
    #[serde(borrow)]
    rulings: Field<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RulingFields<'a> {
    #[serde(borrow)]
    terminal_id: Field<'a>,
    #[serde(borrow)]
    seq: Field<'a>,
    #[serde(borrow)]
    ruling: Field<'a>,
    #[serde(borrow)]
    reason: Field<'a>,
}

fn read(body: &[u8]) -> Result<Vec<Ruling>, ApiError> {
    let given = fields::parse::<RulingsFields<'_>>(body)?;
    let text = fields::required(given.rulings)?.get();
    let Items(items) = serde_json::from_str::<Items<&RawValue, RULINGS_MAX>>(text)
        .map_err(|_| ApiError::BadFormat)?;
    if items.len() > RULINGS_MAX {
        return Err(ApiError::BadFormat);
    }
    items.iter().map(|item| read_one(item.get())).collect()
}

fn read_one(text: &str) -> Result<Ruling, ApiError> {
    let given = fields::parse_text::<RulingFields<'_>>(text)?;
    let number = |field| {
        let number = fields::integer(fields::required(field)?)?;
        u64::try_from(number).map_err(|_| ApiError::BadFormat)
    };
    let terminal = TerminalId(number(given.terminal_id)?);
    let seq = TripSeq(number(given.seq)?);
    let verdict = match &*fields::text(fields::required(given.ruling)?)? {
        "accepted" => RulingVerdict::Accepted,
        "rejected" => RulingVerdict::Rejected,
        _ => return Err(ApiError::BadFormat),
    };
    let reason = given.reason.map(fields::text).transpose()?.unwrap_or_default();
    let reason = reason.trim().to_owned();
    if reason.is_empty() && verdict == RulingVerdict::Rejected {
        return Err(ApiError::MissingField);
    }
    if reason.chars().count() > REFUSAL_CHARACTERS_MAX {
        return Err(ApiError::BadFormat);
    }
    Ok(Ruling { name: TripName { terminal, seq }, verdict, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_needs_a_reason() {
        let check = |fields: &str, expected: Option<ApiError>| {
            let body = format!(r#"{{"rulings":[{{"terminalId":2,"seq":1,{fields}}}]}}"#);
            assert_eq!(read(body.as_bytes()).err(), expected, "{fields}");
        };
        check(r#""ruling":"accepted""#, None);
        check(r#""ruling":"accepted","reason":"акт""#, None);
        check(r#""ruling":"rejected","reason":"акт""#, None);
        check(r#""ruling":"rejected""#, Some(ApiError::MissingField));
        check(r#""ruling":"rejected","reason":" ""#, Some(ApiError::MissingField));
        check(r#""ruling":"perhaps""#, Some(ApiError::BadFormat));
        check(r#""reason":"акт""#, Some(ApiError::MissingField));
        let long = format!(r#""ruling":"accepted","reason":"{}""#, "ы".repeat(201));
        check(&long, Some(ApiError::BadFormat));
        assert_eq!(read(b"{}"), Err(ApiError::MissingField));
        assert_eq!(read(br#"{"rulings":7}"#), Err(ApiError::BadFormat));
        assert_eq!(read(br#"{"rulings":[]}"#), Ok(Vec::new()));
        let negative = br#"{"rulings":[{"terminalId":2,"seq":-1,"ruling":"accepted"}]}"#;
        assert_eq!(read(negative), Err(ApiError::BadFormat));
    }
}
