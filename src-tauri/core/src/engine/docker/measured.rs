//! What engines measure and tell of themselves: what a container uses, what it may use, and what happened.
//!
//! The formulas are those of the `docker` command, so that Cove and `docker stats` say the same. Where Podman counts something
//! else under the same name, it is reckoned from what it does count.

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::engine::Change;
use crate::error::EngineCommand;
use crate::figures::{ContainerLimits, Figures};

/// Nanoseconds of processor time are compared over no less than this: an engine may look twice within a few
/// milliseconds, and that says nothing.
const SHORTEST_LOOK_NS: i128 = 100_000_000;

/// Reads what a container uses; `None` when the engine measured nothing, as of one that does not run.
pub(super) fn figures(said: &Value, command: EngineCommand) -> Option<Figures> {
    let number = |place: &str| said.pointer(place).and_then(Value::as_u64);
    let memory = memory(said);
    let pids = number("/pids_stats/current");
    if memory.is_none() && pids.is_none() {
        return None;
    }
    Some(Figures {
        cpu: cpu(said, command),
        cpu_limit: processors(said).map(|count| count * 100.0),
        memory,
        memory_limit: number("/memory_stats/limit").filter(is_a_limit),
        pids,
        pids_limit: number("/pids_stats/limit").filter(is_a_limit),
    })
}

/// Reads what a container may use.
pub(super) fn limits(inspected: &Value) -> ContainerLimits {
    let number = |name: &str| {
        let value = inspected.pointer(&format!("/HostConfig/{name}"));
        value.and_then(Value::as_u64).filter(is_a_limit)
    };
    let of_period = || {
        let (quota, period) = (number("CpuQuota")?, number("CpuPeriod")?);
        Some(ratio(quota, period))
    };
    ContainerLimits {
        processors: number("NanoCpus")
            .map(|nano| ratio(nano, 1_000_000_000))
            .or_else(of_period),
        memory_bytes: number("Memory"),
        pids: number("PidsLimit"),
    }
}

/// Reads an event.
pub(super) fn change(event: &Value) -> Change {
    let text = |place: &str| event.pointer(place).and_then(Value::as_str);
    match (text("/Type"), text("/Action"), text("/Actor/ID")) {
        (Some("container"), Some("oom"), Some(container)) => Change::OutOfMemory {
            container: container.to_owned(),
        },
        _ => Change::Objects,
    }
}

/// Returns processor time in per cent of one processor.
///
/// Docker says how much the container and how much the whole machine had done by the last look and by this one; the share
/// times the number of processors is the figure. What Podman calls the machine's is what was done and leaves out what idled,
/// so there the clock has to do.
fn cpu(said: &Value, command: EngineCommand) -> Option<f64> {
    let number = |place: &str| said.pointer(place).and_then(Value::as_u64);
    let used = number("/cpu_stats/cpu_usage/total_usage")?;
    let used_before = number("/precpu_stats/cpu_usage/total_usage")?;
    let used = used.saturating_sub(used_before);
    match command {
        EngineCommand::Docker => {
            // The first look has none before it.
            let before = number("/precpu_stats/system_cpu_usage").filter(|&time| time > 0)?;
            let all = number("/cpu_stats/system_cpu_usage")?.saturating_sub(before);
            if all == 0 {
                return None;
            }
            Some(ratio(used, all) * processors(said)? * 100.0)
        }
        EngineCommand::Podman => {
            let at = |place: &str| {
                let text = said.pointer(place).and_then(Value::as_str)?;
                OffsetDateTime::parse(text, &Rfc3339).ok()
            };
            let elapsed = (at("/read")? - at("/preread")?).whole_nanoseconds();
            if elapsed < SHORTEST_LOOK_NS {
                return None;
            }
            Some(ratio(used, u64::try_from(elapsed).ok()?) * 100.0)
        }
    }
}

/// Returns the number of the machine's processors.
fn processors(said: &Value) -> Option<f64> {
    let online = said
        .pointer("/cpu_stats/online_cpus")
        .and_then(Value::as_u64);
    let each = said
        .pointer("/cpu_stats/cpu_usage/percpu_usage")
        .and_then(Value::as_array);
    let count = online
        .filter(|&count| count > 0)
        .or_else(|| each.and_then(|each| u64::try_from(each.len()).ok()))?;
    (count > 0).then(|| ratio(count, 1))
}

/// Returns the memory that is in use, as `docker stats` does: without the cached files that nothing has looked at lately.
/// The first version of control groups calls those `total_inactive_file`, the second `inactive_file`; Podman says neither.
fn memory(said: &Value) -> Option<u64> {
    let number = |place: &str| said.pointer(place).and_then(Value::as_u64);
    let usage = number("/memory_stats/usage")?;
    let idle = number("/memory_stats/stats/total_inactive_file")
        .or_else(|| number("/memory_stats/stats/inactive_file"));
    Some(match idle {
        Some(idle) if idle < usage => usage - idle,
        Some(_) | None => usage,
    })
}

/// Engines write no limit as 0, or as a number that nobody reaches.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "it filters an `Option`, which passes it so"
)]
const fn is_a_limit(value: &u64) -> bool {
    *value > 0 && *value < 1 << 62
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a figure that is shown needs no more than 52 bits"
)]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn recorded(name: &str) -> Value {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/figures/");
        let text = std::fs::read_to_string(format!("{folder}{name}.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[track_caller]
    fn check(name: &str, command: EngineCommand, expected: Figures) {
        let mut told = figures(&recorded(name), command).unwrap();
        // Compared as it is shown, to a hundredth of a per cent.
        told.cpu = told.cpu.map(|cpu| (cpu * 100.0).round() / 100.0);
        assert_eq!(told, expected, "{name}");
    }

    #[test]
    fn what_engines_measured_is_told_as_docker_stats_tells_it() {
        let of_docker = Figures {
            cpu: Some(100.18),
            cpu_limit: Some(200.0),
            memory: Some(35_909_632 - 2_027_520),
            memory_limit: Some(67_108_864),
            pids: Some(3),
            pids_limit: Some(50),
        };
        check("docker_cgroup_v1", EngineCommand::Docker, of_docker);
        let with_one_before = Figures {
            cpu: None,
            ..of_docker
        };
        let mut first = recorded("docker_cgroup_v1");
        first["precpu_stats"] = json!({ "cpu_usage": { "total_usage": 0 } });
        let mut told = figures(&first, EngineCommand::Docker).unwrap();
        assert_eq!(told, with_one_before, "a first look");
        told = figures(&first, EngineCommand::Podman).unwrap();
        assert!(told.cpu.is_some(), "the clock has both looks");

        let of_docker_v2 = Figures {
            cpu: Some(150.0),
            cpu_limit: Some(400.0),
            memory: Some(25_165_824 - 8_388_608),
            memory_limit: Some(536_870_912),
            pids: Some(12),
            // Docker writes all that the kernel can count where there is no limit.
            pids_limit: None,
        };
        check("docker_cgroup_v2", EngineCommand::Docker, of_docker_v2);
        let of_podman = Figures {
            cpu: Some(99.72),
            cpu_limit: Some(200.0),
            memory: Some(36_134_912),
            memory_limit: Some(67_108_864),
            pids: Some(3),
            pids_limit: None,
        };
        check("podman", EngineCommand::Podman, of_podman);
    }

    #[test]
    fn two_looks_of_podman_within_milliseconds_tell_no_processor_time() {
        let told = figures(&recorded("podman_first"), EngineCommand::Podman).unwrap();
        assert_eq!(told.cpu, None);
        assert!(told.memory.is_some());
    }

    #[test]
    fn a_container_that_does_not_run_has_no_figures_and_nonsense_none_either() {
        for said in [
            json!({ "read": "0001-01-01T00:00:00Z", "memory_stats": {}, "pids_stats": {}, "cpu_stats": { "cpu_usage": { "total_usage": 0 } } }),
            json!(null),
            json!([1]),
            json!({ "memory_stats": { "usage": "much" }, "pids_stats": { "current": -3 } }),
        ] {
            assert_eq!(figures(&said, EngineCommand::Docker), None, "{said}");
            assert_eq!(figures(&said, EngineCommand::Podman), None, "{said}");
        }
        // Counters that went back are no work, and caches beyond the usage are none of it.
        let back = json!({
            "memory_stats": { "usage": 10, "stats": { "inactive_file": 11 } },
            "cpu_stats": { "cpu_usage": { "total_usage": 5 }, "system_cpu_usage": 9, "online_cpus": 1 },
            "precpu_stats": { "cpu_usage": { "total_usage": 7 }, "system_cpu_usage": 3 },
        });
        let told = figures(&back, EngineCommand::Docker).unwrap();
        assert_eq!((told.cpu, told.memory), (Some(0.0), Some(10)));
    }

    #[test]
    fn limits_are_read_as_they_were_set() {
        let set = json!({ "HostConfig": { "NanoCpus": 1_500_000_000_u64, "Memory": 67_108_864, "PidsLimit": 50 } });
        let expected = ContainerLimits {
            processors: Some(1.5),
            memory_bytes: Some(67_108_864),
            pids: Some(50),
        };
        assert_eq!(limits(&set), expected);
        let none = json!({ "HostConfig": { "NanoCpus": 0, "Memory": 0, "PidsLimit": -1 } });
        assert_eq!(limits(&none), ContainerLimits::default());
        assert_eq!(limits(&json!(null)), ContainerLimits::default());
        let quota = json!({ "HostConfig": { "CpuQuota": 50_000, "CpuPeriod": 100_000 } });
        assert_eq!(limits(&quota).processors, Some(0.5));
    }

    #[test]
    fn an_end_for_want_of_memory_is_told_with_its_container_and_all_else_is_a_change() {
        let event = |kind: &str, action: &str| json!({ "Type": kind, "Action": action, "Actor": { "ID": "c" } });
        let container = "c".to_owned();
        assert_eq!(
            change(&event("container", "oom")),
            Change::OutOfMemory { container }
        );
        for other in [
            event("container", "die"),
            event("volume", "oom"),
            json!({ "Type": "container", "Action": "oom" }),
            json!(null),
        ] {
            assert_eq!(change(&other), Change::Objects, "{other}");
        }
    }
}
