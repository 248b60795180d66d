//! What the user can set, with its limits. Where settings are kept is the shell's business.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// What the user can set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Seconds without any progress after which a run fails; 10 to 86,400.
    pub time_limit_s: u64,
    /// Processors a new container may use, 0.1 to 256; `null` for all.
    pub cpu_limit: Option<f64>,
    /// Mebibytes of memory a new container may use, 16 to 1,048,576; `null` for three quarters of the engine's.
    pub memory_limit_mb: Option<u64>,
    /// Processes a new container may hold, 16 to 1,000,000.
    pub pids_limit: u64,
    /// Seconds that programs have to end by themselves when a session is stopped, 0 to 600.
    pub stop_grace_s: u64,
    /// Minutes after which a session that nobody uses is stopped, 5 to 10,080; `null` for never.
    pub idle_stop_minutes: Option<u64>,
    /// Whether ports that the user's programs listen on are forwarded by themselves.
    pub forward_ports: bool,
}

/// What an engine has, which bounds what can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct EngineBounds {
    /// Its processors; `null` when not known.
    pub processors: Option<u64>,
    /// Its memory in mebibytes; `null` when not known.
    pub memory_mb: Option<u64>,
    /// Mebibytes that a new container may use when no limit is set; `null` for all.
    pub default_memory_mb: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            time_limit_s: 300,
            cpu_limit: None,
            memory_limit_mb: None,
            pids_limit: 4_096,
            stop_grace_s: 10,
            idle_stop_minutes: None,
            forward_ports: true,
        }
    }
}

impl Settings {
    /// Returns the time limit of a run without progress.
    #[must_use]
    pub fn time_limit(&self) -> Duration {
        Duration::from_secs(self.time_limit_s)
    }

    /// Returns how long programs have to end by themselves when a session is stopped.
    #[must_use]
    pub fn stop_grace(&self) -> Duration {
        Duration::from_secs(self.stop_grace_s)
    }

    /// Returns how long a session may be left alone before it is stopped.
    #[must_use]
    pub fn idle_stop(&self) -> Option<Duration> {
        let minutes = self.idle_stop_minutes?;
        Some(Duration::from_secs(minutes.saturating_mul(60)))
    }

    /// Checks every field against its limits.
    ///
    /// # Errors
    /// [`Error::Validation`], naming each field that was refused.
    pub fn check(self) -> Result<Self, Error> {
        let mut problems = BTreeMap::new();
        let mut refuse = |field: &str, problem: &str| {
            problems.insert(field.to_owned(), problem.to_owned());
        };
        if !(10..=86_400).contains(&self.time_limit_s) {
            refuse("time_limit_s", "must be between 10 and 86,400 seconds");
        }
        if self
            .cpu_limit
            .is_some_and(|cpus| !(0.1..=256.0).contains(&cpus))
        {
            refuse("cpu_limit", "must be between 0.1 and 256 processors");
        }
        if self
            .memory_limit_mb
            .is_some_and(|mb| !(16..=1_048_576).contains(&mb))
        {
            refuse("memory_limit_mb", "must be between 16 and 1,048,576 MB");
        }
        if !(16..=1_000_000).contains(&self.pids_limit) {
            refuse("pids_limit", "must be between 16 and 1,000,000 processes");
        }
        if self.stop_grace_s > 600 {
            refuse("stop_grace_s", "must be between 0 and 600 seconds");
        }
        if self
            .idle_stop_minutes
            .is_some_and(|minutes| !(5..=10_080).contains(&minutes))
        {
            refuse("idle_stop_minutes", "must be between 5 and 10,080 minutes");
        }
        if problems.is_empty() {
            Ok(self)
        } else {
            Err(Error::Validation(problems))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_engine_would_take_is_refused_field_by_field() {
        let settings = Settings {
            time_limit_s: 1,
            cpu_limit: Some(f64::NAN),
            memory_limit_mb: Some(1),
            pids_limit: 1,
            stop_grace_s: 601,
            idle_stop_minutes: Some(0),
            forward_ports: true,
        };
        let Err(Error::Validation(fields)) = settings.check() else {
            panic!("accepted {settings:?}");
        };
        let fields: Vec<_> = fields.keys().map(String::as_str).collect();
        assert_eq!(
            fields,
            [
                "cpu_limit",
                "idle_stop_minutes",
                "memory_limit_mb",
                "pids_limit",
                "stop_grace_s",
                "time_limit_s"
            ]
        );
        assert!(Settings::default().check().is_ok());
    }
}
