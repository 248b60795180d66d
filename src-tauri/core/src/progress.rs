//! How far a run is: its phases, their figures, and what was taken back. The words only; who works
//! them out is `estimate` and `provision`.

use serde::{Deserialize, Serialize};

/// A step of provisioning, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub enum Phase {
    /// Finding an engine that answers, and looking at what already exists.
    Starting,
    /// Making sure that the image is on the engine.
    PullingImage,
    /// Making sure that the session's volume exists.
    CreatingVolume,
    /// Making sure that the session's container exists and holds the agent.
    CreatingContainer,
    /// Starting the container and hearing the agent answer from inside.
    StartingContainer,
    /// The session can be used.
    Ready,
}

impl Phase {
    /// The phases that do work, in order.
    pub const WORKING: [Self; 5] = [
        Self::Starting,
        Self::PullingImage,
        Self::CreatingVolume,
        Self::CreatingContainer,
        Self::StartingContainer,
    ];

    /// Returns the phase's share of the bar: first and last percent.
    #[must_use]
    pub const fn band(self) -> (f64, f64) {
        match self {
            Self::Starting => (0.0, 10.0),
            Self::PullingImage => (10.0, 25.0),
            Self::CreatingVolume => (25.0, 45.0),
            Self::CreatingContainer => (45.0, 70.0),
            Self::StartingContainer => (70.0, 90.0),
            Self::Ready => (100.0, 100.0),
        }
    }

    /// Returns what is going on in this phase, as a message says it.
    #[must_use]
    pub const fn doing(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::PullingImage => "pulling the image",
            Self::CreatingVolume => "creating the volume",
            Self::CreatingContainer => "creating the container",
            Self::StartingContainer => "starting the container",
            Self::Ready => "ready",
        }
    }
}

/// How far a run is. Snapshot and event carry the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct Progress {
    /// 0 to 100; never falls within a run, and is 100 only when ready.
    pub percent: f64,
    /// Milliseconds left to ready over all remaining phases; `null` while there is no honest answer.
    pub eta_ms: Option<u64>,
    /// The same as it is to be shown: how sure it is, or why there is none.
    pub eta: Eta,
    /// Milliseconds that are left at best, nine times in ten; `null` without any forecast.
    pub eta_low_ms: Option<u64>,
    /// Milliseconds that are left at worst, nine times in ten; `null` without any forecast.
    pub eta_high_ms: Option<u64>,
    /// Milliseconds since the run began.
    pub elapsed_ms: u64,
    /// Milliseconds since anything was last heard that counts as progress.
    pub idle_ms: u64,
    /// The phases that are over, with their durations.
    pub finished: Vec<FinishedPhase>,
    /// What the pull shows, during and after it; `null` when nothing was pulled.
    pub pull: Option<PullProgress>,
}

impl Progress {
    /// Returns the figures of a session that has no run.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            percent: 0.0,
            eta_ms: None,
            eta: Eta::Calculating,
            eta_low_ms: None,
            eta_high_ms: None,
            elapsed_ms: 0,
            idle_ms: 0,
            finished: Vec::new(),
            pull: None,
        }
    }
}

/// The time left to ready, as it is to be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Eta {
    /// There is no evidence yet, or it says too little.
    Calculating,
    /// It is about this.
    Point {
        /// Milliseconds.
        ms: u64,
    },
    /// It is between these: eight times in ten.
    Range {
        /// Milliseconds at best.
        low_ms: u64,
        /// Milliseconds at worst.
        high_ms: u64,
    },
    /// Nothing moves, so that nobody knows.
    Stalled {
        /// Milliseconds since anything moved.
        idle_ms: u64,
        /// The layer of the image that is waited for, as the engine names it.
        layer: Option<String>,
    },
}

/// A phase that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct FinishedPhase {
    /// The phase that is over.
    pub phase: Phase,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
}

/// A pull in figures.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct PullProgress {
    /// Share of the pull that is done, download and extraction together; 0 to 1.
    pub fraction: f64,
    /// Bytes downloaded, of the layers that are not on the engine yet.
    pub downloaded_bytes: u64,
    /// Bytes to download, as far as is known.
    pub total_bytes: u64,
    /// Whether every layer's size is known; until then `total_bytes` is a lower bound.
    pub total_is_exact: bool,
    /// Bytes extracted, counted as they were downloaded: at the end it is `total_bytes` again.
    pub extracted_bytes: u64,
    /// Recent download rate in bytes per second; `null` before there is one.
    pub bytes_per_second: Option<u64>,
    /// Layers that are completely on the engine.
    pub layers_done: u32,
    /// Layers of the image, as far as announced.
    pub layers_total: u32,
}

/// Something that was taken back, or could not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct Undone {
    /// As the user reads it: ``Removed container `cove-…` ``, or what could not be undone:
    /// ``Container `cove-…` ``.
    pub what: String,
    /// Why it failed; `null` when it is really gone.
    pub failure: Option<String>,
}
