//! Where the time of a run went, against what is usual. The words only; who works them out is
//! `estimate`.

use serde::{Deserialize, Serialize};

use crate::progress::Phase;

/// What a run took, and what runs like it usually take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct TimingReport {
    /// How the run ended.
    pub outcome: RunOutcome,
    /// Milliseconds from the request to the end.
    pub total_ms: u64,
    /// Milliseconds that such a run usually takes; `null` while too little is known.
    pub usual_ms: Option<u64>,
    /// The phases that were begun, in order; the last is the one in which the run ended.
    pub phases: Vec<PhaseTiming>,
    /// The pull, if there was one.
    pub pull: Option<PullTiming>,
    /// One sentence for people: what took longer than usual, or that nothing did.
    pub verdict: String,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    /// The session can be used.
    Ready,
    /// Something went wrong.
    Failed,
    /// The user wanted no more.
    Cancelled,
}

/// What a phase took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct PhaseTiming {
    /// The phase.
    pub phase: Phase,
    /// Milliseconds that it took.
    pub took_ms: u64,
    /// Milliseconds that it usually takes; `null` while too little is known.
    pub usual_ms: Option<u64>,
}

/// What a pull took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct PullTiming {
    /// Whether another session had begun this pull, and this one joined it.
    pub joined: bool,
    /// Layers that were fetched.
    pub layers: u32,
    /// Layers that were on the engine already.
    pub existing_layers: u32,
    /// Bytes downloaded.
    pub downloaded_bytes: u64,
    /// Milliseconds before the first byte arrived: the registry was asked, and the user's right checked.
    pub waiting_ms: u64,
    /// Milliseconds in which bytes were awaited.
    pub download_ms: u64,
    /// Milliseconds in which this many bytes usually arrive; `null` while too little is known.
    pub usual_download_ms: Option<u64>,
    /// Milliseconds in which layers were extracted; at the same time others may have been downloaded.
    pub extract_ms: u64,
    /// Milliseconds that extracting them usually takes; `null` while too little is known.
    pub usual_extract_ms: Option<u64>,
    /// Milliseconds in which nothing moved for longer than three seconds at a time.
    pub stalled_ms: u64,
    /// Bytes per second over the whole download.
    pub bytes_per_second: Option<u64>,
    /// Bytes per second that are usual from this registry.
    pub usual_bytes_per_second: Option<u64>,
}
