//! The nflog-agent program.
fn main() {}
