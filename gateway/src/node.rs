//! An engine with everything below it, and the import of registry files into it: what `serve`,
//! `demo` and the offline `import` have in common.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::calendar::Clock;
use engine::engine::Engine;
use engine::import::{ImportError, ImportReport};
use engine::limits::IMPORT_ERRORS_MAX;
use engine::registry::fault::LineError;
use snapshots::history::StoredHistory;
use snapshots::journal::EmbeddedJournal;

use crate::clock::{ManualClock, SystemClock};
use crate::keys::{KeyRing, KeysError};
use crate::settings::{ClockSetting, Settings};
use crate::storage::{self, Storage, StorageError};

/// Bytes read ahead of a registry file.
const READ_AHEAD_BYTES: usize = 1 << 20;

/// A recovered engine.
pub struct Node {
    /// The engine.
    pub engine: Engine,
    /// Its journal, for the figures.
    pub journal: Arc<EmbeddedJournal>,
    /// Its history, for the figures.
    pub history: Arc<StoredHistory>,
    /// The clock that it goes by.
    pub clock: Arc<dyn Clock>,
    /// The same, where it is set by hand.
    pub manual_clock: Option<Arc<ManualClock>>,
    /// The secrets of the deployment.
    pub keys: KeyRing,
}

impl Node {
    /// Opens keys and storage and recovers the state; blocks.
    pub fn open(settings: &Settings) -> Result<Node, NodeError> {
        let manual_clock = match settings.clock {
            ClockSetting::Manual(now) => Some(Arc::new(ManualClock::new(now))),
            ClockSetting::System => None,
        };
        let clock: Arc<dyn Clock> = match &manual_clock {
            Some(manual) => Arc::<ManualClock>::clone(manual),
            None => Arc::new(SystemClock),
        };
        let keys = KeyRing::open(&settings.data_dir)?;
        let Storage { ports, journal, history } = storage::open(settings, Arc::clone(&clock))?;
        let engine = Engine::start(&settings.engine, ports, keys.engine.clone())?;
        Ok(Node { engine, journal, history, clock, manual_clock, keys })
    }
}

/// Imports one registry file; blocks.
pub fn import(engine: &Engine, path: &Path) -> Result<ImportReport, RegistryError> {
    let refused = |error| RegistryError { path: path.to_path_buf(), error };
    let file = File::open(path).map_err(|error| refused(ImportError::Read(error)))?;
    let mut reader = BufReader::with_capacity(READ_AHEAD_BYTES, file);
    engine.import(&mut reader).map_err(refused)
}

/// Why there is no node.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The engine did not start.
    #[error("the engine cannot start")]
    Engine(#[from] engine::start::StartError),
    /// There are no keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// There is no storage.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why a registry file changed nothing.
#[derive(Debug)]
pub struct RegistryError {
    /// The file.
    pub path: PathBuf,
    /// The reason.
    pub error: ImportError,
}

impl RegistryError {
    /// One line of text for every wrong line of the file.
    pub fn lines(&self) -> Vec<String> {
        let path = self.path.display();
        let ImportError::Rejected(errors) = &self.error else {
            return vec![format!("{path}: {}", chain(&self.error))];
        };
        let text = |error: &LineError| match error.field {
            Some(field) => format!("{path}:{}: `{field}`: {}", error.line, error.reason),
            None => format!("{path}:{}: {}", error.line, error.reason),
        };
        let more = (errors.len() == IMPORT_ERRORS_MAX)
            .then(|| format!("{path}: no more than {IMPORT_ERRORS_MAX} wrong lines are named"));
        errors.iter().map(text).chain(more).collect()
    }
}

/// An error with everything that it comes from, as one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
