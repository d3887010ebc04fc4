//! `POST /api/GetTransactions`: the confirmed transactions of a holder (D0 A9).

use std::fmt::Write;
use std::sync::Arc;

use engine::calendar::{Day, UtcOffset};
use engine::command::Deadline;
use engine::directory::{ApiType, Directory};
use engine::history::{HistoryPage, Page, Span};
use engine::identifier::{Digest, DigestKey};
use engine::ids::HolderId;
use engine::limits::HISTORY_DAYS_MAX;
use engine::transaction::Confirmation;
use serde::Deserialize;

use crate::api::fields::{self, Field};
use crate::api::identification::Identification;
use crate::api::{Answer, Caller, push_json_string};
use crate::errors::ApiError;
use crate::gateway::Gateway;
use crate::metrics::Outcome;
use crate::money::Rubles;
use crate::settings::{AreaFields, Dialect};

/// The fields of a question to the history, as texts.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransactionsFields<'a> {
    #[serde(borrow)]
    client_code: Field<'a>,
    #[serde(borrow)]
    client_snils: Field<'a>,
    #[serde(borrow)]
    card_number: Field<'a>,
    #[serde(borrow)]
    card_series: Field<'a>,
    #[serde(borrow)]
    date_from: Field<'a>,
    #[serde(borrow)]
    date_to: Field<'a>,
    #[serde(borrow)]
    creation_date_from: Field<'a>,
    #[serde(borrow)]
    creation_date_to: Field<'a>,
    #[serde(borrow)]
    page_index: Field<'a>,
    #[serde(borrow)]
    page_size: Field<'a>,
}

/// A question that was read.
#[derive(Clone, Copy, Debug)]
pub struct TransactionsRequest {
    /// Who the person is.
    pub identifier: Digest,
    /// First date inside.
    pub from: Day,
    /// Last date inside.
    pub to: Day,
    /// Which part of the answer.
    pub page: Page,
}

impl TransactionsFields<'_> {
    /// Reads the fields; the errors come in the order 104, 102, 101, 105, 109.
    pub fn read(&self, key: &DigestKey) -> Result<TransactionsRequest, ApiError> {
        let mut person = Identification {
            client_code: self.client_code,
            client_snils: self.client_snils,
            card_number: self.card_number,
            card_series: self.card_series,
        };
        person.check_one_kind()?;
        // The history knows no SNILS, whoever asks, just like an acceptor of type 1.
        if person.drop_foreign(ApiType::One) {
            return Err(ApiError::FieldNotForType);
        }
        person.check_complete()?;
        fields::required(self.date_from.or(self.creation_date_from))?;
        fields::required(self.date_to.or(self.creation_date_to))?;
        let identifier = person.digest(key)?;
        let page = fields::page(self.page_index, self.page_size)?;
        let dates = [self.date_from, self.creation_date_from, self.date_to, self.creation_date_to];
        let [from, from_alias, to, to_alias] = dates.map(|date| date.map(fields::date).transpose());
        let from = either(from?, from_alias?);
        let to = either(to?, to_alias?);
        let (from, to) = (from?, to?);
        let days = i64::from(to.0) - i64::from(from.0) + 1;
        if !(1..=i64::from(HISTORY_DAYS_MAX)).contains(&days) {
            return Err(ApiError::BadInterval);
        }
        Ok(TransactionsRequest { identifier, from, to, page })
    }
}

/// A date under one of its two names, or under both if they agree (C-01).
fn either(date: Option<Day>, alias: Option<Day>) -> Result<Day, ApiError> {
    match (date, alias) {
        (Some(date), Some(alias)) if date != alias => Err(ApiError::BadInterval),
        (date, alias) => fields::required(date.or(alias)),
    }
}

impl TransactionsRequest {
    /// The instants of the interval, both dates included, on a clock that is `offset` ahead of UTC.
    pub fn span(&self, offset: UtcOffset) -> Span {
        Span { from: self.from.begins(offset), until: self.to.next().begins(offset) }
    }
}

/// Answers one page of a holder's confirmed transactions, the newest first.
pub async fn answer(
    gateway: &Gateway,
    caller: &Caller<'_>,
    body: &[u8],
    deadline: Deadline,
) -> Result<Answer, ApiError> {
    let key = &gateway.engine.keys().identifiers;
    let request = fields::parse::<TransactionsFields>(body)?.read(key)?;
    let directory = caller.registry.directory();
    let offset = directory.compiled(caller.id).map(|compiled| compiled.utc_offset);
    let span = request.span(offset.unwrap_or_default());
    // Nobody has this identifier: that is not told apart from a holder without transactions.
    let found = match caller.registry.holder_id(&request.identifier) {
        Some(holder) => page_of(gateway, holder, span, request.page, deadline).await?,
        None => HistoryPage::default(),
    };
    let body = write_page(directory, &gateway.dialect, &found, request.page.index);
    Ok(Answer::json(Outcome::Done, body))
}

async fn page_of(
    gateway: &Gateway,
    holder: HolderId,
    span: Span,
    page: Page,
    deadline: Deadline,
) -> Result<HistoryPage, ApiError> {
    let calls = Arc::clone(&gateway.history_calls);
    let wait = tokio::time::timeout_at(deadline.0.into(), calls.acquire_owned());
    let Ok(Ok(permit)) = wait.await else { return Err(ApiError::Unavailable) };
    let freshness = gateway.engine.freshness(deadline);
    let history = Arc::clone(gateway.engine.history());
    let call = move || {
        // Given back when the history has answered, even where the caller has hung up.
        let _permit = permit;
        history.of_holder(holder, span, page, freshness)
    };
    match tokio::task::spawn_blocking(call).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(engine::history::HistoryError::Late)) => Err(ApiError::Unavailable),
        Ok(Err(error)) => {
            tracing::error!(%error, "the history does not answer");
            Err(ApiError::Unavailable)
        }
        Err(_panicked_or_cancelled) => Err(ApiError::Unavailable),
    }
}

fn write_page(directory: &Directory, dialect: &Dialect, found: &HistoryPage, index: u64) -> String {
    let mut body = String::with_capacity(64 + 320 * found.items.len());
    body.push_str("{\"pageItems\":[");
    for (at, confirmation) in found.items.iter().enumerate() {
        if at > 0 {
            body.push(',');
        }
        write_item(&mut body, directory, dialect, confirmation);
    }
    let total = found.total;
    // Writing into a string cannot fail.
    let _infallible = write!(body, "],\"totalItems\":{total},\"currentPageIndex\":{index}}}");
    body
}

fn write_item(
    out: &mut String,
    directory: &Directory,
    dialect: &Dialect,
    confirmation: &Confirmation,
) {
    let transaction = &confirmation.transaction;
    let (short_name, area, area_name) = match directory.place(transaction.organization) {
        Some((organization, area, named)) => {
            (organization.short_name.as_str(), area, named.name.as_str())
        }
        None => Default::default(),
    };
    let service = transaction.service;
    // Writing into a string cannot fail.
    let _infallible = write!(
        out,
        "{{\"id\":{},\"confirmationDate\":\"{}\",\"service\":{{\"id\":{service},\"name\":",
        transaction.id, confirmation.confirmed_at,
    );
    push_json_string(out, directory.service_name(service).unwrap_or_default());
    let organization = transaction.organization;
    let _infallible = write!(out, "}},\"organization\":{{\"id\":{organization},\"shortName\":");
    push_json_string(out, short_name);
    let _infallible = write!(out, "}},\"area\":{{\"id\":{area}");
    if dialect.area_fields != AreaFields::ShortName {
        out.push_str(",\"name\":");
        push_json_string(out, area_name);
    }
    if dialect.area_fields != AreaFields::Name {
        out.push_str(",\"shortName\":");
        push_json_string(out, area_name);
    }
    out.push('}');
    if let Some(discounted) = confirmation.amounts.discounted_price {
        let _infallible = write!(out, ",\"discountedPrice\":{}", Rubles(discounted));
    }
    out.push('}');
}

#[cfg(test)]
mod tests {
    use engine::calendar::Timestamp;
    use engine::directory::{Item, Service, ServiceKind};
    use engine::ids::{CategoryId, Kopecks, OrganizationId, ServiceId, TerminalId, TransactionId};
    use engine::transaction::{Amounts, Transaction};

    use super::*;
    use crate::fixture;
    use crate::settings::{Benefits, FieldForType, Type3Confirm};

    fn read(fields_given: &str) -> Result<TransactionsRequest, ApiError> {
        let body = format!("{{{fields_given}}}");
        fields::parse::<TransactionsFields>(body.as_bytes())?
            .read(&fixture::keys().engine.identifiers)
    }

    #[test]
    fn questions_are_read_in_the_documented_order() {
        let june = "\"dateFrom\":\"2025-06-01\",\"dateTo\":\"2025-06-30\"";
        let code = "\"clientCode\":\"AAABBBCCC\"";
        let check = |given: String, expected: Option<ApiError>| {
            assert_eq!(read(&given).err(), expected, "{given}");
        };
        check(format!("{code},{june}"), None);
        let alias = june.replace("date", "creationDate");
        check(format!("{code},{alias}"), None);
        check(format!("{code},{june},{alias}"), None);
        check(
            format!("{code},{june},\"creationDateTo\":\"2025-06-29\""),
            Some(ApiError::BadInterval),
        );
        check(
            format!("{code},\"dateFrom\":\"2025-06-30\",\"dateTo\":\"2025-06-01\""),
            Some(ApiError::BadInterval),
        );
        check(format!("\"clientSnils\":\"59492311630\",{june}"), Some(ApiError::FieldNotForType));
        check(format!("\"clientSnils\":\"x\",{code}"), Some(ApiError::ConflictingIds));
        check(format!("{code},\"dateFrom\":\"2025-06-01\""), Some(ApiError::MissingField));
        check(june.to_string(), Some(ApiError::MissingField));
        check(format!("\"cardSeries\":\"14010125\",{june}"), Some(ApiError::MissingField));
        check(
            format!("{code},\"dateFrom\":\"2025-6-1\",\"dateTo\":\"2025-06-01\""),
            Some(ApiError::BadFormat),
        );
        check(format!("{code},{june},\"pageSize\":0"), Some(ApiError::BadFormat));
    }

    #[test]
    fn an_interval_has_at_most_366_days() {
        let check = |from: &str, to: &str, expected: Option<ApiError>| {
            let given = format!("\"clientCode\":\"A\",\"dateFrom\":\"{from}\",\"dateTo\":\"{to}\"");
            assert_eq!(read(&given).err(), expected, "{from} {to}");
        };
        check("2024-01-01", "2024-12-31", None);
        check("2025-01-01", "2026-01-01", None);
        check("2025-01-01", "2026-01-02", Some(ApiError::BadInterval));
        check("2025-01-01", "2025-01-01", None);
        check("0001-01-01", "9999-12-31", Some(ApiError::BadInterval));
    }

    #[test]
    fn dates_are_local_and_inclusive() {
        let request =
            read("\"clientCode\":\"A\",\"dateFrom\":\"2025-06-02\",\"dateTo\":\"2025-06-02\"")
                .unwrap();
        let span = request.span(UtcOffset::parse("+09:00").unwrap());
        assert_eq!(span.from.to_string(), "2025-06-01T15:00:00.000000Z");
        assert_eq!(span.until.to_string(), "2025-06-02T15:00:00.000000Z");
    }

    #[test]
    fn items_are_printed_as_in_the_acceptance_table() {
        let confirmed_at = Timestamp::parse("2025-06-02T10:00:00Z").unwrap();
        let transaction = Transaction {
            id: TransactionId(1),
            organization: OrganizationId(1),
            terminal: TerminalId(2),
            service: ServiceId(1),
            category: CategoryId(20),
            holder: HolderId(1),
            checked_at: confirmed_at,
            discount_percent: None,
            limit_period: None,
        };
        let amounts = Amounts { price: None, discounted_price: Some(Kopecks(10_000)) };
        let found = HistoryPage {
            items: vec![Confirmation { transaction, confirmed_at, amounts }],
            total: 1,
        };
        let check = |area_fields, expected: &str| {
            let dialect = Dialect {
                success_result_code: 0,
                field_for_type: FieldForType::Strict,
                area_fields,
                benefits: Benefits::Top,
                type3_confirm: Type3Confirm::Deny,
            };
            let directory = fixture::directory(|items| {
                let name = "Посещение бассейна".to_string();
                let value = Service { name, kind: ServiceKind::Visit, categories: Vec::new() };
                items.services.insert(ServiceId(1), Item { value, deleted: true });
            });
            let expected = format!(
                "{{\"pageItems\":[{{\"id\":1,\
                 \"confirmationDate\":\"2025-06-02T10:00:00.000000Z\",\
                 \"service\":{{\"id\":1,\"name\":\"Посещение бассейна\"}},\
                 \"organization\":{{\"id\":1,\"shortName\":\"ООО «Якутия»\"}},\
                 \"area\":{{\"id\":1,{expected}}},\"discountedPrice\":100.0}}],\
                 \"totalItems\":1,\"currentPageIndex\":0}}"
            );
            assert_eq!(write_page(&directory, &dialect, &found, 0), expected);
        };
        // Row Y11a, and the other choices of C-02.
        check(AreaFields::Both, "\"name\":\"Якутск\",\"shortName\":\"Якутск\"");
        check(AreaFields::Name, "\"name\":\"Якутск\"");
        check(AreaFields::ShortName, "\"shortName\":\"Якутск\"");
    }
}
