//! The load tester's client, for tests: it panics where there is no answer.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use loadtest::client;
use socket2::{Domain, Socket, Type};

const TIMEOUT: Duration = Duration::from_secs(30);

/// One keep-alive connection.
pub struct Client {
    client: client::Client,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The head, as it came.
    pub head: String,
    /// The body, as it came.
    pub body: String,
}

impl Response {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// Status and `errorCode`.
    pub fn error(&self) -> (u16, Option<i64>) {
        (self.status, self.json()["errorCode"].as_i64())
    }
}

impl Client {
    /// A connection.
    pub fn connect(address: SocketAddr) -> Client {
        Client::over(TcpStream::connect(address).unwrap())
    }

    /// A connection from one of this machine's loopback addresses.
    pub fn connect_from(source: IpAddr, address: SocketAddr) -> Client {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
        socket.connect(&address.into()).unwrap();
        Client::over(socket.into())
    }

    fn over(stream: TcpStream) -> Client {
        Client { client: client::Client::over(stream, "eligo", TIMEOUT).unwrap() }
    }

    /// One POST with headers as given.
    pub fn post(&mut self, path: &str, headers: &[&str], body: &[u8]) -> Response {
        self.try_post(path, headers, body).expect("no answer")
    }

    /// The same, or nothing when the connection ends first.
    pub fn try_post(&mut self, path: &str, headers: &[&str], body: &[u8]) -> Option<Response> {
        self.client.post(path, headers, body).ok().map(Response::from)
    }

    /// One GET.
    pub fn get(&mut self, path: &str) -> Response {
        self.client.get(path, &[]).expect("no answer").into()
    }

    /// One GET with headers as given.
    pub fn get_with(&mut self, path: &str, headers: &[&str]) -> Response {
        self.client.get(path, headers).expect("no answer").into()
    }

    /// The same for an answer that is no text: status and body.
    pub fn get_bytes(&mut self, path: &str, headers: &[&str]) -> (u16, Vec<u8>) {
        let answer = self.client.get(path, headers).expect("no answer");
        (answer.status, answer.body)
    }

    /// A call of the web service.
    pub fn call(&mut self, token: &str, path: &str, body: &str) -> Response {
        self.try_call(token, path, body).expect("no answer")
    }

    /// The same, or nothing when the connection ends first.
    pub fn try_call(&mut self, token: &str, path: &str, body: &str) -> Option<Response> {
        self.client.call(token, path, body).ok().map(Response::from)
    }

    /// Asks for a token.
    pub fn token(&mut self, client_id: &str, secret: &str, scope: &str) -> Response {
        let scope = scope.replace(' ', "+");
        self.form(&format!(
            "client_id={client_id}&client_secret={secret}&grant_type=client_credentials&scope={scope}"
        ))
    }

    /// Sends a form to the token service.
    pub fn form(&mut self, form: &str) -> Response {
        let headers = ["Content-Type: application/x-www-form-urlencoded"];
        self.post("/connect/token", &headers, form.as_bytes())
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> Option<()> {
        self.client.send(bytes).ok()
    }

    /// Tells the server that nothing more will be sent.
    pub fn end_sending(&mut self) {
        self.client.end_sending();
    }

    /// Reads one answer.
    pub fn read_response(&mut self) -> Option<Response> {
        self.client.receive().ok().map(Response::from)
    }
}

impl From<client::Response> for Response {
    fn from(response: client::Response) -> Response {
        let client::Response { status, head, body } = response;
        Response { status, head, body: String::from_utf8(body).unwrap() }
    }
}
