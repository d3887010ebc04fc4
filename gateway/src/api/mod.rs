//! The calls of the web service: one dispatch function, one file a method.
//!
//! A call goes through the same stages everywhere: token (401/120), address (403/122), rights
//! (403/121), rate (429/130), body (413, 408), then the method itself.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use actix_http::Request;
use actix_web::HttpResponse;
use actix_web::dev::{Payload, RequestHead};
use actix_web::http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::web::Bytes;
use arc_swap::Guard;
use engine::calendar::Timestamp;
use engine::command::Deadline;
use engine::directory::{Directory, Organization, OrganizationRole};
use engine::ids::OrganizationId;
use engine::registry::Registry;

use crate::body::{self, Unread};
use crate::errors::ApiError;
use crate::gateway::Gateway;
use crate::metrics::{Call, Carrier, Outcome};
use crate::tokens::{Access, Scopes, Tokens};
use crate::{connect, peer};

pub mod batch;
pub mod check;
pub mod claim_file;
pub mod claims;
pub mod fields;
pub mod identification;
pub mod items;
pub mod rulings;
pub mod services;
pub mod settle;
pub mod tickets;
pub mod transactions;
pub mod trip_list;
pub mod trips;

/// Who calls, as far as the methods need to know.
pub struct Caller<'a> {
    /// The organization.
    pub id: OrganizationId,
    /// The same, as the registry has it now.
    pub organization: &'a Organization,
    /// The registry on which the whole call is answered.
    pub registry: &'a Registry,
}

/// The answer to a call, with its words for metrics.
pub struct Answer {
    /// What carried the identifier, of a check.
    pub carrier: Carrier,
    /// How the call ended.
    pub outcome: Outcome,
    /// The answer.
    pub response: HttpResponse,
}

impl Answer {
    /// 200 with a JSON body.
    pub fn json(outcome: Outcome, body: impl Into<Bytes>) -> Answer {
        let body = actix_web::body::BoxBody::new(body.into());
        let mut response = HttpResponse::with_body(StatusCode::OK, body);
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        Answer { carrier: Carrier::None, outcome, response }
    }

    /// 200 without a body.
    pub fn empty() -> Answer {
        let response = HttpResponse::new(StatusCode::OK);
        Answer { carrier: Carrier::None, outcome: Outcome::Done, response }
    }

    /// The same, for metrics of this carrier.
    pub fn by(self, carrier: Carrier) -> Answer {
        Answer { carrier, ..self }
    }
}

impl From<ApiError> for Answer {
    fn from(error: ApiError) -> Answer {
        let outcome = Outcome::Error(error);
        Answer { carrier: Carrier::None, outcome, response: error.response() }
    }
}

/// Answers every request of the public listener.
pub async fn serve(
    gateway: Arc<Gateway>,
    request: Request,
) -> Result<HttpResponse, actix_web::Error> {
    let (head, payload) = request.into_parts();
    Ok(dispatch(&gateway, &head, payload).await)
}

async fn dispatch(gateway: &Gateway, request: &RequestHead, mut payload: Payload) -> HttpResponse {
    let started = Instant::now();
    let path = request.uri.path();
    let call = Call::at(path);
    let deadline = Deadline(started + gateway.limits.request_deadline);
    let mut answer = match allowed_methods(call, path) {
        [] => ApiError::PathNotFound.into(),
        allowed if allowed.contains(&request.method) => {
            route(gateway, call, request, &mut payload, deadline).await
        }
        allowed => not_allowed(allowed),
    };
    let is_read = !matches!(call, Call::Discovery | Call::PublicKeys);
    if !is_read || matches!(answer.outcome, Outcome::Error(_)) {
        let limits = &gateway.limits;
        let (bytes_max, patience) = (limits.body_bytes_max, limits.body_timeout);
        let unread = Unread { headers: &request.headers, payload, bytes_max, patience };
        answer.response = Box::pin(unread.forget(answer.response)).await;
    }
    gateway.metrics.answered(call, (answer.carrier, answer.outcome), started.elapsed());
    answer.response
}

fn allowed_methods(call: Call, path: &str) -> &'static [Method] {
    match call {
        Call::Unknown => &[],
        Call::Claims => claims::allowed_methods(path),
        Call::Discovery | Call::PublicKeys => &[Method::GET],
        Call::Trips => &[Method::GET, Method::POST],
        _ => &[Method::POST],
    }
}

fn not_allowed(allowed: &[Method]) -> Answer {
    let mut answer = Answer::from(ApiError::MethodNotAllowed);
    let names: Vec<&str> = allowed.iter().map(Method::as_str).collect();
    if let Ok(allowed) = HeaderValue::from_str(&names.join(", ")) {
        answer.response.headers_mut().insert(ALLOW, allowed);
    }
    answer
}

async fn route(
    gateway: &Gateway,
    call: Call,
    request: &RequestHead,
    payload: &mut Payload,
    deadline: Deadline,
) -> Answer {
    match call {
        Call::Discovery => Answer::json(Outcome::Done, gateway.documents.discovery.clone()),
        Call::PublicKeys => Answer::json(Outcome::Done, gateway.documents.public_keys.clone()),
        Call::Token => Box::pin(connect::answer(gateway, &request.headers, payload)).await,
        _ => method(gateway, call, request, payload, deadline).await.unwrap_or_else(Answer::from),
    }
}

async fn method(
    gateway: &Gateway,
    call: Call,
    request: &RequestHead,
    payload: &mut Payload,
    deadline: Deadline,
) -> Result<Answer, ApiError> {
    // Held across the whole call, so not as a guard, of which a thread has only a few.
    let registry = Guard::into_inner(gateway.engine.registry());
    let knock = Knock {
        call,
        method: &request.method,
        token: bearer(&request.headers),
        client: gateway.proxies.client(request.peer_addr, &request.headers),
        now: gateway.clock.now(),
    };
    let access = admit(&gateway.tokens, registry.directory(), &knock)?;
    if gateway.rate_limits.as_ref().is_some_and(|limits| !limits.take(access.id, knock.now)) {
        return Err(ApiError::TooMany);
    }
    let caller = Caller { id: access.id, organization: access.organization, registry: &registry };
    let limits = &gateway.limits;
    let bytes_max = match call {
        Call::Checks => limits.batch_bytes_max,
        Call::Claims => limits.body_bytes_max.max(claims::BODY_BYTES_MAX),
        Call::Rulings => limits.body_bytes_max.max(rulings::BODY_BYTES_MAX),
        Call::Trips => limits.trips_bytes_max,
        _ => limits.body_bytes_max,
    };
    let body = body::read(&request.headers, payload, bytes_max, limits.body_timeout).await?;
    match call {
        Call::Cancel => settle::cancel(gateway, &caller, &body, deadline).await,
        Call::Check => check::answer(gateway, &caller, &body, deadline).await,
        Call::Checks => Box::pin(batch::answer(gateway, &caller, &body, deadline)).await,
        Call::Claims => Box::pin(claims::answer(gateway, &caller, request, &body, deadline)).await,
        Call::Confirm => settle::confirm(gateway, &caller, &body, deadline).await,
        Call::Rulings => Box::pin(rulings::answer(gateway, &body, deadline)).await,
        Call::Services => services::answer(gateway, &caller, &body),
        Call::Tickets => tickets::answer(gateway, &caller, &body),
        Call::Transactions => {
            Box::pin(transactions::answer(gateway, &caller, &body, deadline)).await
        }
        Call::Trips if request.method == Method::GET => {
            Box::pin(trip_list::answer(gateway, &caller, request, deadline)).await
        }
        Call::Trips => Box::pin(trips::answer(gateway, &caller, request, &body, deadline)).await,
        Call::Discovery | Call::PublicKeys | Call::Token | Call::Unknown => {
            Err(ApiError::PathNotFound)
        }
    }
}

/// What is known of a call before its body.
struct Knock<'a> {
    call: Call,
    method: &'a Method,
    token: Option<&'a [u8]>,
    client: Option<IpAddr>,
    now: Timestamp,
}

/// Lets a call in, or tells why not, in the order 120, 122, 121.
fn admit<'a>(
    tokens: &Tokens,
    directory: &'a Directory,
    knock: &Knock<'_>,
) -> Result<Access<'a>, ApiError> {
    let token = knock.token.ok_or(ApiError::Unauthorised)?;
    let access = tokens.access(directory, token, knock.now).ok_or(ApiError::Unauthorised)?;
    let organization = access.organization;
    let named = knock.client.is_some_and(|client| peer::allowed(&organization.ip_allow, client));
    if !named {
        return Err(ApiError::IpDenied);
    }
    let granted = match knock.call {
        Call::Check | Call::Checks | Call::Services | Call::Tickets => {
            access.scopes.include(Scopes::ACCEPTOR)
        }
        Call::Cancel | Call::Confirm => {
            access.scopes.include(Scopes::ACCEPTOR) && organization.serves()
        }
        Call::Transactions => {
            let history = organization.history && organization.serves();
            access.scopes.include(Scopes::ECS_WEB_API) && history
        }
        Call::Claims => access.scopes.include(Scopes::ECS_WEB_API) && organization.serves(),
        Call::Rulings | Call::Trips => {
            let may = match (knock.call, knock.method) {
                // Both read, each what is theirs.
                (Call::Trips, &Method::GET) => true,
                (Call::Trips, _) => organization.role == OrganizationRole::Acceptor,
                _ => organization.role == OrganizationRole::Ministry,
            };
            access.scopes.include(Scopes::ECS_WEB_API) && organization.serves() && may
        }
        Call::Discovery | Call::PublicKeys | Call::Token | Call::Unknown => false,
    };
    if granted { Ok(access) } else { Err(ApiError::Forbidden) }
}

/// The token of `Authorization: Bearer …`.
pub fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(b"bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Appends `text` as a JSON string.
pub fn push_json_string(out: &mut String, text: &str) {
    let escape = |byte: u8| byte < 0x20 || matches!(byte, b'"' | b'\\');
    // Looking at every byte is faster than stopping at the first.
    if text.bytes().fold(false, |found, byte| found | escape(byte)) {
        // A string always has a JSON form.
        out.push_str(&serde_json::to_string(text).unwrap_or_default());
        return;
    }
    out.push('"');
    out.push_str(text);
    out.push('"');
}

#[cfg(test)]
#[path = "admit_tests.rs"]
mod tests;
