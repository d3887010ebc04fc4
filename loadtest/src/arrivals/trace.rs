//! A recorded trace. It is read through once before the run, so that a wrong line stops it then, and
//! again during the run, so that its length does not matter.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::Path;

use super::ArrivalsError;
use crate::time::Nanos;

/// The longest line.
const LINE_BYTES_MAX: u64 = 64;

/// The instants of a trace, at its speed.
#[derive(Debug)]
pub struct Trace {
    file: BufReader<File>,
    speed: f64,
    line: Vec<u8>,
}

impl Trace {
    /// Opens a trace and checks all of it.
    pub fn open(path: &Path, speed: f64) -> Result<Trace, ArrivalsError> {
        let mut trace = Trace { file: BufReader::new(File::open(path)?), speed, line: Vec::new() };
        let mut before = Nanos(0);
        for line in 1.. {
            let Some(text) = trace.read_line()? else { break };
            let instant = parse(text).filter(|instant| *instant >= before);
            before = instant.ok_or(ArrivalsError::TraceWrong(line))?;
        }
        trace.file.rewind()?;
        Ok(trace)
    }

    /// The next instant; a trace that changed under the run ends there.
    pub fn next(&mut self) -> Option<Nanos> {
        let speed = self.speed;
        let recorded = parse(self.read_line().ok()??)?;
        Some(Nanos((recorded.0 as f64 / speed) as u64))
    }

    fn read_line(&mut self) -> std::io::Result<Option<&[u8]>> {
        self.line.clear();
        let read = self.file.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut self.line)?;
        Ok((read > 0).then(|| self.line.trim_ascii()))
    }
}

/// `0.0125` is seconds, `12500000ns` nanoseconds.
fn parse(line: &[u8]) -> Option<Nanos> {
    let text = std::str::from_utf8(line).ok()?;
    if let Some(nanos) = text.strip_suffix("ns") {
        return nanos.trim_end().parse().ok().map(Nanos);
    }
    let seconds: f64 = text.parse().ok()?;
    let fits = (0.0..=super::SECONDS_MAX).contains(&seconds);
    fits.then(|| Nanos((seconds * 1e9).round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_seconds_or_nanoseconds() {
        let check = |line: &str, expected: Option<u64>| {
            assert_eq!(parse(line.as_bytes()), expected.map(Nanos), "{line}");
        };
        check("0", Some(0));
        check("0.0125", Some(12_500_000));
        check("12500000ns", Some(12_500_000));
        check("12 ns", Some(12));
        for wrong in ["", "-1", "NaN", "inf", "1e300", "-5ns", "1.5ns", "12:00", "1 2"] {
            check(wrong, None);
        }
    }
}
