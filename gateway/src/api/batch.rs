//! `POST /api/v2/checks`: up to 10,000 checks in one call, all on one revision of the registry. Checks
//! that are themselves the recorded fact (C-07) wait for the journal, and an import may come between
//! them: each is decided by the newest revision, and the answer names that of its end.
//!
//! The body is parsed as a whole before anything is checked, so a call that is broken near its end
//! opens no transaction. Items are read and answered one by one, each as the method for a single
//! check would; a wrong item spoils only itself.

use std::fmt::Write;

use arc_swap::Guard;
use engine::command::{CheckAnswer, Deadline};
use engine::decide::{Explanation, Verdict};
use engine::directory::Directory;
use engine::limits::BATCH_CHECKS_MAX;
use futures_util::StreamExt;
use serde::Deserialize;
use serde::de::Visitor;
use serde_json::value::RawValue;

use crate::api::check::{self, CheckFields, CheckReader, CheckRequest};
use crate::api::fields::{self, Field};
use crate::api::items::Items;
use crate::api::{Answer, Caller, push_json_string};
use crate::errors::ApiError;
use crate::gateway::Gateway;
use crate::metrics::Outcome;

/// Items after which other requests of the worker get a turn.
const TURN_ITEMS: usize = 256;
/// Recorded checks of one call that wait for the journal together.
const RECORDED_IN_FLIGHT_MAX: usize = 256;

#[derive(Debug, Deserialize)]
struct BatchFields<'a> {
    #[serde(borrow)]
    checks: Field<'a>,
    #[serde(borrow)]
    explain: Field<'a>,
}

/// What was asked, item by item.
type Requests = Vec<Result<CheckRequest, ApiError>>;

/// What is answered to an item, and why, where that was asked for: told as things stood just before.
type Answered = Result<(CheckAnswer, Option<Explanation>), ApiError>;

/// Answers a batch of checks.
pub async fn answer(
    gateway: &Gateway,
    caller: &Caller<'_>,
    body: &[u8],
    deadline: Deadline,
) -> Result<Answer, ApiError> {
    let given = fields::parse::<BatchFields>(body)?;
    let reader = check::reader(gateway, caller)?;
    let explain = match given.explain.map(RawValue::get) {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(ApiError::BadFormat),
    };
    let requests = read_checks(fields::required(given.checks)?, &reader)?;
    if let Some(limits) = &gateway.rate_limits {
        // The call itself was the first.
        limits.charge(caller.id, requests.len().saturating_sub(1), gateway.clock.now());
    }
    let newest;
    let (answers, registry) = if check::is_recorded(gateway, reader.api_type) {
        let answers = recorded(gateway, caller, &requests, explain, deadline).await;
        // Each was decided by the newest revision of its moment, which may know more names than ours.
        newest = Guard::into_inner(gateway.engine.registry());
        (answers, &*newest)
    } else {
        (opened(gateway, caller, &requests, explain, deadline).await, caller.registry)
    };
    let mut out = String::with_capacity(32 + 192 * answers.len());
    let revision = registry.id();
    // Writing into a string cannot fail.
    let _infallible = write!(out, "{{\"revision\":{revision},\"results\":[");
    for (at, (request, answer)) in requests.iter().zip(answers).enumerate() {
        if at > 0 {
            out.push(',');
        }
        if at % TURN_ITEMS == TURN_ITEMS - 1 {
            tokio::task::yield_now().await;
        }
        match (request, answer) {
            (Ok(request), Ok((answer, explanation))) => {
                let question = request.question(caller.id);
                let lesser = check::lesser_benefits(gateway, registry, &question, &answer);
                let directory = registry.directory();
                check::write_open(&mut out, directory, &gateway.dialect, &answer, &lesser);
                if let Some(explanation) = explanation {
                    write_explanation(&mut out, directory, &explanation.of_answer(&answer));
                }
                out.push('}');
            }
            (Err(error), _) => out.push_str(error.wire().body),
            (_, Err(error)) => out.push_str(error.wire().body),
        }
    }
    out.push_str("]}");
    Ok(Answer::json(Outcome::Done, out))
}

/// Checks that each open a transaction.
async fn opened(
    gateway: &Gateway,
    caller: &Caller<'_>,
    requests: &Requests,
    explain: bool,
    deadline: Deadline,
) -> Vec<Answered> {
    let engine = &gateway.engine;
    let mut answers = Vec::with_capacity(requests.len());
    for turn in requests.chunks(if explain { 1 } else { TURN_ITEMS }) {
        if deadline.passed(std::time::Instant::now()) {
            break;
        }
        let good = turn.iter().flatten();
        good.clone().for_each(|request| gateway.metrics.item_checked(request.lenient));
        let questions: Vec<_> = good.map(|request| request.question(caller.id)).collect();
        // Where reasons are asked for, a turn is one check.
        let asked = questions.first().filter(|_| explain);
        let mut explanation = asked.map(|question| engine.explain(caller.registry, question));
        let mut opened = Vec::with_capacity(questions.len());
        engine.check_all(caller.registry, &questions, |answer, _| {
            opened.push((answer, explanation.take()));
        });
        let mut opened = opened.into_iter();
        let mut answer = |_request| opened.next().unwrap_or((CheckAnswer::Unavailable, None));
        answers.extend(turn.iter().map(|request| request.map(&mut answer)));
        tokio::task::yield_now().await;
    }
    // Past the deadline the rest is dropped and said so.
    answers.resize(requests.len(), Ok((CheckAnswer::Unavailable, None)));
    answers
}

/// Checks that are each the recorded fact and wait for the journal (C-07).
async fn recorded(
    gateway: &Gateway,
    caller: &Caller<'_>,
    requests: &Requests,
    explain: bool,
    deadline: Deadline,
) -> Vec<Answered> {
    let engine = &gateway.engine;
    let record = |request: &Result<CheckRequest, ApiError>| {
        let request = *request;
        async move {
            let request = request?;
            gateway.metrics.item_checked(request.lenient);
            let question = request.question(caller.id);
            let explanation = explain.then(|| engine.explain(&engine.registry(), &question));
            let answer = engine.check_and_record(question, request.amounts(), deadline).await;
            Ok((answer, explanation))
        }
    };
    let waiting = futures_util::stream::iter(requests.iter().map(record));
    waiting.buffered(RECORDED_IN_FLIGHT_MAX).collect().await
}

fn write_explanation(out: &mut String, directory: &Directory, explanation: &Explanation) {
    out.push_str(",\"explain\":[");
    for (at, (category, verdict)) in explanation.categories.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        // Writing into a string cannot fail.
        let _infallible = write!(out, "{{\"category\":{{\"id\":{category},\"name\":");
        let name = directory.category_name(*category);
        push_json_string(out, name.unwrap_or_default());
        let _infallible = write!(out, "}},\"verdict\":\"{}\"}}", verdict_name(*verdict));
    }
    out.push(']');
}

fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::CategoryNotValid => "categoryNotValid",
        Verdict::LimitReached => "limitReached",
        Verdict::NotHeld => "notHeld",
        Verdict::NotValidToday => "notValidToday",
        Verdict::Outranked => "outranked",
        Verdict::Wins => "wins",
    }
}

/// Reads the items. Where one of them has no shape at all, all are taken apart once more, each by
/// itself, to tell which.
fn read_checks(checks: &RawValue, reader: &CheckReader<'_>) -> Result<Requests, ApiError> {
    let text = checks.get();
    if !text.starts_with('[') {
        return Err(ApiError::BadFormat);
    }
    if let Ok(Items(items)) = serde_json::from_str::<Items<ShapedItem, BATCH_CHECKS_MAX>>(text) {
        return Ok(within_limit(items)?.iter().map(|item| reader.read(&item.0)).collect());
    }
    let Items(items) = serde_json::from_str::<Items<&RawValue, BATCH_CHECKS_MAX>>(text)
        .map_err(|_| ApiError::BadJson)?;
    let read =
        |item: &&RawValue| fields::parse_text(item.get()).and_then(|item| reader.read(&item));
    Ok(within_limit(items)?.iter().map(read).collect())
}

fn within_limit<T>(items: Vec<T>) -> Result<Vec<T>, ApiError> {
    if items.len() > BATCH_CHECKS_MAX { Err(ApiError::BadFormat) } else { Ok(items) }
}

/// An item that is an object; the derived parser of its fields would also take an array.
struct ShapedItem<'a>(CheckFields<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for ShapedItem<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectOnly;
        impl<'de> Visitor<'de> for ObjectOnly {
            type Value = CheckFields<'de>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                map: A,
            ) -> Result<Self::Value, A::Error> {
                CheckFields::deserialize(serde::de::value::MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_map(ObjectOnly).map(ShapedItem)
    }
}

#[cfg(test)]
mod tests {
    use engine::directory::ApiType;

    use super::*;
    use crate::fixture;
    use crate::settings::FieldForType;

    fn read(text: &str) -> Result<Vec<Option<ApiError>>, ApiError> {
        let reader = CheckReader {
            api_type: ApiType::One,
            field_for_type: FieldForType::Strict,
            key: &fixture::keys().engine.identifiers,
        };
        let raw: &RawValue = serde_json::from_str(text).unwrap();
        let requests = read_checks(raw, &reader)?;
        Ok(requests.into_iter().map(|request| request.err()).collect())
    }

    const GOOD: &str =
        "{\"serviceId\":1,\"organizationTerminalId\":2,\"clientCode\":\"AAABBBCCC\"}";

    #[test]
    fn a_wrong_item_spoils_only_itself() {
        let check = |items: &[&str], expected: &[Option<ApiError>]| {
            assert_eq!(read(&format!("[{}]", items.join(","))).unwrap(), expected, "{items:?}");
        };
        check(&[], &[]);
        check(&[GOOD, GOOD], &[None, None]);
        check(&[GOOD, "{}"], &[None, Some(ApiError::MissingField)]);
        let broken = Some(ApiError::BadJson);
        check(&["7", GOOD, "null", "[1,2,3]"], &[broken, None, broken, broken]);
        check(&["{\"price\":1,\"price\":2}", GOOD], &[broken, None]);
    }

    #[test]
    fn a_batch_is_an_array_of_bounded_length() {
        assert_eq!(read("{}"), Err(ApiError::BadFormat));
        assert_eq!(read("5"), Err(ApiError::BadFormat));
        let items = |count: usize, item: &str| format!("[{}]", vec![item; count].join(","));
        assert_eq!(read(&items(BATCH_CHECKS_MAX, GOOD)).unwrap().len(), BATCH_CHECKS_MAX);
        for item in [GOOD, "{}", "0"] {
            let result = read(&items(BATCH_CHECKS_MAX + 1, item));
            assert_eq!(result, Err(ApiError::BadFormat), "{item}");
        }
    }
}
