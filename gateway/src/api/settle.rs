//! `POST /api/ConfirmTransaction` and `POST /api/CancelTransaction`: what became of a check
//! (D0 A2, C-06).

use engine::command::{Cancel, Confirm, Deadline, SettleAnswer};
use engine::directory::ApiType;
use engine::ids::OrganizationId;
use engine::transaction::Amounts;
use serde::Deserialize;

use crate::api::fields::{self, Field};
use crate::api::{Answer, Caller};
use crate::errors::ApiError;
use crate::gateway::Gateway;
use crate::settings::Type3Confirm;

/// The fields of a confirm, as texts.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfirmFields<'a> {
    #[serde(borrow)]
    client_id: Field<'a>,
    #[serde(borrow)]
    benefit_category_id: Field<'a>,
    #[serde(borrow)]
    transaction_id: Field<'a>,
    #[serde(borrow)]
    price: Field<'a>,
    #[serde(borrow)]
    discounted_price: Field<'a>,
}

impl ConfirmFields<'_> {
    /// Reads the fields; the errors come in the order 101, 105.
    pub fn read(&self, organization: OrganizationId) -> Result<Confirm, ApiError> {
        let holder = fields::required(self.client_id)?;
        let category = fields::required(self.benefit_category_id)?;
        let transaction = fields::required(self.transaction_id)?;
        let amounts = Amounts {
            price: fields::amount(self.price)?,
            discounted_price: fields::amount(self.discounted_price)?,
        };
        let reversed = amounts.price.zip(amounts.discounted_price);
        if reversed.is_some_and(|(price, discounted)| discounted > price) {
            return Err(ApiError::BadFormat);
        }
        Ok(Confirm {
            organization,
            transaction: fields::transaction(fields::integer(transaction)?),
            holder: fields::holder(fields::integer(holder)?),
            category: fields::category(fields::integer(category)?),
            amounts,
        })
    }
}

/// The fields of a cancel, as texts.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CancelFields<'a> {
    #[serde(borrow)]
    client_id: Field<'a>,
    #[serde(borrow)]
    transaction_id: Field<'a>,
}

impl CancelFields<'_> {
    /// Reads the fields; the errors come in the order 101, 105.
    pub fn read(&self, organization: OrganizationId) -> Result<Cancel, ApiError> {
        let holder = fields::required(self.client_id)?;
        let transaction = fields::required(self.transaction_id)?;
        Ok(Cancel {
            organization,
            transaction: fields::transaction(fields::integer(transaction)?),
            holder: fields::holder(fields::integer(holder)?),
        })
    }
}

/// Records that the service was delivered.
pub async fn confirm(
    gateway: &Gateway,
    caller: &Caller<'_>,
    body: &[u8],
    deadline: Deadline,
) -> Result<Answer, ApiError> {
    let confirm = fields::parse::<ConfirmFields>(body)?.read(caller.id)?;
    match caller.organization.connection.api_type() {
        Some(ApiType::One | ApiType::Two) => {}
        Some(ApiType::Three) if gateway.dialect.type3_confirm == Type3Confirm::Allow => {
            gateway.metrics.type3_confirmed();
        }
        // C-07: the check of type 3 is itself the fact.
        Some(ApiType::Three) | None => return Err(ApiError::MethodNotForType),
    }
    settled(gateway.engine.confirm(confirm, deadline).await)
}

/// Deletes the record of a check that the holder refused.
pub async fn cancel(
    gateway: &Gateway,
    caller: &Caller<'_>,
    body: &[u8],
    deadline: Deadline,
) -> Result<Answer, ApiError> {
    let cancel = fields::parse::<CancelFields>(body)?.read(caller.id)?;
    if caller.organization.connection.api_type().is_none() {
        return Err(ApiError::MethodNotForType);
    }
    settled(gateway.engine.cancel(cancel, deadline).await)
}

fn settled(answer: SettleAnswer) -> Result<Answer, ApiError> {
    match answer {
        SettleAnswer::Done => Ok(Answer::empty()),
        SettleAnswer::Rejected(rejection) => Err(rejection.into()),
        SettleAnswer::Unavailable => Err(ApiError::Unavailable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_confirm(body: &str, expected: Result<(), ApiError>) {
        let read = fields::parse::<ConfirmFields>(body.as_bytes())
            .and_then(|given| given.read(OrganizationId(1)))
            .map(|_| ());
        assert_eq!(read, expected, "{body}");
    }

    #[test]
    fn confirms_are_read_in_the_documented_order() {
        let ok = "{\"clientId\":1,\"benefitCategoryId\":20,\"transactionId\":1";
        check_confirm(&format!("{ok}}}"), Ok(()));
        check_confirm(&format!("{ok},\"price\":300,\"discountedPrice\":100}}"), Ok(()));
        check_confirm(&format!("{ok},\"price\":null,\"discountedPrice\":100.5}}"), Ok(()));
        check_confirm(&format!("{ok},\"extra\":[[[{{}}]]]}}"), Ok(()));
        // Row Y8i of the acceptance table.
        for wrong in [
            "\"price\":100,\"discountedPrice\":200",
            "\"price\":-1",
            "\"price\":1.005",
            "\"price\":1e2",
            "\"price\":\"100\"",
        ] {
            check_confirm(&format!("{ok},{wrong}}}"), Err(ApiError::BadFormat));
        }
        check_confirm("{\"clientId\":1,\"transactionId\":1}", Err(ApiError::MissingField));
        check_confirm("{\"clientId\":\"x\"}", Err(ApiError::MissingField));
        // Row Y8h: the document's own example lacks a comma (C-03).
        check_confirm(
            "{\"clientId\": 1 \"benefitCategoryId\": 1,\"transactionId\": 1}",
            Err(ApiError::BadJson),
        );
        for broken in ["", "[1,20,1]", "null", "\"x\"", "{", "{}x", "\u{feff}{}"] {
            check_confirm(broken, Err(ApiError::BadJson));
        }
        check_confirm(&format!("{ok},\"clientId\":2}}"), Err(ApiError::BadJson));
    }

    #[test]
    fn cancels_need_both_numbers() {
        let check = |body: &str, expected: Option<ApiError>| {
            let read = fields::parse::<CancelFields>(body.as_bytes())
                .and_then(|given| given.read(OrganizationId(1)));
            assert_eq!(read.err(), expected, "{body}");
        };
        check("{\"clientId\":1,\"transactionId\":1}", None);
        check("{\"clientId\":1,\"transactionId\":-1}", None);
        check("{\"clientId\":1}", Some(ApiError::MissingField));
        check("{\"clientId\":1.5,\"transactionId\":1}", Some(ApiError::BadFormat));
    }
}
