//! The transport beside servers that behave, and such that do not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;

use super::*;
use crate::endpoint::Endpoint;
use crate::request::Request;
use crate::tokens::News;

const PATIENCE: Nanos = Nanos::from_seconds(80);
const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// A server whose connections are each served by a script.
struct Server {
    address: SocketAddr,
    thread: JoinHandle<()>,
}

type Script = fn(TcpStream);

impl Server {
    fn start(scripts: &'static [Script]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            for script in scripts {
                script(listener.accept().unwrap().0);
            }
        });
        Server { address, thread }
    }

    fn transport(&self, connections: u32) -> Http {
        transport(self.address, connections, None)
    }
}

fn transport(address: SocketAddr, connections: u32, tls: Option<Tls>) -> Http {
    let settings = Settings {
        address,
        host: "localhost".to_owned(),
        tls,
        connections,
        connections_max: connections.max(1),
    };
    Http::new(settings, Tokens::default(), Monotonic::started_before()).unwrap()
}

/// Reads one request; false at the end.
fn take_request(stream: &mut impl Read) -> bool {
    let mut reader = BufReader::with_capacity(1, stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return false;
        }
        if let Some(bytes) = line.strip_prefix("Content-Length: ") {
            length = bytes.trim().parse().unwrap();
        }
        if line == "\r\n" {
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            return true;
        }
    }
}

/// What one request brought.
#[derive(Debug, Eq, PartialEq)]
enum Found {
    Done,
    Lost,
    Refused(u16),
    Unreadable,
}

fn send(http: &mut Http, tag: u32) {
    let request = Request::Cancel { holder: 1, transaction: 2 };
    send_call(http, tag, &Call { organization: 0, request, may_repeat: true });
}

fn send_call(http: &mut Http, tag: u32, call: &Call<'_>) {
    while !http.is_free() {
        assert!(http.clock.now() < PATIENCE, "no connection opens");
        http.poll(PATIENCE, &mut |event| panic!("{event:?}"));
    }
    http.send(Tag(tag), call);
}

fn wait(http: &mut Http, tag: u32) -> Found {
    let mut found = None;
    while found.is_none() {
        assert!(http.clock.now() < PATIENCE, "nothing happens");
        http.poll(PATIENCE, &mut |event| {
            found = Some(match event {
                Event::Answered { tag: of, answer, .. } => {
                    assert_eq!(of, Tag(tag));
                    match answer {
                        Answer::Done => Found::Done,
                        Answer::Refusal { status, .. } => Found::Refused(status),
                        _ => Found::Unreadable,
                    }
                }
                Event::Lost { tag: of, .. } => {
                    assert_eq!(of, Tag(tag));
                    Found::Lost
                }
            });
        });
    }
    found.unwrap()
}

fn ask(http: &mut Http, tag: u32) -> Found {
    send(http, tag);
    wait(http, tag)
}

/// One connection, one request, this answer, then the end.
fn check(script: &'static [Script], expected: &[Found]) -> Connections {
    let server = Server::start(script);
    let mut http = server.transport(1);
    for (tag, expected) in (0..).zip(expected) {
        assert_eq!(ask(&mut http, tag), *expected);
    }
    let counts = http.connections();
    drop(http);
    server.thread.join().unwrap();
    counts
}

#[test]
fn a_connection_is_kept() {
    let counts = check(
        &[|mut stream| {
            while take_request(&mut stream) {
                stream.write_all(GOOD).unwrap();
            }
        }],
        &[Found::Done, Found::Done, Found::Done],
    );
    assert_eq!(counts, Connections { opened: 1, ..Connections::default() });
}

#[test]
fn answers_come_in_pieces() {
    check(
        &[|mut stream| {
            stream.set_nodelay(true).unwrap();
            let answers: [&[u8]; 3] = [
                b"HTTP/1.1 503 Busy\r\nContent-Length: 13\r\n\r\n{\"message\":1}",
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            ];
            for answer in answers {
                assert!(take_request(&mut stream));
                for byte in answer {
                    stream.write_all(&[*byte]).unwrap();
                }
            }
        }],
        &[Found::Refused(503), Found::Done, Found::Done],
    );
}

#[test]
fn an_announced_end_is_no_error() {
    let counts = check(
        &[
            |mut stream| {
                take_request(&mut stream);
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                stream.write_all(answer).unwrap();
            },
            |mut stream| {
                take_request(&mut stream);
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            },
            |_stream| {},
        ],
        &[Found::Done, Found::Done],
    );
    assert_eq!(counts.broken, 0);
}

#[test]
fn a_server_that_hangs_up_loses_the_request() {
    let counts = check(
        &[
            |mut stream| assert!(take_request(&mut stream)),
            |mut stream| {
                take_request(&mut stream);
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Le").unwrap();
            },
            |mut stream| {
                take_request(&mut stream);
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab").unwrap();
            },
        ],
        &[Found::Lost, Found::Lost, Found::Lost],
    );
    assert_eq!(counts, Connections { opened: 3, broken: 3, ..Connections::default() });
}

/// Once only the plan renewed a token, whatever the server said of it.
#[test]
fn a_token_that_is_not_taken_is_told_of() {
    let server = Server::start(&[|mut stream| {
        take_request(&mut stream);
        stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").unwrap();
        take_request(&mut stream);
        stream.write_all(GOOD).unwrap();
    }]);
    let mut http = server.transport(1);
    let (tokens, refusals) = Tokens::told();
    http.tokens = tokens;
    let request = Request::Cancel { holder: 1, transaction: 2 };
    for (tag, organization, expected) in [(0, 7, Found::Refused(401)), (1, 8, Found::Done)] {
        send_call(&mut http, tag, &Call { organization, request, may_repeat: true });
        assert_eq!(wait(&mut http, tag), expected);
    }
    assert_eq!(refusals.try_iter().collect::<Vec<_>>(), [News::Refused(7)]);
    server.thread.join().unwrap();
}

#[test]
fn what_is_no_http_is_unreadable() {
    check(
        &[
            |mut stream| {
                take_request(&mut stream);
                stream.write_all(b"SSH-2.0-OpenSSH\r\n").unwrap();
            },
            |mut stream| {
                take_request(&mut stream);
                let _closed = stream.write_all(&vec![b'x'; 1 << 20]);
            },
            |mut stream| {
                take_request(&mut stream);
                let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                let _closed = stream.write_all(head);
                while stream.write_all(b"8000\r\n").is_ok()
                    && stream.write_all(&[b'x'; 0x8000]).is_ok()
                    && stream.write_all(b"\r\n").is_ok()
                {}
            },
        ],
        &[Found::Unreadable, Found::Unreadable, Found::Unreadable],
    );
}

#[test]
fn a_port_that_nobody_listens_on_loses_the_request() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut http = transport(address, 2, None);
    assert_eq!(http.open_ahead(PATIENCE), 0);
    assert_eq!(ask(&mut http, 0), Found::Lost);
    assert_eq!(ask(&mut http, 1), Found::Lost);
    assert_eq!(http.connections(), Connections { refused: 4, ..Connections::default() });
}

#[test]
fn what_is_abandoned_is_not_reported() {
    let server = Server::start(&[
        |mut stream| {
            take_request(&mut stream);
            assert!(!take_request(&mut stream));
        },
        |mut stream| {
            take_request(&mut stream);
            stream.write_all(GOOD).unwrap();
        },
    ]);
    let mut http = server.transport(1);
    assert_eq!(http.open_ahead(PATIENCE), 1);
    send(&mut http, 0);
    assert!(!http.is_free());
    http.abandon(Tag(0));
    assert_eq!(ask(&mut http, 0), Found::Done);
    drop(http);
    server.thread.join().unwrap();
}

#[test]
fn an_idle_connection_that_the_server_closes_is_opened_again() {
    let server = Server::start(&[
        |mut stream| {
            take_request(&mut stream);
            stream.write_all(GOOD).unwrap();
        },
        |mut stream| {
            take_request(&mut stream);
            stream.write_all(GOOD).unwrap();
        },
    ]);
    let mut http = server.transport(1);
    assert_eq!(ask(&mut http, 0), Found::Done);
    // As if it had been idle for long.
    http.connections[0].since = Nanos(0);
    while http.connections().opened < 2 {
        assert!(http.clock.now() < PATIENCE);
        http.poll(PATIENCE, &mut |_| {});
    }
    assert_eq!(ask(&mut http, 1), Found::Done);
    let expected = Connections { opened: 2, reopened: 1, ..Connections::default() };
    assert_eq!(http.connections(), expected);
    drop(http);
    server.thread.join().unwrap();
}

#[test]
fn a_connection_that_is_closed_after_every_answer_is_opened_when_needed() {
    let script: Script = |mut stream| {
        take_request(&mut stream);
        stream.write_all(GOOD).unwrap();
    };
    let server = Server::start(Box::leak(Box::new([script, script])));
    let mut http = server.transport(1);
    for tag in 0..2 {
        assert_eq!(ask(&mut http, tag), Found::Done);
        while http.connections[0].state != State::Closed {
            assert!(http.clock.now() < PATIENCE);
            http.poll(PATIENCE, &mut |_| {});
        }
    }
    let expected = Connections { opened: 2, reopened: 1, ..Connections::default() };
    assert_eq!(http.connections(), expected);
    server.thread.join().unwrap();
}

#[test]
fn what_met_the_end_of_an_idle_connection_is_sent_once_more() {
    let server = Server::start(&[
        |mut stream| {
            take_request(&mut stream);
            stream.write_all(GOOD).unwrap();
            take_request(&mut stream);
        },
        |mut stream| {
            take_request(&mut stream);
            stream.write_all(GOOD).unwrap();
            take_request(&mut stream);
        },
    ]);
    let mut http = server.transport(1);
    assert_eq!(ask(&mut http, 0), Found::Done);
    http.connections[0].since = Nanos(0);
    assert_eq!(ask(&mut http, 1), Found::Done);
    let expected = Connections { opened: 2, reopened: 1, ..Connections::default() };
    assert_eq!(http.connections(), expected);
    // It was busy just now: whoever closes it has taken the request.
    assert_eq!(ask(&mut http, 2), Found::Lost);
    drop(http);
    server.thread.join().unwrap();
}

const COUNTED: Call<'static> = Call {
    organization: 0,
    request: Request::Cancel { holder: 1, transaction: 2 },
    may_repeat: false,
};

/// Waits until the server has ended the connection, of which the poller is not asked any more, and
/// makes it idle for long.
fn go_stale(http: &mut Http) {
    while http.connections[0].stream.as_mut().is_some_and(|stream| !stream.is_stale()) {
        assert!(http.clock.now() < PATIENCE);
        std::thread::yield_now();
    }
    http.connections[0].since = Nanos(0);
}

/// Once a check that records what it grants was sent again although the server had taken it, and
/// counted twice.
#[test]
fn what_counts_twice_is_not_sent_again_where_it_may_have_been_taken() {
    let server = Server::start(&[|mut stream| {
        take_request(&mut stream);
        stream.write_all(GOOD).unwrap();
        assert!(take_request(&mut stream));
    }]);
    let mut http = server.transport(1);
    assert_eq!(ask(&mut http, 0), Found::Done);
    http.connections[0].since = Nanos(0);
    send_call(&mut http, 1, &COUNTED);
    assert_eq!(wait(&mut http, 1), Found::Lost);
    let expected = Connections { opened: 1, broken: 1, ..Connections::default() };
    assert_eq!(http.connections(), expected);
    server.thread.join().unwrap();
}

#[test]
fn what_was_not_even_written_goes_over_a_new_connection() {
    let script: Script = |mut stream| {
        take_request(&mut stream);
        stream.write_all(GOOD).unwrap();
    };
    let server = Server::start(Box::leak(Box::new([script, script])));
    let mut http = server.transport(1);
    assert_eq!(ask(&mut http, 0), Found::Done);
    go_stale(&mut http);
    send_call(&mut http, 1, &COUNTED);
    assert_eq!(wait(&mut http, 1), Found::Done);
    let expected = Connections { opened: 2, reopened: 1, ..Connections::default() };
    assert_eq!(http.connections(), expected);
    server.thread.join().unwrap();
}

/// A server over TLS; of each connection so many requests are answered before it is ended.
fn serve_over_tls(answers: &'static [u32]) -> (Http, JoinHandle<()>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut authority = tempfile::NamedTempFile::new().unwrap();
    authority.write_all(made.cert.pem().as_bytes()).unwrap();
    let url = format!("https://localhost:{}", address.port());
    let (name, client) = Endpoint::parse(&url, Some(authority.path())).unwrap().tls().unwrap();
    let config = Arc::new(config);
    let thread = std::thread::spawn(move || {
        for answers in answers {
            let session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(session, listener.accept().unwrap().0);
            for _ in 0..*answers {
                assert!(take_request(&mut stream));
                stream.write_all(GOOD).unwrap();
            }
            stream.conn.send_close_notify();
            stream.flush().unwrap();
        }
    });
    (transport(address, 1, Some(Tls { config: client, name })), thread)
}

#[test]
fn requests_go_over_tls() {
    let (mut http, thread) = serve_over_tls(&[3]);
    assert_eq!(http.open_ahead(PATIENCE), 1);
    for tag in 0..3 {
        assert_eq!(ask(&mut http, tag), Found::Done);
    }
    assert_eq!(http.connections(), Connections { opened: 1, ..Connections::default() });
    thread.join().unwrap();
}

#[test]
fn the_end_of_an_idle_connection_is_seen_over_tls_too() {
    let (mut http, thread) = serve_over_tls(&[1, 1]);
    assert_eq!(ask(&mut http, 0), Found::Done);
    go_stale(&mut http);
    send_call(&mut http, 1, &COUNTED);
    assert_eq!(wait(&mut http, 1), Found::Done);
    thread.join().unwrap();
}
