//! What a container may use: what the user has set, within what the engine has. An engine refuses more processors than it
//! has, and a container without a limit on memory can take the machine with it.

use std::collections::BTreeMap;

use crate::engine::EngineCapacity;
use crate::error::Error;
use crate::settings::{EngineBounds, Settings};

const MEBIBYTE: u64 = 1 << 20;

/// What a container may use.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Limits {
    /// Processors; `None` for all.
    pub(crate) processors: Option<f64>,
    /// Bytes of memory; `None` for all.
    pub(crate) memory_bytes: Option<u64>,
    /// Bytes of memory and swap together; `None` for what the engine makes of it.
    pub(crate) memory_and_swap_bytes: Option<u64>,
    /// What was set and is more than the engine has, for people.
    pub(crate) lowered: Vec<String>,
}

impl Limits {
    /// Returns what a new container may use on an engine.
    pub(crate) fn new(settings: &Settings, capacity: &EngineCapacity) -> Self {
        let bounds = bounds(capacity);
        let mut lowered = Vec::new();
        let processors = settings.cpu_limit.map(|wanted| match bounds.processors {
            Some(most) if wanted > as_processors(most) => {
                lowered.push(format!("{}, all that the engine has", processors(most)));
                as_processors(most)
            }
            Some(_) | None => wanted,
        });
        let memory = match (settings.memory_limit_mb, bounds.memory_mb) {
            (Some(wanted), Some(most)) if wanted > most => {
                lowered.push(format!("{most} MiB of memory, all that the engine has"));
                Some(most)
            }
            (Some(wanted), _) => Some(wanted),
            (None, _) => bounds.default_memory_mb,
        };
        let memory_bytes = memory
            .filter(|_| capacity.limits_memory)
            .map(|mebibytes| mebibytes.saturating_mul(MEBIBYTE));
        Self {
            processors,
            memory_bytes,
            // The same figure: what does not fit is not swapped either, which would only make the whole machine slow.
            memory_and_swap_bytes: memory_bytes.filter(|_| capacity.limits_swap),
            lowered,
        }
    }
}

/// Returns what can be set on an engine.
pub(crate) fn bounds(capacity: &EngineCapacity) -> EngineBounds {
    let memory_mb = capacity.memory_bytes.map(|bytes| bytes / MEBIBYTE);
    EngineBounds {
        processors: capacity.processors,
        memory_mb,
        default_memory_mb: memory_mb
            .map(|mebibytes| mebibytes / 4 * 3)
            .filter(|&mebibytes| capacity.limits_memory && mebibytes > 0),
    }
}

/// Refuses limits that are more than an engine has.
///
/// # Errors
/// [`Error::Validation`], naming each field that was refused.
pub(crate) fn check(settings: &Settings, bounds: &EngineBounds) -> Result<(), Error> {
    let mut problems = BTreeMap::new();
    if let (Some(wanted), Some(most)) = (settings.cpu_limit, bounds.processors)
        && wanted > as_processors(most)
    {
        let problem = format!(
            "must be at most {most}: the engine has {}",
            processors(most)
        );
        problems.insert("cpu_limit".to_owned(), problem);
    }
    if let (Some(wanted), Some(most)) = (settings.memory_limit_mb, bounds.memory_mb)
        && wanted > most
    {
        let problem = format!("must be at most {most}: the engine has {most} MiB");
        problems.insert("memory_limit_mb".to_owned(), problem);
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Error::Validation(problems))
    }
}

fn processors(count: u64) -> String {
    if count == 1 {
        "1 processor".to_owned()
    } else {
        format!("{count} processors")
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "no engine has that many processors"
)]
fn as_processors(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_AND_FOUR: EngineCapacity = EngineCapacity {
        processors: Some(2),
        memory_bytes: Some(4 << 30),
        limits_memory: true,
        limits_swap: true,
    };

    fn set(cpu_limit: Option<f64>, memory_limit_mb: Option<u64>) -> Settings {
        Settings {
            cpu_limit,
            memory_limit_mb,
            ..Settings::default()
        }
    }

    #[test]
    fn memory_is_limited_by_default_and_nothing_is_swapped() {
        let limits = Limits::new(&set(None, None), &TWO_AND_FOUR);
        let three = Some(3 << 30);
        assert_eq!(
            (
                limits.processors,
                limits.memory_bytes,
                limits.memory_and_swap_bytes
            ),
            (None, three, three)
        );
        assert_eq!(limits.lowered, Vec::<String>::new());
    }

    #[test]
    fn limits_beyond_the_engine_s_are_lowered_to_what_it_has_and_that_is_said() {
        let limits = Limits::new(&set(Some(8.0), Some(9_000)), &TWO_AND_FOUR);
        assert_eq!(
            (limits.processors, limits.memory_bytes),
            (Some(2.0), Some(4 << 30))
        );
        let said = [
            "2 processors, all that the engine has",
            "4096 MiB of memory, all that the engine has",
        ];
        assert_eq!(limits.lowered, said);
        let within = Limits::new(&set(Some(1.5), Some(64)), &TWO_AND_FOUR);
        assert_eq!(
            (within.processors, within.memory_bytes),
            (Some(1.5), Some(64 << 20))
        );
        assert_eq!(within.lowered, Vec::<String>::new());
    }

    #[test]
    fn an_engine_is_asked_for_no_limit_that_it_cannot_hold() {
        let cannot = EngineCapacity {
            limits_memory: false,
            ..TWO_AND_FOUR
        };
        let limits = Limits::new(&set(None, Some(64)), &cannot);
        assert_eq!(
            (limits.memory_bytes, limits.memory_and_swap_bytes),
            (None, None)
        );
        let swaps = EngineCapacity {
            limits_swap: false,
            ..TWO_AND_FOUR
        };
        let limits = Limits::new(&set(None, Some(64)), &swaps);
        assert_eq!(
            (limits.memory_bytes, limits.memory_and_swap_bytes),
            (Some(64 << 20), None)
        );
        let unknown = EngineCapacity {
            processors: None,
            memory_bytes: None,
            ..TWO_AND_FOUR
        };
        let limits = Limits::new(&set(Some(8.0), None), &unknown);
        assert_eq!((limits.processors, limits.memory_bytes), (Some(8.0), None));
    }

    #[test]
    fn settings_beyond_the_engine_s_are_refused_in_its_figures() {
        let bounds = bounds(&TWO_AND_FOUR);
        let Err(Error::Validation(fields)) = check(&set(Some(8.0), Some(9_000)), &bounds) else {
            panic!("accepted");
        };
        assert_eq!(
            fields["cpu_limit"],
            "must be at most 2: the engine has 2 processors"
        );
        assert_eq!(
            fields["memory_limit_mb"],
            "must be at most 4096: the engine has 4096 MiB"
        );
        assert!(check(&set(Some(2.0), Some(4_096)), &bounds).is_ok());
    }
}
