//! What a container uses at a moment, of what it may use.
//!
//! How an engine measures and words that is `engine/docker/measured.rs`; who looks is `sessions/watching.rs`. When a figure
//! is near its limit, the window decides.

use serde::{Deserialize, Serialize};

/// What a session's container uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct Figures {
    /// Processor time in per cent of one processor, 250 for two and a half; `null` until it can be told, because it is the
    /// difference of two looks.
    pub cpu: Option<f64>,
    /// The most that `cpu` can be: what the session may use, or all that the engine has; `null` when not known.
    pub cpu_limit: Option<f64>,
    /// Bytes of memory, without what the kernel gives back when it is needed (cached files); `null` when not known.
    pub memory: Option<u64>,
    /// Bytes of memory that it may use; `null` when not known.
    pub memory_limit: Option<u64>,
    /// Processes and threads; `null` when not known.
    pub pids: Option<u64>,
    /// The most that there may be; `null` when there is no limit, or when not known.
    pub pids_limit: Option<u64>,
}

/// What a container may use.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ContainerLimits {
    /// Processors; `None` for all.
    pub processors: Option<f64>,
    /// Bytes of memory; `None` for all.
    pub memory_bytes: Option<u64>,
    /// Processes and threads; `None` for any number.
    pub pids: Option<u64>,
}

impl Figures {
    /// Returns the figures with the limits that the container was made with: what is measured does not always say them.
    #[must_use]
    pub fn within(self, limits: &ContainerLimits) -> Self {
        let processors = limits.processors.map(|count| count * 100.0);
        Self {
            cpu_limit: processors.or(self.cpu_limit),
            memory_limit: limits.memory_bytes.or(self.memory_limit),
            pids_limit: limits.pids.or(self.pids_limit),
            ..self
        }
    }
}
