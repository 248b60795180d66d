//! What was measured, as a table and as JSON.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;

/// All lines, in the order in which they were measured.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Table {
    lines: Vec<Line>,
}

/// One figure.
#[derive(Debug, Serialize)]
struct Line {
    measure: String,
    /// How often it was measured.
    rounds: usize,
    median: f64,
    p99: f64,
    unit: &'static str,
    /// What it is compared with.
    against: Option<String>,
    against_median: Option<f64>,
    /// The median divided by that of what it is compared with.
    ratio: Option<f64>,
    goal: String,
}

impl Table {
    /// Adds how long something took, in milliseconds.
    pub(crate) fn times(&mut self, measure: &str, times: &[Duration], goal: &str) {
        self.add(measure, times, None, goal);
    }

    /// Adds how long something took beside something else.
    pub(crate) fn compared(
        &mut self,
        measure: &str,
        times: &[Duration],
        (against, others): (&str, &[Duration]),
        goal: &str,
    ) {
        self.add(measure, times, Some((against, others)), goal);
    }

    fn add(
        &mut self,
        measure: &str,
        times: &[Duration],
        against: Option<(&str, &[Duration])>,
        goal: &str,
    ) {
        let middle = median(times);
        let other = against.map(|(_, others)| median(others));
        self.push(Line {
            measure: measure.to_owned(),
            rounds: times.len(),
            median: milliseconds(middle),
            p99: milliseconds(nth(times, 99)),
            unit: "ms",
            against: against.map(|(name, _)| name.to_owned()),
            against_median: other.map(milliseconds),
            ratio: other.map(|other| middle.as_secs_f64() / other.as_secs_f64()),
            goal: goal.to_owned(),
        });
    }

    /// Adds one figure that is no time.
    pub(crate) fn figure(&mut self, measure: &str, figure: f64, unit: &'static str, goal: &str) {
        self.push(Line {
            measure: measure.to_owned(),
            rounds: 1,
            median: figure,
            p99: figure,
            unit,
            against: None,
            against_median: None,
            ratio: None,
            goal: goal.to_owned(),
        });
    }

    #[expect(clippy::print_stderr, reason = "a benchmark says how far it is")]
    fn push(&mut self, line: Line) {
        // So that one sees how far it is.
        eprintln!("{}: {:.2} {}", line.measure, line.median, line.unit);
        self.lines.push(line);
    }

    #[expect(clippy::print_stdout, reason = "a benchmark's result is its output")]
    pub(crate) fn print(&self) {
        println!(
            "{:44} {:>6} {:>9} {:>9} {:4} {:>7}  goal",
            "", "rounds", "median", "p99", "", "ratio"
        );
        for line in &self.lines {
            let ratio = line
                .ratio
                .map_or(String::new(), |ratio| format!("{ratio:.2}"));
            let against = line.against.as_ref().zip(line.against_median);
            let against = against.map_or(String::new(), |(name, median)| {
                format!(" ({name}: {median:.2})")
            });
            println!(
                "{:44} {:>6} {:>9.2} {:>9.2} {:4} {ratio:>7}  {}{against}",
                line.measure, line.rounds, line.median, line.p99, line.unit, line.goal
            );
        }
    }

    /// Keeps all as JSON.
    pub(crate) fn keep(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)?;
        let file = folder.join("workspace.json");
        std::fs::write(&file, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("failed to write `{}`", file.display()))
    }
}

fn median(times: &[Duration]) -> Duration {
    nth(times, 50)
}

/// The time than which so many of a hundred are not longer.
fn nth(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    let last = sorted.len().saturating_sub(1);
    let at = (sorted.len() * percent / 100).min(last);
    sorted.get(at).copied().unwrap_or_default()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
