//! What is wrong with a registry file, in words that carry no personal data.
//!
//! A fault names the field and the rule; it never repeats the value of an identifier, a secret or a
//! name, because reports of imports are stored, mailed and pasted into tickets. The one thing taken
//! from the line is the name of an unknown field, if it is made of lower-case letters and `_` and
//! stands before a colon.

use std::fmt;

/// What is wrong with one line, before it is known which line it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LineFault {
    /// The field, where one is to blame.
    pub field: Option<&'static str>,
    /// What is wrong, without quoting personal data.
    pub reason: String,
}

impl LineFault {
    /// A fault of the line as a whole.
    pub fn of_line(reason: impl Into<String>) -> LineFault {
        LineFault { field: None, reason: reason.into() }
    }

    /// A fault of one field.
    pub fn of_field(field: &'static str, reason: impl Into<String>) -> LineFault {
        LineFault { field: Some(field), reason: reason.into() }
    }

    /// This fault, found at `line`, counted from 1.
    pub fn at(self, line: u64) -> LineError {
        LineError { line, field: self.field, reason: self.reason }
    }
}

impl fmt::Display for LineFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field {
            Some(field) => write!(formatter, "`{field}`: {}", self.reason),
            None => formatter.write_str(&self.reason),
        }
    }
}

/// A wrong line of a registry file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LineError {
    /// From 1.
    pub line: u64,
    /// The field, where one is to blame.
    pub field: Option<&'static str>,
    /// What is wrong, without quoting personal data.
    pub reason: String,
}

impl fmt::Display for LineError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field {
            Some(field) => write!(formatter, "line {}: `{field}`: {}", self.line, self.reason),
            None => write!(formatter, "line {}: {}", self.line, self.reason),
        }
    }
}
