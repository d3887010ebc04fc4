//! Who is let in, in which order the refusals come.

use engine::directory::OrganizationState;

use super::*;
use crate::fixture;
use crate::tokens::TokenSettings;

struct Door {
    tokens: Tokens,
    directory: Directory,
}

impl Door {
    fn new(state: OrganizationState) -> Door {
        let settings = TokenSettings {
            issuer: "http://localhost".to_string(),
            lifetime_seconds: 3_600,
            verified_max: 16,
        };
        let directory = fixture::directory(|items| {
            for (id, item) in &mut items.organizations {
                if id.0 != 4 {
                    item.value.state = state;
                }
            }
        });
        Door { tokens: Tokens::new(fixture::keys(), settings).unwrap(), directory }
    }

    fn token(&self, organization: u32, scope: &str) -> String {
        let organization = self.directory.organization(OrganizationId(organization)).unwrap();
        self.tokens.issue(organization, scope, Timestamp(0)).unwrap().text
    }

    fn check(&self, call: Call, token: Option<&str>, client: &str, expected: Option<ApiError>) {
        let client = Some(client.parse().unwrap());
        let (method, token) = (&Method::POST, token.map(str::as_bytes));
        let knock = Knock { call, method, token, client, now: Timestamp(1_000_000) };
        let admitted = admit(&self.tokens, &self.directory, &knock);
        assert_eq!(admitted.err(), expected, "{call:?} {client:?}");
    }
}

const BOTH: &str = "ECS.WebAPI OrganizationAPI";
const HOME: &str = "127.0.0.1";

#[test]
fn refusals_come_in_their_order() {
    let door = Door::new(OrganizationState::Active);
    let acceptor = door.token(1, BOTH);
    let (good, bad) = (Some(acceptor.as_str()), Some("nonsense"));
    door.check(Call::Check, None, "127.0.0.2", Some(ApiError::Unauthorised));
    door.check(Call::Check, bad, HOME, Some(ApiError::Unauthorised));
    door.check(Call::Check, good, HOME, None);
    // Row Y3 of the acceptance table.
    door.check(Call::Check, good, "127.0.0.2", Some(ApiError::IpDenied));
    door.check(Call::Transactions, good, "127.0.0.2", Some(ApiError::IpDenied));
    // Row Y11e.
    door.check(Call::Transactions, good, HOME, Some(ApiError::Forbidden));
    let excluded = door.token(4, BOTH);
    door.check(Call::Check, Some(&excluded), HOME, Some(ApiError::Unauthorised));
}

#[test]
fn scopes_open_methods() {
    let door = Door::new(OrganizationState::Active);
    let half = door.token(1, "ECS.WebAPI");
    let history = door.token(9, "ECS.WebAPI");
    for call in [Call::Check, Call::Checks, Call::Services, Call::Confirm, Call::Cancel] {
        door.check(call, Some(&half), HOME, Some(ApiError::Forbidden));
        // Row Y2c.
        door.check(call, Some(&history), HOME, Some(ApiError::Forbidden));
    }
    door.check(Call::Transactions, Some(&history), HOME, None);
    let other_half = door.token(9, "OrganizationAPI");
    door.check(Call::Transactions, Some(&other_half), HOME, Some(ApiError::Forbidden));
}

#[test]
fn only_serving_organizations_settle() {
    let door = Door::new(OrganizationState::Suspending);
    let acceptor = door.token(1, BOTH);
    let history = door.token(9, "ECS.WebAPI");
    // The engine answers such a check with resultCode 7.
    door.check(Call::Check, Some(&acceptor), HOME, None);
    door.check(Call::Confirm, Some(&acceptor), HOME, Some(ApiError::Forbidden));
    door.check(Call::Cancel, Some(&acceptor), HOME, Some(ApiError::Forbidden));
    door.check(Call::Transactions, Some(&history), HOME, Some(ApiError::Forbidden));
    let door = Door::new(OrganizationState::ChangePending);
    door.check(Call::Confirm, Some(&door.token(1, BOTH)), HOME, None);
}

#[test]
fn strings_are_printed_as_json() {
    for text in ["", "Якутск", "a\"b\\c", "line\nbreak", "ООО «Якутия»", "\u{1}"] {
        let mut out = String::new();
        push_json_string(&mut out, text);
        assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
    }
}

#[test]
fn only_bearer_tokens_count() {
    let check = |value: &'static str, expected: Option<&str>| {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static(value));
        assert_eq!(bearer(&headers), expected.map(str::as_bytes), "{value}");
    };
    check("Bearer abc", Some("abc"));
    check("bearer  abc ", Some("abc"));
    check("Basic abc", None);
    check("Bearer", None);
    assert_eq!(bearer(&HeaderMap::new()), None);
}
