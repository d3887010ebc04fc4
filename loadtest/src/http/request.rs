//! Requests as bytes (catalogue §3.5–3.10): heads are rendered once for each organization, and a
//! request takes no memory of its own.

use std::sync::Arc;

use crate::request::{Call, Check, Confirm, Identifier, Request};
use crate::tokens::{Table, Tokens};

/// Which answer a request must get.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// One item for each check.
    Batch,
    /// The answer to a check.
    Check,
    /// A page of transactions.
    History,
    /// A page of services.
    Services,
    /// An empty body.
    Settle,
}

/// Writes requests. It is never printed: it holds tokens.
pub struct Writer {
    host: String,
    tokens: Tokens,
    /// The table that the heads were rendered from.
    table: Arc<Table>,
    heads: Vec<Option<Box<[u8]>>>,
    body: Vec<u8>,
}

impl Writer {
    /// For a server that is called `host`, with its port where it is not the usual one.
    pub fn new(host: String, tokens: Tokens) -> Writer {
        let table = Arc::clone(&tokens.table());
        Writer { host, tokens, table, heads: Vec::new(), body: Vec::new() }
    }

    /// Puts a request in the place of `out`.
    pub fn write(&mut self, call: &Call<'_>, out: &mut Vec<u8>) -> Form {
        self.body.clear();
        let (line, form) = write_body(&call.request, &mut self.body);
        out.clear();
        out.extend_from_slice(line);
        out.extend_from_slice(self.head(call.organization));
        push_number(out, self.body.len() as u64);
        out.extend_from_slice(b"\r\n\r\n");
        out.extend_from_slice(&self.body);
        form
    }

    /// What stands between the first line and the length of the body.
    fn head(&mut self, organization: u16) -> &[u8] {
        let table = self.tokens.table();
        if !Arc::ptr_eq(&table, &self.table) {
            self.table = Arc::clone(&table);
            self.heads.clear();
        }
        let at = usize::from(organization);
        if self.heads.len() <= at {
            self.heads.resize(at + 1, None);
        }
        let (host, table) = (&self.host, &self.table);
        self.heads[at].get_or_insert_with(|| {
            render_head(host, table.token(organization)).into_bytes().into_boxed_slice()
        })
    }
}

fn render_head(host: &str, token: Option<&str>) -> String {
    let authorization =
        token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    format!("Host: {host}\r\n{authorization}Content-Type: application/json\r\nContent-Length: ")
}

fn write_body(request: &Request<'_>, out: &mut Vec<u8>) -> (&'static [u8], Form) {
    const CHECK: &[u8] = b"POST /api/CheckClientBenefits HTTP/1.1\r\n";
    match request {
        Request::Batch(checks) => {
            out.extend_from_slice(b"{\"checks\":");
            push_list(out, checks, push_check);
            out.push(b'}');
            (b"POST /api/v2/checks HTTP/1.1\r\n", Form::Batch)
        }
        Request::Cancel { holder, transaction } => {
            push_field(out, b"{\"clientId\":", *holder);
            push_field(out, b",\"transactionId\":", *transaction);
            out.push(b'}');
            (b"POST /api/CancelTransaction HTTP/1.1\r\n", Form::Settle)
        }
        Request::Check(check) => {
            push_check(out, check);
            (CHECK, Form::Check)
        }
        Request::Confirm(confirm) => {
            push_confirm(out, confirm);
            (b"POST /api/ConfirmTransaction HTTP/1.1\r\n", Form::Settle)
        }
        Request::History { identifier, from, to, page, page_size } => {
            out.push(b'{');
            push_identifier(out, identifier);
            push_text(out, b",\"dateFrom\":", from);
            push_text(out, b",\"dateTo\":", to);
            push_field(out, b",\"pageIndex\":", u64::from(*page));
            push_field(out, b",\"pageSize\":", u64::from(*page_size));
            out.push(b'}');
            (b"POST /api/GetTransactions HTTP/1.1\r\n", Form::History)
        }
        Request::Malformed(body) => {
            out.extend_from_slice(body.as_bytes());
            (CHECK, Form::Check)
        }
        Request::Services { page, page_size } => {
            push_field(out, b"{\"pageIndex\":", u64::from(*page));
            push_field(out, b",\"pageSize\":", u64::from(*page_size));
            out.push(b'}');
            (b"POST /api/GetOrganizationServices HTTP/1.1\r\n", Form::Services)
        }
    }
}

fn push_check(out: &mut Vec<u8>, check: &Check<'_>) {
    push_field(out, b"{\"serviceId\":", u64::from(check.service));
    push_field(out, b",\"organizationTerminalId\":", check.terminal);
    out.push(b',');
    push_identifier(out, &check.identifier);
    push_money(out, b",\"price\":", check.price_kopecks);
    out.push(b'}');
}

fn push_confirm(out: &mut Vec<u8>, confirm: &Confirm) {
    push_field(out, b"{\"clientId\":", confirm.holder);
    push_field(out, b",\"benefitCategoryId\":", u64::from(confirm.category));
    push_field(out, b",\"transactionId\":", confirm.transaction);
    push_money(out, b",\"price\":", confirm.price_kopecks);
    push_money(out, b",\"discountedPrice\":", confirm.discounted_kopecks);
    out.push(b'}');
}

fn push_identifier(out: &mut Vec<u8>, identifier: &Identifier<'_>) {
    match identifier {
        Identifier::ClientCode(code) => push_text(out, b"\"clientCode\":", code),
        Identifier::SocialCard(number, series) => {
            push_text(out, b"\"cardNumber\":", number);
            push_text(out, b",\"cardSeries\":", series);
        }
        Identifier::Snils(snils) => push_text(out, b"\"clientSnils\":", snils),
    }
}

fn push_list<T>(out: &mut Vec<u8>, items: &[T], push: fn(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        push(out, item);
    }
    out.push(b']');
}

fn push_field(out: &mut Vec<u8>, name: &[u8], number: u64) {
    out.extend_from_slice(name);
    push_number(out, number);
}

fn push_text(out: &mut Vec<u8>, name: &[u8], text: &str) {
    out.extend_from_slice(name);
    let is_plain = |byte: u8| byte >= 0x20 && !matches!(byte, b'"' | b'\\');
    if text.bytes().all(is_plain) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        // A string always has a JSON form, and a vector always takes it.
        let _infallible = serde_json::to_writer(out, text);
    }
}

/// Rubles with at most two decimals (catalogue §10.5).
fn push_money(out: &mut Vec<u8>, name: &[u8], kopecks: Option<u64>) {
    let Some(kopecks) = kopecks else { return };
    push_field(out, name, kopecks / 100);
    let rest = (kopecks % 100) as u8;
    if rest > 0 {
        out.extend_from_slice(&[b'.', b'0' + rest / 10]);
    }
    if !rest.is_multiple_of(10) {
        out.push(b'0' + rest % 10);
    }
}

fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECK: Check<'static> = Check {
        service: 1,
        terminal: 5_001,
        identifier: Identifier::ClientCode("AAABBBCCC000001"),
        price_kopecks: None,
    };

    fn body(request: Request<'_>) -> String {
        let mut out = Vec::new();
        write_body(&request, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn requests_are_written_as_the_documents_do() {
        let check = |request, expected: &str| assert_eq!(body(request), expected);
        let plain =
            r#"{"serviceId":1,"organizationTerminalId":5001,"clientCode":"AAABBBCCC000001"}"#;
        check(Request::Check(CHECK), plain);
        let social = Check {
            identifier: Identifier::SocialCard("9643 0001", "СК\"1"),
            price_kopecks: Some(15_050),
            ..CHECK
        };
        let social_text = "{\"serviceId\":1,\"organizationTerminalId\":5001,\
             \"cardNumber\":\"9643 0001\",\"cardSeries\":\"СК\\\"1\",\"price\":150.5}";
        check(Request::Check(social), social_text);
        let both = [CHECK, social];
        check(Request::Batch(&both), &format!("{{\"checks\":[{plain},{social_text}]}}"));
        check(Request::Batch(&[]), "{\"checks\":[]}");
        check(
            Request::Confirm(Confirm {
                holder: 7,
                category: 20,
                transaction: u64::MAX,
                price_kopecks: Some(30_000),
                discounted_kopecks: Some(5),
            }),
            "{\"clientId\":7,\"benefitCategoryId\":20,\"transactionId\":18446744073709551615,\
             \"price\":300,\"discountedPrice\":0.05}",
        );
        check(
            Request::Cancel { holder: 7, transaction: 0 },
            "{\"clientId\":7,\"transactionId\":0}",
        );
        check(
            Request::History {
                identifier: Identifier::Snils("11223344595"),
                from: "2025-06-01",
                to: "2025-06-30",
                page: 2,
                page_size: 50,
            },
            "{\"clientSnils\":\"11223344595\",\"dateFrom\":\"2025-06-01\",\
             \"dateTo\":\"2025-06-30\",\"pageIndex\":2,\"pageSize\":50}",
        );
        check(
            Request::Services { page: 0, page_size: 1_000 },
            "{\"pageIndex\":0,\"pageSize\":1000}",
        );
        check(Request::Malformed("{\"serviceId\":"), "{\"serviceId\":");
    }

    #[test]
    fn a_request_has_the_head_of_its_organization() {
        let tokens = Tokens::default();
        let mut writer = Writer::new("example.org:8080".to_owned(), tokens.clone());
        let request = Request::Services { page: 0, page_size: 1 };
        let mut written = |organization| {
            let mut out = b"old".to_vec();
            assert_eq!(
                writer.write(&Call { organization, request, may_repeat: true }, &mut out),
                Form::Services
            );
            String::from_utf8(out).unwrap()
        };
        let expected = |authorization: &str| {
            format!(
                "POST /api/GetOrganizationServices HTTP/1.1\r\nHost: example.org:8080\r\n\
                 {authorization}Content-Type: application/json\r\nContent-Length: 28\r\n\r\n\
                 {{\"pageIndex\":0,\"pageSize\":1}}"
            )
        };
        assert_eq!(written(3), expected(""));
        tokens.set(3, "one");
        tokens.set(0, "other");
        assert_eq!(written(3), expected("Authorization: Bearer one\r\n"));
        assert_eq!(written(0), expected("Authorization: Bearer other\r\n"));
        tokens.set(3, "two");
        assert_eq!(written(3), expected("Authorization: Bearer two\r\n"));
    }
}
