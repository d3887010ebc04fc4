//! `POST /api/v2/tickets`: a check that is answered with a signed ticket, which validators believe
//! without a link. The ticket has the number of the check's transaction, which is confirmed or
//! cancelled like any other.

use std::fmt::Write;
use std::ops::RangeInclusive;

use engine::calendar::{Timestamp, UtcOffset};
use engine::command::{CheckAnswer, Granted};
use engine::directory::ApiType;
use serde::Deserialize;
use serde_json::value::RawValue;
use validator::registry::ShortDigest;
use validator::ticket::Ticket;

use crate::api::check::{self, CheckFields};
use crate::api::fields::{self, Field};
use crate::api::{Answer, Caller};
use crate::errors::ApiError;
use crate::gateway::Gateway;

/// Seconds that a ticket on a screen may live: its picture must soon be worth nothing.
const SCREEN_SECONDS: RangeInclusive<i64> = 30..=120;
/// Seconds that one on paper may live which is not for a date.
const PAPER_SECONDS: RangeInclusive<i64> = 30..=86_400;
/// Days from today to the last date that a ticket can be for.
const DAYS_AHEAD_MAX: i32 = 45;

/// The fields beside those of a check, as texts.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TicketFields<'a> {
    #[serde(borrow)]
    valid_seconds: Field<'a>,
    #[serde(borrow)]
    valid_date: Field<'a>,
    #[serde(borrow)]
    card_required: Field<'a>,
    #[serde(borrow)]
    paper: Field<'a>,
}

/// When a ticket is valid, seconds since 1970-01-01T00:00:00Z; the second one not any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Life {
    from: u32,
    to: u32,
}

impl TicketFields<'_> {
    /// From now for some seconds, or all of a date on the organization's wall.
    fn life(&self, now: Timestamp, offset: UtcOffset) -> Result<Life, ApiError> {
        let (from, to) = match (self.valid_seconds, self.valid_date) {
            (Some(seconds), None) => {
                let seconds = fields::integer(seconds)?;
                let lives = if flag(self.paper)? { PAPER_SECONDS } else { SCREEN_SECONDS };
                if !lives.contains(&seconds) {
                    return Err(ApiError::BadFormat);
                }
                (now, now.plus_seconds(seconds))
            }
            (None, Some(date)) => {
                let (day, today) = (fields::date(date)?, now.local_day(offset));
                if !(today.0..=today.0.saturating_add(DAYS_AHEAD_MAX)).contains(&day.0) {
                    return Err(ApiError::BadFormat);
                }
                (day.begins(offset), day.next().begins(offset))
            }
            (Some(_), Some(_)) => return Err(ApiError::BadFormat),
            (None, None) => return Err(ApiError::MissingField),
        };
        let seconds = |at: Timestamp| u32::try_from(at.unix_seconds());
        let life = seconds(from).and_then(|from| Ok(Life { from, to: seconds(to)? }));
        life.map_err(|_| ApiError::BadFormat)
    }
}

fn flag(field: Field<'_>) -> Result<bool, ApiError> {
    match field.map(RawValue::get) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(ApiError::BadFormat),
    }
}

/// Answers a check together with its ticket.
pub fn answer(gateway: &Gateway, caller: &Caller<'_>, body: &[u8]) -> Result<Answer, ApiError> {
    let given = fields::parse::<CheckFields>(body)?;
    let wanted = fields::parse::<TicketFields>(body)?;
    let reader = check::reader(gateway, caller)?;
    if check::is_recorded(gateway, reader.api_type) {
        return Err(ApiError::MethodNotForType);
    }
    let request = reader.read(&given)?;
    let compiled = caller.registry.directory().compiled(caller.id);
    let offset = compiled.map(|compiled| compiled.utc_offset).unwrap_or_default();
    let life = wanted.life(gateway.engine.now(), offset)?;
    let card_required = flag(wanted.card_required)?;
    // Type 2 names persons: no card can be required, and nothing of a SNILS goes into a ticket.
    if card_required && reader.api_type == ApiType::Two {
        return Err(ApiError::FieldNotForType);
    }
    let question = request.question(caller.id);
    let answer = gateway.engine.check(caller.registry, &question);
    let directory = caller.registry.directory();
    let mut body = String::with_capacity(512);
    check::write_open(&mut body, directory, &gateway.dialect, &answer, &[]);
    if let CheckAnswer::Granted(Granted { transaction, category, .. }) = answer {
        let offer = compiled.and_then(|compiled| compiled.offer(question.service));
        let candidates = offer.into_iter().flat_map(|offer| &offer.candidates);
        let won = candidates.into_iter().find(|candidate| candidate.category == category);
        let ticket = Ticket {
            number: transaction.0,
            organization: caller.id,
            service: question.service,
            valid_from: life.from,
            valid_to: life.to,
            category,
            discount_percent: won.map_or(0, |won| won.discount_percent),
            card: card_required.then(|| ShortDigest::of(&question.identifier)),
        };
        let text = ticket.to_text(gateway.registries.key()).ok_or(ApiError::Unavailable)?;
        // Writing into a string cannot fail; the letters of a ticket need no escape.
        let _infallible = write!(
            body,
            ",\"ticket\":\"{text}\",\"validFrom\":{},\"validTo\":{}",
            life.from, life.to
        );
    }
    body.push('}');
    Ok(Answer::json(check::outcome(&answer), body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_lives_for_seconds_or_a_date() {
        let now = Timestamp::parse("2025-06-02T10:00:00Z").unwrap();
        let yakutsk = UtcOffset::parse("+09:00").unwrap();
        let check = |body: &str, expected: Result<(u32, u32), ApiError>| {
            let life = fields::parse::<TicketFields>(body.as_bytes())
                .and_then(|given| given.life(now, yakutsk))
                .map(|life| (life.from, life.to));
            assert_eq!(life, expected, "{body}");
        };
        check("{\"validSeconds\":60}", Ok((1_748_858_400, 1_748_858_460)));
        check("{\"validSeconds\":120}", Ok((1_748_858_400, 1_748_858_520)));
        check("{\"validSeconds\":3600,\"paper\":true}", Ok((1_748_858_400, 1_748_862_000)));
        // Midnight in Yakutsk is 15:00 of the day before.
        check("{\"validDate\":\"2025-06-03\"}", Ok((1_748_876_400, 1_748_962_800)));
        check("{}", Err(ApiError::MissingField));
        for wrong in [
            "{\"validSeconds\":29}",
            // What lives longer is no ticket for a screen.
            "{\"validSeconds\":121}",
            "{\"validSeconds\":121,\"paper\":1}",
            "{\"validSeconds\":86401,\"paper\":true}",
            "{\"validSeconds\":\"60\"}",
            "{\"validDate\":\"2025-06-01\"}",
            "{\"validDate\":\"2025-07-18\"}",
            "{\"validDate\":\"2025-06-02\",\"validSeconds\":60}",
        ] {
            check(wrong, Err(ApiError::BadFormat));
        }
    }

    #[test]
    fn a_card_is_required_or_not() {
        let check = |body: &str, expected| {
            let given = fields::parse::<TicketFields>(body.as_bytes()).unwrap();
            assert_eq!(flag(given.card_required), expected, "{body}");
        };
        check("{}", Ok(false));
        check("{\"cardRequired\":false}", Ok(false));
        check("{\"cardRequired\":true}", Ok(true));
        check("{\"cardRequired\":1}", Err(ApiError::BadFormat));
    }
}
