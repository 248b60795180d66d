//! What an estimate costs: time of the processor, beside the time of the pull that it is about.

use std::time::{Duration, Instant};

use crate::retelling;
use crate::trace::{Link, Trace};

/// Rounds that one measurement is the mean of.
const ROUNDS: u32 = 20;

/// What estimating a run costs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// For all messages and answers of the run.
    pub(crate) work: Duration,
    /// The run's own length.
    pub(crate) pull: Duration,
}

impl Cost {
    /// Returns the share of one core that it takes.
    pub(crate) fn share(self) -> f64 {
        self.work.as_secs_f64() / self.pull.as_secs_f64()
    }
}

/// Returns the cost in the run over the free link; `None` when there is no such run.
pub(crate) fn of_fastest(traces: &[Trace]) -> Option<Cost> {
    let trace = traces.iter().find(|trace| trace.link == Link::Free)?;
    let history = cove_core::estimate::History::default();
    let begin = Instant::now();
    for _ in 0..ROUNDS {
        std::hint::black_box(retelling::retell(trace, &history));
    }
    Some(Cost {
        work: begin.elapsed() / ROUNDS,
        pull: Duration::from_secs_f64(trace.total_ms / 1e3),
    })
}
