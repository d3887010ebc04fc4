//! The directory of certificates.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
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

/// What can be read of the list of revoked numbers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RevokedList {
    /// The numbers.
    pub serials: HashSet<Serial>,
    /// Lines that are no number.
    pub damaged_lines: usize,
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

    /// All revoked numbers. A line that is no number hides none of the others.
    pub fn revoked(&self) -> io::Result<RevokedList> {
        let text = read_or_empty(&self.revoked_path())?;
        let mut list = RevokedList::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            match Serial::parse(line) {
                Some(serial) => {
                    list.serials.insert(serial);
                }
                None => list.damaged_lines += 1,
            }
        }
        Ok(list)
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

/// Appends lines in one write, so that two writers do not mix, and waits for the disk. What a hand or
/// a power cut has left without an end stays a line of its own.
fn append(path: &Path, lines: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.read(true).append(true).create(true).mode(0o600).open(path)?;
    let mut last = *b"\n";
    if let Some(at) = file.metadata()?.len().checked_sub(1) {
        file.read_exact_at(&mut last, at)?;
    }
    let end = if last == *b"\n" { "" } else { "\n" };
    file.write_all(format!("{end}{lines}").as_bytes())?;
    file.sync_all()?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A list without a newline at its end took the next number into its last line; after that the
    /// server did not start any more.
    #[test]
    fn no_revoked_number_is_lost_beside_a_damaged_line() {
        let directory = tempfile::tempdir().unwrap();
        let pki = PkiDirectory::at(directory.path());
        let serials = [Serial::random().unwrap(), Serial::random().unwrap()];
        fs::write(pki.revoked_path(), serials[0].to_string()).unwrap();
        pki.revoke(&serials[1..]).unwrap();
        let list = pki.revoked().unwrap();
        assert_eq!(list, RevokedList { serials: serials.into(), damaged_lines: 0 });
        fs::write(pki.revoked_path(), format!("{}\n4f", serials[0])).unwrap();
        pki.revoke(&serials[1..]).unwrap();
        let list = pki.revoked().unwrap();
        assert_eq!(list, RevokedList { serials: serials.into(), damaged_lines: 1 });
    }
}
