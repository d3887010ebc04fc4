//! A simulated disk: live bytes in memory, and a trace from which the images are built that a power
//! cut after any step would leave.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use snapshots::files::{FileLock, Files, StoredFile};

use crate::random::Random;

pub const SECTOR: usize = 512;

type Inode = u64;

/// One thing that happened to the disk, or a note of the test among them.
#[derive(Clone, Debug)]
pub enum Step<N> {
    FailedSync { inode: Inode },
    Link { path: PathBuf, inode: Inode },
    MakeDirectory { path: PathBuf },
    Note(N),
    Remove { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf, inode: Inode },
    SetLength { inode: Inode, bytes: u64 },
    Sync { inode: Inode },
    SyncDirectory { path: PathBuf },
    Write { inode: Inode, offset: u64, bytes: Vec<u8> },
}

/// What goes wrong, and when.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Operations that still succeed.
    pub after: u64,
    /// Operations that then fail.
    pub lasting: u64,
}

/// Files as they are found after a power cut, or at the beginning.
#[derive(Clone, Debug, Default)]
pub struct Image {
    pub directories: BTreeSet<PathBuf>,
    pub files: BTreeMap<PathBuf, Vec<u8>>,
}

/// The disk; a clone is the same disk.
#[derive(Clone)]
pub struct Disk<N>(Arc<Mutex<State<N>>>);

struct State<N> {
    directories: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, Inode>,
    contents: HashMap<Inode, Vec<u8>>,
    locks: BTreeSet<PathBuf>,
    trace: Vec<Step<N>>,
    fault: Option<Fault>,
    faults_hit: u64,
    random: Random,
    space: Option<u64>,
}

impl<N> Disk<N> {
    /// A disk that begins with `image`. `seed` decides how a failing write fails.
    pub fn new(image: &Image, seed: u64) -> Disk<N> {
        let numbered = || image.files.iter().zip(0..);
        Disk(Arc::new(Mutex::new(State {
            directories: image.directories.clone(),
            names: numbered().map(|((path, _), inode)| (path.clone(), inode)).collect(),
            contents: numbered().map(|((_, bytes), inode)| (inode, bytes.clone())).collect(),
            locks: BTreeSet::new(),
            trace: Vec::new(),
            fault: None,
            faults_hit: 0,
            random: Random::new(seed),
            space: None,
        })))
    }

    pub fn note(&self, note: N) {
        self.state().trace.push(Step::Note(note));
    }

    pub fn fail(&self, fault: Fault) {
        self.state().fault = Some(fault);
    }

    pub fn faults_hit(&self) -> u64 {
        self.state().faults_hit
    }

    /// Bytes that all files together may have from now on.
    pub fn limit_space(&self, bytes: Option<u64>) {
        self.state().space = bytes;
    }

    pub fn used_space(&self) -> u64 {
        self.state().used()
    }

    pub fn take_trace(&self) -> Vec<Step<N>> {
        std::mem::take(&mut self.state().trace)
    }

    /// The live bytes: what is found if the process dies and the power stays on.
    pub fn live(&self) -> Image {
        let state = self.state();
        let files = state.names.iter().map(|(path, inode)| {
            (path.clone(), state.contents.get(inode).cloned().unwrap_or_default())
        });
        Image { directories: state.directories.clone(), files: files.collect() }
    }

    fn state(&self) -> MutexGuard<'_, State<N>> {
        self.0.lock().unwrap()
    }
}

impl<N> State<N> {
    fn used(&self) -> u64 {
        self.names.values().map(|inode| self.contents[inode].len() as u64).sum()
    }

    fn check_fault(&mut self) -> io::Result<()> {
        let Some(fault) = &mut self.fault else { return Ok(()) };
        if fault.after > 0 {
            fault.after -= 1;
            return Ok(());
        }
        if fault.lasting == 0 {
            return Ok(());
        }
        fault.lasting -= 1;
        self.faults_hit += 1;
        Err(io::Error::other("injected"))
    }

    fn write(&mut self, inode: Inode, offset: u64, bytes: &[u8]) {
        write_into(self.contents.get_mut(&inode).unwrap(), offset, bytes);
        self.trace.push(Step::Write { inode, offset, bytes: bytes.to_vec() });
    }
}

fn write_into(contents: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let from = usize::try_from(offset).unwrap();
    let until = from + bytes.len();
    if contents.len() < until {
        contents.resize(until, 0);
    }
    contents[from..until].copy_from_slice(bytes);
}

impl<N: Send + 'static> Files for Disk<N> {
    fn make_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check_fault()?;
        if state.directories.insert(path.to_owned()) {
            state.trace.push(Step::MakeDirectory { path: path.to_owned() });
        }
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let mut state = self.state();
        state.check_fault()?;
        let inside = state.names.keys().filter(|path| path.parent() == Some(directory));
        Ok(inside.filter_map(|path| path.file_name()).map(PathBuf::from).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn StoredFile>> {
        let mut state = self.state();
        state.check_fault()?;
        let inode = match state.names.get(path) {
            Some(inode) => {
                let inode = *inode;
                state.contents.get_mut(&inode).unwrap().clear();
                state.trace.push(Step::SetLength { inode, bytes: 0 });
                inode
            }
            None => {
                let inode = state.contents.keys().max().map_or(0, |highest| highest + 1);
                state.contents.insert(inode, Vec::new());
                state.names.insert(path.to_owned(), inode);
                state.trace.push(Step::Link { path: path.to_owned(), inode });
                inode
            }
        };
        Ok(Box::new(DiskFile { disk: Disk(Arc::clone(&self.0)), inode }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn StoredFile>> {
        let mut state = self.state();
        state.check_fault()?;
        let inode = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(DiskFile { disk: Disk(Arc::clone(&self.0)), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check_fault()?;
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), inode);
        state.trace.push(Step::Rename { from: from.to_owned(), to: to.to_owned(), inode });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check_fault()?;
        state.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        state.trace.push(Step::Remove { path: path.to_owned() });
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check_fault()?;
        state.trace.push(Step::SyncDirectory { path: path.to_owned() });
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn FileLock>>> {
        let mut state = self.state();
        state.check_fault()?;
        if !state.locks.insert(path.to_owned()) {
            return Ok(None);
        }
        let disk = Disk(Arc::clone(&self.0));
        Ok(Some(Box::new(DiskLock { disk, path: path.to_owned() })))
    }
}

struct DiskFile<N> {
    disk: Disk<N>,
    inode: Inode,
}

impl<N: Send> StoredFile for DiskFile<N> {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        let held = state.contents[&self.inode].len() as u64;
        let more = (offset + bytes.len() as u64).saturating_sub(held);
        if state.space.is_some_and(|space| state.used() + more > space) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if let Err(error) = state.check_fault() {
            // A failing write may still have written a part.
            let part = state.random.below(bytes.len() as u64 + 1);
            let part = &bytes[..usize::try_from(part).unwrap()];
            state.write(self.inode, offset, part);
            return Err(error);
        }
        state.write(self.inode, offset, bytes);
        Ok(())
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let mut state = self.disk.state();
        state.check_fault()?;
        let contents = &state.contents[&self.inode];
        let rest = contents.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let count = rest.len().min(bytes.len());
        bytes[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let inode = self.inode;
        if let Err(error) = state.check_fault() {
            state.trace.push(Step::FailedSync { inode });
            return Err(error);
        }
        state.trace.push(Step::Sync { inode });
        Ok(())
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.check_fault()?;
        let length = usize::try_from(bytes).unwrap();
        state.contents.get_mut(&self.inode).unwrap().resize(length, 0);
        state.trace.push(Step::SetLength { inode: self.inode, bytes });
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.state().contents[&self.inode].len() as u64)
    }
}

struct DiskLock<N> {
    disk: Disk<N>,
    path: PathBuf,
}

impl<N: Send> FileLock for DiskLock<N> {}

impl<N> Drop for DiskLock<N> {
    fn drop(&mut self) {
        self.disk.state().locks.remove(&self.path);
    }
}

/// What the device holds for certain, and what it may hold as well.
pub struct Device {
    directories: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, Inode>,
    contents: HashMap<Inode, Vec<u8>>,
    pending_names: Vec<(PathBuf, NameStep)>,
    pending_data: HashMap<Inode, Vec<DataStep>>,
}

#[derive(Clone, Debug)]
enum NameStep {
    Directory(PathBuf),
    Link(PathBuf, Inode),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf, Inode),
}

#[derive(Clone, Debug)]
enum DataStep {
    SetLength(u64),
    Write(u64, Vec<u8>),
}

/// How much of what was not synced a power cut leaves.
#[derive(Clone, Copy, Debug)]
pub enum Left {
    All,
    /// For every file and for the names another random amount, torn at random sectors.
    Mixed,
    NamesOnly,
    Nothing,
    WritesOnly,
}

impl Device {
    pub fn new(image: &Image) -> Device {
        let numbered = || image.files.iter().zip(0..);
        Device {
            directories: image.directories.clone(),
            names: numbered().map(|((path, _), inode)| (path.clone(), inode)).collect(),
            contents: numbered().map(|((_, bytes), inode)| (inode, bytes.clone())).collect(),
            pending_names: Vec::new(),
            pending_data: HashMap::new(),
        }
    }

    pub fn apply<N>(&mut self, step: &Step<N>, random: &mut Random) {
        let parent = |path: &Path| path.parent().unwrap_or(Path::new("/")).to_owned();
        let mut name = |directory, step| self.pending_names.push((directory, step));
        match step {
            Step::Note(_) => {}
            Step::MakeDirectory { path } => {
                name(parent(path), NameStep::Directory(path.clone()));
            }
            Step::Link { path, inode } => {
                name(parent(path), NameStep::Link(path.clone(), *inode));
                self.contents.insert(*inode, Vec::new());
            }
            Step::Remove { path } => name(parent(path), NameStep::Remove(path.clone())),
            Step::Rename { from, to, inode } => {
                name(parent(to), NameStep::Rename(from.clone(), to.clone(), *inode));
            }
            Step::SetLength { inode, bytes } => {
                self.pending_data.entry(*inode).or_default().push(DataStep::SetLength(*bytes));
            }
            Step::Write { inode, offset, bytes } => {
                let step = DataStep::Write(*offset, bytes.clone());
                self.pending_data.entry(*inode).or_default().push(step);
            }
            Step::Sync { inode } => {
                for step in self.pending_data.remove(inode).unwrap_or_default() {
                    apply_data(self.contents.get_mut(inode).unwrap(), &step);
                }
            }
            Step::FailedSync { inode } => {
                // The kernel holds the pages for clean now, whatever became of them.
                let pending = self.pending_data.remove(inode).unwrap_or_default();
                apply_mixed(self.contents.get_mut(inode).unwrap(), &pending, random);
            }
            Step::SyncDirectory { path } => {
                let (synced, pending) = std::mem::take(&mut self.pending_names)
                    .into_iter()
                    .partition(|(directory, _)| directory == path);
                self.pending_names = pending;
                for (_, step) in Vec::from_iter::<Vec<(PathBuf, NameStep)>>(synced) {
                    apply_name(&mut self.directories, &mut self.names, &step);
                }
            }
        }
    }

    /// What is found if the power goes now.
    pub fn cut(&self, left: Left, random: &mut Random) -> Image {
        let mut directories = self.directories.clone();
        let mut names = self.names.clone();
        // Names in order up to a point, or any of them.
        let ordered_until = match left {
            Left::All | Left::NamesOnly => self.pending_names.len() as u64,
            Left::Mixed => random.below(self.pending_names.len() as u64 + 1),
            Left::Nothing | Left::WritesOnly => 0,
        };
        let any = matches!(left, Left::Mixed) && random.one_in(2);
        for ((_, step), index) in self.pending_names.iter().zip(0..) {
            if if any { random.one_in(2) } else { index < ordered_until } {
                apply_name(&mut directories, &mut names, step);
            }
        }
        let mut files = BTreeMap::new();
        for (path, inode) in &names {
            if !path.parent().is_some_and(|p| p == Path::new("/") || directories.contains(p)) {
                continue;
            }
            let mut bytes = self.contents.get(inode).cloned().unwrap_or_default();
            let pending = self.pending_data.get(inode).map_or(&[][..], |pending| pending);
            match left {
                Left::All | Left::WritesOnly => {
                    pending.iter().for_each(|step| apply_data(&mut bytes, step));
                }
                Left::Mixed => apply_mixed(&mut bytes, pending, random),
                Left::Nothing | Left::NamesOnly => {}
            }
            files.insert(path.clone(), bytes);
        }
        Image { directories, files }
    }
}

fn apply_name(
    directories: &mut BTreeSet<PathBuf>,
    names: &mut BTreeMap<PathBuf, Inode>,
    step: &NameStep,
) {
    match step {
        NameStep::Directory(path) => {
            directories.insert(path.clone());
        }
        NameStep::Link(path, inode) => {
            names.insert(path.clone(), *inode);
        }
        NameStep::Remove(path) => {
            names.remove(path);
        }
        NameStep::Rename(from, to, inode) => {
            names.remove(from);
            names.insert(to.clone(), *inode);
        }
    }
}

fn apply_data(contents: &mut Vec<u8>, step: &DataStep) {
    match step {
        DataStep::SetLength(bytes) => contents.resize(usize::try_from(*bytes).unwrap(), 0),
        DataStep::Write(offset, bytes) => write_into(contents, *offset, bytes),
    }
}

/// Leaves of the unsynced steps all, none, a prefix, or random sectors, some of them garbled.
fn apply_mixed(contents: &mut Vec<u8>, pending: &[DataStep], random: &mut Random) {
    let prefix = random.below(pending.len() as u64 + 1);
    let kind = random.below(4);
    for (step, index) in pending.iter().zip(0..) {
        match (kind, step) {
            (0, _) => {}
            (1, _) if index < prefix => apply_data(contents, step),
            (1, DataStep::Write(offset, bytes)) if index == prefix => {
                let part = usize::try_from(random.below(bytes.len() as u64 + 1)).unwrap();
                write_into(contents, *offset, &bytes[..part / SECTOR * SECTOR]);
            }
            (1, _) => {}
            (_, DataStep::SetLength(_)) => {
                if random.one_in(2) {
                    apply_data(contents, step);
                }
            }
            (_, DataStep::Write(offset, bytes)) => {
                for (sector, at) in bytes.chunks(SECTOR).zip((*offset..).step_by(SECTOR)) {
                    if kind == 3 && random.one_in(4) {
                        let garbage: Vec<u8> = sector.iter().map(|_| random.byte()).collect();
                        write_into(contents, at, &garbage);
                    } else if random.one_in(2) {
                        write_into(contents, at, sector);
                    }
                }
            }
        }
    }
}
