//! The settings `registry_…`.

use engine::directory::ServiceKind;

use crate::kit::{ContentSettings, KitSettings};
use crate::settings::SettingsError;
use crate::settings::source::Values;

/// 03:00 in UTC.
const BUILD_AT_DEFAULT: u16 = 180;

/// Reads them.
pub fn read(values: &Values) -> Result<KitSettings, SettingsError> {
    let yes = |text: &str| match text {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    };
    let allow = |text: &str| match text {
        "allow" => Some(true),
        "deny" => Some(false),
        _ => None,
    };
    Ok(KitSettings {
        build_at: build_at(values)?,
        after_import: values.required("registry_after_import", yes, "yes or no")?,
        valid_hours: values.number("registry_valid_hours", 1, 720)?,
        keep_versions: values.number("registry_keep_versions", 1, 10_000)?,
        delta_versions: values.number("registry_delta_versions", 0, 60)?,
        bytes_max: values.number("registry_bytes_max", 1 << 20, u64::MAX)?,
        content: ContentSettings {
            kinds: values.list("registry_kinds", kind, "expected kinds of services")?,
            limited_offline: values.required("registry_limited_offline", allow, "deny or allow")?,
        },
    })
}

/// Where validators are served, registries are built in the small hours unless something else is said.
fn build_at(values: &Values) -> Result<Vec<u16>, SettingsError> {
    let name = "registry_build_at";
    let never = |text: &str| (text == "never").then_some(());
    if values.optional(name, never, "never").is_ok_and(|said| said.is_some()) {
        return Ok(Vec::new());
    }
    let given = values.list(name, time_of_day, "expected HH:MM, or never")?;
    let is_served = values.optional("quic", |_| Some(()), "an address")?.is_some();
    Ok(if given.is_empty() && is_served { vec![BUILD_AT_DEFAULT] } else { given })
}

/// `HH:MM` as minutes after midnight.
fn time_of_day(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let part = |text: &str, end: u16| {
        let plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|number: &u16| plain && *number < end)
    };
    Some(part(hours, 24)? * 60 + part(minutes, 60)?)
}

fn kind(text: &str) -> Option<ServiceKind> {
    Some(match text {
        "attendance" => ServiceKind::Attendance,
        "discount" => ServiceKind::Discount,
        "goods" => ServiceKind::Goods,
        "meal" => ServiceKind::Meal,
        "pass" => ServiceKind::Pass,
        "payment" => ServiceKind::Payment,
        "transport" => ServiceKind::Transport,
        "visit" => ServiceKind::Visit,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_day_have_four_digits() {
        let check = |text, expected| assert_eq!(time_of_day(text), expected, "{text}");
        check("00:00", Some(0));
        check("23:59", Some(1_439));
        for wrong in ["24:00", "2:00", "02:60", "02:0", "0200", "+2:00", ""] {
            check(wrong, None);
        }
    }
}
