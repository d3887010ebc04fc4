//! `/api/v2/claims`: reimbursement claims, for carriers and for the ministry (catalogue §6.6).
//!
//! | call | who | what it does |
//! |---|---|---|
//! | `POST /api/v2/claims` | carrier | drafts a claim for a period, or adds to the draft what came since |
//! | `GET /api/v2/claims` | both | lists claims, the newest first |
//! | `GET /api/v2/claims/{id}` | both | shows a claim with a page of its lines |
//! | `GET /api/v2/claims/{id}/export` | both | the whole claim, `?format=csv` or `xlsx` |
//! | `POST /api/v2/claims/{id}/submit` | carrier | hands it in |
//! | `POST /api/v2/claims/{id}/process` | ministry | notes that it was looked at, and refuses trips |
//! | `POST /api/v2/claims/{id}/accept` | ministry | owes what was not refused |
//! | `POST /api/v2/claims/{id}/pay` | ministry | notes that it was paid |
//!
//! A carrier sees its own claims, the ministry those that were submitted; to everybody else they do
//! not exist. Nothing here names a holder or a card.

use std::fmt::Write;

use actix_web::dev::RequestHead;
use actix_web::http::Method;
use engine::calendar::Day;
use engine::command::Deadline;
use engine::directory::OrganizationRole;
use engine::ids::TerminalId;
use engine::limits::{CLAIM_DAYS_MAX, REFUSAL_CHARACTERS_MAX, REFUSALS_MAX};
use engine::trips::claim::{ClaimId, ClaimOrder, ClaimState, ClaimSummary, Period, Refusal};
use engine::trips::office::{ClaimLineView, ClaimReader};
use engine::trips::trip::{TripName, TripSeq, TripTexts};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::api::fields::{self, Field, PAGE_SIZE_MAX, parameter};
use crate::api::items::Items;
use crate::api::{Answer, Caller, claim_file, push_json_string};
use crate::errors::ApiError;
use crate::gateway::Gateway;
use crate::metrics::Outcome;
use crate::money::Rubles;

/// Bytes of a body here: as many refusals as there may be, with the longest reasons.
pub const BODY_BYTES_MAX: usize = REFUSALS_MAX * (REFUSAL_CHARACTERS_MAX * 6 + 96);

const ROOT: &str = "/api/v2/claims";

/// What a path names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Target<'a> {
    All,
    One(ClaimId),
    Step(ClaimId, &'a str),
}

/// The methods of a path.
pub fn allowed_methods(path: &str) -> &'static [Method] {
    match target(path) {
        Some(Target::All) => &[Method::GET, Method::POST],
        Some(Target::One(_) | Target::Step(_, "export")) => &[Method::GET],
        Some(Target::Step(_, "accept" | "pay" | "process" | "submit")) => &[Method::POST],
        Some(Target::Step(..)) | None => &[],
    }
}

fn target(path: &str) -> Option<Target<'_>> {
    let rest = path.strip_prefix(ROOT)?;
    if rest.is_empty() {
        return Some(Target::All);
    }
    let (id, step) = match rest.strip_prefix('/')?.split_once('/') {
        Some((id, step)) => (id, Some(step)),
        None => (rest.strip_prefix('/')?, None),
    };
    let plain = !id.is_empty() && id.bytes().all(|digit| digit.is_ascii_digit());
    // Claims are counted from 1: a number that fits no id names nothing.
    let id = plain.then(|| ClaimId(id.parse().unwrap_or(0)))?;
    Some(step.map_or(Target::One(id), |step| Target::Step(id, step)))
}

/// Answers a call.
pub async fn answer(
    gateway: &Gateway,
    caller: &Caller<'_>,
    request: &RequestHead,
    body: &[u8],
    deadline: Deadline,
) -> Result<Answer, ApiError> {
    let reader = match caller.organization.role {
        OrganizationRole::Acceptor => ClaimReader::Carrier(caller.id),
        OrganizationRole::Ministry => ClaimReader::Ministry,
    };
    let order = match (target(request.uri.path()), &request.method) {
        (Some(Target::All), &Method::GET) => return list(gateway, reader, request),
        (Some(Target::One(id)), _) => return show(gateway, reader, id, request),
        (Some(Target::Step(id, "export")), _) => {
            let claim = known(gateway, reader, id)?;
            return claim_file::answer(
                gateway,
                claim,
                &parameter(request.uri.query().unwrap_or_default(), "format")?,
            )
            .await;
        }
        (Some(Target::All), _) => ClaimOrder::Draft(caller.id, read_period(body)?),
        (Some(Target::Step(id, "submit")), _) => ClaimOrder::Submit(caller.id, id),
        (Some(Target::Step(id, "process")), _) => ClaimOrder::Process(id, read_refusals(body)?),
        (Some(Target::Step(id, "accept")), _) => ClaimOrder::Accept(id),
        (Some(Target::Step(id, "pay")), _) => ClaimOrder::Pay(id),
        _ => return Err(ApiError::PathNotFound),
    };
    let is_carriers = matches!(order, ClaimOrder::Draft(..) | ClaimOrder::Submit(..));
    if is_carriers == (reader == ClaimReader::Ministry) {
        return Err(ApiError::Forbidden);
    }
    let claim = gateway.engine.trips().order(order, deadline).await?;
    let mut out = String::new();
    write_claim(&mut out, &claim);
    out.push('}');
    Ok(Answer::json(Outcome::Done, out))
}

fn list(gateway: &Gateway, reader: ClaimReader, request: &RequestHead) -> Result<Answer, ApiError> {
    let page = page(request)?;
    let (claims, total) = gateway.engine.trips().claims(reader, page.skipped, page.size);
    let mut out = String::from("{\"pageItems\":[");
    for (at, claim) in claims.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        write_claim(&mut out, claim);
        out.push('}');
    }
    // Writing into a string cannot fail.
    let _infallible = write!(out, "],\"totalItems\":{total},\"currentPageIndex\":{}}}", page.index);
    Ok(Answer::json(Outcome::Done, out))
}

fn show(
    gateway: &Gateway,
    reader: ClaimReader,
    id: ClaimId,
    request: &RequestHead,
) -> Result<Answer, ApiError> {
    let page = page(request)?;
    let claim = known(gateway, reader, id)?;
    let lines = gateway.engine.trips().claim_lines(id, page.skipped, page.size);
    let mut out = String::new();
    write_claim(&mut out, &claim);
    out.push_str(",\"pageItems\":[");
    for (at, line) in lines.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        write_line(&mut out, line);
    }
    // Writing into a string cannot fail.
    let _infallible = write!(out, "],\"currentPageIndex\":{}}}", page.index);
    Ok(Answer::json(Outcome::Done, out))
}

fn known(gateway: &Gateway, reader: ClaimReader, id: ClaimId) -> Result<ClaimSummary, ApiError> {
    gateway.engine.trips().claim(reader, id).ok_or(ApiError::ClaimNotFound)
}

/// The word of a state.
pub fn state_name(state: ClaimState) -> &'static str {
    match state {
        ClaimState::Draft => "draft",
        ClaimState::Submitted => "submitted",
        ClaimState::Processed => "processed",
        ClaimState::Accepted => "accepted",
        ClaimState::PartlyRefused => "partly_refused",
        ClaimState::Paid => "paid",
    }
}

/// A claim without the closing brace.
fn write_claim(out: &mut String, claim: &ClaimSummary) {
    let totals = claim.totals;
    // Writing into a string cannot fail.
    let _infallible = write!(
        out,
        "{{\"id\":{},\"organizationId\":{},\"dateFrom\":\"{}\",\"dateTo\":\"{}\",\
         \"state\":\"{}\",\"createdAt\":\"{}\",\"changedAt\":\"{}\",\"lines\":{},\"total\":{},\
         \"refusedLines\":{},\"refusedTotal\":{},\"payable\":{}",
        claim.id.0,
        claim.organization,
        claim.period.first,
        claim.period.last,
        state_name(claim.state),
        claim.created_at,
        claim.changed_at,
        totals.line_count,
        Rubles(totals.total),
        totals.refused_count,
        Rubles(totals.refused_total),
        Rubles(totals.owed()),
    );
    if claim.is_archived {
        out.push_str(",\"archived\":true");
    }
}

fn write_line(out: &mut String, line: &ClaimLineView) {
    let TripName { terminal, seq } = line.name;
    // Writing into a string cannot fail.
    let _infallible = write!(
        out,
        "{{\"terminalId\":{terminal},\"seq\":{},\"amount\":{}",
        seq.0,
        Rubles(line.amount)
    );
    if let Some(recorded) = &line.trip {
        let trip = &recorded.trip;
        let _infallible = write!(
            out,
            ",\"at\":\"{}\",\"serviceId\":{},\"tariff\":{},\"discount\":{}",
            trip.at(),
            trip.service,
            Rubles(trip.tariff),
            trip.discount_percent
        );
        if let Some(category) = trip.category {
            let _infallible = write!(out, ",\"benefitCategoryId\":{category}");
        }
        if trip.companion {
            out.push_str(",\"companion\":true");
        }
        write_texts(out, &trip.texts);
    }
    if let Some(refusal) = &line.refusal {
        out.push_str(",\"refusal\":");
        push_json_string(out, refusal);
    }
    out.push('}');
}

/// The words of a trip, those that there are.
pub fn write_texts(out: &mut String, texts: &TripTexts) {
    let names = ["route", "vehicle", "fromStop", "toStop", "ticket"];
    for (name, text) in names.iter().zip(texts.all()) {
        if !text.is_empty() {
            // Writing into a string cannot fail.
            let _infallible = write!(out, ",\"{name}\":");
            push_json_string(out, text);
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PeriodFields<'a> {
    #[serde(borrow)]
    date_from: Field<'a>,
    #[serde(borrow)]
    date_to: Field<'a>,
}

fn read_period(body: &[u8]) -> Result<Period, ApiError> {
    let given = fields::parse::<PeriodFields<'_>>(body)?;
    let (first, last) = (fields::required(given.date_from)?, fields::required(given.date_to)?);
    period_of(fields::date(first)?, fields::date(last)?)
}

/// The dates between these, both included.
pub fn period_of(first: Day, last: Day) -> Result<Period, ApiError> {
    let days = |first: Day, last: Day| last.0.checked_sub(first.0);
    let in_range = days(first, last).is_some_and(|days| (0..CLAIM_DAYS_MAX).contains(&days));
    in_range.then_some(Period { first, last }).ok_or(ApiError::BadInterval)
}

#[derive(Deserialize)]
struct ProcessFields<'a> {
    #[serde(borrow)]
    refusals: Field<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RefusalFields<'a> {
    #[serde(borrow)]
    terminal_id: Field<'a>,
    #[serde(borrow)]
    seq: Field<'a>,
    #[serde(borrow)]
    reason: Field<'a>,
}

fn read_refusals(body: &[u8]) -> Result<Vec<Refusal>, ApiError> {
    if body.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    let given = fields::parse::<ProcessFields<'_>>(body)?;
    let Some(refusals) = given.refusals else { return Ok(Vec::new()) };
    let Items(items) = serde_json::from_str::<Items<&RawValue, REFUSALS_MAX>>(refusals.get())
        .map_err(|_| ApiError::BadFormat)?;
    if items.len() > REFUSALS_MAX {
        return Err(ApiError::BadFormat);
    }
    let number = |field: &RawValue| {
        let number = fields::integer(field)?;
        u64::try_from(number).map_err(|_| ApiError::BadFormat)
    };
    let read = |item: &&RawValue| {
        let given = fields::parse_text::<RefusalFields<'_>>(item.get())?;
        let terminal = TerminalId(number(fields::required(given.terminal_id)?)?);
        let seq = TripSeq(number(fields::required(given.seq)?)?);
        let reason = fields::text(fields::required(given.reason)?)?.trim().to_owned();
        if reason.is_empty() || reason.chars().count() > REFUSAL_CHARACTERS_MAX {
            return Err(ApiError::BadFormat);
        }
        Ok(Refusal { name: TripName { terminal, seq }, reason })
    };
    items.iter().map(read).collect()
}

/// A page of a list.
struct Page {
    index: usize,
    size: usize,
    skipped: usize,
}

fn page(request: &RequestHead) -> Result<Page, ApiError> {
    let number = |name, default: usize| {
        let given = parameter(request.uri.query().unwrap_or_default(), name)?;
        if given.is_empty() { Ok(default) } else { given.parse().map_err(|_| ApiError::BadFormat) }
    };
    let (index, size) = (number("pageIndex", 0)?, number("pageSize", 50)?);
    let in_range = u32::try_from(size).is_ok_and(|size| (1..=PAGE_SIZE_MAX).contains(&size));
    let skipped = index.checked_mul(size).filter(|_| in_range).ok_or(ApiError::BadFormat)?;
    Ok(Page { index, size, skipped })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_their_methods() {
        let check = |path: &str, expected: &[Method]| {
            assert_eq!(allowed_methods(path), expected, "{path}");
        };
        check("/api/v2/claims", &[Method::GET, Method::POST]);
        check("/api/v2/claims/7", &[Method::GET]);
        check("/api/v2/claims/7/export", &[Method::GET]);
        check("/api/v2/claims/7/submit", &[Method::POST]);
        for wrong in ["/", "/x", "/-7", "/7/", "/7/x", "/7/export/", "x", "//export"] {
            check(&format!("/api/v2/claims{wrong}"), &[]);
        }
    }

    #[test]
    fn periods_and_refusals_have_bounds() {
        let period = |first: &str, last: &str| {
            read_period(format!(r#"{{"dateFrom":"{first}","dateTo":"{last}"}}"#).as_bytes())
        };
        assert!(period("2025-06-01", "2025-06-01").is_ok());
        assert!(period("2024-01-01", "2024-12-31").is_ok());
        assert_eq!(period("2025-06-02", "2025-06-01"), Err(ApiError::BadInterval));
        assert_eq!(period("2024-01-01", "2025-01-01"), Err(ApiError::BadInterval));
        assert_eq!(read_period(b"{}"), Err(ApiError::MissingField));
        let refusals = |reason: &str| {
            let refusal = format!(r#"{{"terminalId":2,"seq":1,"reason":"{reason}"}}"#);
            read_refusals(format!(r#"{{"refusals":[{refusal}]}}"#).as_bytes())
        };
        assert_eq!(refusals("нет").unwrap().len(), 1);
        assert_eq!(refusals(" "), Err(ApiError::BadFormat));
        assert_eq!(refusals(&"ы".repeat(201)), Err(ApiError::BadFormat));
        assert_eq!(read_refusals(b"").unwrap(), []);
        assert_eq!(read_refusals(b"{}").unwrap(), []);
    }
}
