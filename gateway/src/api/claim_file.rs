//! A claim as a file: CSV (RFC 4180, UTF-8 with a byte order mark, as spreadsheets want it) or XLSX.
//!
//! The file is made on a thread of its own. It holds what the claim's lines hold and nothing of
//! holders or cards.

use std::fmt::Write;
use std::sync::Arc;

use actix_web::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue};
use engine::engine::Engine;
use engine::trips::claim::ClaimSummary;
use engine::trips::office::ClaimLineView;
use rust_xlsxwriter::{Format, Workbook, XlsxError};

use crate::api::Answer;
use crate::errors::ApiError;
use crate::gateway::Gateway;
use crate::metrics::Outcome;

/// Lines of a file: a sheet has 1,048,576 rows.
const LINES_MAX: u64 = 1_000_000;
/// Lines that are read together.
const CHUNK_LINES: usize = 4_096;

const COLUMNS: [&str; 15] = [
    "terminal",
    "seq",
    "at",
    "service",
    "category",
    "route",
    "vehicle",
    "from_stop",
    "to_stop",
    "ticket",
    "companion",
    "tariff",
    "discount",
    "amount",
    "refusal",
];
/// The columns that hold money.
const MONEY: [usize; 2] = [11, 13];
/// The columns that hold small numbers; the number of a trip may have more digits than a sheet keeps.
const NUMBERS: [usize; 3] = [3, 4, 12];

#[derive(Clone, Copy)]
enum Form {
    Csv,
    Xlsx,
}

/// Answers with a claim as a file.
pub async fn answer(
    gateway: &Gateway,
    claim: ClaimSummary,
    format: &str,
) -> Result<Answer, ApiError> {
    let (form, content_type) = match format {
        "" | "csv" => (Form::Csv, "text/csv; charset=utf-8"),
        "xlsx" => {
            let xlsx = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";
            (Form::Xlsx, xlsx)
        }
        _ => return Err(ApiError::BadFormat),
    };
    if claim.totals.line_count > LINES_MAX {
        return Err(ApiError::TooLarge);
    }
    let calls = Arc::clone(&gateway.history_calls);
    let permit = calls.try_acquire_owned().map_err(|_| ApiError::Unavailable)?;
    let engine = gateway.engine.clone();
    let made = tokio::task::spawn_blocking(move || {
        // Given back when the file is made, even where the caller has hung up.
        let _permit = permit;
        match form {
            Form::Csv => Ok(csv(&engine, &claim)),
            Form::Xlsx => xlsx(&engine, &claim),
        }
    });
    let bytes = match made.await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => {
            tracing::error!(%error, "a claim cannot be written as a sheet");
            return Err(ApiError::Unavailable);
        }
        Err(_) => return Err(ApiError::Unavailable),
    };
    let mut answer = Answer::json(Outcome::Done, bytes);
    let headers = answer.response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    let extension = if matches!(form, Form::Csv) { "csv" } else { "xlsx" };
    let name = format!("attachment; filename=\"claim-{}.{extension}\"", claim.id.0);
    if let Ok(name) = HeaderValue::from_str(&name) {
        headers.insert(CONTENT_DISPOSITION, name);
    }
    Ok(answer)
}

/// The lines of a claim, a chunk at a time, so that nobody waits for all of them.
fn lines(engine: &Engine, claim: &ClaimSummary) -> impl Iterator<Item = ClaimLineView> {
    let (engine, id) = (engine.clone(), claim.id);
    let chunks = (0..)
        .step_by(CHUNK_LINES)
        .map(move |skipped| engine.trips().claim_lines(id, skipped, CHUNK_LINES));
    chunks.take_while(|chunk| !chunk.is_empty()).flatten()
}

/// The fields of a line, as text.
fn fields(line: &ClaimLineView) -> [String; 15] {
    let mut fields = <[String; 15]>::default();
    let money = |kopecks: u64| format!("{}.{:02}", kopecks / 100, kopecks % 100);
    let mut put = |at: usize, text: String| {
        if let Some(field) = fields.get_mut(at) {
            *field = text;
        }
    };
    put(0, line.name.terminal.to_string());
    put(1, line.name.seq.0.to_string());
    put(13, money(line.amount.0));
    put(14, line.refusal.clone().unwrap_or_default());
    if let Some(recorded) = &line.trip {
        let trip = &recorded.trip;
        put(2, trip.at().to_string());
        put(3, trip.service.to_string());
        put(4, trip.category.map(|category| category.to_string()).unwrap_or_default());
        for (at, text) in (5..).zip(trip.texts.all()) {
            put(at, text.to_owned());
        }
        put(10, if trip.companion { "yes" } else { "" }.to_owned());
        put(11, money(trip.tariff.0));
        put(12, trip.discount_percent.to_string());
    }
    fields
}

fn csv(engine: &Engine, claim: &ClaimSummary) -> Vec<u8> {
    let mut out = String::from("\u{feff}");
    out.push_str(&COLUMNS.join(","));
    out.push_str("\r\n");
    for line in lines(engine, claim) {
        for (at, field) in fields(&line).iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            push_csv(&mut out, field);
        }
        out.push_str("\r\n");
    }
    out.into_bytes()
}

/// Appends a field; what a spreadsheet would take for a formula is marked as text.
fn push_csv(out: &mut String, field: &str) {
    let formula = field.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let mark = if formula { "'" } else { "" };
    if formula || field.contains([',', '"', '\r', '\n']) {
        // Writing into a string cannot fail.
        let _infallible = write!(out, "\"{mark}{}\"", field.replace('"', "\"\""));
    } else {
        out.push_str(field);
    }
}

fn xlsx(engine: &Engine, claim: &ClaimSummary) -> Result<Vec<u8>, XlsxError> {
    let mut workbook = Workbook::new();
    let money = Format::new().set_num_format("0.00");
    let sheet = workbook.add_worksheet_with_constant_memory()?;
    for (column, name) in (0..).zip(COLUMNS) {
        sheet.write_string(0, column, name)?;
    }
    for (row, line) in (1..).zip(lines(engine, claim)) {
        for ((at, column), field) in (0..).zip(0..).zip(&fields(&line)) {
            let number = field.parse::<f64>();
            match number {
                _ if field.is_empty() => {}
                // A sheet holds numbers of 15 digits exactly, and no sum of a claim has more.
                Ok(number) if MONEY.contains(&at) => {
                    sheet.write_number_with_format(row, column, number, &money)?;
                }
                Ok(number) if NUMBERS.contains(&at) => {
                    sheet.write_number(row, column, number)?;
                }
                _ => {
                    sheet.write_string(row, column, field)?;
                }
            }
        }
    }
    workbook.save_to_buffer()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_table_are_quoted_and_never_formulas() {
        let check = |field: &str, expected: &str| {
            let mut out = String::new();
            push_csv(&mut out, field);
            assert_eq!(out, expected);
        };
        check("45", "45");
        check("Площадь 1-я", "Площадь 1-я");
        check("a,b", "\"a,b\"");
        check("a\"b", "\"a\"\"b\"");
        check("=SUM(A1)", "\"'=SUM(A1)\"");
        check("+7", "\"'+7\"");
    }
}
