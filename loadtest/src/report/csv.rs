//! The seconds of a run as comma-separated values, RFC 4180, times in nanoseconds.

use crate::second::Second;

const HEADER: &str = "second,due,sent,answered,slow,offline,unanswered,refused,wrong,in_flight,\
    response_p50_ns,response_p99_ns,response_p999_ns,response_max_ns,lateness_p99_ns,\
    generator_cpu_percent,steal_percent,tainted";

/// One row a second, with a header.
pub fn print(seconds: &[Second]) -> String {
    let mut text = format!("{HEADER}\r\n");
    for row in seconds {
        let counts = [
            row.second,
            row.due,
            row.sent,
            row.answered,
            row.slow,
            row.offline,
            row.unanswered,
            row.refused,
            row.wrong,
            row.in_flight,
            row.response_p50,
            row.response_p99,
            row.response_p999,
            row.response_max,
            row.lateness_p99,
        ];
        for count in counts {
            text.push_str(&format!("{count},"));
        }
        let (cpu, steal) = (row.generator_cpu_percent, row.steal_percent);
        text.push_str(&format!("{cpu:.1},{steal:.1},{}\r\n", u8::from(row.is_tainted())));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn every_row_has_the_fields_of_the_header() {
        let text = print(&fixture::run(1_000, 0).seconds);
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows.len(), 11);
        assert!(rows.iter().all(|row| row.split(',').count() == 18), "{text}");
        assert!(rows[1].starts_with("0,100,100,100,0,0,0,0,0,0,1000000,1500000,"), "{}", rows[1]);
    }
}
