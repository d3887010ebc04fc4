//! A directory in memory that can lose its power: for tests and simulations.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::files::Files;
use crate::random::Random;

/// The directory; a clone is the same directory.
#[derive(Clone, Default)]
pub struct MemoryFiles(Arc<Mutex<State>>);

#[derive(Clone, Default)]
struct State {
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    contents: BTreeMap<u64, Contents>,
    made: u64,
    /// Changes that still succeed; afterwards the power is gone.
    power: Option<u64>,
    /// Changes that fail before anything else happens.
    faults: u64,
    space: Option<u64>,
    /// A file that the disk does not give back.
    unreadable: Option<String>,
    changes: u64,
}

#[derive(Clone, Default)]
struct Contents {
    live: Vec<u8>,
    durable: Vec<u8>,
}

/// What is left of changes that were not durable when the power went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Remains {
    /// All of them, as after the death of the process alone.
    All,
    /// None of them.
    Nothing,
    /// Any part of them, the last bytes of a file perhaps spoiled.
    Some(u64),
}

impl MemoryFiles {
    /// The directory that is found when the power comes back.
    pub fn after_power_cut(&self, remains: Remains) -> MemoryFiles {
        let state = self.state().clone();
        let mut random = match remains {
            Remains::All => return MemoryFiles::of(state.names.clone(), state, |file| file.live),
            Remains::Nothing => {
                return MemoryFiles::of(state.durable_names.clone(), state, |file| file.durable);
            }
            Remains::Some(seed) => Random::new(seed),
        };
        let names = if random.below(2) == 0 { &state.names } else { &state.durable_names };
        MemoryFiles::of(names.clone(), state, |file| {
            let kept = file.live.iter().zip(&file.durable).take_while(|(a, b)| a == b).count();
            if kept < file.durable.len() {
                return if random.below(2) == 0 { file.live } else { file.durable };
            }
            let tail = file.live.get(kept..).unwrap_or_default();
            let survived = usize::try_from(random.below(tail.len() as u64 + 1)).unwrap_or(0);
            let mut bytes = file.durable;
            bytes.extend_from_slice(tail.get(..survived).unwrap_or_default());
            if survived > 0
                && random.below(2) == 0
                && let Some(last) = bytes.last_mut()
            {
                *last ^= 0x40;
            }
            bytes
        })
    }

    /// Lets `changes` more changes succeed; then the power is gone.
    pub fn cut_power_after(&self, changes: u64) {
        self.state().power = Some(changes);
    }

    /// Lets the next `changes` changes fail.
    pub fn fail_next(&self, changes: u64) {
        self.state().faults = changes;
    }

    /// Bytes that all files together may have from now on.
    pub fn limit_space(&self, bytes: Option<u64>) {
        self.state().space = bytes;
    }

    /// Lets a file, or none, be unreadable from now on.
    pub fn spoil(&self, name: Option<&str>) {
        self.state().unreadable = name.map(str::to_owned);
    }

    /// Changes made so far.
    pub fn changes(&self) -> u64 {
        self.state().changes
    }

    fn of(
        names: BTreeMap<String, u64>,
        state: State,
        mut bytes: impl FnMut(Contents) -> Vec<u8>,
    ) -> MemoryFiles {
        let contents = state.contents.into_iter().map(|(file, contents)| {
            let live = bytes(contents);
            (file, Contents { durable: live.clone(), live })
        });
        MemoryFiles(Arc::new(Mutex::new(State {
            durable_names: names.clone(),
            names,
            contents: contents.collect(),
            made: state.made,
            space: state.space,
            ..State::default()
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn change(&mut self) -> io::Result<()> {
        if self.faults > 0 {
            self.faults -= 1;
            return Err(io::Error::other("injected"));
        }
        match &mut self.power {
            Some(0) => return Err(io::Error::other("no power")),
            Some(left) => *left -= 1,
            None => {}
        }
        self.changes += 1;
        Ok(())
    }

    fn file(&mut self, name: &str) -> io::Result<&mut Contents> {
        let file = self.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        self.contents.get_mut(file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn used(&self) -> u64 {
        let files = self.names.values().filter_map(|file| self.contents.get(file));
        files.map(|file| file.live.len() as u64).sum()
    }
}

impl Files for MemoryFiles {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        Ok(self.state().file(name)?.live.len() as u64)
    }

    fn read_at(&self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let mut state = self.state();
        if state.unreadable.as_deref() == Some(name) {
            return Err(io::Error::other("injected"));
        }
        let file = state.file(name)?;
        let from = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = from.checked_add(into.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        let bytes = file.live.get(from..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(bytes);
        Ok(())
    }

    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        let free = state.space.map(|space| space.saturating_sub(state.used()));
        if !state.names.contains_key(name) {
            let file = state.made;
            state.made += 1;
            state.names.insert(name.to_owned(), file);
            state.contents.insert(file, Contents::default());
        }
        let fits = free.map_or(bytes.len(), |free| usize::try_from(free).unwrap_or(usize::MAX));
        let written = bytes.get(..fits).unwrap_or(bytes);
        state.file(name)?.live.extend_from_slice(written);
        if written.len() < bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn truncate(&self, name: &str, length: u64) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        state.file(name)?.live.truncate(length);
        Ok(())
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        let file = state.file(name)?;
        file.durable.clone_from(&file.live);
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        let file = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(())
    }
}
