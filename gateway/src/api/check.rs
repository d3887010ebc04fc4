//! `POST /api/CheckClientBenefits`: which benefit has this person here and now (D0 A2).

use std::fmt::Write;
use std::time::Instant;

use engine::command::{Check, CheckAnswer, Deadline, Refusal};
use engine::decide::Verdict;
use engine::directory::{ApiType, Directory};
use engine::identifier::{Digest, DigestKey};
use engine::ids::{CategoryId, Kopecks, OrganizationId, ServiceId, TerminalId};
use engine::registry::Registry;
use engine::transaction::Amounts;
use serde::Deserialize;

use crate::api::fields::{self, Field};
use crate::api::identification::Identification;
use crate::api::{Answer, Caller, push_json_string};
use crate::errors::ApiError;
use crate::gateway::Gateway;
use crate::metrics::{Carrier, Outcome};
use crate::settings::{Benefits, Dialect, FieldForType, Type3Confirm};

/// The fields of a check, as texts.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckFields<'a> {
    #[serde(borrow)]
    service_id: Field<'a>,
    #[serde(borrow)]
    organization_terminal_id: Field<'a>,
    #[serde(borrow)]
    client_code: Field<'a>,
    #[serde(borrow)]
    client_snils: Field<'a>,
    #[serde(borrow)]
    card_number: Field<'a>,
    #[serde(borrow)]
    card_series: Field<'a>,
    #[serde(borrow)]
    price: Field<'a>,
}

/// A check that was read.
#[derive(Clone, Copy, Debug)]
pub struct CheckRequest {
    /// From which terminal.
    pub terminal: TerminalId,
    /// For which service.
    pub service: ServiceId,
    /// Who the person is.
    pub identifier: Digest,
    /// What carried it.
    pub carrier: Carrier,
    /// The full price, from connection type 3.
    pub price: Option<Kopecks>,
    /// Whether fields were ignored that the connection type may not send.
    pub lenient: bool,
}

impl CheckRequest {
    /// The question to the engine.
    pub fn question(&self, organization: OrganizationId) -> Check {
        let CheckRequest { terminal, service, identifier, .. } = *self;
        Check { organization, terminal, service, identifier }
    }

    /// What is recorded together with a check of connection type 3.
    pub fn amounts(&self) -> Amounts {
        Amounts { price: self.price, discounted_price: None }
    }
}

/// How checks of one caller are read.
#[derive(Clone, Copy)]
pub struct CheckReader<'a> {
    /// The caller's connection type.
    pub api_type: ApiType,
    /// What happens to fields of other types.
    pub field_for_type: FieldForType,
    /// What identifiers are hashed with.
    pub key: &'a DigestKey,
}

impl CheckReader<'_> {
    /// Reads the fields; the errors come in the order 104, 102, 101, 105.
    pub fn read(&self, given: &CheckFields<'_>) -> Result<CheckRequest, ApiError> {
        let mut person = Identification {
            client_code: given.client_code,
            client_snils: given.client_snils,
            card_number: given.card_number,
            card_series: given.card_series,
        };
        person.check_one_kind()?;
        let mut price = given.price;
        let mut foreign = person.drop_foreign(self.api_type);
        if self.api_type != ApiType::Three {
            foreign |= price.take().is_some();
        }
        if foreign && self.field_for_type == FieldForType::Strict {
            return Err(ApiError::FieldNotForType);
        }
        let service = fields::required(given.service_id)?;
        let terminal = fields::required(given.organization_terminal_id)?;
        person.check_complete()?;
        Ok(CheckRequest {
            terminal: fields::terminal(fields::integer(terminal)?),
            service: fields::service(fields::integer(service)?),
            identifier: person.digest(self.key)?,
            carrier: person.carrier(),
            price: fields::amount(price)?,
            lenient: foreign,
        })
    }
}

/// Answers a check.
pub async fn answer(
    gateway: &Gateway,
    caller: &Caller<'_>,
    body: &[u8],
    deadline: Deadline,
) -> Result<Answer, ApiError> {
    let given = fields::parse(body)?;
    let reader = reader(gateway, caller)?;
    let request = reader.read(&given)?;
    if request.lenient {
        gateway.metrics.field_ignored();
    }
    let question = request.question(caller.id);
    if is_recorded(gateway, reader.api_type) {
        let amounts = request.amounts();
        let answer = gateway.engine.check_and_record(question, amounts, deadline).await;
        // The engine answers by its newest revision, which may know more names than ours.
        let registry = gateway.engine.registry();
        let body = body_of(gateway, &registry, &question, &answer);
        return Ok(Answer::json(outcome(&answer), body).by(request.carrier));
    }
    // Whoever sent the body too slowly waits no more.
    let answer = if deadline.passed(Instant::now()) {
        CheckAnswer::Unavailable
    } else {
        gateway.engine.check(caller.registry, &question)
    };
    let body = body_of(gateway, caller.registry, &question, &answer);
    Ok(Answer::json(outcome(&answer), body).by(request.carrier))
}

/// Whether a check is itself the recorded fact; otherwise it opens a transaction (C-07).
pub fn is_recorded(gateway: &Gateway, api_type: ApiType) -> bool {
    api_type == ApiType::Three && gateway.dialect.type3_confirm == Type3Confirm::Deny
}

/// The categories that are answered behind the granted one, in their order (C-09).
///
/// Only the granted one has a transaction; they are what the holder could have been granted instead.
pub fn lesser_benefits(
    gateway: &Gateway,
    registry: &Registry,
    question: &Check,
    answer: &CheckAnswer,
) -> Vec<CategoryId> {
    let CheckAnswer::Granted(granted) = answer else { return Vec::new() };
    if gateway.dialect.benefits == Benefits::Top {
        return Vec::new();
    }
    let explanation = gateway.engine.explain(registry, question);
    let held = |verdict| matches!(verdict, Verdict::Outranked | Verdict::Wins);
    let lesser = explanation.categories.into_iter().filter(|(category, verdict)| {
        // The transaction that was just opened may have taken the last place of its own category.
        held(*verdict) && *category != granted.category
    });
    lesser.map(|(category, _)| category).collect()
}

/// How checks of `caller` are read; organizations without a web service have none.
pub fn reader<'a>(gateway: &'a Gateway, caller: &Caller<'_>) -> Result<CheckReader<'a>, ApiError> {
    let api_type = caller.organization.connection.api_type();
    Ok(CheckReader {
        api_type: api_type.ok_or(ApiError::MethodNotForType)?,
        field_for_type: gateway.dialect.field_for_type,
        key: &gateway.engine.keys().identifiers,
    })
}

/// The word for metrics.
pub fn outcome(answer: &CheckAnswer) -> Outcome {
    match answer {
        CheckAnswer::Granted(_) => Outcome::Done,
        CheckAnswer::Refused(Refusal::CardInactive) => Outcome::CardInactive,
        CheckAnswer::Refused(Refusal::HolderNotFound) => Outcome::HolderNotFound,
        CheckAnswer::Refused(Refusal::NoBenefit) => Outcome::NoBenefit,
        CheckAnswer::Refused(Refusal::OrganizationUnknown) => Outcome::OrganizationUnknown,
        CheckAnswer::Refused(Refusal::ServiceUnknown) => Outcome::ServiceUnknown,
        CheckAnswer::Unavailable => Outcome::Unavailable,
    }
}

/// The code of D0 A7, 0 for a granted benefit.
pub fn code_of(answer: &CheckAnswer) -> u8 {
    match answer {
        CheckAnswer::Granted(_) => 0,
        CheckAnswer::Refused(Refusal::NoBenefit) => 1,
        CheckAnswer::Refused(Refusal::HolderNotFound) => 2,
        CheckAnswer::Refused(Refusal::CardInactive) => 5,
        CheckAnswer::Unavailable => 6,
        CheckAnswer::Refused(Refusal::OrganizationUnknown) => 7,
        CheckAnswer::Refused(Refusal::ServiceUnknown) => 8,
    }
}

/// Appends the answer, with `lesser` benefits behind the granted one, and without its closing brace, so
/// that a batch can add to it.
pub fn write_open(
    out: &mut String,
    directory: &Directory,
    dialect: &Dialect,
    answer: &CheckAnswer,
    lesser: &[CategoryId],
) {
    let refusal = match answer {
        CheckAnswer::Granted(granted) => {
            // Writing into a string cannot fail.
            let _infallible = write!(
                out,
                "{{\"resultCode\":{},\"transactionId\":{},\"clientId\":{},\"benefits\":[",
                dialect.success_result_code, granted.transaction, granted.holder,
            );
            push_benefit(out, directory, granted.category);
            for category in lesser {
                out.push(',');
                push_benefit(out, directory, *category);
            }
            out.push(']');
            return;
        }
        CheckAnswer::Refused(refusal) => refusal_open(*refusal),
        CheckAnswer::Unavailable => UNAVAILABLE_OPEN,
    };
    out.push_str(refusal);
}

fn push_benefit(out: &mut String, directory: &Directory, category: CategoryId) {
    // Writing into a string cannot fail.
    let _infallible = write!(out, "{{\"benefitCategory\":{{\"id\":{category},\"name\":");
    push_json_string(out, directory.category_name(category).unwrap_or_default());
    out.push_str("}}");
}

fn body_of(
    gateway: &Gateway,
    registry: &Registry,
    question: &Check,
    answer: &CheckAnswer,
) -> String {
    let mut body = String::with_capacity(256);
    let lesser = lesser_benefits(gateway, registry, question, answer);
    write_open(&mut body, registry.directory(), &gateway.dialect, answer, &lesser);
    body.push('}');
    body
}

macro_rules! refused {
    ($code:literal, $text:literal) => {
        concat!(
            "{\"resultCode\":",
            $code,
            ",\"resultMessage\":\"",
            $text,
            "\",\"transactionId\":0,\"clientId\":0,\"benefits\":[]"
        )
    };
}

const UNAVAILABLE_OPEN: &str = refused!(6, "Отсутствует связь с процессинговым центром");

/// D0 A7, with the mandatory fields of C-14.
fn refusal_open(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::NoBenefit => {
            refused!(1, "У владельца карты ЕЦС отсутствует льгота у данного Акцептанта")
        }
        Refusal::HolderNotFound => {
            refused!(2, "Ошибка ввода кода держателя КЖЯ - клиент не найден")
        }
        Refusal::CardInactive => refused!(5, "Карта ЕЦС имеет неактивный статус"),
        Refusal::OrganizationUnknown => refused!(7, "ID участника отсутствует в системе"),
        Refusal::ServiceUnknown => refused!(8, "Код типа услуги не найден"),
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
