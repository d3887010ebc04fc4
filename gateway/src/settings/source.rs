//! Where settings come from: flags, variables, the TOML file, defaults.
//!
//! The table `SETTINGS` gives every setting its three forms, so none can lack one.

use std::collections::BTreeMap;

use clap::{Arg, ArgAction, ArgMatches};

use crate::settings::SettingsError;

/// One setting.
struct Setting {
    name: &'static str,
    flag: &'static str,
    variable: &'static str,
    default: Option<&'static str>,
    help: &'static str,
}

macro_rules! settings {
    ($($name:literal $flag:literal $variable:literal $default:expr, $help:literal;)*) => {
        &[$(Setting {
            name: $name,
            flag: $flag,
            variable: $variable,
            default: $default,
            help: $help,
        }),*]
    };
}

const SETTINGS: &[Setting] = settings! {
    "data_dir" "data-dir" "ELIGO_DATA_DIR" None, "directory of everything that is kept";
    "http" "http" "ELIGO_HTTP" Some("127.0.0.1:8080"), "public address, ADDR:PORT";
    "admin" "admin" "ELIGO_ADMIN" Some("127.0.0.1:8081"), "administration address, ADDR:PORT";
    "admin_token" "admin-token" "ELIGO_ADMIN_TOKEN" None, "bearer token of /admin/*, off without";
    "quic" "quic" "ELIGO_QUIC" None, "address of the validators' link, ADDR:PORT; off without";
    "quic_pki_dir" "quic-pki-dir" "ELIGO_QUIC_PKI_DIR" None,
        "certificates of `eligo pki`; `pki` below the data directory without";
    "quic_workers" "quic-workers" "ELIGO_QUIC_WORKERS" None, "link threads; one a core without";
    "quic_connections_max" "quic-connections-max" "ELIGO_QUIC_CONNECTIONS_MAX" Some("50000"),
        "connected validators";
    "quic_idle_ms" "quic-idle-ms" "ELIGO_QUIC_IDLE_MS" Some("60000"), "silent validator";
    "quic_in_flight_max" "quic-in-flight-max" "ELIGO_QUIC_IN_FLIGHT_MAX" Some("256"),
        "requests of a validator that wait for answers";
    "quic_messages_per_second" "quic-messages-per-second" "ELIGO_QUIC_MESSAGES_PER_SECOND"
        Some("200"), "messages of a validator; 0: no limit";
    "quic_messages_burst" "quic-messages-burst" "ELIGO_QUIC_MESSAGES_BURST" Some("2000"),
        "the same at once";
    "tls_certificate" "tls-certificate" "ELIGO_TLS_CERTIFICATE" None, "PEM chain; turns TLS on";
    "tls_key" "tls-key" "ELIGO_TLS_KEY" None, "PEM private key of the certificate";
    "import" "import" "ELIGO_IMPORT" None, "registry files to import before answering";
    "clock" "clock" "ELIGO_CLOCK" Some("system"), "system, or manual:RFC3339";
    "public_base_url" "public-base-url" "ELIGO_PUBLIC_BASE_URL" None,
        "issuer of tokens and discovery";
    "trusted_proxies" "trusted-proxies" "ELIGO_TRUSTED_PROXIES" None, "networks of trusted proxies";
    "log" "log" "ELIGO_LOG" Some("info"), "log filter";
    "token_lifetime_seconds" "token-lifetime-seconds" "ELIGO_TOKEN_LIFETIME_SECONDS" Some("3600"),
        "token life";
    "token_cache_max" "token-cache-max" "ELIGO_TOKEN_CACHE_MAX" Some("65536"),
        "verified tokens kept";
    "success_result_code" "success-result-code" "ELIGO_SUCCESS_RESULT_CODE" Some("0"),
        "0 or 1 (C-10)";
    "benefits" "benefits" "ELIGO_BENEFITS" Some("top"), "top or all (C-09)";
    "type3_confirm" "type3-confirm" "ELIGO_TYPE3_CONFIRM" Some("deny"), "deny or allow (C-07)";
    "field_for_type" "field-for-type" "ELIGO_FIELD_FOR_TYPE" Some("strict"),
        "strict or lenient (C-12)";
    "area_fields" "area-fields" "ELIGO_AREA_FIELDS" Some("both"), "both, name or shortName (C-02)";
    "workers" "workers" "ELIGO_WORKERS" None, "HTTP worker threads; one a core without";
    "backlog" "backlog" "ELIGO_BACKLOG" Some("2048"), "connections waiting for accept";
    "connections_max" "connections-max" "ELIGO_CONNECTIONS_MAX" Some("25000"),
        "connections a worker";
    "keep_alive_ms" "keep-alive-ms" "ELIGO_KEEP_ALIVE_MS" Some("75000"), "idle connection";
    "header_timeout_ms" "header-timeout-ms" "ELIGO_HEADER_TIMEOUT_MS" Some("5000"),
        "time for a head";
    "body_timeout_ms" "body-timeout-ms" "ELIGO_BODY_TIMEOUT_MS" Some("5000"), "time for a body";
    "request_deadline_ms" "request-deadline-ms" "ELIGO_REQUEST_DEADLINE_MS" Some("3000"),
        "time to answer";
    "shutdown_ms" "shutdown-ms" "ELIGO_SHUTDOWN_MS" Some("10000"), "time to finish at the end";
    "body_bytes_max" "body-bytes-max" "ELIGO_BODY_BYTES_MAX" Some("65536"), "body of a call";
    "batch_bytes_max" "batch-bytes-max" "ELIGO_BATCH_BYTES_MAX" Some("4194304"), "body of a batch";
    "trips_bytes_max" "trips-bytes-max" "ELIGO_TRIPS_BYTES_MAX" Some("16777216"),
        "body of an upload of trips";
    "import_bytes_max" "import-bytes-max" "ELIGO_IMPORT_BYTES_MAX" Some("4294967296"),
        "body of an import";
    "organization_calls_per_second" "organization-calls-per-second"
        "ELIGO_ORGANIZATION_CALLS_PER_SECOND" Some("0"), "calls of an organization; 0: no limit";
    "organization_calls_burst" "organization-calls-burst" "ELIGO_ORGANIZATION_CALLS_BURST" None,
        "the same at once; a second's without";
    "shards" "shards" "ELIGO_SHARDS" Some("2"), "shard actors, 1 to 64";
    "checked_ttl_seconds" "checked-ttl-seconds" "ELIGO_CHECKED_TTL_SECONDS" None,
        "life of an open check";
    "transactions_max" "transactions-max" "ELIGO_TRANSACTIONS_MAX" None,
        "open transactions in memory";
    "trips_max" "trips-max" "ELIGO_TRIPS_MAX" None, "trips in memory";
    "passback_seconds" "passback-seconds" "ELIGO_PASSBACK_SECONDS" Some("420"),
        "between two taps of a card at a stop; 0: any";
    "grace_hours" "grace-hours" "ELIGO_GRACE_HOURS" Some("0"),
        "that a holder registry grants past its end";
    "snapshot_minutes" "snapshot-minutes" "ELIGO_SNAPSHOT_MINUTES" Some("10"), "between snapshots";
    "snapshot_records" "snapshot-records" "ELIGO_SNAPSHOT_RECORDS" Some("1000000"),
        "records, the same";
    "registry_build_at" "registry-build-at" "ELIGO_REGISTRY_BUILD_AT" None,
        "when registries are built, HH:MM in UTC, or never; 03:00 with quic";
    "registry_after_import" "registry-after-import" "ELIGO_REGISTRY_AFTER_IMPORT" Some("no"),
        "yes: after every import too";
    "registry_valid_hours" "registry-valid-hours" "ELIGO_REGISTRY_VALID_HOURS" Some("48"),
        "life of such a registry";
    "registry_keep_versions" "registry-keep-versions" "ELIGO_REGISTRY_KEEP_VERSIONS" Some("60"),
        "versions kept to judge trips by";
    "registry_delta_versions" "registry-delta-versions" "ELIGO_REGISTRY_DELTA_VERSIONS" Some("7"),
        "versions from which there is a delta";
    "registry_bytes_max" "registry-bytes-max" "ELIGO_REGISTRY_BYTES_MAX" Some("68719476736"),
        "bytes of all registries; past it the oldest go";
    "registry_kinds" "registry-kinds" "ELIGO_REGISTRY_KINDS" Some("transport"),
        "kinds of services in them";
    "registry_limited_offline" "registry-limited-offline" "ELIGO_REGISTRY_LIMITED_OFFLINE"
        Some("deny"), "deny or allow: limited uses without a link";
};

/// The arguments of a command that takes settings.
pub fn arguments(command: clap::Command) -> clap::Command {
    let config = Arg::new("config").long("config").env("ELIGO_CONFIG").help("TOML file");
    let argument = |setting: &Setting| {
        let Setting { name, flag, variable, default, help } = setting;
        let help = default.map_or(help.to_string(), |default| format!("{help} [{default}]"));
        let argument = Arg::new(*name).long(flag).env(variable).help(help);
        match *name {
            "import" => argument.num_args(1..).value_delimiter(',').action(ArgAction::Append),
            _ => argument,
        }
    };
    // A token on a command line or in a help text is readable by everybody on the machine.
    command.arg(config).args(SETTINGS.iter().map(|setting| argument(setting).hide_env_values(true)))
}

/// What a command line, its environment and its file say; `overrides` are stronger defaults.
pub fn gather(
    matches: &ArgMatches,
    overrides: &[(&'static str, String)],
) -> Result<Values, SettingsError> {
    let mut values = defaults();
    values.extend(overrides.iter().map(|(name, value)| (*name, vec![value.clone()])));
    if let Some(path) = matches.get_one::<String>("config") {
        let text = std::fs::read_to_string(path)
            .map_err(|error| SettingsError::new("config", format!("cannot be read: {error}")))?;
        values.extend(read_file(&text)?);
    }
    for Setting { name, .. } in SETTINGS {
        if let Ok(Some(given)) = matches.try_get_many::<String>(name) {
            values.insert(name, given.cloned().collect());
        }
    }
    Ok(Values(values))
}

fn defaults() -> BTreeMap<&'static str, Vec<String>> {
    let default = |setting: &Setting| Some((setting.name, vec![setting.default?.to_string()]));
    SETTINGS.iter().filter_map(default).collect()
}

/// The settings of a TOML file.
fn read_file(text: &str) -> Result<BTreeMap<&'static str, Vec<String>>, SettingsError> {
    let table: toml::Table = toml::from_str(text).map_err(|error| {
        SettingsError::new("config", format!("not TOML: {}", error.message().replace('\n', " ")))
    })?;
    let mut values = BTreeMap::new();
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => {
                for (inner_key, value) in inner {
                    let is_address =
                        matches!(key.as_str(), "http" | "admin" | "quic") && inner_key == "address";
                    let whole = if is_address { key.clone() } else { format!("{key}_{inner_key}") };
                    insert(&mut values, &whole, value)?;
                }
            }
            value => insert(&mut values, &key, value)?,
        }
    }
    Ok(values)
}

fn insert(
    values: &mut BTreeMap<&'static str, Vec<String>>,
    key: &str,
    value: toml::Value,
) -> Result<(), SettingsError> {
    let Some(Setting { name, .. }) = SETTINGS.iter().find(|setting| setting.name == key) else {
        return Err(SettingsError::new(key, "there is no such setting"));
    };
    let entries = match value {
        toml::Value::Array(entries) => entries,
        single => vec![single],
    };
    let text = |entry: toml::Value| match entry {
        toml::Value::String(text) => Ok(text),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Datetime(instant) => Ok(instant.to_string()),
        _ => Err(SettingsError::new(*name, "expected text, a number or a list of them")),
    };
    let entries = entries.into_iter().map(text).collect::<Result<Vec<_>, _>>()?;
    match values.insert(*name, entries) {
        None => Ok(()),
        Some(_) => Err(SettingsError::new(*name, "given twice")),
    }
}

/// What was given, before it is checked.
pub struct Values(BTreeMap<&'static str, Vec<String>>);

impl Values {
    /// A list, in text separated by commas.
    pub fn list<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Option<T>,
        expected: &str,
    ) -> Result<Vec<T>, SettingsError> {
        let given = self.0.get(name).map(Vec::as_slice).unwrap_or_default();
        let entries = given.iter().flat_map(|text| text.split(',')).map(str::trim);
        let entries = entries.filter(|entry| !entry.is_empty());
        entries.map(|entry| parse(entry).ok_or(SettingsError::new(name, expected))).collect()
    }

    /// One value that may be absent.
    pub fn optional<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Option<T>,
        expected: &str,
    ) -> Result<Option<T>, SettingsError> {
        match self.0.get(name).map(Vec::as_slice) {
            None => Ok(None),
            Some([single]) => match parse(single.trim()) {
                Some(value) => Ok(Some(value)),
                None => Err(SettingsError::new(name, expected)),
            },
            Some(_) => Err(SettingsError::new(name, "expected one value")),
        }
    }

    /// One value.
    pub fn required<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Option<T>,
        expected: &str,
    ) -> Result<T, SettingsError> {
        let value = self.optional(name, parse, expected)?;
        value.ok_or_else(|| SettingsError::new(name, "required"))
    }

    /// A number within bounds.
    pub fn number<T>(&self, name: &'static str, min: T, max: T) -> Result<T, SettingsError>
    where
        T: Copy + std::fmt::Display + PartialOrd + std::str::FromStr,
    {
        let in_range = |number: &T| min <= *number && *number <= max;
        let parse = |text: &str| text.parse().ok().filter(in_range);
        self.required(name, parse, &format!("expected a whole number from {min} to {max}"))
    }

    /// A number within bounds, or `absent`.
    pub fn number_or<T>(
        &self,
        name: &'static str,
        absent: T,
        min: T,
        max: T,
    ) -> Result<T, SettingsError>
    where
        T: Copy + std::fmt::Display + PartialOrd + std::str::FromStr,
    {
        if self.0.contains_key(name) { self.number(name, min, max) } else { Ok(absent) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::check;

    #[test]
    fn every_setting_has_three_forms() {
        let mut command = arguments(clap::Command::new("serve"));
        let help = command.render_long_help().to_string();
        for Setting { name, flag, variable, .. } in SETTINGS {
            assert_eq!(*variable, format!("ELIGO_{}", name.to_uppercase()));
            assert_eq!(*flag, name.replace('_', "-"));
            assert!(help.contains(&format!("--{flag}")), "{name}");
            assert!(read_file(&format!("{name} = \"x\"")).is_ok(), "{name}");
        }
    }

    #[test]
    fn files_may_use_tables() {
        let given = read_file(
            "data_dir = '/x'\ntrusted_proxies = ['10.0.0.0/8', '::1']\n\
             [admin]\naddress = '127.0.0.1:1'\ntoken = 'secret'\n[http]\naddress = '[::]:2'",
        );
        let mut values = defaults();
        values.extend(given.unwrap());
        let settings = check(&Values(values)).unwrap();
        assert_eq!(settings.admin.port(), 1);
        assert_eq!(settings.http.port(), 2);
        assert_eq!(settings.trusted_proxies.0.len(), 2);
        assert!(settings.admin_token.is_some());
        assert_eq!(read_file("htpp = 'x'").unwrap_err().setting, "htpp");
        assert_eq!(read_file("admin = 'x'\n[admin]").unwrap_err().setting, "config");
        assert_eq!(
            read_file("admin_token = 'x'\n[admin]\ntoken = 'y'").unwrap_err().setting,
            "admin_token"
        );
    }
}
