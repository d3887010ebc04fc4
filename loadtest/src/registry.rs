//! The registry file that the server imported, in little memory: the whole directory and a sample
//! of the holders.
//!
//! The file is read twice, line by line: the first time for the directory and the number of holders,
//! the second time for the sample, which is of the same size and the same for one seed. Of a holder
//! that stands in the file twice nothing is asked.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek};
use std::path::Path;

use serde::Deserialize;

use crate::numbers::Numbers;
use crate::registry::directory::{Directory, DirectoryLines, FieldError};
use crate::registry::holders::{Card, Holders};
use crate::registry::line::{HolderIdLine, HolderLine, Line};

pub mod directory;
pub mod holders;
mod line;

/// Holders that are kept unless the scenario says otherwise.
pub const HOLDERS_MAX: usize = 100_000;
/// Identifiers that nobody has.
const STRANGERS: usize = 512;
/// Bytes of one line; the server takes no longer ones.
const LINE_BYTES_MAX: usize = 64 << 10;
const STREAM: u64 = 0x7265_6769;

/// What the load tester knows of the registry.
#[derive(Clone)]
pub struct Registry {
    /// Everything but holders.
    pub directory: Directory,
    /// The sample.
    pub holders: Holders,
    /// Cards that stand in no registry.
    pub strangers: Vec<Card>,
    /// Holders in the whole file.
    pub holder_count: u64,
}

/// Why a registry file cannot be used. Never quotes a line, which is personal.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A line is not what the format says.
    #[error("line {line} of the registry: {reason}")]
    Line {
        /// From 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// There is nobody to ask about.
    #[error("the registry has no holders")]
    NoHolders,
    /// The file cannot be read.
    #[error("the registry cannot be read: {0}")]
    Unreadable(#[from] io::Error),
}

impl Registry {
    /// Reads a file and keeps at most `holders_max` holders of it.
    pub fn load(path: &Path, holders_max: usize, seed: u64) -> Result<Registry, RegistryError> {
        let mut file = File::open(path)?;
        let (directory, holder_count) = read_directory(&file)?;
        file.rewind()?;
        let sample = Sample {
            numbers: Numbers::of(seed, STREAM),
            wanted: u64::try_from(holders_max).unwrap_or(u64::MAX).min(holder_count),
            left: holder_count,
        };
        let holders = read_holders(&file, &directory, sample)?;
        if holders.is_empty() {
            return Err(RegistryError::NoHolders);
        }
        Ok(Registry { directory, holders, strangers: strangers(seed), holder_count })
    }
}

fn read_directory(file: &File) -> Result<(Directory, u64), RegistryError> {
    let mut lines = DirectoryLines::default();
    let mut holder_count = 0;
    each_line(file, |text| {
        if is_holder(text)? {
            holder_count += 1;
            return Ok(());
        }
        let Line { kind, deleted } = parse(text)?;
        match kind.as_ref() {
            "region" => lines.region(&parse(text)?, deleted)?,
            "area" => lines.area(&parse(text)?, deleted),
            "category" => lines.category(&parse(text)?, deleted)?,
            "service" => lines.service(parse(text)?, deleted),
            "organization" => lines.organization(parse(text)?, deleted),
            "offer" => lines.offer(&parse(text)?, deleted)?,
            "terminal" => lines.terminal(&parse(text)?, deleted),
            _ => return Err(LineError::Kind),
        }
        Ok(())
    })?;
    Ok((lines.finish(), holder_count))
}

/// Chooses so many of those that come, every choice as likely as any other, in one pass.
struct Sample {
    numbers: Numbers,
    wanted: u64,
    left: u64,
}

impl Sample {
    fn takes_next(&mut self) -> bool {
        let takes = self.numbers.below(self.left) < self.wanted;
        self.left = self.left.saturating_sub(1);
        self.wanted -= u64::from(takes);
        takes
    }
}

fn read_holders(
    file: &File,
    directory: &Directory,
    mut sample: Sample,
) -> Result<Holders, RegistryError> {
    let wanted = usize::try_from(sample.wanted).unwrap_or_default();
    let mut holders = Holders::with_capacity(wanted);
    let mut ids = HashSet::with_capacity(wanted);
    let mut twice = Vec::new();
    each_line(file, |text| {
        if !is_holder(text)? {
            return Ok(());
        }
        if !sample.takes_next() {
            let HolderIdLine { id } = parse(text)?;
            twice.extend(ids.contains(&id).then_some(id));
            return Ok(());
        }
        let holder: HolderLine = parse(text)?;
        if !ids.insert(holder.id) {
            twice.push(holder.id);
        } else if !holder.deleted {
            holders.push(&holder, directory)?;
        }
        Ok(())
    })?;
    twice.into_iter().for_each(|id| holders.forget(id));
    holders.shrink();
    Ok(holders)
}

/// Random enough that no registry has one of them.
fn strangers(seed: u64) -> Vec<Card> {
    let mut numbers = Numbers::of(seed, STREAM + 1);
    let stranger = |at: usize| {
        let mut digits = |count: usize, radix: u32| -> String {
            let mut digit =
                || char::from_digit(u32::try_from(numbers.below(radix.into())).ok()?, radix);
            (0..count).filter_map(|_| digit()).collect()
        };
        if at.is_multiple_of(2) {
            Card::stranger_code(&format!("ZZ{}", digits(13, 36).to_ascii_uppercase()))
        } else {
            Card::stranger_card(&format!("9{}", digits(18, 10)), &digits(8, 10))
        }
    };
    (0..STRANGERS).filter_map(stranger).collect()
}

enum LineError {
    Field(FieldError),
    Json(serde_json::Error),
    Kind,
}

impl From<FieldError> for LineError {
    fn from(error: FieldError) -> LineError {
        LineError::Field(error)
    }
}

impl LineError {
    /// Without serde's own words, which quote values.
    fn reason(&self) -> String {
        match self {
            LineError::Field(error) => error.to_string(),
            LineError::Json(error) => format!("unexpected at column {}", error.column()),
            LineError::Kind => "unknown kind".to_owned(),
        }
    }
}

fn is_holder(text: &str) -> Result<bool, LineError> {
    if text.starts_with(r#"{"kind":"holder","#) {
        return Ok(true);
    }
    parse::<Line>(text).map(|line| line.kind == "holder")
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, LineError> {
    serde_json::from_str(text).map_err(LineError::Json)
}

fn each_line(
    file: &File,
    mut take: impl FnMut(&str) -> Result<(), LineError>,
) -> Result<(), RegistryError> {
    let mut reader = BufReader::with_capacity(LINE_BYTES_MAX, file);
    let mut text = Vec::new();
    let mut line = 0;
    loop {
        text.clear();
        let bytes_max = u64::try_from(LINE_BYTES_MAX + 1).unwrap_or(u64::MAX);
        if io::Read::take(&mut reader, bytes_max).read_until(b'\n', &mut text)? == 0 {
            return Ok(());
        }
        line += 1;
        let fault = |reason: String| RegistryError::Line { line, reason };
        if text.len() > LINE_BYTES_MAX {
            return Err(fault("too long".to_owned()));
        }
        let text = std::str::from_utf8(&text).map_err(|_| fault("not UTF-8".to_owned()))?.trim();
        if !text.is_empty() {
            take(text).map_err(|error| fault(error.reason()))?;
        }
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
