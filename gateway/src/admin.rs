//! The administration listener: health, readiness, metrics, imports, snapshots, registries for
//! validators and the manual clock.
//!
//! It is meant for the machine itself. `/admin/*` does not exist without a configured token.

use std::io::{self, BufReader, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header::{CONTENT_TYPE, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use engine::calendar::Timestamp;
use engine::import::{ImportError, ImportReport};
use engine::registry::fault::LineError;
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::api::{bearer, fields};
use crate::background;
use crate::body::{self, Unread};
use crate::clock::ManualClock;
use crate::errors::ApiError;
use crate::gateway::Gateway;
use crate::kit::registries::BuildReport;
use crate::kit::schedule::Builds;
use crate::link::Link;
use crate::metrics::Figures;
use crate::node::chain;
use crate::pki::Serial;
use crate::pki::trust::Revoked;
use crate::settings::AdminToken;
use crate::upkeep::Snapshots;

/// How long a client may pause within the body of an import.
const IMPORT_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Pieces of a body between the network and the disk.
const PIECES_WAITING_MAX: usize = 64;

/// What the administration works with.
pub struct Administration {
    /// The public side.
    pub gateway: Arc<Gateway>,
    /// The link of validators, where there is one.
    pub link: Option<Arc<Link>>,
    /// The clock, where it is set by hand.
    pub manual_clock: Option<Arc<ManualClock>>,
    /// What opens `/admin/*`.
    pub token: Option<AdminToken>,
    /// Where a body is kept while it arrives.
    pub data_dir: PathBuf,
    /// The largest body of an import.
    pub import_bytes_max: u64,
    /// Orders snapshots.
    pub snapshots: Snapshots,
    /// Orders registries for validators.
    pub builds: Builds,
    /// One permit: imports come one after another, the next one is refused.
    pub imports: Semaphore,
}

/// Answers every request of the administration listener.
pub async fn serve(request: ServiceRequest) -> Result<ServiceResponse, actix_web::Error> {
    let (request, payload) = request.into_parts();
    let response = dispatch(&request, payload).await;
    Ok(ServiceResponse::new(request, response))
}

async fn dispatch(request: &HttpRequest, mut payload: Payload) -> HttpResponse {
    let Some(admin) = request.app_data::<Arc<Administration>>() else {
        return ApiError::Unavailable.response();
    };
    let limits = &admin.gateway.limits;
    let (bytes_max, patience) = (limits.body_bytes_max, limits.body_timeout);
    let headers = request.headers();
    let answer = match admin.allow(request) {
        Err(error) => Answer::BeforeBody(error.response()),
        Ok("/healthz") => Answer::BeforeBody(plain(StatusCode::OK, "ok\n")),
        Ok("/readyz") => Answer::BeforeBody(admin.readiness()),
        Ok("/metrics") => Answer::BeforeBody(admin.metrics()),
        Ok("/admin/clock") => match body::read(headers, &mut payload, bytes_max, patience).await {
            Ok(body) => Answer::AfterBody(admin.set_clock(&body)),
            Err(error) => Answer::BeforeBody(error.response()),
        },
        Ok("/admin/registry") => Answer::BeforeBody(admin.build_registries().await),
        Ok("/admin/revoke") => match body::read(headers, &mut payload, bytes_max, patience).await {
            Ok(body) => Answer::AfterBody(admin.revoke(&body).await),
            Err(error) => Answer::BeforeBody(error.response()),
        },
        Ok("/admin/snapshot") => Answer::BeforeBody(admin.save_snapshot().await),
        Ok(_) => admin.import(&mut payload).await,
    };
    match answer {
        Answer::AfterBody(response) => response,
        Answer::BeforeBody(response) => {
            Unread { headers, payload, bytes_max, patience }.forget(response).await
        }
    }
}

/// An answer to a request.
enum Answer {
    /// Its body was read to the end.
    AfterBody(HttpResponse),
    /// Some of its body may be still to come.
    BeforeBody(HttpResponse),
}

impl Administration {
    /// The path of a request that may be answered.
    fn allow<'a>(&self, request: &'a HttpRequest) -> Result<&'a str, ApiError> {
        let path = request.path();
        let allowed = match path {
            "/healthz" | "/readyz" | "/metrics" => Method::GET,
            "/admin/import" | "/admin/registry" | "/admin/snapshot" if self.token.is_some() => {
                Method::POST
            }
            "/admin/revoke" if self.token.is_some() && self.link.is_some() => Method::POST,
            "/admin/clock" if self.token.is_some() && self.manual_clock.is_some() => Method::POST,
            _ => return Err(ApiError::PathNotFound),
        };
        if request.method() != allowed {
            return Err(ApiError::MethodNotAllowed);
        }
        if path.starts_with("/admin/") && !self.knows(bearer(request.headers())) {
            return Err(ApiError::Unauthorised);
        }
        Ok(path)
    }

    fn readiness(&self) -> HttpResponse {
        if self.gateway.engine.status().ready {
            plain(StatusCode::OK, "ready\n")
        } else {
            plain(StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
        }
    }

    async fn save_snapshot(&self) -> HttpResponse {
        if self.snapshots.save().await {
            answer(StatusCode::OK, json!({}))
        } else {
            ApiError::Unavailable.response()
        }
    }

    async fn build_registries(&self) -> HttpResponse {
        let Some(report) = self.builds.build().await else {
            return ApiError::Unavailable.response();
        };
        let BuildReport { version, organizations, failed, entries, milliseconds, .. } = report;
        let report = json!({
            "version": version,
            "organizations": organizations,
            "failed": failed,
            "entries": entries,
            "milliseconds": milliseconds,
        });
        answer(StatusCode::OK, report)
    }

    fn knows(&self, presented: Option<&[u8]>) -> bool {
        let (Some(AdminToken(token)), Some(presented)) = (&self.token, presented) else {
            return false;
        };
        // Digests have one length, so that not even the length of the token is told.
        let (token, presented) = (blake3::hash(token.as_bytes()), blake3::hash(presented));
        verify_slices_are_equal(token.as_bytes(), presented.as_bytes()).is_ok()
    }

    fn metrics(&self) -> HttpResponse {
        let gateway = &self.gateway;
        let now = gateway.clock.now();
        let figures = Figures {
            engine: gateway.engine.status(),
            journal: gateway.journal.stats(),
            history: gateway.history.stats(),
            kit: gateway.registries.status(now),
        };
        match gateway.metrics.print(&figures, now) {
            Ok(mut text) => {
                if let Some(link) = &self.link {
                    link.metrics.print(link.fleet.count(), &mut text);
                }
                plain(StatusCode::OK, text)
            }
            Err(error) => {
                tracing::error!(error = chain(&error), "the metrics cannot be printed");
                ApiError::Unavailable.response()
            }
        }
    }

    fn set_clock(&self, body: &[u8]) -> HttpResponse {
        let Some(clock) = &self.manual_clock else { return ApiError::PathNotFound.response() };
        match read_clock(body) {
            Ok(now) => {
                clock.set(now);
                answer(StatusCode::OK, json!({ "now": now.to_string() }))
            }
            Err(error) => error.response(),
        }
    }

    /// Revokes certificates of a validator and disconnects it.
    async fn revoke(&self, body: &[u8]) -> HttpResponse {
        let Some(link) = self.link.clone() else { return ApiError::PathNotFound.response() };
        let whom = match read_revoked(body) {
            Ok(whom) => whom,
            Err(error) => return error.response(),
        };
        let revoke = move || {
            let connected = match whom {
                Revoked::Serial(_) => None,
                Revoked::Terminal(terminal) => link.fleet.serial_of(terminal),
            };
            let revoked = link.trust.revoke(whom, connected);
            link.fleet.close_revoked(&link.trust);
            revoked
        };
        match tokio::task::spawn_blocking(revoke).await {
            Ok(Ok(0)) => {
                let unknown = json!({ "message": "no certificate of this terminal is known here" });
                answer(StatusCode::NOT_FOUND, unknown)
            }
            Ok(Ok(certificates)) => {
                tracing::info!(certificates, "certificates were revoked");
                answer(StatusCode::OK, json!({ "certificates": certificates }))
            }
            Ok(Err(error)) => {
                tracing::error!(error = chain(&error), "certificates cannot be revoked");
                ApiError::Unavailable.response()
            }
            Err(_panicked) => ApiError::Unavailable.response(),
        }
    }

    async fn import(&self, payload: &mut Payload) -> Answer {
        let Ok(_permit) = self.imports.try_acquire() else {
            let busy = json!({ "message": "an import is running" });
            return Answer::BeforeBody(answer(StatusCode::CONFLICT, busy));
        };
        let file = match self.store(payload).await {
            Ok(file) => file,
            Err(error) => return Answer::BeforeBody(error.response()),
        };
        let engine = self.gateway.engine.clone();
        let import = move || engine.import(&mut BufReader::with_capacity(1 << 20, file));
        let (tell, told) = oneshot::channel();
        let started = background::spawn("import", move || {
            // The caller may have hung up; the import stands all the same.
            let _told = tell.send(import());
        });
        if let Err(error) = started {
            tracing::error!(error = chain(&error), "an import has no thread");
            return Answer::AfterBody(ApiError::Unavailable.response());
        }
        Answer::AfterBody(match told.await {
            Ok(result) => import_answer(result),
            Err(_panicked) => ApiError::Unavailable.response(),
        })
    }

    /// Keeps the body in a file without a name, so that a slow client holds up nobody.
    async fn store(&self, payload: &mut Payload) -> Result<std::fs::File, ApiError> {
        let (pieces, mut waiting) = mpsc::channel::<Bytes>(PIECES_WAITING_MAX);
        let data_dir = self.data_dir.clone();
        let write = move || -> io::Result<std::fs::File> {
            let mut file = tempfile::tempfile_in(data_dir)?;
            while let Some(piece) = waiting.blocking_recv() {
                file.write_all(&piece)?;
            }
            file.seek(SeekFrom::Start(0))?;
            Ok(file)
        };
        let writer = tokio::task::spawn_blocking(write);
        let mut bytes: u64 = 0;
        loop {
            let piece = tokio::time::timeout(IMPORT_PAUSE_MAX, payload.next()).await;
            let Some(piece) = piece.map_err(|_| ApiError::RequestTimeout)? else { break };
            let piece = piece.map_err(|_| ApiError::BadJson)?;
            bytes = bytes.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
            if bytes > self.import_bytes_max {
                return Err(ApiError::TooLarge);
            }
            // The writer is gone only after an error, which it tells below.
            if pieces.send(piece).await.is_err() {
                break;
            }
        }
        drop(pieces);
        match writer.await {
            Ok(Ok(file)) => Ok(file),
            Ok(Err(error)) => {
                tracing::error!(error = chain(&error), "an import cannot be stored");
                Err(ApiError::Unavailable)
            }
            Err(_panicked_or_cancelled) => Err(ApiError::Unavailable),
        }
    }
}

fn read_clock(body: &[u8]) -> Result<Timestamp, ApiError> {
    #[derive(Deserialize)]
    struct ClockFields<'a> {
        #[serde(borrow)]
        now: fields::Field<'a>,
    }
    let given = fields::parse::<ClockFields>(body)?;
    let now = fields::text(fields::required(given.now)?)?;
    Timestamp::parse(&now).ok_or(ApiError::BadFormat)
}

/// Either `{"terminal": 7}` or `{"serial": "…"}`.
fn read_revoked(body: &[u8]) -> Result<Revoked, ApiError> {
    #[derive(Deserialize)]
    struct RevokedFields<'a> {
        #[serde(borrow)]
        serial: fields::Field<'a>,
        #[serde(borrow)]
        terminal: fields::Field<'a>,
    }
    let given = fields::parse::<RevokedFields>(body)?;
    match (given.serial, given.terminal) {
        (Some(_), Some(_)) => Err(ApiError::ConflictingIds),
        (Some(serial), None) => {
            let serial = fields::text(serial)?;
            Serial::parse(&serial).map(Revoked::Serial).ok_or(ApiError::BadFormat)
        }
        (None, terminal) => {
            let terminal = fields::integer(fields::required(terminal)?)?;
            Ok(Revoked::Terminal(fields::terminal(terminal)))
        }
    }
}

fn import_answer(result: Result<ImportReport, ImportError>) -> HttpResponse {
    match result {
        Ok(report) => {
            let ImportReport { revision, lines, changes } = report;
            tracing::info!(revision = revision.0, lines, changes, "a registry was imported");
            let report = json!({ "revision": revision.0, "lines": lines, "changes": changes });
            answer(StatusCode::OK, report)
        }
        Err(ImportError::Rejected(errors)) => {
            let error = |error: LineError| {
                let LineError { line, field, reason } = error;
                json!({ "line": line, "field": field, "reason": reason })
            };
            let errors: Vec<_> = errors.into_iter().map(error).collect();
            answer(StatusCode::BAD_REQUEST, json!({ "errors": errors }))
        }
        Err(error) => {
            tracing::error!(error = chain(&error), "a registry cannot be imported now");
            ApiError::Unavailable.response()
        }
    }
}

fn answer(status: StatusCode, body: serde_json::Value) -> HttpResponse {
    HttpResponse::build(status).json(body)
}

fn plain(status: StatusCode, text: impl Into<String>) -> HttpResponse {
    let body = actix_web::body::BoxBody::new(text.into());
    let mut response = HttpResponse::with_body(status, body);
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_set_by_an_instant() {
        let check = |body: &str, expected: Result<&str, ApiError>| {
            let expected = expected.map(|text| Timestamp::parse(text).unwrap());
            assert_eq!(read_clock(body.as_bytes()), expected, "{body}");
        };
        check("{\"now\":\"2025-06-02T10:00:00Z\"}", Ok("2025-06-02T10:00:00Z"));
        check("{\"now\":\"2025-06-02T19:00:00+09:00\"}", Ok("2025-06-02T10:00:00Z"));
        check("{\"now\":\"yesterday\"}", Err(ApiError::BadFormat));
        check("{\"now\":5}", Err(ApiError::BadFormat));
        check("{}", Err(ApiError::MissingField));
        check("now", Err(ApiError::BadJson));
    }
}
