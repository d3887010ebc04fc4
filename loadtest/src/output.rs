//! The directory of a run: one document for programs, the same for people and for other tools.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use crate::calendar::Wall;
use crate::report::{csv, hlog, html, junit};
use crate::run::{FORMAT, Run};
use crate::verdict::Verdict;

/// The page for people.
pub const PAGE: &str = "report.html";
/// The document that the other commands read.
pub const DOCUMENT: &str = "run.json";
/// The largest document that is read.
const DOCUMENT_BYTES_MAX: u64 = 1 << 30;

/// Where the documents of a run go if nobody says so.
pub fn directory_of(run: &Run) -> PathBuf {
    let word = |text: &str| -> String {
        let letter = |letter: char| if letter.is_alphanumeric() { letter } else { '-' };
        text.chars().map(letter).collect()
    };
    PathBuf::from(format!("eligo-load-{}-{}", word(&run.scenario), word(&run.begun)))
}

/// Writes all documents; where one cannot be written the others are all the same. The error is the
/// first one.
pub fn write(run: &Run, verdict: &Verdict, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let micros = Wall::parse(&run.begun).map_or(0, |begun| begun.0);
    let begun = UNIX_EPOCH + Duration::from_micros(u64::try_from(micros).unwrap_or_default());
    let put = |name: &str, bytes: io::Result<Vec<u8>>| {
        bytes.and_then(|bytes| fs::write(directory.join(name), bytes))
    };
    // The longest one is never in memory.
    let document = File::create(directory.join(DOCUMENT)).and_then(|file| {
        let mut file = BufWriter::new(file);
        serde_json::to_writer(&mut file, run)?;
        file.flush()
    });
    let written = [
        document,
        put("verdict.json", serde_json::to_vec_pretty(verdict).map_err(io::Error::from)),
        put(PAGE, Ok(html::print(run, verdict).into_bytes())),
        put("seconds.csv", Ok(csv::print(&run.seconds).into_bytes())),
        put("junit.xml", Ok(junit::print(run, verdict).into_bytes())),
        put("run.hlog", hlog::log(run, begun)),
        put("response.hgrm", Ok(hlog::distribution(&run.times.response).into_bytes())),
    ];
    written.into_iter().collect()
}

/// Reads a document.
pub fn read(path: &Path) -> io::Result<Run> {
    let unusable = |fault: String| {
        io::Error::new(io::ErrorKind::InvalidData, format!("`{}` {fault}", path.display()))
    };
    let file = File::open(path).map_err(|error| unusable(format!("cannot be opened: {error}")))?;
    if file.metadata()?.len() > DOCUMENT_BYTES_MAX {
        return Err(unusable("is too large".to_owned()));
    }
    let run: Run = serde_json::from_reader(BufReader::new(file))
        .map_err(|error| unusable(format!("is no run: {error}")))?;
    if run.format != FORMAT {
        return Err(unusable(format!("has format {} instead of {FORMAT}", run.format)));
    }
    Ok(run)
}
