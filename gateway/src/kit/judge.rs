//! The kept registries as the engine judges reported trips by them.

use std::sync::Arc;

use engine::trips::registries::{
    HolderRegistries, RegistryLife, RegistryRight, RightAnswer, RightQuestion,
};
use validator::registry::rights::Entitlement;

use crate::kit::registries::{LookupError, Registries};
use crate::node::chain;

/// Looks a card up in the very file that the device had.
pub struct Judge(pub Arc<Registries>);

impl HolderRegistries for Judge {
    fn right(&self, question: &RightQuestion<'_>) -> RightAnswer {
        let RightQuestion { organization, version, identifier, service, at } = *question;
        if self.0.newest(organization).is_none() {
            return RightAnswer::NoneBuilt;
        }
        let looked_up = self.0.file(organization, version.0).and_then(|file| {
            let header = file.header();
            let life =
                RegistryLife { built_at: header.built_at(), valid_until: header.valid_until() };
            Ok((life, file.right(identifier, service, header.day(at))?))
        });
        match looked_up {
            Ok((life, Entitlement::Right(right))) => {
                let right = RegistryRight {
                    category: right.category,
                    discount_percent: right.discount_percent,
                    companion: right.companion,
                };
                RightAnswer::Known(life, Some(right))
            }
            Ok((life, Entitlement::NoRight | Entitlement::Unknown)) => {
                RightAnswer::Known(life, None)
            }
            Err(LookupError::VersionUnknown) => RightAnswer::UnknownVersion,
            Err(error) => {
                let error = chain(&error);
                tracing::error!(version = version.0, error, "a kept registry cannot be read");
                RightAnswer::Unavailable
            }
        }
    }
}
