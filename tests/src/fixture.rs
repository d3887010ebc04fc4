//! Fixture "F" of the acceptance table.

/// The registry file of fixture "F".
pub const REGISTRY: &str = include_str!("../data/fixture.ndjson");

/// The instant at which the table freezes the clock.
pub const NOW: &str = "2025-06-02T10:00:00Z";
