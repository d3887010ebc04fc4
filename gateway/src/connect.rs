//! `POST /connect/token` and the two public documents that go with it (D0 A2 "Authorisation").
//!
//! The errors are those of RFC 6749 §5.2, in the order: content type and form (`invalid_request`),
//! grant type, client, scope. No answer may be stored on its way.

use actix_web::HttpResponse;
use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, PRAGMA};
use actix_web::web::Query;
use engine::directory::{Directory, Organization, OrganizationState};
use engine::ids::OrganizationId;
use engine::keys::Keys;
use serde_json::json;

use crate::api::Answer;
use crate::body;
use crate::errors::ApiError;
use crate::gateway::Gateway;
use crate::metrics::{Carrier, Outcome};
use crate::tokens::Scopes;

/// Why no token is given out (RFC 6749 §5.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TokenRefusal {
    /// Unknown client, wrong secret, or excluded.
    InvalidClient,
    /// Not the form that is expected.
    InvalidRequest,
    /// No scope, an unknown one, or one that the client may not have.
    InvalidScope,
    /// Anything but client credentials.
    UnsupportedGrantType,
}

impl TokenRefusal {
    fn wire(self) -> (StatusCode, &'static str) {
        match self {
            TokenRefusal::InvalidClient => {
                (StatusCode::UNAUTHORIZED, "{\"error\":\"invalid_client\"}")
            }
            TokenRefusal::InvalidRequest => {
                (StatusCode::BAD_REQUEST, "{\"error\":\"invalid_request\"}")
            }
            TokenRefusal::InvalidScope => {
                (StatusCode::BAD_REQUEST, "{\"error\":\"invalid_scope\"}")
            }
            TokenRefusal::UnsupportedGrantType => {
                (StatusCode::BAD_REQUEST, "{\"error\":\"unsupported_grant_type\"}")
            }
        }
    }
}

/// A client that may have a token.
#[derive(Debug)]
pub struct Client<'a> {
    /// The organization.
    pub organization: &'a Organization,
    /// The scopes as they were asked for, each once.
    pub scope: String,
}

/// Answers a request for a token.
pub async fn answer(gateway: &Gateway, headers: &HeaderMap, payload: &mut Payload) -> Answer {
    let limits = &gateway.limits;
    let read = body::read(headers, payload, limits.body_bytes_max, limits.body_timeout).await;
    let form = match read {
        Ok(form) => form,
        Err(error) => return no_store(error.into()),
    };
    let registry = gateway.engine.registry();
    let directory = registry.directory();
    let client = form_type(headers).and_then(|()| read_form(&form)).and_then(|form| {
        let keys = gateway.engine.keys();
        authenticate(directory, keys, &form)
    });
    let client = match client {
        Ok(client) => client,
        Err(refusal) => return refused(refusal),
    };
    let now = gateway.clock.now();
    match gateway.tokens.issue(client.organization, &client.scope, now) {
        Ok(issued) => {
            let body = format!(
                "{{\"access_token\":\"{}\",\"expires_in\":{},\"token_type\":\"Bearer\",\
                 \"scope\":\"{}\"}}",
                issued.text, issued.expires_in_seconds, client.scope
            );
            no_store(Answer::json(Outcome::Done, body))
        }
        Err(error) => {
            tracing::error!(%error, "no token can be given out");
            no_store(ApiError::Unavailable.into())
        }
    }
}

/// The document of OpenID Connect Discovery.
pub fn discovery(issuer: &str) -> String {
    json!({
        "issuer": issuer,
        "token_endpoint": format!("{issuer}/connect/token"),
        "jwks_uri": format!("{issuer}/.well-known/jwks.json"),
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": ["client_secret_post"],
        "scopes_supported": ["ECS.WebAPI", "OrganizationAPI"],
        "response_types_supported": ["token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    })
    .to_string()
}

/// The form of a token request, values trimmed: the document's own sample has a line break in one.
#[derive(Debug, Eq, PartialEq)]
struct Form {
    client_id: String,
    client_secret: String,
    grant_type: String,
    scope: String,
}

fn form_type(headers: &HeaderMap) -> Result<(), TokenRefusal> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = given.and_then(|value| value.split(';').next()).map(str::trim);
    let form = "application/x-www-form-urlencoded";
    match essence {
        Some(essence) if essence.eq_ignore_ascii_case(form) => Ok(()),
        _ => Err(TokenRefusal::InvalidRequest),
    }
}

fn read_form(body: &[u8]) -> Result<Form, TokenRefusal> {
    let text = std::str::from_utf8(body).map_err(|_| TokenRefusal::InvalidRequest)?;
    let pairs = Query::<Vec<(String, String)>>::from_query(text);
    let pairs = pairs.map_err(|_| TokenRefusal::InvalidRequest)?.into_inner();
    // RFC 6749 §3.2: a parameter must not be given more than once.
    let one = |name: &str| {
        let mut values = pairs.iter().filter(|(key, _)| key.trim() == name);
        match (values.next(), values.next()) {
            (Some((_, value)), None) => Ok(value.trim().to_string()),
            _ => Err(TokenRefusal::InvalidRequest),
        }
    };
    Ok(Form {
        client_id: one("client_id")?,
        client_secret: one("client_secret")?,
        grant_type: one("grant_type")?,
        scope: one("scope")?,
    })
}

fn authenticate<'a>(
    directory: &'a Directory,
    keys: &Keys,
    form: &Form,
) -> Result<Client<'a>, TokenRefusal> {
    if form.grant_type != "client_credentials" {
        return Err(TokenRefusal::UnsupportedGrantType);
    }
    // An unknown client costs the same digest as a known one.
    let client = directory.client(&form.client_id);
    let id = client.map_or(OrganizationId(0), |(id, _)| id);
    let presented = keys.secrets.digest(id, &form.client_secret);
    let (_, organization) = client.ok_or(TokenRefusal::InvalidClient)?;
    let excluded = organization.state == OrganizationState::Excluded;
    if excluded || presented != organization.secret {
        return Err(TokenRefusal::InvalidClient);
    }
    let scope = granted_scope(organization, &form.scope)?;
    Ok(Client { organization, scope })
}

/// The scopes in the order in which they were asked for, each once.
fn granted_scope(organization: &Organization, asked: &str) -> Result<String, TokenRefusal> {
    let mut granted: Vec<&str> = Vec::new();
    for name in asked.split_ascii_whitespace() {
        let scope = Scopes::named(name).ok_or(TokenRefusal::InvalidScope)?;
        let acceptor = scope == Scopes::ORGANIZATION_API;
        if acceptor && organization.connection.api_type().is_none() {
            return Err(TokenRefusal::InvalidScope);
        }
        if !granted.contains(&name) {
            granted.push(name);
        }
    }
    if granted.is_empty() { Err(TokenRefusal::InvalidScope) } else { Ok(granted.join(" ")) }
}

fn refused(refusal: TokenRefusal) -> Answer {
    let (status, body) = refusal.wire();
    let mut response = HttpResponse::with_body(status, actix_web::body::BoxBody::new(body));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    no_store(Answer { carrier: Carrier::None, outcome: Outcome::TokenRefused, response })
}

fn no_store(mut answer: Answer) -> Answer {
    let headers = answer.response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn check(form: &str, expected: Result<&str, TokenRefusal>) {
        let directory = fixture::directory(|_| ());
        let keys = &fixture::keys().engine;
        let client = read_form(form.as_bytes())
            .and_then(|form| authenticate(&directory, keys, &form))
            .map(|client| client.scope);
        assert_eq!(client.as_deref(), expected.as_ref().map(|scope| *scope), "{form}");
    }

    #[test]
    fn tokens_are_given_as_in_the_acceptance_table() {
        let o1 = "client_id=111&client_secret=aaaabbbbbcccccc";
        let grant = "grant_type=client_credentials";
        let both = "scope=ECS.WebAPI+OrganizationAPI";
        // Row Y1.
        check(&format!("{o1}&{grant}&{both}"), Ok("ECS.WebAPI OrganizationAPI"));
        check(
            &format!("client_id=111&client_secret=x&{grant}&{both}"),
            Err(TokenRefusal::InvalidClient),
        );
        check(&format!("{o1}&grant_type=password&{both}"), Err(TokenRefusal::UnsupportedGrantType));
        check(&format!("{o1}&{grant}&scope=Foo"), Err(TokenRefusal::InvalidScope));
        check("{\"client_id\":\"111\"}", Err(TokenRefusal::InvalidRequest));
        // The document's own sample has a line break after `grant_type=`.
        check(
            &format!("{o1}&grant_type=%0D%0A+client_credentials&{both}"),
            Ok("ECS.WebAPI OrganizationAPI"),
        );
        check(
            &format!("{o1}&{grant}&scope=OrganizationAPI%20ECS.WebAPI"),
            Ok("OrganizationAPI ECS.WebAPI"),
        );
        check(&format!("{o1}&{grant}&scope=ECS.WebAPI"), Ok("ECS.WebAPI"));
        check(&format!("{o1}&{grant}&scope="), Err(TokenRefusal::InvalidScope));
        check(&format!("{o1}&{grant}"), Err(TokenRefusal::InvalidRequest));
        check(&format!("{o1}&{o1}&{grant}&{both}"), Err(TokenRefusal::InvalidRequest));
        check("", Err(TokenRefusal::InvalidRequest));
    }

    #[test]
    fn clients_get_what_they_are_connected_for() {
        let grant = "grant_type=client_credentials";
        let history = "client_id=900&client_secret=s900";
        check(&format!("{history}&{grant}&scope=ECS.WebAPI"), Ok("ECS.WebAPI"));
        check(
            &format!("{history}&{grant}&scope=ECS.WebAPI+OrganizationAPI"),
            Err(TokenRefusal::InvalidScope),
        );
        check(
            &format!("client_id=444&client_secret=s444&{grant}&scope=ECS.WebAPI"),
            Err(TokenRefusal::InvalidClient),
        );
        check(
            &format!("client_id=no&client_secret=s444&{grant}&scope=ECS.WebAPI"),
            Err(TokenRefusal::InvalidClient),
        );
    }

    #[test]
    fn only_forms_are_read() {
        let check = |value: &'static str, expected| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
            assert_eq!(form_type(&headers).is_ok(), expected, "{value}");
        };
        check("application/x-www-form-urlencoded", true);
        check("Application/X-WWW-Form-URLEncoded; charset=utf-8", true);
        check("application/json", false);
        check("text/plain", false);
        assert!(form_type(&HeaderMap::new()).is_err());
    }

    #[test]
    fn discovery_names_the_endpoints() {
        let document: serde_json::Value =
            serde_json::from_str(&discovery("https://ecs.example")).unwrap();
        assert_eq!(document["token_endpoint"], "https://ecs.example/connect/token");
        assert_eq!(document["jwks_uri"], "https://ecs.example/.well-known/jwks.json");
    }
}
