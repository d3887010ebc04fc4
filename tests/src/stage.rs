//! A server with fixture "F" and the tokens of its organizations.

use tempfile::TempDir;

use crate::calls::BOTH;
use crate::http::Response;
use crate::server::Server;

/// The server and the tokens.
pub struct Stage {
    /// The server.
    pub server: Server,
    /// Of connection type 1.
    pub o1: String,
    /// Of connection type 2.
    pub o2: String,
    /// Of connection type 3.
    pub o3: String,
    /// Who may ask for the history.
    pub o9: String,
    _directory: TempDir,
}

impl Stage {
    /// Starts a server.
    pub fn set() -> Stage {
        Stage::set_with(&[])
    }

    /// The same with more arguments.
    pub fn set_with(more: &[&str]) -> Stage {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::start_with_fixture_and(&directory.path().join("data"), more);
        Stage {
            o1: server.token("111", "aaaabbbbbcccccc", BOTH),
            o2: server.token("222", "s222", BOTH),
            o3: server.token("333", "s333", BOTH),
            o9: server.token("900", "s900", "ECS.WebAPI"),
            server,
            _directory: directory,
        }
    }

    /// A call on a new connection.
    pub fn call(&self, token: &str, path: &str, body: &str) -> Response {
        self.server.client().call(token, path, body)
    }

    /// Calls and expects a status and a body, byte for byte.
    pub fn exact(&self, token: &str, path: &str, body: &str, expected: (u16, &str)) {
        let answer = self.call(token, path, body);
        assert_eq!((answer.status, answer.body.as_str()), expected, "{path} {body}");
    }

    /// Calls and expects a status and an `errorCode`.
    pub fn error(&self, token: &str, path: &str, body: &str, expected: (u16, i64)) {
        let answer = self.call(token, path, body);
        let (status, code) = expected;
        assert_eq!(answer.error(), (status, Some(code)), "{path} {body}: {answer:?}");
        assert!(answer.json()["message"].is_string());
    }
}
