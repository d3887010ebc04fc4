//! Everything that a call can be refused with, and the one table from causes to answers
//! (catalogue §11).
//!
//! The texts are fixed: nothing of a request is ever repeated in an answer.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use engine::command::Rejection;
use engine::trips::claim::ClaimError;

/// Why a call is refused before or instead of a business answer.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ApiError {
    /// A field has the wrong type, form or range.
    BadFormat,
    /// The interval of dates is reversed, too long or given twice.
    BadInterval,
    /// The body is not a JSON object in UTF-8.
    BadJson,
    /// There is no such claim, or it is somebody else's.
    ClaimNotFound,
    /// The claim is in another state.
    ClaimWrongState,
    /// More than one kind of identifier.
    ConflictingIds,
    /// A field that this connection type may not send.
    FieldNotForType,
    /// The token does not allow this method, or the organization may not serve now.
    Forbidden,
    /// The call comes from an address that the organization did not name.
    IpDenied,
    /// A required field is absent.
    MissingField,
    /// The path exists, the HTTP method does not.
    MethodNotAllowed,
    /// A method that this connection type may not call.
    MethodNotForType,
    /// No such path.
    PathNotFound,
    /// The body did not arrive in time.
    RequestTimeout,
    /// The body is larger than allowed.
    TooLarge,
    /// The organization calls more often than allowed.
    TooMany,
    /// The transaction was checked for another holder or category.
    TransactionMismatch,
    /// The organization has no such transaction.
    TransactionNotFound,
    /// The transaction was settled otherwise before.
    TransactionWrongState,
    /// The claim has no such trip.
    TripNotFound,
    /// No valid token.
    Unauthorised,
    /// The engine cannot answer now.
    Unavailable,
}

/// An error as the wire sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WireError {
    /// The HTTP status.
    pub status: StatusCode,
    /// The envelope `{"message", "errorCode"}`.
    pub body: &'static str,
    /// The word for metrics.
    pub label: &'static str,
}

macro_rules! wire {
    ($status:ident, $label:literal, $message:literal) => {
        WireError {
            status: StatusCode::$status,
            body: concat!("{\"message\":\"", $message, "\"}"),
            label: $label,
        }
    };
    ($status:ident, $label:literal, $message:literal, $code:literal) => {
        WireError {
            status: StatusCode::$status,
            body: concat!("{\"message\":\"", $message, "\",\"errorCode\":", $code, "}"),
            label: $label,
        }
    };
}

impl ApiError {
    /// Every error, in the order of their declaration.
    pub const ALL: [ApiError; 22] = [
        ApiError::BadFormat,
        ApiError::BadInterval,
        ApiError::BadJson,
        ApiError::ClaimNotFound,
        ApiError::ClaimWrongState,
        ApiError::ConflictingIds,
        ApiError::FieldNotForType,
        ApiError::Forbidden,
        ApiError::IpDenied,
        ApiError::MissingField,
        ApiError::MethodNotAllowed,
        ApiError::MethodNotForType,
        ApiError::PathNotFound,
        ApiError::RequestTimeout,
        ApiError::TooLarge,
        ApiError::TooMany,
        ApiError::TransactionMismatch,
        ApiError::TransactionNotFound,
        ApiError::TransactionWrongState,
        ApiError::TripNotFound,
        ApiError::Unauthorised,
        ApiError::Unavailable,
    ];

    /// The answer to this error: the error map of catalogue §11.
    pub fn wire(self) -> WireError {
        match self {
            ApiError::BadJson => {
                wire!(BAD_REQUEST, "bad_json", "Тело запроса не является объектом JSON", 100)
            }
            ApiError::MissingField => {
                wire!(BAD_REQUEST, "missing_field", "Не заполнено обязательное поле", 101)
            }
            ApiError::FieldNotForType => {
                wire!(
                    BAD_REQUEST,
                    "field_not_for_type",
                    "Поле недоступно для типа подключения",
                    102
                )
            }
            ApiError::MethodNotForType => {
                wire!(
                    FORBIDDEN,
                    "method_not_for_type",
                    "Метод недоступен для типа подключения",
                    103
                )
            }
            ApiError::ConflictingIds => {
                wire!(BAD_REQUEST, "conflicting_ids", "Указано несколько идентификаторов", 104)
            }
            ApiError::BadFormat => wire!(BAD_REQUEST, "bad_format", "Неверный формат поля", 105),
            ApiError::TransactionNotFound => {
                wire!(NOT_FOUND, "transaction_not_found", "Транзакция не найдена", 106)
            }
            ApiError::TransactionWrongState => wire!(
                CONFLICT,
                "transaction_wrong_state",
                "Состояние транзакции не допускает операцию",
                107
            ),
            ApiError::TransactionMismatch => wire!(
                CONFLICT,
                "transaction_mismatch",
                "Данные не соответствуют результату проверки",
                108
            ),
            ApiError::BadInterval => {
                wire!(BAD_REQUEST, "bad_interval", "Неверный интервал дат", 109)
            }
            ApiError::ClaimNotFound => {
                wire!(NOT_FOUND, "claim_not_found", "Заявка не найдена", 110)
            }
            ApiError::ClaimWrongState => {
                wire!(CONFLICT, "claim_wrong_state", "Состояние заявки не допускает операцию", 111)
            }
            ApiError::TripNotFound => {
                wire!(NOT_FOUND, "trip_not_found", "Поездка не входит в заявку", 112)
            }
            ApiError::Unauthorised => {
                wire!(UNAUTHORIZED, "unauthorised", "Требуется авторизация", 120)
            }
            ApiError::Forbidden => wire!(FORBIDDEN, "forbidden", "Недостаточно прав", 121),
            ApiError::IpDenied => {
                wire!(FORBIDDEN, "ip_denied", "Обращение с данного адреса запрещено", 122)
            }
            ApiError::TooMany => {
                wire!(TOO_MANY_REQUESTS, "too_many", "Слишком много запросов", 130)
            }
            ApiError::Unavailable => wire!(
                SERVICE_UNAVAILABLE,
                "unavailable",
                "Отсутствует связь с процессинговым центром",
                6
            ),
            ApiError::PathNotFound => wire!(NOT_FOUND, "path_not_found", "Метод не найден"),
            ApiError::MethodNotAllowed => {
                wire!(METHOD_NOT_ALLOWED, "method_not_allowed", "Недопустимый метод HTTP")
            }
            ApiError::RequestTimeout => {
                wire!(REQUEST_TIMEOUT, "request_timeout", "Время ожидания запроса истекло")
            }
            ApiError::TooLarge => {
                wire!(PAYLOAD_TOO_LARGE, "too_large", "Размер запроса превышает допустимый")
            }
        }
    }

    /// The HTTP answer to this error.
    pub fn response(self) -> HttpResponse {
        let wire = self.wire();
        let mut response =
            HttpResponse::with_body(wire.status, actix_web::body::BoxBody::new(wire.body));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self == ApiError::Unauthorised {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<Rejection> for ApiError {
    fn from(rejection: Rejection) -> ApiError {
        match rejection {
            Rejection::NotFound => ApiError::TransactionNotFound,
            Rejection::Mismatch => ApiError::TransactionMismatch,
            Rejection::WrongState => ApiError::TransactionWrongState,
        }
    }
}

impl From<ClaimError> for ApiError {
    fn from(error: ClaimError) -> ApiError {
        match error {
            ClaimError::NoSuchTrip => ApiError::TripNotFound,
            ClaimError::NotFound => ApiError::ClaimNotFound,
            ClaimError::Unavailable => ApiError::Unavailable,
            ClaimError::WrongState => ApiError::ClaimWrongState,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_answers_as_the_error_map_says() {
        let check = |error: ApiError, status: u16, code: Option<u64>| {
            let wire = error.wire();
            let body: serde_json::Value = serde_json::from_str(wire.body).unwrap();
            assert_eq!(wire.status.as_u16(), status, "{error:?}");
            assert_eq!(body.get("errorCode").and_then(|code| code.as_u64()), code, "{error:?}");
            assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()));
        };
        check(ApiError::BadJson, 400, Some(100));
        check(ApiError::MissingField, 400, Some(101));
        check(ApiError::FieldNotForType, 400, Some(102));
        check(ApiError::MethodNotForType, 403, Some(103));
        check(ApiError::ConflictingIds, 400, Some(104));
        check(ApiError::BadFormat, 400, Some(105));
        check(ApiError::TransactionNotFound, 404, Some(106));
        check(ApiError::TransactionWrongState, 409, Some(107));
        check(ApiError::TransactionMismatch, 409, Some(108));
        check(ApiError::BadInterval, 400, Some(109));
        check(ApiError::ClaimNotFound, 404, Some(110));
        check(ApiError::ClaimWrongState, 409, Some(111));
        check(ApiError::TripNotFound, 404, Some(112));
        check(ApiError::Unauthorised, 401, Some(120));
        check(ApiError::Forbidden, 403, Some(121));
        check(ApiError::IpDenied, 403, Some(122));
        check(ApiError::TooMany, 429, Some(130));
        check(ApiError::Unavailable, 503, Some(6));
        check(ApiError::PathNotFound, 404, None);
        check(ApiError::MethodNotAllowed, 405, None);
        check(ApiError::RequestTimeout, 408, None);
        check(ApiError::TooLarge, 413, None);
    }

    #[test]
    fn the_list_of_errors_follows_their_declaration() {
        for (at, error) in ApiError::ALL.iter().enumerate() {
            assert_eq!(*error as usize, at);
        }
    }
}
