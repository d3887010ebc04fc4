//! `GET /api/v2/trips`: trips of a period in the order in which they happened, page by page; a carrier
//! sees its own, the ministry all. Nothing here names a holder or a card.

use std::fmt::Write;
use std::sync::Arc;

use actix_web::dev::RequestHead;
use arc_swap::Guard;
use engine::calendar::{Day, Timestamp};
use engine::command::Deadline;
use engine::directory::OrganizationRole;
use engine::ids::{OrganizationId, TerminalId};
use engine::trips::listing::{TripPage, TripPlace, TripQuery, TripView};
use engine::trips::trip::{Standing, TripName, TripSeq, TripState};

use crate::api::claims::{period_of, write_texts};
use crate::api::fields::{self, PAGE_SIZE_MAX, parameter};
use crate::api::rulings::verdict_name;
use crate::api::{Answer, Caller, push_json_string};
use crate::errors::ApiError;
use crate::gateway::Gateway;
use crate::metrics::Outcome;
use crate::money::Rubles;
use crate::trips::{
    event_name, mode_name, reason_name, reason_of, verdict_name as device_verdict_name,
};

/// Answers a call. One page is looked for at a time: each looks at all trips.
pub async fn answer(
    gateway: &Gateway,
    caller: &Caller<'_>,
    request: &RequestHead,
    deadline: Deadline,
) -> Result<Answer, ApiError> {
    let query = read(caller, request.uri.query().unwrap_or_default())?;
    let turns = Arc::clone(&gateway.trip_lists);
    let turn = tokio::time::timeout_at(deadline.0.into(), turns.acquire_owned()).await;
    let Ok(Ok(turn)) = turn else { return Err(ApiError::Unavailable) };
    let engine = gateway.engine.clone();
    let registry = Guard::into_inner(engine.registry());
    let search = move || {
        // A caller who hangs up does not end the search.
        let _turn = turn;
        engine.trips().list(&query, &registry)
    };
    let page = tokio::task::spawn_blocking(search).await.map_err(|_| ApiError::Unavailable)?;
    Ok(Answer::json(Outcome::Done, write_page(&page)))
}

fn read(caller: &Caller<'_>, query: &str) -> Result<TripQuery, ApiError> {
    let text = |name| {
        let given = parameter(query, name)?;
        Ok::<_, ApiError>(Some(given).filter(|given| !given.is_empty()))
    };
    let date = |name| {
        let given = text(name)?.ok_or(ApiError::MissingField)?;
        Day::parse(&given).ok_or(ApiError::BadFormat)
    };
    let period = period_of(date("dateFrom")?, date("dateTo")?)?;
    let number = |given: String| given.parse::<u32>().map_err(|_| ApiError::BadFormat);
    let asked = text("organizationId")?.map(number).transpose()?.map(OrganizationId);
    let organization = match caller.organization.role {
        OrganizationRole::Ministry => asked,
        OrganizationRole::Acceptor if asked.is_none_or(|asked| asked == caller.id) => {
            Some(caller.id)
        }
        OrganizationRole::Acceptor => return Err(ApiError::Forbidden),
    };
    let state =
        text("state")?.map(|word| state_of(&word).ok_or(ApiError::BadFormat)).transpose()?;
    let after = text("cursor")?.map(|text| place_of(&text).ok_or(ApiError::BadFormat));
    let after = after.transpose()?;
    let count = text("limit")?.map(number).transpose()?.unwrap_or(fields::PAGE_SIZE);
    if !(1..=PAGE_SIZE_MAX).contains(&count) {
        return Err(ApiError::BadFormat);
    }
    let count = usize::try_from(count).map_err(|_| ApiError::BadFormat)?;
    Ok(TripQuery { organization, period, state, after, count })
}

const STATES: [(TripState, &str); 3] = [
    (TripState::Accepted, "accepted"),
    (TripState::Disputed, "disputed"),
    (TripState::Rejected, "rejected"),
];

fn state_of(word: &str) -> Option<TripState> {
    STATES.iter().find(|(_, name)| *name == word).map(|(state, _)| *state)
}

fn state_name(state: TripState) -> &'static str {
    STATES.iter().find(|(known, _)| *known == state).map_or("", |(_, name)| name)
}

/// A place as a cursor: opaque to callers.
fn cursor_of(place: &TripPlace) -> String {
    let TripPlace { at, name } = place;
    format!("{:016x}{:016x}{:016x}", at.0.cast_unsigned(), name.terminal.0, name.seq.0)
}

fn place_of(cursor: &str) -> Option<TripPlace> {
    let plain = cursor.len() == 48 && cursor.bytes().all(|digit| digit.is_ascii_hexdigit());
    let part = |from: usize| u64::from_str_radix(cursor.get(from..from + 16)?, 16).ok();
    let (at, terminal, seq) = plain.then(|| Some((part(0)?, part(16)?, part(32)?))).flatten()?;
    let name = TripName { terminal: TerminalId(terminal), seq: TripSeq(seq) };
    Some(TripPlace { at: Timestamp(at.cast_signed()), name })
}

fn write_page(page: &TripPage) -> String {
    let mut out = String::with_capacity(64 + 512 * page.trips.len());
    out.push_str("{\"pageItems\":[");
    for (at, view) in page.trips.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        write_trip(&mut out, view);
    }
    out.push(']');
    if let Some(next) = &page.next {
        // Writing into a string cannot fail.
        let _infallible = write!(out, ",\"nextCursor\":\"{}\"", cursor_of(next));
    }
    out.push('}');
    out
}

fn write_trip(out: &mut String, view: &TripView) {
    let TripView { recorded, state, .. } = view;
    let trip = &recorded.trip;
    // Writing into a string cannot fail.
    let _infallible = write!(
        out,
        "{{\"terminalId\":{},\"seq\":{},\"organizationId\":{},\"state\":\"{}\"",
        trip.name.terminal,
        trip.name.seq.0,
        trip.organization,
        state_name(*state),
    );
    if let Standing::Disputed(reason) | Standing::Rejected(reason) = recorded.standing {
        let _infallible = write!(out, ",\"reason\":\"{}\"", reason_name(reason_of(reason)));
    }
    write_fate(out, view);
    let _infallible = write!(
        out,
        ",\"at\":\"{}\",\"receivedAt\":\"{}\",\"event\":\"{}\",\"mode\":\"{}\",\
         \"verdict\":\"{}\",\"serviceId\":{},\"registryVersion\":{},\"tariff\":{},\
         \"discount\":{},\"benefit\":{}",
        trip.at(),
        recorded.received_at,
        event_name(trip.event),
        mode_name(trip.mode),
        device_verdict_name(trip.verdict),
        trip.service,
        trip.registry.0,
        Rubles(trip.tariff),
        trip.discount_percent,
        Rubles(trip.benefit),
    );
    if let Some(category) = trip.category {
        let _infallible = write!(out, ",\"benefitCategoryId\":{category}");
    }
    if let Some(transaction) = trip.transaction {
        let _infallible = write!(out, ",\"transactionId\":{transaction}");
    }
    if trip.companion {
        out.push_str(",\"companion\":true");
    }
    write_texts(out, &trip.texts);
    out.push('}');
}

/// What became of it.
fn write_fate(out: &mut String, view: &TripView) {
    if let Some(ruling) = &view.ruling {
        let (verdict, at) = (verdict_name(ruling.verdict), ruling.at);
        // Writing into a string cannot fail.
        let _infallible = write!(out, ",\"ruling\":\"{verdict}\",\"ruledAt\":\"{at}\"");
        if !ruling.reason.is_empty() {
            out.push_str(",\"rulingReason\":");
            push_json_string(out, &ruling.reason);
        }
    }
    if let Some(claim) = view.claim {
        let _infallible = write!(out, ",\"claimId\":{}", claim.0);
    }
    if let Some(mark) = view.mark {
        let _infallible = write!(out, ",\"unpaid\":\"{}\"", reason_name(reason_of(mark)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_back_as_they_went() {
        let name = TripName { terminal: TerminalId(u64::MAX), seq: TripSeq(7) };
        for at in [-1, 0, i64::MAX] {
            let place = TripPlace { at: Timestamp(at), name };
            assert_eq!(place_of(&cursor_of(&place)), Some(place));
        }
        let good = cursor_of(&TripPlace { at: Timestamp(1), name });
        for bad in ["", "7", &good[1..], &format!("+{}", &good[1..]), &good.replace('0', "ы")] {
            assert_eq!(place_of(bad), None, "{bad}");
        }
    }
}
