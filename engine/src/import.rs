//! Imports: from a registry file to the next revision of the registry.
//!
//! A file is read to its end, every wrong line is named, and either all of it takes effect or none.
//! What changes goes into the journal in parts; the record that commits the import makes it true,
//! live and in recovery, and it is published only after that record is durable.

use std::io::BufRead;

use crate::calendar::Timestamp;
use crate::checkpoint::StoredStateError;
use crate::entries::{Entries, push_entry};
use crate::holder::Holder;
use crate::identifier::Digest;
use crate::ids::{HolderId, RevisionId};
use crate::keys::Keys;
use crate::limits::{IMPORT_ERRORS_MAX, RECORD_BYTES_MAX, REGISTRY_LINE_BYTES_MAX};
use crate::record::{BlockPart, ImportCommitted, ImportPart, Record};
use crate::registry::Registry;
use crate::registry::change::RegistryChange;
use crate::registry::fault::{LineError, LineFault};
use crate::registry::file::parse_line;
use crate::registry::stand_in::stand_in;
use crate::registry::stored::{read_change, write_change};
use crate::registry::writer::{LineChange, RegistryWriter};
use crate::trips::block::{BlockChange, Blocks};
use crate::trips::stored::{BLOCK_BYTES, write_blocks};

/// Bytes of one part: a record with room for its header.
const PART_BYTES_MAX: usize = RECORD_BYTES_MAX - 64;
/// Blocks in one record.
const BLOCKS_PER_PART: usize = PART_BYTES_MAX / BLOCK_BYTES;
/// Bytes before each entry of a part, at most.
const ENTRY_HEAD_BYTES: usize = 4;

/// What an import did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ImportReport {
    /// The revision in force afterwards.
    pub revision: RevisionId,
    /// Lines read.
    pub lines: u64,
    /// Directory entries and holders that were added, changed or deleted.
    pub changes: u64,
}

/// Why an import changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file could not be read to its end.
    #[error("the registry file could not be read")]
    Read(#[from] std::io::Error),
    /// Lines are wrong; every one is named, up to a limit.
    #[error("the registry file is wrong in {} places", .0.len())]
    Rejected(Vec<LineError>),
    /// The engine could not record it now.
    #[error("the import could not be recorded")]
    Unavailable,
}

/// An import that is right and waits to be recorded.
pub struct PreparedImport {
    /// The registry with the import applied, not yet committed.
    pub writer: RegistryWriter,
    /// What changes, in stored form.
    pub parts: Vec<Vec<u8>>,
    /// Lines read.
    pub lines: u64,
    /// How many entries change.
    pub changes: u64,
    /// When the import is recorded: its blocks begin and end then.
    pub at: Timestamp,
    /// The identifiers that it blocks or frees.
    pub blocks: Vec<(Digest, bool)>,
}

/// The one who writes the registry.
pub struct Registrar {
    writer: RegistryWriter,
    blocks: Blocks,
    last_import: u64,
    /// Whether the last import has an unknown end: the next one must not make its revision again.
    is_unresolved: bool,
}

/// How the recording of an import ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Recorded {
    /// It never takes effect.
    Abandoned,
    /// It is durable and applied.
    Committed,
    /// Only the journal knows; see [`Registrar::resume`].
    Unknown,
}

impl Registrar {
    /// A registrar that goes on from a recovered state.
    pub fn new(writer: RegistryWriter, last_import: u64) -> Registrar {
        Registrar { writer, blocks: Blocks::default(), last_import, is_unresolved: false }
    }

    /// The same with the blocks of that state.
    pub fn with_blocks(self, blocks: Blocks) -> Registrar {
        Registrar { blocks, ..self }
    }

    /// Records a prepared import; `append` makes one record durable or returns false.
    pub fn record(
        &mut self,
        prepared: PreparedImport,
        append: &mut dyn FnMut(&Record) -> bool,
    ) -> Recorded {
        self.last_import += 1;
        let import = self.last_import;
        let revision = self.next_revision();
        let part_count = u32::try_from(prepared.parts.len()).unwrap_or(u32::MAX);
        for (index, bytes) in (0..).zip(prepared.parts) {
            if !append(&Record::ImportPart(ImportPart { import, index, bytes })) {
                return Recorded::Abandoned;
            }
        }
        let change = |(identifier, blocked): &(Digest, bool)| BlockChange {
            identifier: *identifier,
            blocked: *blocked,
            at: prepared.at,
        };
        let blocks: Vec<BlockChange> = prepared.blocks.iter().map(change).collect();
        for chunk in blocks.chunks(BLOCKS_PER_PART) {
            let mut bytes = Vec::new();
            write_blocks(chunk, &mut bytes);
            if !append(&Record::Blocks(BlockPart { import, bytes })) {
                return Recorded::Abandoned;
            }
        }
        let commit = ImportCommitted { import, part_count, revision };
        if !append(&Record::ImportCommitted(commit)) {
            self.is_unresolved = true;
            return Recorded::Unknown;
        }
        self.writer = prepared.writer;
        self.writer.commit(revision);
        self.blocks.apply(&blocks);
        Recorded::Committed
    }

    /// Goes on from what the journal knows.
    pub fn resume(&mut self, writer: RegistryWriter, blocks: Blocks, last_import: u64) {
        self.writer = writer;
        self.blocks = blocks;
        self.last_import = self.last_import.max(last_import);
        self.is_unresolved = false;
    }

    /// Reads a file and applies it to a copy of the registry. Unavailable as long as the last import
    /// has an unknown end.
    pub fn prepare(
        &self,
        file: &mut dyn BufRead,
        keys: &Keys,
    ) -> Result<PreparedImport, ImportError> {
        if self.is_unresolved {
            return Err(ImportError::Unavailable);
        }
        let mut prepared = prepare(file, &self.writer, keys)?;
        // Who is not blocked need not be freed.
        prepared
            .blocks
            .retain(|(identifier, blocked)| *blocked != self.blocks.is_blocked_now(identifier));
        Ok(prepared)
    }

    /// The writer, given up by its registrar.
    pub fn into_writer(self) -> RegistryWriter {
        self.writer
    }

    /// Whether only the journal knows how the last import ended.
    pub fn is_unresolved(&self) -> bool {
        self.is_unresolved
    }

    /// The registry with every recorded import.
    pub fn registry(&self) -> &Registry {
        self.writer.registry()
    }

    /// The blocks of every recorded import.
    pub fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// The revision that the next import makes.
    pub fn next_revision(&self) -> RevisionId {
        RevisionId(self.writer.registry().id().0 + 1)
    }

    /// The number of the last import that was begun.
    pub fn last_import(&self) -> u64 {
        self.last_import
    }
}

fn prepare(
    file: &mut dyn BufRead,
    current: &RegistryWriter,
    keys: &Keys,
) -> Result<PreparedImport, ImportError> {
    let mut lines = read_lines(file, keys)?;
    let mut faults = std::mem::take(&mut lines.faults);
    let mut writer = current.clone();
    let mut parts = Parts::default();
    let mut changes = match writer.apply_directory(&lines.directory) {
        Ok(changes) => changes,
        Err(mut more) => {
            more.retain(|fault| !lines.stood_in_for.contains(&fault.line));
            faults.append(&mut more);
            // The file is refused; its holders are still looked at, so that every line is named.
            writer.add_unchecked(&lines.directory);
            0
        }
    };
    if changes > 0 {
        lines.directory.iter().for_each(|(_, change)| parts.push(change));
    }
    // Nobody can give up an identifier where nobody is known.
    let known = writer.registry().holder_count() > 0;
    for stored in lines.holders.parts.iter().filter(|_| known) {
        for change in changes_of(stored) {
            if let Ok(RegistryChange::Holder(id, new)) = change {
                writer.release_identifiers(id, new.as_ref());
            }
        }
    }
    let mut numbers = lines.holder_lines.iter();
    let mut changed = Vec::new();
    for stored in std::mem::take(&mut lines.holders.parts) {
        let before = changes;
        let mut changing = Vec::new();
        let mut entry_count = 0;
        for entry in Entries::of(&stored).flatten() {
            entry_count += 1;
            let line = numbers.next().copied().unwrap_or_default();
            let Ok(RegistryChange::Holder(id, new)) = read_change(entry) else { continue };
            if !writer.changes_holder(id, new.as_ref()) {
                continue;
            }
            match writer.put_holder(id, new.as_ref()) {
                Ok(()) => {
                    changes += 1;
                    changing.push(entry);
                    changed.push(id);
                }
                Err(fault) => push_fault(&mut faults, fault.at(line)),
            }
        }
        if changes - before == entry_count {
            // All of it changes something: it need not be copied.
            parts.parts.push(stored);
        } else {
            changing.into_iter().for_each(|entry| parts.push_stored(entry));
        }
    }
    if faults.is_empty() {
        let blocks = blocks_between(current, &writer, &changed);
        let at = Timestamp::default();
        Ok(PreparedImport { writer, parts: parts.parts, lines: lines.count, changes, at, blocks })
    } else {
        faults.sort_by_key(|fault| fault.line);
        faults.truncate(IMPORT_ERRORS_MAX);
        Err(ImportError::Rejected(faults))
    }
}

/// The identifiers of changed holders that were usable before and are not any more, or the other way
/// round. Dates that pass are no blocks: a device knows them.
fn blocks_between(
    before: &RegistryWriter,
    after: &RegistryWriter,
    changed: &[HolderId],
) -> Vec<(Digest, bool)> {
    let mut blocks = Vec::new();
    for id in changed {
        let of = |writer: &RegistryWriter| writer.holder(*id).map(|holder| holder.to_holder());
        let (old, new) = (of(before), of(after));
        let usable = |holder: &Option<Holder>| -> Vec<Digest> {
            holder.iter().flat_map(Holder::usable_identifiers).collect()
        };
        let (old, new) = (usable(&old), usable(&new));
        // An identifier may have gone to another holder.
        let is_usable = |identifier: &Digest| {
            let found = after.registry().find(identifier);
            let holder = found.map(|found| found.holder.to_holder());
            holder.is_some_and(|holder| holder.usable_identifiers().any(|one| one == *identifier))
        };
        let gone = old.iter().filter(|one| !new.contains(one) && !is_usable(one));
        blocks.extend(gone.map(|identifier| (*identifier, true)));
        let come = new.iter().filter(|one| !old.contains(one));
        blocks.extend(come.map(|identifier| (*identifier, false)));
    }
    blocks
}

/// Applies the parts of a recorded import, in recovery.
pub fn apply_parts(writer: &mut RegistryWriter, parts: &[Vec<u8>]) -> Result<(), StoredStateError> {
    let mut directory: Vec<LineChange> = Vec::new();
    for part in parts {
        for change in changes_of(part) {
            match change? {
                RegistryChange::Holder(id, new) => writer.release_identifiers(id, new.as_ref()),
                change => directory.push((0, change)),
            }
        }
    }
    writer.apply_directory(&directory).map_err(|_| StoredStateError::ContradictoryImport)?;
    for part in parts {
        for change in changes_of(part) {
            if let RegistryChange::Holder(id, new) = change? {
                writer
                    .put_holder(id, new.as_ref())
                    .map_err(|_| StoredStateError::ContradictoryImport)?;
            }
        }
    }
    Ok(())
}

/// The lines of a file: directory entries as they are, holders in stored form to save memory.
#[derive(Default)]
struct Lines {
    directory: Vec<LineChange>,
    /// The lines in whose place something stands in the directory.
    stood_in_for: hashbrown::HashSet<u64>,
    faults: Vec<LineError>,
    holders: Parts,
    holder_lines: Vec<u64>,
    count: u64,
}

fn read_lines(file: &mut dyn BufRead, keys: &Keys) -> std::io::Result<Lines> {
    let mut lines = Lines::default();
    let mut line = Vec::new();
    let mut seen = hashbrown::HashSet::new();
    while read_line(file, &mut line)? {
        lines.count += 1;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match parse_line(&line, keys) {
            Ok(RegistryChange::Holder(id, new)) => {
                if !seen.insert(id) {
                    let reason = "this holder stands in the file twice";
                    let fault = LineFault::of_field("id", reason).at(lines.count);
                    push_fault(&mut lines.faults, fault);
                }
                lines.holders.push(&RegistryChange::Holder(id, new));
                lines.holder_lines.push(lines.count);
            }
            Ok(change) => lines.directory.push((lines.count, change)),
            Err(fault) => {
                push_fault(&mut lines.faults, fault.at(lines.count));
                if let Some(change) = stand_in(&line) {
                    lines.directory.push((lines.count, change));
                    lines.stood_in_for.insert(lines.count);
                }
            }
        }
    }
    Ok(lines)
}

/// Reads one line without its end; of a line that is too long only so much that the parser refuses
/// it, the rest is skipped.
fn read_line(file: &mut dyn BufRead, line: &mut Vec<u8>) -> std::io::Result<bool> {
    line.clear();
    let mut any = false;
    loop {
        let buffer = file.fill_buf()?;
        if buffer.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let taken = buffer.get(..end.unwrap_or(buffer.len())).unwrap_or_default();
        let room = (REGISTRY_LINE_BYTES_MAX + 1).saturating_sub(line.len());
        line.extend_from_slice(taken.get(..room.min(taken.len())).unwrap_or_default());
        let consumed = taken.len() + usize::from(end.is_some());
        file.consume(consumed);
        if end.is_some() {
            return Ok(true);
        }
    }
}

fn push_fault(faults: &mut Vec<LineError>, fault: LineError) {
    if faults.len() < IMPORT_ERRORS_MAX {
        faults.push(fault);
    }
}

/// Changes in stored form, in pieces that fit a record.
#[derive(Default)]
struct Parts {
    parts: Vec<Vec<u8>>,
    scratch: Vec<u8>,
}

impl Parts {
    fn push(&mut self, change: &RegistryChange) {
        let mut stored = std::mem::take(&mut self.scratch);
        stored.clear();
        write_change(change, &mut stored);
        self.push_stored(&stored);
        self.scratch = stored;
    }

    fn push_stored(&mut self, stored: &[u8]) {
        let room = PART_BYTES_MAX.saturating_sub(stored.len() + ENTRY_HEAD_BYTES);
        match self.parts.last_mut() {
            Some(part) if part.len() <= room => {
                push_entry(part, |out| out.extend_from_slice(stored));
            }
            _ => {
                let mut part = Vec::with_capacity(PART_BYTES_MAX);
                push_entry(&mut part, |out| out.extend_from_slice(stored));
                self.parts.push(part);
            }
        }
    }
}

/// The changes of a part.
fn changes_of(part: &[u8]) -> impl Iterator<Item = Result<RegistryChange, StoredStateError>> {
    Entries::of(part).map(|entry| Ok(read_change(entry?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::identifier::DigestKey;
    use crate::keys::SecretKey;

    /// Imports into an empty registry and expects exactly these lines to be wrong.
    fn check(lines: &[&str], expected: &[&str]) {
        let keys = Keys { identifiers: DigestKey::new([7; 16]), secrets: SecretKey::new([9; 32]) };
        let file = lines.join("\n");
        match prepare(&mut file.as_bytes(), &RegistryWriter::default(), &keys) {
            Err(ImportError::Rejected(errors)) => {
                let errors: Vec<String> = errors.iter().map(LineError::to_string).collect();
                assert_eq!(errors, expected);
            }
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("nothing is wrong with {file}"),
        }
    }

    #[test]
    fn faults_of_all_kinds_are_named_together() {
        check(
            &[
                r#"{"kind":"region","code":"14","name":"Саха","utc_offset":"+09:00"}"#,
                r#"{"kind":"area","id":1,"name":"Якутск","region":"77"}"#,
                r#"{"kind":"category","id":10,"name":"","priority":1}"#,
                r#"{"kind":"holder","id":1,"region":"14","categories":[{"category":99}]}"#,
                r#"{"kind":"holder","id":2,"region":"14","cards":[{"type":"ecs","client_code":"AAABBBCCC"}]}"#,
                r#"{"kind":"holder","id":3,"region":"14","cards":[{"type":"ecs","client_code":"AAABBBCCC"}]}"#,
                r#"{"kind":"holder","id":3,"region":"14"}"#,
                r#"{"kind":"offer","organization":1,"service":"1"}"#,
                "what is this",
            ],
            &[
                "line 2: `region`: region 77 does not exist",
                "line 3: `name`: empty",
                "line 4: `categories`: category 99 does not exist",
                "line 6: an identifier of this holder belongs to another holder",
                "line 7: `id`: this holder stands in the file twice",
                "line 8: `service`: not a whole number",
                "line 9: `kind`: not the first field of a JSON object",
            ],
        );
    }

    #[test]
    fn who_refers_to_a_wrong_line_is_not_blamed_for_it() {
        check(
            &[
                r#"{"kind":"region","code":"14","name":"","utc_offset":"+09:00"}"#,
                r#"{"kind":"area","id":1,"name":"","region":"14"}"#,
                r#"{"kind":"category","id":10,"name":"","priority":1}"#,
                r#"{"kind":"service","id":1,"name":"","service_kind":"visit"}"#,
                r#"{"kind":"organization","id":1,"client_id":""}"#,
                r#"{"kind":"organization","id":2,"client_id":""}"#,
                r#"{"kind":"area","id":2,"name":"Мирный","region":"14"}"#,
                r#"{"kind":"organization","id":3,"client_id":"3","client_secret":"s","short_name":"Музей","connection":"T3","state":"active","area":1,"categories":[10]}"#,
                r#"{"kind":"offer","organization":1,"service":1}"#,
                r#"{"kind":"holder","id":1,"region":"14","categories":[{"category":10}]}"#,
            ],
            &[
                "line 1: `name`: empty",
                "line 2: `name`: empty",
                "line 3: `name`: empty",
                "line 4: `name`: empty",
                "line 5: `client_secret`: missing",
                "line 6: `client_secret`: missing",
            ],
        );
    }
}
