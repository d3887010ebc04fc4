//! What a link brings that is no answer to one question: pushes, and registries in their parts.

use crate::agent::event::Event;
use crate::agent::run::{Out, PULL_PATIENCE, What};
use crate::link::client::{Link, Pushes};
use crate::link::lane::AskError;
use crate::link::message::RegistryForm;

/// Tells the agent of blocks for as long as the server does; without them a link is lost.
pub(super) async fn forward(mut pushes: Pushes, out: Out) {
    while let Some(push) = pushes.next().await {
        out.event(Event::Blocked(push)).await;
    }
    out.send(What::Lost).await;
}

/// Fetches a registry.
pub(super) async fn pull(link: &Link, have: u64, out: Out) {
    let (offer, mut parts) = match link.pull(have, PULL_PATIENCE).await {
        Ok(offered) => offered,
        Err(error) => return out.event(Event::Offered(Err(error))).await,
    };
    let follows = matches!(offer.form, RegistryForm::Delta | RegistryForm::Full);
    let mut missing = offer.bytes;
    out.event(Event::Offered(Ok(offer))).await;
    if !follows {
        return;
    }
    loop {
        let part = match missing {
            0 => Ok(None),
            _ => parts
                .next(PULL_PATIENCE)
                .await
                .and_then(|part| part.ok_or(AskError::Closed))
                .map(Some),
        };
        // An empty one would bring nobody further.
        let part = match part {
            Ok(Some(bytes)) if bytes.is_empty() => Err(AskError::Malformed),
            part => part,
        };
        let length = part.as_ref().ok().and_then(Option::as_ref).map(|bytes| bytes.len() as u64);
        out.event(Event::Part(part)).await;
        match length {
            Some(length) => missing = missing.saturating_sub(length),
            None => return,
        }
    }
}
