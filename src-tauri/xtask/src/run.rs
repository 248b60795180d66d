//! `cargo xtask run`: from a fresh clone to the open app.

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};
use cove_testbed::{Engine, EngineOptions, Firewall};

use crate::setup;
use crate::system::Need;
use crate::workspace::{Workspace, cache, output_of, run as run_command, say};
use crate::{assets, headless};

/// Sets up, builds and opens the app; without a display, does the main job on a virtual one.
pub(crate) fn run(workspace: &Workspace, headless: bool) -> Result<ExitCode> {
    let without_display = cfg!(target_os = "linux")
        && ["DISPLAY", "WAYLAND_DISPLAY"]
            .iter()
            .all(|name| std::env::var_os(name).is_none());
    let headless = headless || without_display;
    let needs: &[Need] = match (headless, engine_answers()) {
        (true, true) => &[Need::Build, Need::Window],
        (true, false) => &[Need::Build, Need::Window, Need::Engine],
        (false, true) => &[Need::Build],
        (false, false) => &[Need::Build, Need::Engine],
    };
    setup::set_up(workspace, needs)?;
    say("assets");
    let assets = assets::make(workspace)?;
    say("UI build");
    run_command(workspace.npm().args(["run", "--silent", "build"]))?;
    say("app build (for development; `cargo xtask build` makes the release)");
    let mut cargo = workspace.cargo();
    cargo.args([
        "build",
        "--package",
        "cove",
        "--features",
        "custom-protocol",
    ]);
    run_command(cargo.env("COVE_ASSETS", &assets))?;
    let binary = workspace.program("debug", "cove");

    let engine = engine()?;
    if headless {
        if without_display {
            println!("There is no display here: the app does its main job on a virtual one.");
        }
        headless::main_job(workspace, &binary, engine.as_ref())?;
        return Ok(ExitCode::SUCCESS);
    }
    say("the app is open");
    let mut app = Command::new(&binary);
    if let Some(engine) = &engine {
        app.env("DOCKER_HOST", engine.host());
    }
    let status = crate::workspace::status(&mut app)?;
    if !status.success() {
        bail!("the app ended with {status}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns an engine that was started because none answers, or `None` when the app finds one by itself or has to say
/// what is wrong. Its images and sessions are kept for the next run.
fn engine() -> Result<Option<Engine>> {
    if engine_answers() {
        return Ok(None);
    }
    if let Some(reason) = Engine::cannot_start() {
        println!("note: no engine answers, and none is started: {reason}");
        return Ok(None);
    }
    say("no engine answers: starting one");
    let options = EngineOptions {
        firewall: Firewall::Managed,
        data: Some(cache().join("engine")),
        ..EngineOptions::default()
    };
    Engine::start_with(options).map(Some)
}

fn engine_answers() -> bool {
    output_of(Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]))
        .is_some_and(|version| !version.is_empty())
}
