//! The only entry point: set up, run, test, boot kernels.
fn main() {}
