//! Parse, set up tracing, run, exit code.

fn main() {}
