//! Medians, ratios and the lines that benchmarks print.

/// The middle of `values`.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Prints one target: what it is, both sides, their ratio, and what the ratio should be.
pub fn print_ratio(what: &str, ours: f64, baseline: f64, unit: &str, target: &str) {
    let ratio = ours / baseline;
    println!(
        "{what}: eligo {ours:.1} {unit}, baseline {baseline:.1} {unit}, ratio {ratio:.2} (target {target})"
    );
}

/// Prints one figure that has no baseline.
pub fn print_figure(what: &str, figure: f64, unit: &str, target: &str) {
    println!("{what}: {figure:.2} {unit} (target {target})");
}

/// A setting of a benchmark from the environment.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Resident memory of this process in bytes.
pub fn resident_bytes() -> u64 {
    resident_bytes_of(std::process::id())
}

/// Resident memory of a process in bytes.
pub fn resident_bytes_of(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kibibytes.unwrap_or_default() * 1_024
}

/// Seconds that a process has spent on processors.
pub fn processor_seconds_of(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // Behind the name, which may hold anything: field 14 and 15 of the whole, in ticks of 10 ms.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
}
