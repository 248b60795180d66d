//! What Cove's tests stand on: a private engine, a loopback registry whose line can be throttled or cut,
//! images built from nothing, and the real app in a driven window; and what makes engines, registries and disks fail
//! at the moment that a test chooses.
//!
//! `cargo xtask test` starts one engine and one registry for the whole run and hands them over by environment;
//! a test that needs to stop or damage one starts its own. Nothing here outlives the process that started it, not
//! even one that was killed. Nothing here knows the engine's API: the `docker` command line is enough.

mod certificates;
mod engine;
#[cfg(unix)]
mod engine_proxy;
mod fault_record;
mod faulty_registry;
mod image;
mod process;
mod proxy;
mod random;
mod registry;
mod scratch;
mod small_disk;
mod test_image;
mod webdriver;
mod window;

use std::io::Write as _;

pub use certificates::Certificates;
pub use engine::{Engine, EngineKind, EngineOptions, Firewall, Resources};
#[cfg(unix)]
pub use engine_proxy::{EngineFault, EngineProxy, Target};
pub use fault_record::{FaultRecord, FaultTable};
pub use faulty_registry::{Asked, FaultyRegistry, RegistryFault};
pub use image::{Image, ImageConfig, Layer, Tree};
pub use process::Guarded;
pub use proxy::{Profile, Proxy, Shape};
pub use random::Random;
pub use registry::{Credentials, Registry, RegistryOptions, Request};
pub use scratch::Scratch;
pub use small_disk::{DiskSize, SmallDisk};
pub use test_image::{Busybox, TestImage};
pub use webdriver::{Element, WebDriver};
pub use window::{Window, WindowOptions};

/// Names the file to which [`skip`] writes; `cargo xtask test` counts its lines.
pub const SKIPS: &str = "COVE_TEST_SKIPS";

/// Names the file to which the tests of faults add a line for each run; `cargo xtask test faults` sums them up.
pub const FAULT_RECORDS: &str = "COVE_FAULT_RECORDS";

/// Names the app binary for the window tests.
pub const BINARY: &str = "COVE_BINARY";

/// Says that the calling test cannot run here, and why. The test must return right after it.
pub fn skip(reason: &str) {
    // A runner that starts a process for each test may run it on the main thread, and names it here.
    let test = std::env::var("NEXTEST_TEST_NAME").unwrap_or_else(|_| {
        let thread = std::thread::current();
        thread.name().unwrap_or("a test").to_owned()
    });
    #[expect(
        clippy::print_stderr,
        reason = "the reader of a test log is meant to see it"
    )]
    {
        eprintln!("skipped: {test}: {reason}");
    }
    let Some(path) = std::env::var_os(SKIPS) else {
        return;
    };
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path);
    if let Ok(mut file) = file {
        // The count is for the summary only; the line above has told it already.
        let _ = writeln!(file, "{test}\t{reason}");
    }
}
