//! The calls of the web service, by the names of the acceptance table.

/// `POST /connect/token`.
pub const TOKEN: &str = "/connect/token";
/// Is there a benefit?
pub const CHECK: &str = "/api/CheckClientBenefits";
/// The same, many at once.
pub const CHECKS: &str = "/api/v2/checks";
/// The service was delivered.
pub const CONFIRM: &str = "/api/ConfirmTransaction";
/// The holder refused.
pub const CANCEL: &str = "/api/CancelTransaction";
/// The services of the caller.
pub const SERVICES: &str = "/api/GetOrganizationServices";
/// The confirmed transactions of a holder.
pub const HISTORY: &str = "/api/GetTransactions";

/// The scopes of an acceptor.
pub const BOTH: &str = "ECS.WebAPI OrganizationAPI";

/// The check "ok-Check" of the table, by O1.
pub const OK_CHECK: &str = r#"{"serviceId":1,"organizationTerminalId":2,"clientCode":"AAABBBCCC"}"#;
/// Its answer, where it opens the first transaction.
pub const OK_ANSWER: &str = r#"{"resultCode":0,"transactionId":1,"clientId":1,"benefits":[{"benefitCategory":{"id":20,"name":"Ветеран труда"}}]}"#;
/// The confirm of row Y8a.
pub const Y8A: &str =
    r#"{"clientId":1,"benefitCategoryId":20,"transactionId":1,"price":300,"discountedPrice":100}"#;
