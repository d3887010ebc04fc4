//! Answers from bytes (catalogue §3.5–3.10). Whatever is not what the protocol promises is
//! [`Answer::Unreadable`]; unknown fields are allowed.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::request::Form;
use crate::answer::{Answer, CheckAnswer, HistoryItem, Page};
use crate::calendar::Wall;

/// Understands an answer.
pub fn read(form: Form, status: u16, body: &[u8]) -> Answer<'_> {
    if status != 200 {
        return Answer::Refusal { status, code: error_code(body) };
    }
    let answer = match form {
        Form::Batch => parse::<WireBatch<'_>>(body)
            .map(|batch| Answer::Batch(batch.results.into_iter().map(check_answer).collect())),
        Form::Check => parse(body).map(|check| Answer::Check(check_answer(check))),
        Form::History => parse::<WirePage<WireTransaction<'_>>>(body).and_then(history),
        Form::Services => parse::<WirePage<WireService>>(body).map(services),
        Form::Settle => body.is_empty().then_some(Answer::Done),
    };
    answer.unwrap_or(Answer::Unreadable)
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Option<T> {
    // The derived parsers would also take an array as the fields in order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    serde_json::from_slice(body).ok()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireError {
    error_code: Option<u32>,
}

fn error_code(body: &[u8]) -> Option<u32> {
    parse::<WireError>(body)?.error_code
}

#[derive(Deserialize)]
struct WireBatch<'a> {
    #[serde(borrow)]
    results: Vec<WireCheck<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireCheck<'a> {
    result_code: u32,
    transaction_id: u64,
    client_id: u64,
    #[serde(borrow)]
    benefits: Benefits<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireBenefit<'a> {
    #[serde(borrow)]
    benefit_category: WireCategory<'a>,
}

#[derive(Deserialize)]
struct WireCategory<'a> {
    id: u32,
    #[serde(borrow)]
    name: Cow<'a, str>,
}

/// A list of at most one benefit: only the highest is ever answered (D0 §6.2(3)).
struct Benefits<'a>(Option<WireBenefit<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Benefits<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AtMostOne;
        impl<'de> Visitor<'de> for AtMostOne {
            type Value = Option<WireBenefit<'de>>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of at most one benefit")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let first = items.next_element::<WireBenefit<'de>>()?;
                if first.is_some() && items.next_element::<WireBenefit<'de>>()?.is_some() {
                    return Err(A::Error::custom("more than one benefit"));
                }
                Ok(first)
            }
        }
        deserializer.deserialize_seq(AtMostOne).map(Benefits)
    }
}

fn check_answer(check: WireCheck<'_>) -> CheckAnswer<'_> {
    let benefit = check.benefits.0.map(|benefit| benefit.benefit_category);
    CheckAnswer {
        code: check.result_code,
        transaction: check.transaction_id,
        holder: check.client_id,
        benefit: benefit.map(|category| (category.id, category.name)),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePage<T> {
    page_items: Vec<T>,
    total_items: u64,
    current_page_index: u32,
}

#[derive(Deserialize)]
struct WireService {
    service: WireNamed,
}

#[derive(Deserialize)]
struct WireNamed {
    id: u32,
    name: String,
}

#[derive(Deserialize)]
struct WireNumbered {
    id: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireTransaction<'a> {
    id: u64,
    #[serde(borrow)]
    confirmation_date: Cow<'a, str>,
    service: WireNumbered,
    organization: WireNumbered,
    #[serde(borrow)]
    discounted_price: Option<&'a RawValue>,
}

fn services<'a>(page: WirePage<WireService>) -> Answer<'a> {
    let items = page.page_items.into_iter().map(|item| (item.service.id, item.service.name));
    let (total, index) = (page.total_items, page.current_page_index);
    Answer::Services(Page { items: items.collect(), total, index })
}

fn history<'a>(page: WirePage<WireTransaction<'_>>) -> Option<Answer<'a>> {
    let item = |item: WireTransaction<'_>| {
        let discounted_kopecks = match item.discounted_price {
            None => None,
            Some(price) => Some(kopecks(price.get())?),
        };
        Some(HistoryItem {
            transaction: item.id,
            service: item.service.id,
            organization: item.organization.id,
            confirmed: Wall::parse(&item.confirmation_date)?,
            discounted_kopecks,
        })
    };
    let items = page.page_items.into_iter().map(item).collect::<Option<Vec<_>>>()?;
    Some(Answer::History(Page { items, total: page.total_items, index: page.current_page_index }))
}

/// Rubles with at most two decimals, read from the text of the number.
fn kopecks(number: &str) -> Option<u64> {
    let (rubles, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(rubles) || !digits(decimals) || decimals.len() > 2 {
        return None;
    }
    let scale = if decimals.len() == 1 { 10 } else { 1 };
    let rubles: u64 = rubles.parse().ok()?;
    let decimals: u64 = decimals.parse().ok()?;
    rubles.checked_mul(100)?.checked_add(decimals * scale)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(form: Form, body: &str, expected: Answer<'_>) {
        assert_eq!(read(form, 200, body.as_bytes()), expected, "{body}");
    }

    const GRANTED: &str = r#"{"resultCode":0,"transactionId":5,"clientId":7,"benefits":[{"benefitCategory":{"id":20,"name":"Ветеран \"труда\""}}]}"#;
    const REFUSED: &str = r#"{"resultCode":1,"resultMessage":"У владельца","transactionId":0,"clientId":0,"benefits":[]}"#;

    fn granted() -> CheckAnswer<'static> {
        let benefit = Some((20, "Ветеран \"труда\"".into()));
        CheckAnswer { code: 0, transaction: 5, holder: 7, benefit }
    }

    fn refused() -> CheckAnswer<'static> {
        CheckAnswer { code: 1, transaction: 0, holder: 0, benefit: None }
    }

    #[test]
    fn checks_are_read() {
        check(Form::Check, GRANTED, Answer::Check(granted()));
        check(Form::Check, REFUSED, Answer::Check(refused()));
        let both = format!("{{\"revision\":3,\"results\":[{GRANTED},{REFUSED}]}}");
        check(Form::Batch, &both, Answer::Batch(vec![granted(), refused()]));
        check(Form::Batch, "{\"revision\":3,\"results\":[]}", Answer::Batch(vec![]));
        for wrong in [
            "",
            "null",
            "[0,5,7,[]]",
            "{}",
            &GRANTED[..GRANTED.len() - 1],
            r#"{"resultCode":-1,"transactionId":5,"clientId":7,"benefits":[]}"#,
            r#"{"resultCode":0,"transactionId":5,"clientId":7}"#,
            r#"{"resultCode":0,"transactionId":5,"clientId":7,"benefits":[{"benefitCategory":{"id":1,"name":"a"}},{"benefitCategory":{"id":2,"name":"b"}}]}"#,
        ] {
            check(Form::Check, wrong, Answer::Unreadable);
        }
        let mixed = format!("{{\"results\":[{GRANTED},{{\"message\":\"x\",\"errorCode\":101}}]}}");
        check(Form::Batch, &mixed, Answer::Unreadable);
    }

    #[test]
    fn what_is_settled_has_no_words() {
        check(Form::Settle, "", Answer::Done);
        check(Form::Settle, "{}", Answer::Unreadable);
    }

    #[test]
    fn refusals_have_codes() {
        let check = |body: &str, code| {
            let expected = Answer::Refusal { status: 409, code };
            assert_eq!(read(Form::Settle, 409, body.as_bytes()), expected, "{body}");
        };
        check(r#"{"message":"Ошибка","errorCode":107}"#, Some(107));
        check(r#"{"message":"Ошибка"}"#, None);
        check(r#"{"errorCode":"107"}"#, None);
        check("<html>", None);
        check("", None);
    }

    #[test]
    fn pages_are_read() {
        check(
            Form::Services,
            r#"{"pageItems":[{"service":{"id":1,"name":"Бассейн"}}],"totalItems":9,"currentPageIndex":2}"#,
            Answer::Services(Page {
                items: vec![(1, "Бассейн".to_owned())], total: 9, index: 2
            }),
        );
        let transaction = |price: &str| {
            format!(
                "{{\"pageItems\":[{{\"id\":4,\"confirmationDate\":\"2021-04-21T12:31:30.842619Z\",\
                 \"service\":{{\"id\":1,\"name\":\"a\"}},\"organization\":{{\"id\":2,\
                 \"shortName\":\"b\"}},\"area\":{{\"id\":3,\"name\":\"c\"}}{price}}}],\
                 \"totalItems\":1,\"currentPageIndex\":0}}"
            )
        };
        let priced = |discounted_kopecks| {
            let confirmed = Wall(1_619_008_290_842_619);
            let (service, organization) = (1, 2);
            let item = HistoryItem {
                transaction: 4,
                service,
                organization,
                confirmed,
                discounted_kopecks,
            };
            Answer::History(Page { items: vec![item], total: 1, index: 0 })
        };
        check(Form::History, &transaction(""), priced(None));
        check(Form::History, &transaction(",\"discountedPrice\":null"), priced(None));
        check(Form::History, &transaction(",\"discountedPrice\":100.0"), priced(Some(10_000)));
        check(Form::History, &transaction(",\"discountedPrice\":0.05"), priced(Some(5)));
        check(Form::History, &transaction(",\"discountedPrice\":7"), priced(Some(700)));
        let undated = transaction("").replace("2021-04-21T", "2021-04-31T");
        check(Form::History, &undated, Answer::Unreadable);
        for wrong in ["-1", "1.005", "1e2", "\"7\"", "99999999999999999999"] {
            let body = transaction(&format!(",\"discountedPrice\":{wrong}"));
            check(Form::History, &body, Answer::Unreadable);
        }
    }

    proptest! {
        #[test]
        fn anything_may_come(body: Vec<u8>, status in 100_u16..600) {
            for form in [Form::Batch, Form::Check, Form::History, Form::Services, Form::Settle] {
                let _any = read(form, status, &body);
            }
        }
    }
}
