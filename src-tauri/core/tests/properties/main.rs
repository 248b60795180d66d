//! What holds for every text and every JSON, and not only for the examples that somebody thought of.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says what it expects by failing"
)]

mod references;
mod requests;

use proptest::test_runner::{Config, FileFailurePersistence};

/// Runs each property this often. What has failed once is tried first the next time.
fn cases(cases: u32) -> Config {
    let failed = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/properties/failed.txt");
    Config {
        cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(failed))),
        ..Config::default()
    }
}
