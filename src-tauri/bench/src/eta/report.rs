//! The figures of all runs as a table for people, with the goal beside each, and as lines for a spreadsheet.

use std::fmt::Write as _;

use crate::cost::Cost;
use crate::evaluation::{CHECKPOINTS, PredictorScore, RunScore, mean, median};
use crate::predictors::Predictor;
use crate::trace::{Link, Pass};

/// Median errors that are good enough, at 25, 50 and 75 % of the run.
const ERROR_GOALS: [(Group, Pass, [Option<f64>; 3]); 4] = [
    (
        Group::Steady,
        Pass::FirstRun,
        [Some(0.25), Some(0.15), Some(0.10)],
    ),
    (
        Group::Steady,
        Pass::WithHistory,
        [Some(0.10), Some(0.07), Some(0.05)],
    ),
    (Group::Variable, Pass::FirstRun, [Some(0.40), None, None]),
    (Group::Variable, Pass::WithHistory, [Some(0.40), None, None]),
];
/// Cove's mean error over all runs,
const MEAN_GOAL: f64 = 0.10;
/// and as a share of the best baseline's.
const RATIO_GOAL: f64 = 0.5;
/// A range is meant to hold the truth eight times in ten; both too seldom and too often is a wrong width.
const COVERAGE_GOAL: (f64, f64) = (0.75, 0.88);
/// Rises of the ETA on a steady link, per run.
const JUMPS_GOAL: usize = 1;
const FROZEN_GOAL_MS: f64 = 3_000.0;
const FIRST_EVENT_GOAL_MS: f64 = 100.0;
const BUSIEST_SECOND_GOAL: usize = 10;
/// Share of a processor's core during the fastest pull.
const COST_GOAL: f64 = 0.01;

/// Links that are judged together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    Steady,
    Variable,
}

impl Group {
    const fn of(link: Link) -> Self {
        match link {
            Link::Steady => Self::Steady,
            Link::Ramping | Link::Bursty | Link::Stalling | Link::Free => Self::Variable,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Variable => "variable",
        }
    }
}

/// Returns the table.
pub(crate) fn table(scores: &[RunScore], cost: Option<Cost>) -> String {
    let mut table = Table::default();
    table.line(&format!(
        "{} runs of {:.1} to {:.1} s",
        scores.len(),
        scores
            .iter()
            .map(|run| run.total_ms)
            .fold(f64::MAX, f64::min)
            / 1e3,
        scores.iter().map(|run| run.total_ms).fold(0.0, f64::max) / 1e3,
    ));
    checkpoints(&mut table, scores);
    mean_errors(&mut table, scores);
    told(&mut table, scores);
    if let Some(cost) = cost {
        table.row(
            &format!(
                "Cost of estimation in a pull of {:.1} s, share of a core",
                cost.pull.as_secs_f64()
            ),
            &format!("{:.3} %", cost.share() * 100.0),
            &format!("< {:.0} %", COST_GOAL * 100.0),
            Some(cost.share() < COST_GOAL),
        );
    }
    table.text
}

/// `|predicted whole − whole| / whole`, the median over runs.
fn checkpoints(table: &mut Table, scores: &[RunScore]) {
    for (group, pass, goals) in ERROR_GOALS {
        let runs: Vec<_> = scores
            .iter()
            .filter(|run| Group::of(run.link) == group && run.pass == pass)
            .collect();
        if runs.is_empty() {
            continue;
        }
        table.title(&format!(
            "Median error of the predicted whole: {} links, {}",
            group.name(),
            pass.name().replace('_', " ")
        ));
        for (index, (share, goal)) in CHECKPOINTS.into_iter().zip(goals).enumerate() {
            let errors = |predictor: Predictor| -> Vec<f64> {
                let scores = runs.iter().filter_map(|run| run.of(predictor));
                scores
                    .filter_map(|score| score.checkpoints.get(index).copied().flatten())
                    .collect()
            };
            let cove = errors(Predictor::Cove);
            let others = Predictor::BASELINES
                .map(|baseline| {
                    format!("{} {}", baseline.name(), percent(median(errors(baseline))))
                })
                .join(", ");
            let value = median(cove.iter().copied());
            table.row(
                &format!(
                    "at {:.0} % (answered {} of {})",
                    share * 100.0,
                    cove.len(),
                    runs.len()
                ),
                &percent(value),
                &goal.map_or(String::new(), |goal| format!("≤ {}", percent(Some(goal)))),
                goal.map(|goal| value.is_some_and(|value| value <= goal)),
            );
            table.line(&format!("      {others}"));
        }
    }
}

/// The error at any time, the mean over time and runs.
fn mean_errors(table: &mut Table, scores: &[RunScore]) {
    table.title("Mean error at any time, as a share of the run: while Cove answered | always, no answer counting as 100 %");
    let cells: Vec<(&str, Option<Group>, Option<Pass>)> = vec![
        ("all runs", None, None),
        (
            "steady, first run",
            Some(Group::Steady),
            Some(Pass::FirstRun),
        ),
        (
            "steady, with history",
            Some(Group::Steady),
            Some(Pass::WithHistory),
        ),
        (
            "variable, first run",
            Some(Group::Variable),
            Some(Pass::FirstRun),
        ),
        (
            "variable, with history",
            Some(Group::Variable),
            Some(Pass::WithHistory),
        ),
    ];
    for (name, group, pass) in cells {
        let runs: Vec<_> = scores
            .iter()
            .filter(|run| group.is_none_or(|group| Group::of(run.link) == group))
            .filter(|run| pass.is_none_or(|pass| run.pass == pass))
            .collect();
        if runs.is_empty() {
            continue;
        }
        table.line(&format!("  {name}"));
        let errors = Predictor::ALL.map(|predictor| Errors::of(predictor, &runs));
        let is_all = group.is_none() && pass.is_none();
        for errors in &errors {
            let judged = is_all && errors.predictor == Predictor::Cove;
            table.row(
                &format!(
                    "  {} (answered {})",
                    errors.predictor.name(),
                    percent(errors.answered)
                ),
                &format!("{} | {}", percent(errors.fair), percent(errors.strict)),
                &if judged {
                    format!("≤ {}", percent(Some(MEAN_GOAL)))
                } else {
                    String::new()
                },
                judged.then(|| errors.fair.is_some_and(|error| error <= MEAN_GOAL)),
            );
        }
        let ratio = |pick: fn(&Errors) -> Option<f64>| {
            let least = |is_cove: bool| {
                let errors = errors.iter();
                let errors =
                    errors.filter(|errors| (errors.predictor == Predictor::Cove) == is_cove);
                errors.filter_map(pick).min_by(f64::total_cmp)
            };
            Some(least(true)? / least(false)?)
        };
        let (fair, strict) = (ratio(|errors| errors.fair), ratio(|errors| errors.strict));
        let times =
            |ratio: Option<f64>| ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
        table.row(
            "  Cove ÷ the best other",
            &format!("{} | {}", times(fair), times(strict)),
            &if is_all {
                format!("≤ {RATIO_GOAL:.2}")
            } else {
                String::new()
            },
            is_all.then(|| fair.is_some_and(|ratio| ratio <= RATIO_GOAL)),
        );
    }
}

/// The mean figures of one predictor over some runs.
struct Errors {
    predictor: Predictor,
    fair: Option<f64>,
    strict: Option<f64>,
    answered: Option<f64>,
}

impl Errors {
    fn of(predictor: Predictor, runs: &[&RunScore]) -> Self {
        let scores = || runs.iter().filter_map(|run| run.of(predictor));
        Self {
            predictor,
            fair: mean(scores().filter_map(|score| score.error)),
            strict: mean(scores().map(|score| score.strict_error)),
            answered: mean(scores().map(|score| score.answered)),
        }
    }
}

/// What is told, apart from how right it is.
fn told(table: &mut Table, scores: &[RunScore]) {
    table.title("What is told");
    let answered = mean(
        scores
            .iter()
            .filter_map(|run| Some(run.of(Predictor::Cove)?.answered)),
    );
    table.row(
        "Share of the time with an answer",
        &percent(answered),
        "",
        None,
    );
    let count = |pick: fn(&RunScore) -> usize| scores.iter().map(pick).sum::<usize>();
    let mut ranges = |of: &str, link: Option<Link>| {
        let runs = scores.iter();
        let runs = runs.filter(|run| link.is_none_or(|link| run.link == link));
        let (ranges, right) = runs.fold((0, 0), |(ranges, right), run| {
            (ranges + run.told.ranges, right + run.told.ranges_right)
        });
        let coverage = (ranges > 0).then(|| as_f64(right) / as_f64(ranges));
        let (low, high) = COVERAGE_GOAL;
        table.row(
            &format!("{of} ({ranges} ranges)"),
            &percent(coverage),
            &format!("{} to {}", percent(Some(low)), percent(Some(high))),
            Some(coverage.is_some_and(|share| (low..=high).contains(&share))),
        );
    };
    ranges("True remaining time within P10–P90", None);
    ranges("  on steady lines", Some(Link::Steady));
    ranges("  on ramping lines", Some(Link::Ramping));
    ranges("  on bursty lines", Some(Link::Bursty));
    ranges("  on stalling lines", Some(Link::Stalling));
    let regressions = count(|run| run.told.regressions);
    table.row(
        "Falls of the percent",
        &regressions.to_string(),
        "0",
        Some(regressions == 0),
    );
    let steady = || scores.iter().filter(|run| run.link == Link::Steady);
    let most = steady().map(|run| run.told.jumps).max().unwrap_or_default();
    table.row(
        "Most upward jumps of the ETA in a steady run",
        &most.to_string(),
        &format!("≤ {JUMPS_GOAL}"),
        Some(most <= JUMPS_GOAL),
    );
    let longest = |pick: fn(&RunScore) -> f64| scores.iter().map(pick).fold(0.0, f64::max);
    let frozen = longest(|run| run.told.frozen_ms);
    table.row(
        "Longest frozen display without a stall told, s",
        &format!("{:.2}", frozen / 1e3),
        &format!("< {:.0}", FROZEN_GOAL_MS / 1e3),
        Some(frozen < FROZEN_GOAL_MS),
    );
    let first = longest(|run| run.told.first_event_ms);
    table.row(
        "Longest time from the press to the first event, ms",
        &format!("{first:.1}"),
        &format!("< {FIRST_EVENT_GOAL_MS:.0}"),
        Some(first < FIRST_EVENT_GOAL_MS),
    );
    let busiest = scores
        .iter()
        .map(|run| run.told.busiest_second)
        .max()
        .unwrap_or_default();
    table.row(
        "Most progress events in any one second",
        &busiest.to_string(),
        &format!("≤ {BUSIEST_SECOND_GOAL}"),
        Some(busiest <= BUSIEST_SECOND_GOAL),
    );
}

impl RunScore {
    fn of(&self, predictor: Predictor) -> Option<&PredictorScore> {
        let mut scores = self.predictors.iter();
        scores.find(|score| score.predictor == predictor)
    }
}

/// Returns one line for each run and predictor; errors are shares of the run.
pub(crate) fn csv(scores: &[RunScore]) -> String {
    let mut text = "link,pass,image,total_ms,predictor,error_at_25,error_at_50,error_at_75,mean_error,mean_error_strict,answered\n"
        .to_owned();
    let cell = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.4}"));
    for run in scores {
        for score in &run.predictors {
            let [quarter, half, three_quarters] = score.checkpoints.map(cell);
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{},{},{},{:.1},{},{quarter},{half},{three_quarters},{},{:.4},{:.4}",
                run.link.name(),
                run.pass.name(),
                run.image,
                run.total_ms,
                score.predictor.name(),
                cell(score.error),
                score.strict_error,
                score.answered,
            );
        }
    }
    text
}

#[derive(Default)]
struct Table {
    text: String,
}

impl Table {
    fn title(&mut self, title: &str) {
        self.line("");
        self.line(title);
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    fn row(&mut self, name: &str, value: &str, goal: &str, is_met: Option<bool>) {
        let verdict = match is_met {
            Some(true) => "met",
            Some(false) => "NOT met",
            None => "",
        };
        self.line(&format!("  {name:56} {value:>16}   {goal:14} {verdict}"));
    }
}

fn percent(share: Option<f64>) -> String {
    share.map_or("–".to_owned(), |share| format!("{:.1} %", share * 100.0))
}

#[expect(clippy::cast_precision_loss, reason = "a count of events")]
fn as_f64(count: usize) -> f64 {
    count as f64
}
