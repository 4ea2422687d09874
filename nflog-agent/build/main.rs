//! Builds the eBPF object.
fn main() {}
