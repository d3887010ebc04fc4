//! Distributions in the forms of HdrHistogram: the interval log (`.hlog`) and the percentile
//! distribution (`.hgrm`), which the usual tools read.

use std::time::{Duration, SystemTime};
use std::{fmt, io};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{
    IntervalLogWriterBuilder, IntervalLogWriterError, Tag,
};

use crate::run::Run;

/// Maxima are written in milliseconds, as the other tools do for nanoseconds.
const NS_PER_MS: f64 = 1e6;
/// Rows of a percentile distribution until the rest is halved.
const ROWS_PER_HALF: u32 = 5;

/// The interval log: one interval, the whole run, with the response times untagged and the others by
/// tag (`service`, `lateness`, and each kind of request). `begun` is the start of the run.
pub fn log(run: &Run, begun: SystemTime) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut writer = IntervalLogWriterBuilder::new()
        .add_comment("eligo-load, times in nanoseconds")
        .with_start_time(begun)
        .with_base_time(begun)
        .with_max_value_divisor(NS_PER_MS)
        .begin_log_with(&mut bytes, &mut serializer)?;
    let length = Duration::try_from_secs_f64(run.duration_seconds).unwrap_or_default();
    let mut tagged = vec![
        (None, &run.times.response),
        (Some("service"), &run.times.service),
        (Some("lateness"), &run.times.lateness),
    ];
    tagged.extend(run.kinds.iter().map(|times| (Some(times.kind.name()), &times.response)));
    for (tag, times) in tagged {
        writer
            .write_histogram(times, Duration::ZERO, length, tag.and_then(Tag::new))
            .map_err(written)?;
    }
    Ok(bytes)
}

/// The percentile distribution of times in nanoseconds, printed in milliseconds.
pub fn distribution(times: &Histogram<u64>) -> String {
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut count = 0;
    for step in times.iter_quantiles(ROWS_PER_HALF) {
        count += step.count_since_last_iteration();
        let value = step.value_iterated_to() as f64 / NS_PER_MS;
        let quantile = step.quantile_iterated_to();
        text.push_str(&format!("{value:12.3} {quantile:2.12} {count:10}"));
        if quantile < 1.0 {
            text.push_str(&format!(" {:14.2}", 1.0 / (1.0 - quantile)));
        }
        text.push('\n');
    }
    let (mean, deviation) = (times.mean() / NS_PER_MS, times.stdev() / NS_PER_MS);
    let max = times.max() as f64 / NS_PER_MS;
    text.push_str(&format!(
        "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]\n\
         #[Max     = {max:12.3}, Total count    = {:12}]\n\
         #[Buckets = {:12}, SubBuckets     = {:12}]\n",
        times.len(),
        times.buckets(),
        sub_buckets(times),
    ));
    text
}

/// As HdrHistogram has it: the power of two that holds twice the digits' resolution.
fn sub_buckets(times: &Histogram<u64>) -> u64 {
    (2 * 10_u64.pow(u32::from(times.sigfig()))).next_power_of_two()
}

fn written<E: fmt::Debug>(error: IntervalLogWriterError<E>) -> io::Error {
    match error {
        IntervalLogWriterError::IoError(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use flate2::read::ZlibDecoder;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::fixture;

    fn sample() -> Run {
        fixture::timed((1..=20_000).map(|value| value * 1_000))
    }

    fn sample_log() -> Vec<u8> {
        log(&sample(), SystemTime::UNIX_EPOCH + Duration::from_secs(1_748_858_400)).unwrap()
    }

    #[test]
    fn the_log_is_read_back_by_the_crates_reader() {
        let bytes = sample_log();
        let mut tags = Vec::new();
        for entry in IntervalLogIterator::new(&bytes) {
            let LogEntry::Interval(interval) = entry.unwrap() else { continue };
            tags.push(interval.tag().map(|tag| tag.as_str().to_string()));
            if interval.tag().is_none() {
                let coded = STANDARD.decode(interval.encoded_histogram()).unwrap();
                let times: Histogram<u64> =
                    Deserializer::new().deserialize(&mut coded.as_slice()).unwrap();
                assert_eq!(times, sample().times.response);
                assert_eq!(interval.duration(), Duration::from_secs(10));
            }
        }
        let expected = [None, Some("service"), Some("lateness"), Some("check")];
        assert_eq!(tags, expected.map(|tag| tag.map(str::to_string)));
    }

    /// The four bytes of a number at an offset.
    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// The next number of the counts: 7 bits a byte, the lowest first, all 8 of a ninth; the sign is
    /// the lowest bit.
    fn next_number(bytes: &mut impl Iterator<Item = u8>) -> Option<i64> {
        let mut number = 0;
        for place in 0..9 {
            let byte = u64::from(bytes.next()?);
            let part = if place < 8 { byte & 0x7f } else { byte };
            number |= part << (7 * place);
            if place == 8 || byte < 0x80 {
                break;
            }
        }
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// A reader of its own, by the format's description: base64 of a cookie, a length and a zlib
    /// stream; in that a cookie, a length, the bounds, and counts, where a negative one stands for so
    /// many zeros. Returns the lowest value of each bucket, how wide it is, and its count.
    fn read_independently(field: &str) -> Vec<(u64, u64, u64)> {
        const HEADER: usize = 40;
        // Three digits need 2,000 steps, and powers of two hold them.
        const HALF: u64 = 1_024;
        let coded = STANDARD.decode(field).unwrap();
        assert_eq!(word(&coded, 0), 0x1c84_9314);
        assert_eq!(word(&coded, 4) as usize, coded.len() - 8);
        let mut payload = Vec::new();
        ZlibDecoder::new(&coded[8..]).read_to_end(&mut payload).unwrap();
        assert_eq!(word(&payload, 0), 0x1c84_9313);
        assert_eq!(word(&payload, 4) as usize, payload.len() - HEADER);
        let (offset, digits, lowest) = (word(&payload, 8), word(&payload, 12), word(&payload, 20));
        assert_eq!((offset, digits, word(&payload, 16), lowest), (0, 3, 0, 1));
        let mut counts = Vec::new();
        let mut bytes = payload[HEADER..].iter().copied();
        let mut at = 0_u64;
        while let Some(number) = next_number(&mut bytes) {
            if number > 0 {
                let (shift, step) = match at / HALF {
                    0 => (0, at),
                    half => (half - 1, HALF + at % HALF),
                };
                counts.push((step << shift, 1 << shift, number.unsigned_abs()));
            }
            at += if number < 0 { number.unsigned_abs() } else { 1 };
        }
        counts
    }

    #[test]
    fn the_log_is_read_back_by_an_independent_reader() {
        let text = String::from_utf8(sample_log()).unwrap();
        assert!(text.contains("#[StartTime: 1748858400"), "{text}");
        let histogram = |begin: &str, fields: usize| {
            let line = text.lines().find(|line| line.starts_with(begin)).unwrap();
            assert_eq!(line.split(',').count(), fields, "{line}");
            read_independently(line.rsplit(',').next().unwrap())
        };
        let service = histogram("Tag=service,0.000,10.000,", 5);
        let [(low, width, 20_000)] = service[..] else { panic!("{service:?}") };
        assert!((low..low + width).contains(&900_000), "{low} {width}");
        let response = histogram("0.000,10.000,20.0", 4);
        for (low, width, count) in &response {
            let last = (low + width - 1).min(20_000_000);
            assert_eq!(*count, last / 1_000 - (low - 1) / 1_000, "{low} {width}");
        }
        assert_eq!(response.iter().map(|(_, _, count)| count).sum::<u64>(), 20_000);
    }

    #[test]
    fn the_distribution_is_read_back() {
        let times = sample().times.response;
        let text = distribution(&times);
        let rows = text.lines().skip(2).take_while(|line| !line.starts_with('#'));
        let mut last = 0;
        for row in rows {
            let fields: Vec<f64> =
                row.split_whitespace().map(|field| field.parse().unwrap()).collect();
            let (value, quantile, count) = (fields[0], fields[1], fields[2] as u64);
            let seen = times.count_between(0, (value * 1e6) as u64);
            assert!(seen.abs_diff(count) <= 20, "{row}: {seen}");
            assert!(count as f64 >= quantile * 20_000.0 - 10.0 && count >= last, "{row}");
            last = count;
        }
        assert_eq!(last, 20_000);
        assert!(text.contains("Total count    =        20000]"), "{text}");
    }
}
