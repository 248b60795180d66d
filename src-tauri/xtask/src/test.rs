//! `cargo xtask test`: every check and test that there is, in one run, going on after failures.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use cove_testbed::{BINARY, Engine, FAULT_RECORDS, FaultTable, SKIPS, Window};

use crate::assets;
use crate::setup;
use crate::summary::{Tally, from_nextest, from_vitest};
use crate::supply;
use crate::system::Need;
use crate::testbed::Testbed;
use crate::workspace::{Workspace, run, say};

/// What the tests of faults are called in the log.
const FAULTS: &str = "tests of faults";
/// How many runs that is; any other test run makes a tenth of them.
const FAULT_RUNS: &str = "320";
/// Names the number for the tests.
const RUNS: &str = "COVE_FAULT_RUNS";

/// Runs every fault test at length and shows the table of all runs.
pub(crate) fn faults(workspace: &Workspace) -> Result<ExitCode> {
    let start = Instant::now();
    setup::set_up(workspace, &[Need::Build, Need::Engine])?;
    setup::set_up_test_tools(workspace)?;
    say("assets");
    let assets = assets::make(workspace)?;
    let run = Run {
        workspace,
        filter: None,
        assets: &assets,
        scratch: tempfile::tempdir().context("failed to make a folder")?,
    };
    let records = run.scratch.path().join("runs");
    let runs = std::env::var(RUNS).unwrap_or_else(|_| FAULT_RUNS.to_owned());
    let environment = [(RUNS, runs), (FAULT_RECORDS, records.display().to_string())];
    say(FAULTS);
    let tally = run.nextest(FAULTS, "package(cove-core) & binary(faults)", &environment)?;
    if records.exists() {
        println!("\n{}", FaultTable::read(&records)?);
    }
    Ok(run_ended(start, &tally))
}

/// Runs everything; with a filter only the tests whose name has it.
pub(crate) fn test(workspace: &Workspace, filter: Option<&str>) -> Result<ExitCode> {
    let start = Instant::now();
    setup::set_up(workspace, &[Need::Build, Need::Window, Need::Engine])?;
    setup::set_up_test_tools(workspace)?;
    say("assets");
    let assets = assets::make(workspace)?;
    let run = Run {
        workspace,
        filter,
        assets: &assets,
        scratch: tempfile::tempdir().context("failed to make a folder")?,
    };

    let mut tally = Tally::default();
    if filter.is_none() {
        tally.add(run.check(
            "formatting",
            workspace.cargo().args(["fmt", "--all", "--check"]),
        ));
        tally.add(run.check(
            "svelte-check",
            workspace.npm().args(["run", "--silent", "check"]),
        ));
        tally.add(run.check("eslint", workspace.npm().args(["run", "--silent", "lint"])));
        tally.add(supply::check(workspace));
    }
    tally.add(run.ui_tests());
    // Also with a filter: the app carries the built UI.
    let built = run.check(
        "UI build",
        workspace.npm().args(["run", "--silent", "build"]),
    );
    if filter.is_none() || built.failed > 0 {
        tally.add(built);
    }
    ensure_some_ui(workspace)?;
    if filter.is_none() {
        let mut clippy = workspace.cargo();
        clippy.args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--",
            "-D",
            "warnings",
        ]);
        tally.add(run.check("clippy", clippy.env("COVE_ASSETS", &assets)));
        tally.add(run.bindings());
    }
    tally.add(run.rust_tests()?);

    Ok(run_ended(start, &tally))
}

/// Says how long it took and what came of it.
fn run_ended(start: Instant, tally: &Tally) -> ExitCode {
    let seconds = start.elapsed().as_secs();
    println!("\ntook {} min {} s", seconds / 60, seconds % 60);
    print!("{}", tally.last_words());
    if tally.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

struct Run<'a> {
    workspace: &'a Workspace,
    filter: Option<&'a str>,
    assets: &'a Path,
    scratch: tempfile::TempDir,
}

impl Run<'_> {
    /// Runs a tool that passes or fails as a whole.
    #[expect(clippy::unused_self, reason = "a step like the others")]
    fn check(&self, name: &str, command: &mut Command) -> Tally {
        say(name);
        Tally::check(name, run(command))
    }

    fn ui_tests(&self) -> Tally {
        say("UI tests");
        let report = self.scratch.path().join("vitest.json");
        let mut npm = self.workspace.npm();
        npm.args([
            "run",
            "--silent",
            "test",
            "--",
            "--reporter=default",
            "--reporter=json",
        ]);
        npm.arg(format!("--outputFile.json={}", report.display()));
        if let Some(filter) = self.filter {
            npm.args(["--testNamePattern", filter, "--passWithNoTests"]);
        }
        let outcome = run(&mut npm);
        let tally = fs::read_to_string(&report)
            .context("the UI tests left no report")
            .and_then(|report| from_vitest(&report));
        match (tally, outcome) {
            (Ok(mut tally), _) if self.filter.is_some() => {
                // What the filter left out was not asked for.
                tally.skipped = 0;
                tally.skips.clear();
                tally
            }
            // An error outside of any test fails the run and no test.
            (Ok(mut tally), Err(error)) if tally.failed == 0 => {
                tally.add(Tally::failure(format!("UI tests: {error:#}")));
                tally
            }
            (Ok(tally), _) => tally,
            (Err(error), _) => Tally::failure(format!("UI tests: {error:#}")),
        }
    }

    /// Generates the TypeScript bindings anew and compares them with those in the clone, both ways.
    fn bindings(&self) -> Tally {
        let name = "bindings";
        say(name);
        let made = self.scratch.path().join(name);
        let outcome = (|| {
            fs::create_dir_all(&made).context("failed to make a folder")?;
            let mut cargo = self.workspace.cargo();
            cargo.args([
                "test",
                "--quiet",
                "--workspace",
                "--all-features",
                "--lib",
                "export_bindings",
            ]);
            cargo
                .env("TS_RS_EXPORT_DIR", &made)
                .env("COVE_ASSETS", self.assets);
            run(&mut cargo)?;
            compare(
                &texts(&self.workspace.ui().join("src/bindings"))?,
                &texts(&made)?,
            )
        })();
        Tally::check(name, outcome)
    }

    fn rust_tests(&self) -> Result<Tally> {
        say("test engine and registries");
        let testbed = match Engine::cannot_start() {
            None => match Testbed::start() {
                Ok(testbed) => Some(testbed),
                Err(error) => return Ok(Tally::failure(format!("test engine: {error:#}"))),
            },
            Some(_) => None,
        };
        let environment = testbed
            .as_ref()
            .map(Testbed::environment)
            .unwrap_or_default();

        say("Rust tests");
        let mut tally = self.nextest("Rust tests", "not binary(window)", &environment)?;
        say("window tests");
        tally.add(match (Window::cannot_open(), Engine::cannot_start()) {
            (Some(reason), _) | (None, Some(reason)) => {
                Tally::skip(format!("window tests: {reason}"))
            }
            (None, None) => self.nextest("window tests", "binary(window)", &environment)?,
        });
        Ok(tally)
    }

    /// Runs the tests that this nextest expression selects.
    ///
    /// Every run selects the same packages and features, so that nothing is compiled twice; the app itself is built
    /// along, as the window tests' own program.
    fn nextest(&self, name: &str, select: &str, environment: &[(&str, String)]) -> Result<Tally> {
        let skips = self
            .scratch
            .path()
            .join(format!("{}.skips", name.replace(' ', "-")));
        let bindings = self.scratch.path().join("unused-bindings");
        let mut cargo = self.workspace.cargo();
        cargo.args([
            "nextest",
            "run",
            "--workspace",
            "--all-features",
            "--no-fail-fast",
        ]);
        cargo.args([
            "--color",
            "never",
            "--no-tests",
            "pass",
            "--filterset",
            select,
        ]);
        cargo.args(self.filter);
        cargo.envs(environment.iter().map(|(name, value)| (name, value)));
        cargo.env("COVE_ASSETS", self.assets).env(SKIPS, &skips);
        cargo.env(BINARY, self.workspace.program("debug", "cove"));
        // The tests that generate bindings must not touch the clone; the check above has compared them.
        cargo.env("TS_RS_EXPORT_DIR", bindings);
        // Transcripts are compared, and never written by a test run.
        cargo.env("INSTA_UPDATE", "no");
        let printed = run_and_read(&mut cargo)?;
        let skips = fs::read_to_string(skips).unwrap_or_default();
        Ok(from_nextest(&printed, &skips)
            .unwrap_or_else(|error| Tally::failure(format!("{name}: {error:#}"))))
    }
}

/// The app does not compile without a built UI; a failed UI build should not hide what else there is to say.
fn ensure_some_ui(workspace: &Workspace) -> Result<()> {
    let folder = workspace.ui().join("dist");
    let page = folder.join("index.html");
    if !page.exists() {
        fs::create_dir_all(&folder).context("failed to make `ui/dist`")?;
        fs::write(page, "<!doctype html>").context("failed to write `ui/dist`")?;
    }
    Ok(())
}

/// Runs a command to its end and returns its standard error, which is shown meanwhile.
fn run_and_read(command: &mut Command) -> Result<String> {
    let mut child = command
        .stderr(Stdio::piped())
        .spawn()
        .context("failed to run `cargo`")?;
    let mut printed = Vec::new();
    if let Some(mut stderr) = child.stderr.take() {
        let mut buffer = [0; 8192];
        loop {
            let count = stderr
                .read(&mut buffer)
                .context("failed to read what `cargo` prints")?;
            let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
                break;
            };
            std::io::stderr()
                .write_all(bytes)
                .context("failed to print")?;
            printed.extend_from_slice(bytes);
        }
    }
    child.wait().context("failed to wait for `cargo`")?;
    Ok(String::from_utf8_lossy(&printed).into_owned())
}

fn texts(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut texts = BTreeMap::new();
    let failed = || format!("failed to read `{}`", folder.display());
    for entry in fs::read_dir(folder).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            texts.extend(
                self::texts(&path)?
                    .into_iter()
                    .map(|(inner, text)| (format!("{name}/{inner}"), text)),
            );
        } else if path.extension().is_some_and(|extension| extension == "ts") {
            let text = fs::read_to_string(&path).with_context(failed)?;
            texts.insert(name, text.replace("\r\n", "\n"));
        }
    }
    Ok(texts)
}

fn compare(committed: &BTreeMap<String, String>, made: &BTreeMap<String, String>) -> Result<()> {
    let mut problems = Vec::new();
    for (name, text) in made {
        match committed.get(name) {
            None => problems.push(format!("`{name}` is missing")),
            Some(committed) if committed != text => {
                problems.push(format!("`{name}` is out of date"));
            }
            Some(_) => {}
        }
    }
    problems.extend(
        committed
            .keys()
            .filter(|name| !made.contains_key(*name))
            .map(|name| format!("`{name}` has no type any more")),
    );
    if !problems.is_empty() {
        bail!(
            "{}; `cargo test export_bindings` writes `ui/src/bindings` anew",
            problems.join(", ")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bindings_are_compared_both_ways() {
        let files = |files: &[(&str, &str)]| {
            files
                .iter()
                .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        let committed = files(&[("A.ts", "1"), ("B.ts", "1"), ("C.ts", "1")]);
        assert!(compare(&committed, &committed).is_ok());
        let said = compare(
            &committed,
            &files(&[("A.ts", "1"), ("B.ts", "2"), ("D.ts", "1")]),
        )
        .unwrap_err()
        .to_string();
        for problem in [
            "`B.ts` is out of date",
            "`C.ts` has no type any more",
            "`D.ts` is missing",
        ] {
            assert!(said.contains(problem), "{said}");
        }
        assert!(!said.contains("A.ts"), "{said}");
    }
}
