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

/// Writes all documents.
pub fn write(run: &Run, verdict: &Verdict, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut document = BufWriter::new(File::create(directory.join(DOCUMENT))?);
    serde_json::to_writer(&mut document, run)?;
    document.flush()?;
    fs::write(directory.join("verdict.json"), serde_json::to_vec_pretty(verdict)?)?;
    fs::write(directory.join(PAGE), html::print(run, verdict))?;
    fs::write(directory.join("seconds.csv"), csv::print(&run.seconds))?;
    fs::write(directory.join("junit.xml"), junit::print(run, verdict))?;
    let micros = Wall::parse(&run.begun).map_or(0, |begun| begun.0);
    let begun = UNIX_EPOCH + Duration::from_micros(u64::try_from(micros).unwrap_or_default());
    fs::write(directory.join("run.hlog"), hlog::log(run, begun)?)?;
    fs::write(directory.join("response.hgrm"), hlog::distribution(&run.times.response))
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
