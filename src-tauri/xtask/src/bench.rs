//! `cargo xtask bench create`: arranges for the measurement, which is `cove-core`'s example `bench_create`.
//!
//! It is an example of that crate so that this command stays quick to compile.

use anyhow::Result;
use cove_testbed::{Engine, SKIPS};

use crate::assets;
use crate::setup;
use crate::system::Need;
use crate::workspace::{Workspace, run, say};

/// Measures creating a session against the bare engine and its command line, on an engine of its own.
pub(crate) fn create(workspace: &Workspace) -> Result<()> {
    setup::set_up(workspace, &[Need::Build, Need::Engine])?;
    let assets = assets::make(workspace)?;
    say("test engine");
    let engine = Engine::start()?;
    let mut cargo = workspace.cargo();
    cargo.args([
        "run",
        "--quiet",
        "--release",
        "--package",
        "cove-core",
        "--example",
        "bench_create",
    ]);
    cargo
        .envs(engine.environment())
        .env("COVE_ASSETS", assets)
        .env_remove(SKIPS);
    run(&mut cargo)
}
