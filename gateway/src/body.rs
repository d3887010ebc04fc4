//! Reading of request bodies: bounded in size and in time.
//!
//! A connection on which a body is left unread cannot be used any more. So a call that is refused
//! before its body was looked at reads it all the same, within the same bounds, and forgets it.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_LENGTH, HeaderMap};
use actix_web::web::{Bytes, BytesMut};
use futures_util::StreamExt;

use crate::errors::ApiError;

/// Reads a body of at most `bytes_max` bytes that arrives within `patience`.
pub async fn read(
    headers: &HeaderMap,
    payload: &mut Payload,
    bytes_max: usize,
    patience: Duration,
) -> Result<Bytes, ApiError> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let declared = declared.and_then(|length| length.parse::<usize>().ok());
    if declared.is_some_and(|length| length > bytes_max) {
        return Err(ApiError::TooLarge);
    }
    let body = in_time(gather(payload, bytes_max), patience).await;
    body.unwrap_or(Err(ApiError::RequestTimeout))
}

/// A body that no method has read to its end.
pub struct Unread<'a> {
    /// The headers of the request.
    pub headers: &'a HeaderMap,
    /// What is left of it.
    pub payload: Payload,
    /// How much of it is read.
    pub bytes_max: usize,
    /// For how long.
    pub patience: Duration,
}

impl Unread<'_> {
    /// Reads what is left of a small body, so that the client can go on with the connection;
    /// otherwise `response` is the last one on it.
    pub async fn forget(mut self, response: HttpResponse) -> HttpResponse {
        let spent = [StatusCode::PAYLOAD_TOO_LARGE, StatusCode::REQUEST_TIMEOUT]
            .contains(&response.status());
        let payload = &mut self.payload;
        if !spent && read(self.headers, payload, self.bytes_max, self.patience).await.is_ok() {
            return response;
        }
        response.map_body(|_, words| last(words, self.payload))
    }
}

/// The body of an answer after which the connection ends, whatever of `unread` is still to come.
///
/// A chunked body that nobody holds would be read and thrown away for as long as a client sends; one
/// that is held until the answer is out ends the connection in the library's time for disconnects.
fn last(words: BoxBody, unread: Payload) -> BoxBody {
    match words.try_into_bytes() {
        Ok(words) => BoxBody::new(LastWords { words, _unread: unread }),
        Err(words) => words,
    }
}

struct LastWords {
    words: Bytes,
    _unread: Payload,
}

impl MessageBody for LastWords {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        self.words.size()
    }

    fn poll_next(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        let words = std::mem::take(&mut self.get_mut().words);
        Poll::Ready((!words.is_empty()).then_some(Ok(words)))
    }
}

/// What `future` brings within `patience`.
///
/// The body of nearly every call arrives with its head and is handed over before the second poll;
/// until then no timer is set.
async fn in_time<T>(future: impl Future<Output = T>, patience: Duration) -> Option<T> {
    let mut future = pin!(future);
    let mut is_second = false;
    let early = poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if is_second => Poll::Ready(None),
        Poll::Pending => {
            is_second = true;
            context.waker().wake_by_ref();
            Poll::Pending
        }
    });
    match early.await {
        Some(output) => Some(output),
        None => tokio::time::timeout(patience, future).await.ok(),
    }
}

async fn gather(payload: &mut Payload, bytes_max: usize) -> Result<Bytes, ApiError> {
    // Nearly every body arrives in one piece, which is then not copied.
    let Some(first) = payload.next().await else { return Ok(Bytes::new()) };
    let first = first.map_err(|_| ApiError::BadJson)?;
    if first.len() > bytes_max {
        return Err(ApiError::TooLarge);
    }
    let Some(second) = payload.next().await else { return Ok(first) };
    let mut body = BytesMut::from(first);
    let mut next = Some(second);
    while let Some(piece) = next {
        let piece = piece.map_err(|_| ApiError::BadJson)?;
        if body.len().saturating_add(piece.len()) > bytes_max {
            return Err(ApiError::TooLarge);
        }
        body.extend_from_slice(&piece);
        next = payload.next().await;
    }
    Ok(body.freeze())
}
