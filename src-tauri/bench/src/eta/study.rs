//! How good Cove's forecasts are over many simulated pulls, beside a perfect forecaster.
//!
//! Each line is used five times: at first by a Cove that knows nothing, then by one that remembers the runs before. A day's speed
//! is another each time.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cove_core::estimate::{Cell, History, TAILS};

use crate::dice::{Dice, Range};
use crate::evaluation::{CHECKPOINTS, PredictorScore, RunScore, evaluate, mean};
use crate::lines::{Line, Population, as_f64, index_of};
use crate::perfect::{Perfect, Quantiles};
use crate::predictors::Predictor;
use crate::retelling;
use crate::simulated::{Engine, Image, Simulated};
use crate::trace::{Link, Pass};

/// Runs over one line.
const RUNS: usize = 5;
/// A day's speed, as a multiple of the line's own.
const DAY: Range = Range(0.7, 1.4);

/// The least and the most that a bound is moved by.
const FACTORS: (f64, f64) = (0.2, 4.0);
/// Scores of a cell, at least.
const LEAST_SCORES: usize = 200;

/// A run that was judged.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) score: RunScore,
    /// The perfect forecaster's error at each of [`CHECKPOINTS`], as a share of the run.
    pub(crate) perfect: [Option<f64>; 3],
    /// Whether the truth was within its P10 and P90 there.
    pub(crate) perfect_held: [Option<bool>; 3],
}

/// Simulates and judges the runs over so many lines of each kind.
pub(crate) fn study(population: &Population, lines: usize, seed: &str) -> Vec<Judged> {
    let stranger = Perfect::of(population);
    let mut all = Vec::new();
    for link in Link::JUDGED {
        for place in 0..lines {
            let name = format!("{} {seed} {} {place}", population.name, link.name());
            all.extend(judge(population, link, &name, &stranger));
        }
    }
    all
}

/// The runs over one line.
struct Uses {
    line: Line,
    engine: Engine,
    pulls: Vec<Simulated>,
}

/// Simulates the runs over a line that is drawn, and hands over the score of each forecast.
fn use_line(
    population: &Population,
    link: Link,
    dice: &mut Dice,
    name: &str,
    mut scored: Option<retelling::Scored<'_>>,
) -> Uses {
    let usual = Line::draw(population, link, dice);
    let engine = Engine::draw(dice);
    let mut history = History::default();
    let mut pulls = Vec::new();
    for run in 0..RUNS {
        let image = Image::draw(&format!("{name} {run}"), population, &engine, dice);
        let (pass, today) = if run == 0 {
            (Pass::FirstRun, usual)
        } else {
            let speed = usual.speed * dice.log_between(DAY);
            (Pass::WithHistory, Line { speed, ..usual })
        };
        let mut pull = Simulated::pull(&image, &engine, today, link, pass, dice);
        let (events, sample) = retelling::retell_with(&pull.trace, &history, &mut scored);
        retelling::learn(&mut history, &pull.trace, sample);
        pull.trace.events = events;
        pulls.push(pull);
    }
    Uses {
        line: usual,
        engine,
        pulls,
    }
}

fn judge(population: &Population, link: Link, name: &str, stranger: &Perfect) -> Vec<Judged> {
    let mut dice = Dice::of(name);
    let Uses {
        line: usual,
        engine,
        pulls,
    } = use_line(population, link, &mut dice, name, None);
    let traces: Vec<_> = pulls.iter().map(|pull| pull.trace.clone()).collect();
    let day = Range(usual.speed * DAY.0, usual.speed * DAY.1);
    let known = Perfect::of_known(usual, day, engine);
    let scores = evaluate(&traces);
    let judged = pulls.into_iter().zip(scores);
    judged
        .map(|(pull, score)| {
            let perfect = match score.pass {
                Pass::FirstRun => stranger,
                Pass::WithHistory => &known,
            };
            let at = CHECKPOINTS.map(|share| perfect_at(perfect, &pull, share, &mut dice));
            Judged {
                score,
                perfect: at.map(|at| at.map(|(error, _)| error)),
                perfect_held: at.map(|at| at.map(|(_, held)| held)),
            }
        })
        .collect()
}

/// Returns the perfect forecaster's error at a share of the run, and whether the truth was within its bounds.
fn perfect_at(
    perfect: &Perfect,
    pull: &Simulated,
    share: f64,
    dice: &mut Dice,
) -> Option<(f64, bool)> {
    let whole = pull.trace.total_ms / 1e3;
    let before = pull.snapshots.iter();
    let now = before.take_while(|now| now.at <= share * whole).last()?;
    let Quantiles([low, middle, high]) = perfect.forecast(pull, now, dice);
    let truth = whole - now.at;
    Some((
        (middle - truth).abs() / whole,
        (low..=high).contains(&truth),
    ))
}

/// Returns the factors by which bounds hold as often as they should on lines of this population, by [`Cell::place`]; `None` for a
/// cell that hardly came up.
pub(crate) fn calibrate(
    population: &Population,
    lines: usize,
    seed: &str,
) -> Vec<Option<(f64, f64)>> {
    let mut scores: BTreeMap<usize, (Cell, Vec<f64>)> = BTreeMap::new();
    for link in Link::JUDGED {
        for place in 0..lines {
            let name = format!("{} {seed} {} {place}", population.name, link.name());
            let mut hear = |cell: Cell, score| {
                let (_, scores) = scores.entry(cell.place()).or_insert((cell, Vec::new()));
                scores.push(score);
            };
            use_line(
                population,
                link,
                &mut Dice::of(&name),
                &name,
                Some(&mut hear),
            );
        }
    }
    let cells = scores.keys().max().map_or(0, |last| last + 1);
    let factors = |place: usize| {
        let (cell, scores) = scores.get_mut(&place)?;
        if scores.len() < LEAST_SCORES {
            return None;
        }
        scores.sort_by(f64::total_cmp);
        let quantile = |share: f64| scores.get(index_of(share * as_f64(scores.len()))).copied();
        let (lower, upper) = cell.factors();
        let (below, above) = TAILS;
        let rounded = |factor: f64| (100.0 * factor).round() / 100.0;
        let factor = |factor: f64| rounded(factor.clamp(FACTORS.0, FACTORS.1));
        Some((
            factor(-lower * quantile(below)?),
            factor(upper * quantile(1.0 - above)?),
        ))
    };
    (0..cells).map(factors).collect()
}

/// Figures of some judged runs.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    pub(crate) runs: usize,
    /// At each of [`CHECKPOINTS`].
    pub(crate) quarters: [Option<Quarter>; 3],
    /// The share of the perfect forecaster's ranges that held.
    pub(crate) perfect_coverage: Option<f64>,
    /// The share of Cove's ranges that held.
    pub(crate) coverage: Option<f64>,
    /// The mean over runs of Cove's mean error as a share of the run.
    pub(crate) error: Option<f64>,
    /// That as a multiple of the best baseline's.
    pub(crate) ratio: Option<f64>,
    /// The share of the time in which Cove has an answer.
    pub(crate) answered: Option<f64>,
}

/// Mean errors at a share of the run, over the runs in which Cove had an answer there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quarter {
    pub(crate) cove: f64,
    pub(crate) perfect: f64,
}

impl Quarter {
    /// Returns Cove's error as a multiple of the perfect forecaster's.
    pub(crate) fn multiple(self) -> f64 {
        self.cove / self.perfect
    }
}

impl Figures {
    /// Counts these runs together.
    pub(crate) fn of(runs: &[&Judged]) -> Self {
        let quarters = [0, 1, 2].map(|place: usize| {
            let pairs: Vec<(f64, f64)> = runs
                .iter()
                .filter_map(|run| {
                    let cove = run.cove()?.checkpoints.get(place).copied()??;
                    Some((cove, run.perfect.get(place).copied()??))
                })
                .collect();
            Some(Quarter {
                cove: mean(pairs.iter().map(|(cove, _)| *cove))?,
                perfect: mean(pairs.iter().map(|(_, perfect)| *perfect))?,
            })
        });
        let held = runs.iter().flat_map(|run| run.perfect_held);
        let ranges: usize = runs.iter().map(|run| run.score.told.ranges).sum();
        let right: usize = runs.iter().map(|run| run.score.told.ranges_right).sum();
        let error_of = |predictor: Predictor| {
            let scores = runs.iter().flat_map(|run| &run.score.predictors);
            let scores = scores.filter(|score| score.predictor == predictor);
            mean(scores.filter_map(|score| score.error))
        };
        let error = error_of(Predictor::Cove);
        let baselines = Predictor::BASELINES.into_iter().filter_map(error_of);
        let best = baselines.min_by(f64::total_cmp);
        let cove = || runs.iter().filter_map(|run| run.cove());
        Self {
            runs: runs.len(),
            quarters,
            perfect_coverage: mean(held.flatten().map(|held| f64::from(u8::from(held)))),
            coverage: (ranges > 0).then(|| as_f64(right) / as_f64(ranges)),
            error,
            ratio: error.zip(best).map(|(error, best)| error / best),
            answered: mean(cove().map(|score| score.answered)),
        }
    }
}

impl Judged {
    fn cove(&self) -> Option<&PredictorScore> {
        let mut scores = self.score.predictors.iter();
        scores.find(|score| score.predictor == Predictor::Cove)
    }
}

/// Returns the figures by kind of line and pass as a table.
pub(crate) fn table(judged: &[Judged]) -> String {
    let mut text = format!(
        "{:24} {:>5}  {:^26}  {:>8} {:>11} {:>6} {:>11} {:>8}\n",
        "simulated pulls",
        "runs",
        "error ÷ the perfect one's",
        "coverage",
        "(perfect's)",
        "error",
        "÷ baseline",
        "answered"
    );
    let mut row = |name: &str, chosen: &dyn Fn(&Judged) -> bool| {
        let runs: Vec<_> = judged.iter().filter(|run| chosen(run)).collect();
        let figures = Figures::of(&runs);
        let shown =
            |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.2}"));
        let [quarter, half, three_quarters] = figures
            .quarters
            .map(|quarter| shown(quarter.map(Quarter::multiple)));
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{name:24} {:>5}  {quarter:>8} {half:>8} {three_quarters:>8}  {:>8} {:>11} {:>6} {:>11} {:>8}",
            figures.runs,
            shown(figures.coverage),
            shown(figures.perfect_coverage),
            shown(figures.error),
            shown(figures.ratio),
            shown(figures.answered),
        );
    };
    for pass in Pass::ALL {
        for link in Link::JUDGED {
            let name = format!("{}, {}", link.name(), pass.name().replace('_', " "));
            row(&name, &|run| {
                run.score.link == link && run.score.pass == pass
            });
        }
    }
    for pass in Pass::ALL {
        row(&pass.name().replace('_', " "), &|run| {
            run.score.pass == pass
        });
    }
    row("all", &|_| true);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of each kind; each is used five times.
    const LINES: usize = 8;

    #[test]
    fn on_lines_that_nothing_was_tuned_on_forecasts_are_nearly_perfect_and_ranges_hold() {
        let judged = study(&Population::HELD_OUT, LINES, "test");
        let told = table(&judged);
        let all = Figures::of(&judged.iter().collect::<Vec<_>>());
        for quarter in all.quarters {
            let multiple = quarter.unwrap().multiple();
            assert!(multiple <= 1.3, "{multiple}\n{told}");
        }
        let perfect = all.perfect_coverage.unwrap();
        assert!((0.7..0.9).contains(&perfect), "{perfect}\n{told}");
        assert!(all.error.unwrap() <= 0.12, "{told}");
        assert!(all.ratio.unwrap() <= 0.6, "{told}");
        for link in Link::JUDGED {
            let runs = judged.iter().filter(|run| run.score.link == link);
            let coverage = Figures::of(&runs.collect::<Vec<_>>()).coverage.unwrap();
            assert!(
                (0.7..0.93).contains(&coverage),
                "{link:?}: {coverage}\n{told}"
            );
        }
        let falls: usize = judged.iter().map(|run| run.score.told.regressions).sum();
        assert_eq!(falls, 0);
    }

    #[test]
    fn the_same_seed_gives_the_same_pull() {
        let pull = |name: &str| {
            let mut dice = Dice::of(name);
            use_line(&Population::HELD_OUT, Link::Bursty, &mut dice, name, None).pulls
        };
        let messages = |name| {
            pull(name)
                .iter()
                .map(|pull| pull.trace.messages.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(messages("one"), messages("one"));
        assert_ne!(messages("one"), messages("other"));
    }
}
