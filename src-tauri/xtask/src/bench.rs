//! `cargo xtask bench`: arranges for the measurements, which are the programs `bench-create`, `bench-eta` and
//! `bench-workspace` of `cove-bench`.
//!
//! They are a crate of their own so that this command stays quick to compile.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use cove_testbed::{Engine, SKIPS};

use crate::assets;
use crate::setup;
use crate::system::Need;
use crate::workspace::{Workspace, run, say};

/// Measures creating a session against the bare engine and its command line, on an engine of its own.
pub(crate) fn create(workspace: &Workspace) -> Result<()> {
    on_an_engine(workspace, &mut program(workspace, "bench-create"))
}

/// The parts of what is measured of a ready session.
const PARTS: [&str; 6] = ["agent", "typing", "files", "names", "transfers", "ports"];

/// Measures the use of a ready session against the tools that do the same, on an engine of its own: all of it, or these parts.
pub(crate) fn workspace(workspace: &Workspace, parts: &[&str]) -> Result<()> {
    if let Some(unknown) = parts.iter().find(|part| !PARTS.contains(part)) {
        bail!(
            "`bench workspace` has no part `{unknown}`, but {}",
            PARTS.join(", ")
        );
    }
    let mut cargo = program(workspace, "bench-workspace");
    cargo
        .arg("--")
        .arg(workspace.target().join("bench"))
        .args(parts);
    on_an_engine(workspace, &mut cargo)
}

/// Measures how good the told remaining time is, on an engine of its own, from what an earlier run has recorded, or on
/// simulated pulls.
pub(crate) fn eta(workspace: &Workspace, options: &[&str]) -> Result<()> {
    let mut cargo = program(workspace, "bench-eta");
    cargo.arg("--");
    cargo.arg("--out").arg(workspace.target().join("bench"));
    let mut makes_runs = true;
    let mut options = options.iter();
    while let Some(option) = options.next() {
        match *option {
            "--quick" | "--retell" => cargo.arg(option),
            "--simulated" | "--calibrate" => {
                makes_runs = false;
                cargo.arg(option)
            }
            "--record" | "--from" => {
                let folder = options
                    .next()
                    .with_context(|| format!("`{option}` needs a folder"))?;
                makes_runs &= *option != "--from";
                cargo.arg(option).arg(absolute(folder)?)
            }
            _ => bail!("`bench eta` has no option `{option}`"),
        };
    }
    if makes_runs {
        on_an_engine(workspace, &mut cargo)
    } else {
        setup::set_up(workspace, &[Need::Build])?;
        run(&mut cargo)
    }
}

/// Returns a folder as it is called from where the user is: the program runs in the clone.
fn absolute(folder: &str) -> Result<OsString> {
    let path = std::path::absolute(Path::new(folder))
        .with_context(|| format!("failed to find `{folder}`"))?;
    Ok(path.into_os_string())
}

fn program(workspace: &Workspace, name: &str) -> Command {
    let mut cargo = workspace.cargo();
    cargo.args([
        "run",
        "--quiet",
        "--release",
        "--package",
        "cove-bench",
        "--bin",
        name,
    ]);
    cargo
}

fn on_an_engine(workspace: &Workspace, cargo: &mut Command) -> Result<()> {
    setup::set_up(workspace, &[Need::Build, Need::Engine])?;
    let assets = assets::make(workspace)?;
    say("test engine");
    let engine = Engine::start()?;
    cargo
        .envs(engine.environment())
        .env("COVE_ASSETS", assets)
        .env_remove(SKIPS);
    run(cargo)
}
