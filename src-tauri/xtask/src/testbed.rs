//! `cargo xtask testbed`: the engine and the registries of the tests, for one command or to try things by hand.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use cove_testbed::{Engine, Registry, RegistryOptions};

/// What the tests share; it ends with its guards.
pub(crate) struct Testbed {
    engine: Engine,
    registries: [Registry; 2],
}

impl Testbed {
    /// Starts an engine and the two registries with every test image.
    pub(crate) fn start() -> Result<Self> {
        let engine = Engine::start()?;
        let registries = [
            Registry::start_with_images(RegistryOptions { password: false })?,
            Registry::start_with_images(RegistryOptions { password: true })?,
        ];
        Ok(Self { engine, registries })
    }

    /// Returns the engine.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Returns the environment by which tests find all of it.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        let registries = self.registries.iter().flat_map(Registry::environment);
        self.engine
            .environment()
            .into_iter()
            .chain(registries)
            .collect()
    }
}

/// Runs a command with the test bed's environment; without one, shows it and waits for Ctrl-C.
pub(crate) fn run(command: &[&str]) -> Result<ExitCode> {
    let testbed = Testbed::start()?;
    let Some((program, arguments)) = command.split_first() else {
        for (name, value) in testbed.environment() {
            println!("export {name}={value}");
        }
        println!("export DOCKER_HOST={}", testbed.engine().host());
        eprintln!("Press Ctrl-C to end it.");
        loop {
            std::thread::park();
        }
    };
    let status = Command::new(program)
        .args(arguments)
        .envs(testbed.environment())
        .status()
        .with_context(|| format!("failed to run `{program}`"))?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
