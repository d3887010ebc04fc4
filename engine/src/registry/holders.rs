//! Holders, packed.
