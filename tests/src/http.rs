//! The least HTTP/1.1 client that shows every byte of an answer.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// One keep-alive connection.
pub struct Client {
    stream: TcpStream,
    received: Vec<u8>,
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
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Client { stream, received: Vec::new() }
    }

    /// One POST with headers as given.
    pub fn post(&mut self, path: &str, headers: &[&str], body: &[u8]) -> Response {
        self.try_post(path, headers, body).expect("no answer")
    }

    /// The same, or nothing when the connection ends first.
    pub fn try_post(&mut self, path: &str, headers: &[&str], body: &[u8]) -> Option<Response> {
        let mut request = format!("POST {path} HTTP/1.1\r\nHost: eligo\r\n");
        for header in headers {
            request.push_str(header);
            request.push_str("\r\n");
        }
        request.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        let mut request = request.into_bytes();
        request.extend_from_slice(body);
        self.send(&request)?;
        self.read_response()
    }

    /// One GET.
    pub fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: eligo\r\n\r\n").as_bytes()).unwrap();
        self.read_response().expect("no answer")
    }

    /// A call of the web service.
    pub fn call(&mut self, token: &str, path: &str, body: &str) -> Response {
        self.try_call(token, path, body).expect("no answer")
    }

    /// The same, or nothing when the connection ends first.
    pub fn try_call(&mut self, token: &str, path: &str, body: &str) -> Option<Response> {
        let authorization = format!("Authorization: Bearer {token}");
        let headers = ["Content-Type: application/json", authorization.as_str()];
        self.try_post(path, &headers, body.as_bytes())
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
        self.stream.write_all(bytes).ok()
    }

    /// Tells the server that nothing more will be sent.
    pub fn end_sending(&self) {
        // The server may have closed the connection before.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Reads one answer.
    pub fn read_response(&mut self) -> Option<Response> {
        let end = loop {
            if let Some(at) = self.received.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            self.receive()?;
        };
        let head = String::from_utf8(self.received[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let mut response = Response { status, head, body: String::new() };
        let length = response.header("content-length").map_or(0, |text| text.parse().unwrap());
        let whole = end + 4 + length;
        while self.received.len() < whole {
            self.receive()?;
        }
        response.body = String::from_utf8(self.received[end + 4..whole].to_vec()).unwrap();
        self.received.drain(..whole);
        Some(response)
    }

    fn receive(&mut self) -> Option<()> {
        let mut buffer = [0; 16 << 10];
        let count = self.stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
        self.received.extend_from_slice(&buffer[..count]);
        Some(())
    }
}
