//! Measures how good the remaining time is that Cove tells, on real pulls: six images over four kinds of link, each
//! twice, beside what simpler formulas would have told from the same messages.
//!
//! Run by `cargo xtask bench eta`. The runs are made by `runs`, kept as `trace`s, and judged by `evaluation` alone, so
//! that recorded traces give the same figures again.
//!
//! With `--simulated` the pulls are made in virtual time instead, by the hundred, and `study` compares Cove with a `perfect`
//! forecaster; `--calibrate` prints the table of `estimate/calibration` as it comes out of such pulls over other lines.

mod cost;
mod dice;
mod evaluation;
mod images;
mod lines;
mod perfect;
mod plot;
mod predictors;
mod recording;
mod report;
mod retelling;
mod runs;
mod simulated;
mod study;
mod trace;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use cove_core::estimate::History;

use crate::lines::Population;
use crate::runs::Extent;
use crate::trace::{Link, Pass, Trace};

/// What is to be done.
struct Arguments {
    extent: Extent,
    /// Where the table's companions go.
    out: PathBuf,
    /// Where each run is written.
    record: Option<PathBuf>,
    /// Where runs are read from instead of being made.
    from: Option<PathBuf>,
    /// Whether what was told then gives way to what would be told now.
    retell: bool,
    work: Work,
}

/// Which kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Judging runs that were made or recorded.
    Judge,
    /// Judging simulated ones.
    Simulate,
    /// Finding the factors of bounds.
    Calibrate,
}

/// Lines of each kind that are simulated.
const SIMULATED_LINES: usize = 60;
const CALIBRATION_LINES: usize = 50;

#[expect(clippy::print_stdout, reason = "a benchmark's result is its output")]
fn main() -> Result<()> {
    let arguments = read_arguments(std::env::args().skip(1))?;
    match arguments.work {
        Work::Judge => {}
        Work::Simulate => {
            let judged = study::study(&Population::HELD_OUT, SIMULATED_LINES, "bench");
            print!("{}", study::table(&judged));
            return Ok(());
        }
        Work::Calibrate => {
            for factors in study::calibrate(&Population::TUNING, CALIBRATION_LINES, "calibration") {
                println!("    {:?},", factors.unwrap_or((1.0, 1.0)));
            }
            return Ok(());
        }
    }
    let mut traces = match &arguments.from {
        Some(folder) => Trace::read_all(folder)?,
        None => make(&arguments)?,
    };
    if arguments.retell {
        retell(&mut traces);
    }
    let scores = evaluation::evaluate(&traces);
    print!("{}", report::table(&scores, cost::of_fastest(&traces)));
    fs::create_dir_all(&arguments.out)
        .with_context(|| format!("failed to make `{}`", arguments.out.display()))?;
    for (name, text) in [
        ("eta.csv", report::csv(&scores)),
        ("eta.svg", plot::svg(&scores)),
    ] {
        let path = arguments.out.join(name);
        fs::write(&path, text).with_context(|| format!("failed to write `{}`", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

fn read_arguments(mut words: impl Iterator<Item = String>) -> Result<Arguments> {
    let mut arguments = Arguments {
        extent: Extent::Full,
        out: PathBuf::from("."),
        record: None,
        from: None,
        retell: false,
        work: Work::Judge,
    };
    while let Some(word) = words.next() {
        let mut folder = || {
            let folder = words.next().map(PathBuf::from);
            folder.with_context(|| format!("`{word}` needs a folder"))
        };
        match word.as_str() {
            "--simulated" => arguments.work = Work::Simulate,
            "--calibrate" => arguments.work = Work::Calibrate,
            "--retell" => arguments.retell = true,
            "--quick" => arguments.extent = Extent::Quick,
            "--out" => arguments.out = folder()?,
            "--record" => arguments.record = Some(folder()?),
            "--from" => arguments.from = Some(folder()?),
            _ => bail!("no such argument: `{word}`"),
        }
    }
    Ok(arguments)
}

/// Has the present estimator tell all runs again, with the histories that they would have had.
fn retell(traces: &mut [Trace]) {
    let mut learned: BTreeMap<Link, History> = BTreeMap::new();
    for trace in traces {
        let learned = learned.entry(trace.link).or_default();
        let history = match trace.pass {
            Pass::FirstRun => History::default(),
            Pass::WithHistory => learned.clone(),
        };
        let (events, sample) = retelling::retell(trace, &history);
        retelling::learn(learned, trace, sample);
        trace.events = events;
    }
}

#[expect(clippy::print_stderr, reason = "ten minutes are long without a word")]
fn make(arguments: &Arguments) -> Result<Vec<Trace>> {
    if let Some(folder) = &arguments.record {
        fs::create_dir_all(folder)
            .with_context(|| format!("failed to make `{}`", folder.display()))?;
    }
    let mut traces = Vec::new();
    runs::make(arguments.extent, |trace| {
        eprintln!(
            "{:8} {:12} {:8} {:5.1} s, {} messages, {} events",
            trace.link.name(),
            trace.pass.name(),
            trace.image,
            trace.total_ms / 1e3,
            trace.messages.len(),
            trace.events.len()
        );
        if let Some(folder) = &arguments.record {
            trace.write(folder)?;
        }
        traces.push(trace);
        Ok(())
    })?;
    Ok(traces)
}
