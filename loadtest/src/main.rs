//! The binary `eligo-load`.

fn main() {}
