//! Where the log goes: one JSON object a line on standard error.
//!
//! No request is logged that was answered as it should be, and nothing of a person ever: no
//! identifier, no token, no body. What a client sends that is no HTTP is its own affair: the HTTP
//! library would write an error a line, so anybody could fill the disk and hide what matters.

use std::io;

use tracing_subscriber::EnvFilter;

use crate::settings::SettingsError;

/// Comes before the configured filter, which can take it back.
const NO_CLIENT_ERRORS: &str = "actix_http::h1::dispatcher=off";

/// Starts logging for the whole process; a second call changes nothing.
pub fn start(filter: &str) -> Result<(), SettingsError> {
    let filter = EnvFilter::try_new(format!("{NO_CLIENT_ERRORS},{filter}"))
        .map_err(|_| SettingsError::new("log", "expected a log filter such as `info`"))?;
    let subscriber = tracing_subscriber::fmt().json().with_writer(io::stderr);
    // A second subscriber is refused; the first one stays, which is what a test wants.
    let _already_started = subscriber.with_env_filter(filter).try_init();
    Ok(())
}
