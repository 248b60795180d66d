//! One layer of a pull: the steps that the engine tells of it, and the bytes that they stand for.

use std::time::Duration;

use crate::estimate::as_f64;
use crate::layer::LayerStep;

/// Share of a layer's work that its download is; the rest is extraction.
const DOWNLOAD_SHARE: f64 = 0.7;
/// Engines and registries name a layer by the first digits of its digest, this many.
const ID_DIGITS: usize = 12;

/// What is known of a layer.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    /// As the engine names it in this pull.
    pub(super) id: String,
    /// Bytes to download, once known.
    pub(super) total: Option<u64>,
    /// Bytes that have arrived.
    pub(super) downloaded: u64,
    /// The engine has said that all bytes are there, in a figure that it also shows when a
    /// connection is cut; only its next word on the layer tells which.
    claims_all: bool,
    /// Whether a download of it has failed and begun anew.
    retried: bool,
    /// A download that goes on after that may count the rest only: the bytes before it.
    resumed_from: u64,
    /// Share that is extracted, 0 to 1.
    pub(super) extracted: f64,
    pub(super) stage: Stage,
    /// Time since the pull began at which its last byte arrived; zero until then.
    pub(super) downloaded_at: Duration,
    /// The same for the end of its extraction.
    pub(super) done_at: Duration,
}

/// How far a layer is; later stages are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(super) enum Stage {
    Waiting,
    Downloading,
    Downloaded,
    Extracting,
    Done,
    /// It was on the engine before.
    Existing,
}

impl Layer {
    /// Returns a layer that was announced, with its size where that is known already.
    pub(super) fn announced(id: &str, total: Option<u64>) -> Self {
        Self {
            id: id.to_owned(),
            total,
            downloaded: 0,
            claims_all: false,
            retried: false,
            resumed_from: 0,
            extracted: 0.0,
            stage: Stage::Waiting,
            downloaded_at: Duration::ZERO,
            done_at: Duration::ZERO,
        }
    }

    /// Takes a step that the engine has told.
    pub(super) fn step(&mut self, step: LayerStep, at: Duration) {
        match step {
            // What an engine says when it has nothing to say.
            LayerStep::Announced
            | LayerStep::Downloading {
                current: 0,
                total: None,
            } => {}
            LayerStep::Downloading { current, total } => {
                match (total, self.total) {
                    (Some(left), Some(whole)) if self.retried && left < whole => {
                        self.resumed_from = whole - left;
                    }
                    (total, _) => {
                        self.resumed_from = 0;
                        self.learn_total(total);
                    }
                }
                self.claims_all = total.is_some_and(|total| current >= total);
                if !self.claims_all {
                    self.downloaded = self.resumed_from + current;
                }
                self.stage = Stage::Downloading;
            }
            LayerStep::Retrying => {
                // What it has kept, it says when it goes on.
                self.retried = true;
                self.claims_all = false;
                self.stage = Stage::Downloading;
            }
            LayerStep::Downloaded => self.complete_download(at),
            LayerStep::Extracting { current, total } => {
                if self.stage == Stage::Existing {
                    // Its bytes were there, and only they.
                    self.total = Some(0);
                }
                // Docker counts the same compressed bytes again, so a tiny layer that never said
                // "Downloading" says its size here.
                self.learn_total(total);
                self.complete_download(at);
                self.stage = Stage::Extracting;
                if let Some(total) = total {
                    self.extracted = (as_f64(current) / as_f64(total)).min(1.0);
                }
            }
            LayerStep::Done => {
                if self.stage == Stage::Existing {
                    return;
                }
                self.complete_download(at);
                self.extracted = 1.0;
                self.done_at = at;
                self.stage = Stage::Done;
            }
            LayerStep::Existing => self.stage = Stage::Existing,
        }
    }

    /// Returns the bytes that are there. An engine may say a layer's size only when it has it.
    pub(super) fn arrived(&self) -> u64 {
        match self.total {
            Some(total) if self.stage > Stage::Downloading => total,
            _ => self.downloaded,
        }
    }

    fn complete_download(&mut self, at: Duration) {
        if self.stage < Stage::Downloaded {
            self.stage = Stage::Downloaded;
            self.downloaded_at = at;
            let total = self.total.unwrap_or(self.downloaded);
            self.learn_total(Some(total).filter(|total| *total > 0));
            self.downloaded = total;
        }
    }

    fn learn_total(&mut self, total: Option<u64>) {
        self.total = total.or(self.total);
    }

    /// Returns the bytes that came over the line between two states. A layer that is suddenly there
    /// came from elsewhere: it says nothing of the line.
    pub(super) fn arrived_since(&self, before: &Self) -> u64 {
        let was_awaited = before.stage == Stage::Downloading || self.stage == Stage::Downloading;
        if was_awaited {
            self.downloaded.saturating_sub(before.downloaded)
        } else {
            0
        }
    }

    /// Returns how much of its work is done, 0 to 1.
    pub(super) fn share_done(&self) -> f64 {
        let downloaded = match self.stage {
            Stage::Downloaded | Stage::Extracting | Stage::Done | Stage::Existing => 1.0,
            Stage::Waiting | Stage::Downloading => self.total.map_or(0.0, |total| {
                (as_f64(self.downloaded) / as_f64(total.max(1))).min(1.0)
            }),
        };
        DOWNLOAD_SHARE * downloaded + (1.0 - DOWNLOAD_SHARE) * self.extracted
    }

    /// Returns whether anything has moved between two states.
    pub(super) fn differs(&self, other: &Self) -> bool {
        self.downloaded != other.downloaded
            || self.claims_all != other.claims_all
            || self.stage != other.stage
            || (self.extracted - other.extracted).abs() > f64::EPSILON
    }
}

/// Returns a layer's name as engines shorten it.
pub(super) fn layer_id(digest: &str) -> String {
    let hex = digest.rsplit(':').next().unwrap_or(digest);
    hex.chars().take(ID_DIGITS).collect()
}
