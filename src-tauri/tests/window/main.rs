//! Window tests.
fn main() {}
