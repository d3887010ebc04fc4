//! How answers are framed in HTTP/1.1 (RFC 9112): heads, lengths and chunks, as far as a client needs
//! them and no further.
//!
//! A server may send anything: every part has a limit, what has two meanings is refused, and nothing
//! is read twice but an unfinished head, which is short.

/// The longest head.
pub const HEAD_BYTES_MAX: usize = 16 << 10;
/// The longest body with its framing: an answer to a full batch is a third of it.
pub const BODY_BYTES_MAX: usize = 8 << 20;
/// Interim answers before one that is final.
pub const INTERIM_ANSWERS_MAX: u32 = 16;
/// The longest line between chunks.
const CHUNK_LINE_BYTES_MAX: usize = 256;

/// The server does not speak HTTP/1.1, or says too much.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Broken;

/// What the head of an answer says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Head {
    /// The status.
    pub status: u16,
    /// How long the body is.
    pub length: Length,
    /// Whether another request may follow.
    pub is_kept_alive: bool,
    /// Where the body begins.
    pub end: usize,
}

/// How long a body is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Length {
    /// Said piece by piece.
    Chunked,
    /// So many bytes.
    Known(usize),
    /// As long as the connection.
    UntilClose,
}

impl Head {
    /// Reads a head; `None` where it is not all there yet.
    pub fn parse(bytes: &[u8]) -> Result<Option<Head>, Broken> {
        let mut lines = Lines { bytes, at: 0 };
        let Some(first) = lines.next() else { return unfinished(bytes) };
        let (status, is_modern) = parse_status(first).ok_or(Broken)?;
        let mut fields = Fields::default();
        loop {
            let Some(line) = lines.next() else { return unfinished(bytes) };
            if line.is_empty() {
                break;
            }
            fields.read(line)?;
        }
        if lines.at > HEAD_BYTES_MAX {
            return Err(Broken);
        }
        let has_body = !matches!(status, 100..=199 | 204 | 304);
        let length = match (fields.length, fields.is_chunked) {
            _ if !has_body => Length::Known(0),
            (None, true) => Length::Chunked,
            (Some(bytes), false) => Length::Known(bytes),
            (None, false) => Length::UntilClose,
            (Some(_), true) => return Err(Broken),
        };
        let is_kept_alive = fields.keep.unwrap_or(is_modern) && length != Length::UntilClose;
        Ok(Some(Head { status, length, is_kept_alive, end: lines.at }))
    }
}

/// The lines that are all there.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.bytes.get(self.at..)?;
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        self.at += end + 1;
        let line = rest.get(..end)?;
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }
}

#[derive(Default)]
struct Fields {
    length: Option<usize>,
    is_chunked: bool,
    keep: Option<bool>,
}

impl Fields {
    fn read(&mut self, line: &[u8]) -> Result<(), Broken> {
        let colon = line.iter().position(|byte| *byte == b':').ok_or(Broken)?;
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = parse_length(value).ok_or(Broken)?;
            if self.length.replace(length).is_some_and(|before| before != length) {
                return Err(Broken);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.is_chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Broken);
            }
            self.is_chunked = true;
        } else if name.eq_ignore_ascii_case(b"connection") {
            for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                if option.eq_ignore_ascii_case(b"close") {
                    self.keep = Some(false);
                } else if option.eq_ignore_ascii_case(b"keep-alive") {
                    self.keep = self.keep.or(Some(true));
                }
            }
        }
        Ok(())
    }
}

/// The body of an answer in chunks, put together in the place where it came in.
#[derive(Clone, Copy, Debug)]
pub struct Chunks {
    /// Where reading goes on.
    read: usize,
    /// The end of what was put together.
    written: usize,
    stage: Stage,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Size,
    Piece { left: usize },
    PieceEnd,
    Trailer,
}

/// A body that is all there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Whole {
    /// Where it ends.
    pub body_end: usize,
    /// Where the answer ends.
    pub end: usize,
}

impl Chunks {
    /// Begins where the head ended.
    pub fn new(head_end: usize) -> Chunks {
        Chunks { read: head_end, written: head_end, stage: Stage::Size }
    }

    /// Goes on with what is there.
    pub fn advance(&mut self, bytes: &mut [u8]) -> Result<Option<Whole>, Broken> {
        loop {
            if let Stage::Piece { left } = self.stage {
                let piece = left.min(bytes.len() - self.read);
                bytes.copy_within(self.read..self.read + piece, self.written);
                self.read += piece;
                self.written += piece;
                if piece < left {
                    self.stage = Stage::Piece { left: left - piece };
                    return Ok(None);
                }
                self.stage = Stage::PieceEnd;
            }
            let mut lines = Lines { bytes, at: self.read };
            let Some(line) = lines.next() else {
                let is_endless = bytes.len() - self.read > CHUNK_LINE_BYTES_MAX;
                return if is_endless { Err(Broken) } else { Ok(None) };
            };
            let next = match self.stage {
                Stage::Size => match parse_chunk_size(line).ok_or(Broken)? {
                    0 => Stage::Trailer,
                    left => Stage::Piece { left },
                },
                Stage::PieceEnd if line.is_empty() => Stage::Size,
                Stage::Trailer if line.is_empty() => {
                    return Ok(Some(Whole { body_end: self.written, end: lines.at }));
                }
                Stage::Trailer => Stage::Trailer,
                Stage::Piece { .. } | Stage::PieceEnd => return Err(Broken),
            };
            self.read = lines.at;
            self.stage = next;
        }
    }
}

fn unfinished(bytes: &[u8]) -> Result<Option<Head>, Broken> {
    if bytes.len() > HEAD_BYTES_MAX { Err(Broken) } else { Ok(None) }
}

/// `HTTP/1.1 200 OK`; whether it is 1.1.
fn parse_status(line: &[u8]) -> Option<(u16, bool)> {
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let (minor, rest) = rest.split_first()?;
    let rest = rest.strip_prefix(b" ")?;
    let (digits, reason) = rest.split_at_checked(3)?;
    if !matches!(reason.first(), None | Some(b' ')) {
        return None;
    }
    let status = parse_decimal(digits).filter(|status| *status >= 100)?;
    let status = u16::try_from(status).ok()?;
    match minor {
        b'0' => Some((status, false)),
        b'1' => Some((status, true)),
        _ => None,
    }
}

fn parse_length(value: &[u8]) -> Option<usize> {
    parse_decimal(value).filter(|length| *length <= BODY_BYTES_MAX)
}

fn parse_decimal(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 9 {
        return None;
    }
    digits.iter().try_fold(0, |number, digit| {
        digit.is_ascii_digit().then(|| number * 10 + usize::from(digit - b'0'))
    })
}

/// Hexadecimal digits, then perhaps an extension, which means nothing to us.
fn parse_chunk_size(line: &[u8]) -> Option<usize> {
    let size = line.split(|byte| *byte == b';').next()?.trim_ascii();
    if size.is_empty() || size.len() > 7 {
        return None;
    }
    let number = size.iter().try_fold(0, |number, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(number * 16 + digit as usize)
    });
    number.filter(|size| *size <= BODY_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(text: &str) -> Result<Option<(u16, Length, bool)>, Broken> {
        let head = Head::parse(text.as_bytes())?;
        Ok(head.map(|head| (head.status, head.length, head.is_kept_alive)))
    }

    #[test]
    fn heads_are_read() {
        let check = |fields: &str, expected: (u16, Length, bool)| {
            assert_eq!(head(&format!("HTTP/1.1 {fields}\r\n\r\n")), Ok(Some(expected)), "{fields}");
        };
        check("200 OK\r\nContent-Length: 5", (200, Length::Known(5), true));
        check("200\r\ncontent-length:5\r\nX: y:z", (200, Length::Known(5), true));
        check("200 OK\r\nContent-Length: 5\r\nContent-Length: 5", (200, Length::Known(5), true));
        check("200 OK\r\nTransfer-Encoding: Chunked", (200, Length::Chunked, true));
        check("200 OK", (200, Length::UntilClose, false));
        check("204 No Content\r\nContent-Length: 5", (204, Length::Known(0), true));
        check("503 \r\nContent-Length: 0\r\nConnection: close", (503, Length::Known(0), false));
        let old = "HTTP/1.0 200 OK\nContent-Length: 1\n\n";
        assert_eq!(head(old), Ok(Some((200, Length::Known(1), false))));
        let kept = "HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: Keep-Alive\r\n\r\n";
        assert_eq!(head(kept), Ok(Some((200, Length::Known(1), true))));
        for part in ["", "H", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nA: b\r\n"] {
            assert_eq!(head(part), Ok(None), "{part}");
        }
    }

    #[test]
    fn what_is_no_head_is_refused() {
        for wrong in [
            "SSH-2.0-x\r\n",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1 -20 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 8388609\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        ] {
            assert_eq!(head(wrong), Err(Broken), "{wrong}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(HEAD_BYTES_MAX));
        assert_eq!(head(&endless), Err(Broken));
        assert_eq!(head(&"x".repeat(HEAD_BYTES_MAX + 1)), Err(Broken));
    }

    fn dechunk(text: &[u8], step: usize) -> Result<Option<(Vec<u8>, usize)>, Broken> {
        let mut chunks = Chunks::new(0);
        let mut bytes = Vec::new();
        for piece in text.chunks(step) {
            bytes.extend_from_slice(piece);
            if let Some(whole) = chunks.advance(&mut bytes)? {
                return Ok(Some((bytes[..whole.body_end].to_vec(), whole.end)));
            }
        }
        Ok(None)
    }

    #[test]
    fn chunks_are_put_together() {
        for step in [1, 2, 3, 100] {
            let text = b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nT: x\r\n\r\n";
            let found = dechunk(text, step).unwrap().unwrap();
            assert_eq!(found.0, b"abc0123456789");
            assert!(found.1 >= text.len() - 1, "{found:?}");
            assert_eq!(dechunk(b"0\r\n\r\n", step).unwrap().unwrap().0, b"");
            assert_eq!(dechunk(b"3\r\nabc\r\n0\r\n", step), Ok(None));
            for wrong in [
                &b"g\r\n"[..],
                b"\r\n",
                b"-1\r\n",
                b"3\r\nabcd\r\n",
                b"fffffff\r\n",
                b"00000000\r\n",
            ] {
                assert_eq!(dechunk(wrong, step), Err(Broken), "{wrong:?}");
            }
        }
        assert_eq!(dechunk(&[b'1'; 300], 300), Err(Broken));
    }

    proptest! {
        #[test]
        fn anything_may_come(bytes: Vec<u8>, step in 1_usize..9) {
            let _any = Head::parse(&bytes);
            let _any = dechunk(&bytes, step);
            let mut after = b"HTTP/1.1 200 OK\r\n".to_vec();
            after.extend_from_slice(&bytes);
            let _any = Head::parse(&after);
        }

        #[test]
        fn what_is_cut_is_put_together(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..9),
            step in 1_usize..70,
        ) {
            let mut text = Vec::new();
            for piece in &pieces {
                text.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                text.extend_from_slice(piece);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"0\r\n\r\n");
            let found = dechunk(&text, step).unwrap().unwrap();
            prop_assert_eq!(found, (pieces.concat(), text.len()));
        }
    }
}
