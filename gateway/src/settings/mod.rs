//! Everything that can be configured, parsed once into a checked struct.
//!
//! Every setting has the same three forms, by construction from the table in [`source`]: the flag
//! `--data-dir`, the variable `ELIGO_DATA_DIR`, the key `data_dir` of the TOML file. A flag beats a
//! variable, a variable beats the file, the file beats the default. In the file a table may stand
//! for a common beginning (`[admin] token = …` is `admin_token`), and `address` inside the tables
//! `http` and `admin` for the address itself.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::ArgMatches;
use engine::calendar::Timestamp;
use engine::ids::PartitionId;
use engine::limits;
use engine::trips::judge::TripRules;
use ipnet::IpNet;

use crate::kit::{self, KitSettings};
use crate::link::limits::Budgets;
use crate::peer::TrustedProxies;
use crate::rate::Rate;
use crate::settings::source::Values;

pub mod source;

/// The checked settings of a server.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The public listener.
    pub http: SocketAddr,
    /// The listener of administration.
    pub admin: SocketAddr,
    /// What opens `/admin/*`; without it they do not exist.
    pub admin_token: Option<AdminToken>,
    /// The link of validators, where there is one.
    pub quic: Option<QuicSettings>,
    /// TLS of the public listener.
    pub tls: Option<TlsFiles>,
    /// Registry files to import before the first answer.
    pub import: Vec<PathBuf>,
    /// Where the time comes from.
    pub clock: ClockSetting,
    /// The issuer of tokens; without it the address of the public listener.
    pub public_base_url: Option<String>,
    /// Whose `X-Forwarded-For` counts.
    pub trusted_proxies: TrustedProxies,
    /// The log filter.
    pub log: String,
    /// How long a token lives.
    pub token_lifetime_seconds: i64,
    /// How many verified tokens are remembered.
    pub token_cache_max: usize,
    /// The choices that the documents leave open.
    pub dialect: Dialect,
    /// The limits of connections and bodies.
    pub limits: Limits,
    /// How many calls an organization may make; without it, as many as it likes.
    pub rate: Option<Rate>,
    /// How the engine is sized.
    pub engine: engine::start::Settings,
    /// When the state is saved.
    pub snapshots: SnapshotSchedule,
    /// How holder registries for validators are built and kept.
    pub kit: KitSettings,
}

/// The link of validators.
#[derive(Clone, Debug)]
pub struct QuicSettings {
    /// Where it listens.
    pub address: SocketAddr,
    /// The directory of its certificates.
    pub pki_dir: PathBuf,
    /// Threads.
    pub workers: usize,
    /// Connections; more are refused.
    pub connections_max: usize,
    /// How long a silent connection is kept.
    pub idle: Duration,
    /// What a device may use.
    pub budgets: Budgets,
}

/// The bearer token of administration.
#[derive(Clone)]
pub struct AdminToken(pub String);

impl std::fmt::Debug for AdminToken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("AdminToken(secret)")
    }
}

/// The files of a certificate.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The chain, PEM.
    pub certificate: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

/// Where the time comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClockSetting {
    /// Set by hand, beginning here.
    Manual(Timestamp),
    /// The machine's clock.
    System,
}

/// The named choices of catalogue §9.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    /// `resultCode` of a found benefit (C-10).
    pub success_result_code: u8,
    /// What happens to a field that the connection type may not send (C-12).
    pub field_for_type: FieldForType,
    /// How an area is named in the history (C-02).
    pub area_fields: AreaFields,
    /// How many benefits a check answers (C-09).
    pub benefits: Benefits,
    /// Whether organizations of connection type 3 confirm (C-07).
    pub type3_confirm: Type3Confirm,
}

/// How many benefits a check answers (C-09).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Benefits {
    /// Every one that the holder has for the service, the best first.
    All,
    /// The best one.
    Top,
}

/// Whether organizations of connection type 3 confirm (C-07).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Type3Confirm {
    /// Their check opens a transaction, like any other, and its confirm is the recorded fact. A price
    /// in the check is read and not kept.
    Allow,
    /// Their check is itself the recorded fact.
    Deny,
}

/// What happens to a field that the connection type may not send (C-12).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FieldForType {
    /// It is ignored and counted.
    Lenient,
    /// It is an error.
    Strict,
}

/// How an area is named in the history (C-02).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AreaFields {
    /// As `name` and as `shortName`.
    Both,
    /// As `name`, as the table has it.
    Name,
    /// As `shortName`, as the example has it.
    ShortName,
}

/// The limits of connections and bodies; past them: wait in the backlog, 408, 413.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Worker threads of the public listener.
    pub workers: usize,
    /// Connections that wait for accept.
    pub backlog: i32,
    /// Connections of one worker.
    pub connections_max: usize,
    /// How long an idle connection is kept.
    pub keep_alive: Duration,
    /// How long a request head may take.
    pub header_timeout: Duration,
    /// How long a body may take.
    pub body_timeout: Duration,
    /// How long an answer may take.
    pub request_deadline: Duration,
    /// How long requests in hand may take at the end.
    pub shutdown: Duration,
    /// Bytes of the body of a call.
    pub body_bytes_max: usize,
    /// Bytes of the body of a batch.
    pub batch_bytes_max: usize,
    /// Bytes of the body of an upload of trips.
    pub trips_bytes_max: usize,
    /// Bytes of the body of an import.
    pub import_bytes_max: u64,
}

/// When the state is saved: whatever comes first.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotSchedule {
    /// After this time, if anything changed.
    pub every: Duration,
    /// After this many records of the journal.
    pub records: u64,
}

/// A setting that cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("setting `{setting}`: {reason}")]
pub struct SettingsError {
    /// Its name.
    pub setting: String,
    /// What is wrong, without repeating the value.
    pub reason: String,
}

impl SettingsError {
    /// A complaint about a setting.
    pub fn new(setting: impl Into<String>, reason: impl Into<String>) -> SettingsError {
        SettingsError { setting: setting.into(), reason: reason.into() }
    }
}

/// The settings of a command line, its environment and its file; `overrides` are stronger defaults.
pub fn read(
    matches: &ArgMatches,
    overrides: &[(&'static str, String)],
) -> Result<Settings, SettingsError> {
    check(&source::gather(matches, overrides)?)
}

fn check(values: &Values) -> Result<Settings, SettingsError> {
    let settings = Settings {
        data_dir: values.required("data_dir", path, "expected a directory")?,
        http: values.required("http", |text| text.parse().ok(), "expected ADDR:PORT")?,
        admin: values.required("admin", |text| text.parse().ok(), "expected ADDR:PORT")?,
        admin_token: values.optional("admin_token", admin_token, "expected printable ASCII")?,
        quic: quic(values)?,
        tls: tls(values)?,
        import: values.list("import", path, "expected files")?,
        clock: values.required("clock", clock, "expected `system` or `manual:RFC3339`")?,
        public_base_url: values.optional("public_base_url", base_url, "expected http(s)://…")?,
        trusted_proxies: TrustedProxies(values.list("trusted_proxies", network, "networks")?),
        log: values.required("log", text, "expected a log filter")?,
        token_lifetime_seconds: values.number("token_lifetime_seconds", 1, 86_400)?,
        token_cache_max: values.number("token_cache_max", 1, 16 << 20)?,
        dialect: dialect(values)?,
        limits: check_limits(values)?,
        rate: rate(values)?,
        engine: engine_settings(values)?,
        snapshots: SnapshotSchedule {
            every: Duration::from_secs(60 * values.number("snapshot_minutes", 1_u64, 10_080)?),
            records: values.number("snapshot_records", 1_000, u64::MAX)?,
        },
        kit: kit::settings::read(values)?,
    };
    let (http, admin) = (settings.http, settings.admin);
    let public = admin.ip().is_unspecified() || (admin.ip() == http.ip());
    if !admin.ip().is_loopback() && public {
        return Err(SettingsError::new("admin", "must not be on the public address"));
    }
    if http == admin && http.port() != 0 {
        return Err(SettingsError::new("admin", "must differ from `http`"));
    }
    Ok(settings)
}

fn quic(values: &Values) -> Result<Option<QuicSettings>, SettingsError> {
    let address = |text: &str| text.parse().ok();
    let Some(address) = values.optional("quic", address, "expected ADDR:PORT")? else {
        return Ok(None);
    };
    let below_data_dir = || Ok(values.required("data_dir", path, "a directory")?.join("pki"));
    let pki_dir = values.optional("quic_pki_dir", path, "expected a directory")?;
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let idle = Duration::from_millis(values.number("quic_idle_ms", 1_000_u64, 3_600_000)?);
    Ok(Some(QuicSettings {
        address,
        pki_dir: pki_dir.map_or_else(below_data_dir, Ok)?,
        workers: values.number_or("quic_workers", cores, 1, 1_024)?,
        connections_max: values.number("quic_connections_max", 1, 1 << 20)?,
        idle,
        budgets: Budgets {
            in_flight_max: values.number("quic_in_flight_max", 1, 65_536)?,
            messages_per_second: values.number("quic_messages_per_second", 0, 1_000_000)?,
            messages_burst: values.number("quic_messages_burst", 1, 1_000_000)?,
            idle,
        },
    }))
}

fn tls(values: &Values) -> Result<Option<TlsFiles>, SettingsError> {
    let certificate = values.optional("tls_certificate", path, "expected a file")?;
    let key = values.optional("tls_key", path, "expected a file")?;
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles { certificate, key })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(SettingsError::new("tls_key", "required with `tls_certificate`")),
        (None, Some(_)) => Err(SettingsError::new("tls_certificate", "required with `tls_key`")),
    }
}

fn dialect(values: &Values) -> Result<Dialect, SettingsError> {
    let field_for_type = |text: &str| match text {
        "lenient" => Some(FieldForType::Lenient),
        "strict" => Some(FieldForType::Strict),
        _ => None,
    };
    let area_fields = |text: &str| match text {
        "both" => Some(AreaFields::Both),
        "name" => Some(AreaFields::Name),
        "shortName" => Some(AreaFields::ShortName),
        _ => None,
    };
    let benefits = |text: &str| match text {
        "all" => Some(Benefits::All),
        "top" => Some(Benefits::Top),
        _ => None,
    };
    let type3_confirm = |text: &str| match text {
        "allow" => Some(Type3Confirm::Allow),
        "deny" => Some(Type3Confirm::Deny),
        _ => None,
    };
    Ok(Dialect {
        success_result_code: values.number("success_result_code", 0, 1)?,
        field_for_type: values.required("field_for_type", field_for_type, "strict or lenient")?,
        area_fields: values.required("area_fields", area_fields, "both, name or shortName")?,
        benefits: values.required("benefits", benefits, "all or top")?,
        type3_confirm: values.required("type3_confirm", type3_confirm, "allow or deny")?,
    })
}

fn check_limits(values: &Values) -> Result<Limits, SettingsError> {
    let millis = |name, max: u64| values.number(name, 1_u64, max).map(Duration::from_millis);
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    Ok(Limits {
        workers: values.number_or("workers", cores, 1, 1_024)?,
        backlog: values.number("backlog", 1, 65_535)?,
        connections_max: values.number("connections_max", 1, 1 << 20)?,
        keep_alive: millis("keep_alive_ms", 3_600_000)?,
        header_timeout: millis("header_timeout_ms", 600_000)?,
        body_timeout: millis("body_timeout_ms", 600_000)?,
        request_deadline: millis("request_deadline_ms", 60_000)?,
        shutdown: millis("shutdown_ms", 600_000)?,
        body_bytes_max: values.number("body_bytes_max", 1_024, 16 << 20)?,
        batch_bytes_max: values.number("batch_bytes_max", 1_024, 256 << 20)?,
        trips_bytes_max: values.number("trips_bytes_max", 1_024, 256 << 20)?,
        import_bytes_max: values.number("import_bytes_max", 1_024, u64::MAX)?,
    })
}

fn rate(values: &Values) -> Result<Option<Rate>, SettingsError> {
    let per_second = values.number("organization_calls_per_second", 0, 1_000_000)?;
    let burst = values.number_or("organization_calls_burst", per_second, 1, 1_000_000)?;
    Ok((per_second > 0).then_some(Rate { per_second, burst }))
}

fn engine_settings(values: &Values) -> Result<engine::start::Settings, SettingsError> {
    let ttl = limits::CHECKED_TTL_SECONDS;
    Ok(engine::start::Settings {
        partition: PartitionId(0),
        shard_count: values.number("shards", 1, 64)?,
        checked_ttl_seconds: values.number_or("checked_ttl_seconds", ttl, 1, 366 * 86_400)?,
        transactions_max: values.number_or(
            "transactions_max",
            limits::TRANSACTIONS_MAX,
            1,
            1 << 32,
        )?,
        trip_rules: TripRules {
            passback_seconds: values.number("passback_seconds", 0, 86_400)?,
            grace_seconds: 3_600 * values.number("grace_hours", 0_i64, 8_784)?,
        },
        trips_max: values.number_or("trips_max", limits::TRIPS_MAX, 1, 1 << 32)?,
    })
}

fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_string())
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

fn admin_token(text: &str) -> Option<AdminToken> {
    let printable = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    printable.then(|| AdminToken(text.to_string()))
}

fn clock(text: &str) -> Option<ClockSetting> {
    match text.strip_prefix("manual:") {
        Some(instant) => Timestamp::parse(instant).map(ClockSetting::Manual),
        None => (text == "system").then_some(ClockSetting::System),
    }
}

fn network(text: &str) -> Option<IpNet> {
    let address = || text.parse::<std::net::IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(address)
}

fn base_url(text: &str) -> Option<String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
    let plain = rest.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\?#".contains(&byte));
    (!rest.is_empty() && plain).then(|| text.trim_end_matches('/').to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(arguments_given: &[&str]) -> Result<Settings, SettingsError> {
        let command = source::arguments(clap::Command::new("serve").no_binary_name(true));
        read(&command.try_get_matches_from(arguments_given).unwrap(), &[])
    }

    #[test]
    fn defaults_are_good_settings() {
        let settings = given(&["--data-dir", "/x"]).unwrap();
        assert!(settings.admin.ip().is_loopback());
        assert_eq!(settings.limits.request_deadline, Duration::from_secs(3));
        assert_eq!(settings.limits.body_bytes_max, 64 << 10);
        assert_eq!(settings.engine.checked_ttl_seconds, 86_400);
        assert!(settings.admin_token.is_none());
        assert_eq!(settings.rate, None);
    }

    #[test]
    fn a_second_of_calls_is_the_burst_unless_given() {
        let check = |more: &[&str], expected: Option<Rate>| {
            let mut all = vec!["--data-dir", "/x"];
            all.extend(more);
            assert_eq!(given(&all).unwrap().rate, expected, "{more:?}");
        };
        let rate = |per_second, burst| Some(Rate { per_second, burst });
        check(&["--organization-calls-per-second", "50"], rate(50, 50));
        let few = ["--organization-calls-per-second", "50", "--organization-calls-burst", "5"];
        check(&few, rate(50, 5));
        check(&["--organization-calls-burst", "5"], None);
    }

    #[test]
    fn a_bad_setting_is_named() {
        let check = |arguments: &[&str], expected: &str| {
            let mut all = vec!["--data-dir", "/x"];
            all.extend(arguments);
            assert_eq!(given(&all).unwrap_err().setting, expected, "{arguments:?}");
        };
        check(&["--http", "nowhere"], "http");
        check(&["--admin", "0.0.0.0:1"], "admin");
        check(&["--http", "127.0.0.1:1", "--admin", "127.0.0.1:1"], "admin");
        check(&["--http", "192.0.2.1:1", "--admin", "192.0.2.1:2"], "admin");
        check(&["--clock", "manual:yesterday"], "clock");
        check(&["--quic", "nowhere"], "quic");
        check(&["--quic", "127.0.0.1:1", "--quic-workers", "0"], "quic_workers");
        check(&["--tls-certificate", "a"], "tls_key");
        check(&["--tls-key", "a"], "tls_certificate");
        check(&["--workers", "0"], "workers");
        check(&["--organization-calls-per-second", "many"], "organization_calls_per_second");
        check(&["--organization-calls-burst", "0"], "organization_calls_burst");
        check(&["--success-result-code", "2"], "success_result_code");
        check(&["--benefits", "some"], "benefits");
        check(&["--type3-confirm", "perhaps"], "type3_confirm");
        check(&["--trusted-proxies", "10.0.0.0/8,x"], "trusted_proxies");
        check(&["--public-base-url", "ftp://x"], "public_base_url");
        assert_eq!(given(&[]).unwrap_err().to_string(), "setting `data_dir`: required");
    }
}
