//! The directory of certificates.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use engine::ids::TerminalId;

use crate::pki::Serial;

/// A directory of certificates.
#[derive(Clone, Debug)]
pub struct PkiDirectory(PathBuf);

/// A device certificate that was made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Issued {
    /// Its number.
    pub serial: Serial,
    /// Whom it names.
    pub terminal: TerminalId,
    /// Its last second, since 1970-01-01T00:00:00Z.
    pub until_unix_seconds: i64,
}

/// Two files: a certificate and its key.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

impl PkiDirectory {
    /// The directory at `path`.
    pub fn at(path: &Path) -> PkiDirectory {
        PkiDirectory(path.to_path_buf())
    }

    /// Makes it where it is missing.
    pub fn create(&self) -> io::Result<()> {
        let mut private = fs::DirBuilder::new();
        private.recursive(true).mode(0o700).create(self.0.join("devices"))
    }

    /// The authority.
    pub fn authority(&self) -> Pair {
        self.pair("authority")
    }

    /// The server.
    pub fn server(&self) -> Pair {
        self.pair("server")
    }

    /// A device.
    pub fn device(&self, terminal: TerminalId) -> Pair {
        self.pair(&format!("devices/{terminal}"))
    }

    /// The list of revoked numbers.
    pub fn revoked_path(&self) -> PathBuf {
        self.0.join("revoked")
    }

    /// Notes device certificates before they are handed out.
    pub fn note_issued(&self, issued: &[Issued]) -> io::Result<()> {
        let line = |one: &Issued| {
            let Issued { serial, terminal, until_unix_seconds } = one;
            format!("{serial} {terminal} {until_unix_seconds}\n")
        };
        append(&self.0.join("issued"), &issued.iter().map(line).collect::<String>())
    }

    /// All device certificates, the oldest first.
    pub fn issued(&self) -> io::Result<Vec<Issued>> {
        let text = read_or_empty(&self.0.join("issued"))?;
        text.lines().map(|line| issued_line(line).ok_or_else(|| damaged("issued"))).collect()
    }

    /// Revokes numbers for ever.
    pub fn revoke(&self, serials: &[Serial]) -> io::Result<()> {
        let lines: String = serials.iter().map(|serial| format!("{serial}\n")).collect();
        append(&self.revoked_path(), &lines)
    }

    /// All revoked numbers.
    pub fn revoked(&self) -> io::Result<HashSet<Serial>> {
        let text = read_or_empty(&self.revoked_path())?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.map(|line| Serial::parse(line).ok_or_else(|| damaged("revoked"))).collect()
    }

    fn pair(&self, name: &str) -> Pair {
        let path = |ending| self.0.join(format!("{name}.{ending}"));
        Pair { certificate: path("pem"), key: path("key") }
    }
}

/// Writes a pair, the key for its owner only; a file that is there is replaced as a whole.
pub fn write_pair(pair: &Pair, certificate: &str, key: &str) -> io::Result<()> {
    replace(&pair.key, key, 0o600)?;
    replace(&pair.certificate, certificate, 0o644)
}

fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let next = path.with_extension("next");
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&next)?;
    file.write_all(text.as_bytes())?;
    fs::rename(next, path)
}

/// Appends lines in one write, so that two writers do not mix, and waits for the disk.
fn append(path: &Path, lines: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    file.write_all(lines.as_bytes())?;
    file.sync_all()
}

fn read_or_empty(path: &Path) -> io::Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read,
    }
}

fn issued_line(line: &str) -> Option<Issued> {
    let mut words = line.split(' ');
    let serial = Serial::parse(words.next()?)?;
    let terminal = TerminalId(words.next()?.parse().ok()?);
    let until_unix_seconds = words.next()?.parse().ok()?;
    words.next().is_none().then_some(Issued { serial, terminal, until_unix_seconds })
}

fn damaged(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the file `{name}` is damaged"))
}
