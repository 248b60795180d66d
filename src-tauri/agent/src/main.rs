//! The Cove agent.
fn main() {}
