//! Skeleton.

pub mod generator;
