//! Who the person is: the identifier fields that checks and the history share (D0 A2, A9).

use engine::directory::ApiType;
use engine::identifier::{Digest, DigestKey};

use crate::api::fields::{Field, required, text};
use crate::errors::ApiError;
use crate::metrics::Carrier;

/// The identifier fields of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identification<'a> {
    /// Holder code and number of the plastic.
    pub client_code: Field<'a>,
    /// Insurance number.
    pub client_snils: Field<'a>,
    /// Number of a social card; goes together with its series.
    pub card_number: Field<'a>,
    /// Series of a social card.
    pub card_series: Field<'a>,
}

impl Identification<'_> {
    /// Refuses more than one kind of identifier.
    pub fn check_one_kind(&self) -> Result<(), ApiError> {
        let card = self.card_number.or(self.card_series);
        let kinds = [self.client_code, self.client_snils, card];
        match kinds.iter().flatten().count() {
            0 | 1 => Ok(()),
            _ => Err(ApiError::ConflictingIds),
        }
    }

    /// Takes away the fields that a connection type may not send; whether there were any.
    pub fn drop_foreign(&mut self, api_type: ApiType) -> bool {
        let foreign = match api_type {
            ApiType::Two => {
                [self.client_code.take(), self.card_number.take(), self.card_series.take()]
            }
            // C-08: a SNILS only from state systems, which are of type 2.
            ApiType::One | ApiType::Three => [self.client_snils.take(), None, None],
        };
        foreign.iter().any(Option::is_some)
    }

    /// Refuses no identifier and half of a card.
    pub fn check_complete(&self) -> Result<(), ApiError> {
        match (self.client_code.or(self.client_snils), self.card_number, self.card_series) {
            (Some(_), None, None) | (None, Some(_), Some(_)) => Ok(()),
            _ => Err(ApiError::MissingField),
        }
    }

    /// What carries the identifier.
    pub fn carrier(&self) -> Carrier {
        if self.client_code.is_some() {
            Carrier::Ecs
        } else if self.client_snils.is_some() {
            Carrier::Snils
        } else if self.card_number.is_some() {
            Carrier::Social
        } else {
            Carrier::None
        }
    }

    /// The digest under which the registry knows the identifier.
    pub fn digest(&self, key: &DigestKey) -> Result<Digest, ApiError> {
        let digest = if let Some(code) = self.client_code {
            key.client_code(&text(code)?)
        } else if let Some(snils) = self.client_snils {
            key.snils(&text(snils)?)
        } else {
            let number = text(required(self.card_number)?)?;
            key.social_card(&number, &text(required(self.card_series)?)?)
        };
        digest.map_err(|_| ApiError::BadFormat)
    }
}
