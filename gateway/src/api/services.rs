//! `POST /api/GetOrganizationServices`: what the caller offers today (D0 A2).

use std::fmt::Write;

use engine::directory::Directory;
use engine::history::Page;
use engine::ids::ServiceId;
use serde::Deserialize;

use crate::api::fields::{self, Field};
use crate::api::{Answer, Caller, push_json_string};
use crate::errors::ApiError;
use crate::gateway::Gateway;
use crate::metrics::Outcome;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServicesFields<'a> {
    #[serde(borrow)]
    page_index: Field<'a>,
    #[serde(borrow)]
    page_size: Field<'a>,
}

/// Answers one page of the caller's services, by ascending id.
pub fn answer(gateway: &Gateway, caller: &Caller<'_>, body: &[u8]) -> Result<Answer, ApiError> {
    let given = fields::parse::<ServicesFields>(body)?;
    let page = fields::page(given.page_index, given.page_size)?;
    let directory: &Directory = caller.registry.directory();
    let services = directory.services(caller.id, gateway.clock.now());
    Ok(Answer::json(Outcome::Done, write_page(services, page)))
}

fn write_page<'a>(services: impl Iterator<Item = (ServiceId, &'a str)>, page: Page) -> String {
    let size = u64::from(page.size);
    let first = page.index.saturating_mul(size);
    let wanted = first..first.saturating_add(size);
    let mut body = String::from("{\"pageItems\":[");
    let mut total: u64 = 0;
    for (id, name) in services {
        if wanted.contains(&total) {
            if total > wanted.start {
                body.push(',');
            }
            // Writing into a string cannot fail.
            let _infallible = write!(body, "{{\"service\":{{\"id\":{id},\"name\":");
            push_json_string(&mut body, name);
            body.push_str("}}");
        }
        total += 1;
    }
    let index = page.index;
    let _infallible = write!(body, "],\"totalItems\":{total},\"currentPageIndex\":{index}}}");
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_printed_as_in_the_acceptance_table() {
        let check = |index, size, expected: &str| {
            let services = [(1, "Посещение бассейна"), (2, "Посещение музея")];
            let services = services.map(|(id, name)| (ServiceId(id), name)).into_iter();
            assert_eq!(write_page(services, Page { index, size }), expected);
        };
        // Row Y10.
        check(
            0,
            10,
            "{\"pageItems\":[{\"service\":{\"id\":1,\"name\":\"Посещение бассейна\"}},\
             {\"service\":{\"id\":2,\"name\":\"Посещение музея\"}}],\
             \"totalItems\":2,\"currentPageIndex\":0}",
        );
        check(5, 50, "{\"pageItems\":[],\"totalItems\":2,\"currentPageIndex\":5}");
        check(
            1,
            1,
            "{\"pageItems\":[{\"service\":{\"id\":2,\"name\":\"Посещение музея\"}}],\
             \"totalItems\":2,\"currentPageIndex\":1}",
        );
        check(
            u64::MAX,
            50,
            "{\"pageItems\":[],\"totalItems\":2,\"currentPageIndex\":18446744073709551615}",
        );
    }
}
