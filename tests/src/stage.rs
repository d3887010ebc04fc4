//! A server with fixture "F" and the tokens of its organizations.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::calls::BOTH;
use crate::http::Response;
use crate::server::Server;

/// What is answered beside each `errorCode`.
const MESSAGES: [(i64, &str); 18] = [
    (6, "Отсутствует связь с процессинговым центром"),
    (100, "Тело запроса не является объектом JSON"),
    (101, "Не заполнено обязательное поле"),
    (102, "Поле недоступно для типа подключения"),
    (103, "Метод недоступен для типа подключения"),
    (104, "Указано несколько идентификаторов"),
    (105, "Неверный формат поля"),
    (106, "Транзакция не найдена"),
    (107, "Состояние транзакции не допускает операцию"),
    (108, "Данные не соответствуют результату проверки"),
    (109, "Неверный интервал дат"),
    (110, "Заявка не найдена"),
    (111, "Состояние заявки не допускает операцию"),
    (112, "Поездка не входит в заявку"),
    (120, "Требуется авторизация"),
    (121, "Недостаточно прав"),
    (122, "Обращение с данного адреса запрещено"),
    (130, "Слишком много запросов"),
];

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
    directory: TempDir,
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
            directory,
        }
    }

    /// Every file that the server keeps, with its content.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        let mut directories = vec![self.directory.path().join("data")];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => directories.push(path),
                    // A file that is deleted meanwhile keeps nothing.
                    false => files.extend(std::fs::read(&path).ok().map(|bytes| (path, bytes))),
                }
            }
        }
        files.retain(|(path, _)| !path.ends_with("fixture.ndjson"));
        files
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

    /// Calls and expects a status and the body of an `errorCode`, byte for byte.
    pub fn error(&self, token: &str, path: &str, body: &str, expected: (u16, i64)) {
        let (status, code) = expected;
        let (_, message) = MESSAGES.iter().find(|(known, _)| *known == code).unwrap();
        let error = format!(r#"{{"message":"{message}","errorCode":{code}}}"#);
        self.exact(token, path, body, (status, &error));
    }
}
