//! What the agent costs when nothing happens.

use std::env;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::sleep;

use crate::bench::Bench;
use crate::table::Table;

/// Longer than the app is silent.
const IDLE: Duration = Duration::from_secs(30);

pub(crate) async fn measure(bench: &Bench, table: &mut Table) -> Result<()> {
    let assets = env::var("COVE_ASSETS")?;
    let binary = Path::new(&assets).join(format!("cove-agent-{}", env::consts::ARCH));
    let kilobytes = u32::try_from(fs::metadata(binary)?.len() / 1_000)?;
    table.figure("agent: size", f64::from(kilobytes) / 1e3, "MB", "< 2.5");

    let processes = processes(bench)?;
    let memory: f64 = processes.iter().filter_map(|pid| memory_of(pid)).sum();
    table.figure("agent: idle memory", memory / 1e3, "MB", "< 6");
    let connected = wakes_in_a_second(&processes).await;
    // An app that is connected watches the ports.
    table.figure("agent: wake-ups a second, app connected", connected, "", "");

    // Its engine ends with the bench.
    let left = Bench::start().await?;
    left.sessions.shutdown().await;
    let alone = wakes_in_a_second(&self::processes(&left)?).await;
    table.figure("agent: wake-ups a second, no watches", alone, "", "0");
    Ok(())
}

async fn wakes_in_a_second(processes: &[String]) -> f64 {
    let before = wakes(processes);
    sleep(IDLE).await;
    (wakes(processes) - before) / IDLE.as_secs_f64()
}

/// Returns the agent's processes as this machine numbers them: the engine may have numbers of its own.
fn processes(bench: &Bench) -> Result<Vec<String>> {
    let inspect = ["inspect", "--format", "{{.Id}}", &bench.container()];
    let container = bench.engine.docker(&inspect)?;
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        if read("cgroup").contains(&container) && read("cmdline").starts_with("/.cove/agent") {
            processes.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    ensure!(processes.len() >= 2, "no agent");
    Ok(processes)
}

/// Returns the memory that is a process's share, in kB.
fn memory_of(pid: &str) -> Option<f64> {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let pss = smaps.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    pss.split_whitespace().next()?.parse().ok()
}

/// Returns how often threads of these processes have waited for something.
fn wakes(processes: &[String]) -> f64 {
    let tasks = processes
        .iter()
        .flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")));
    let statuses = tasks
        .flatten()
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    let waited = statuses.filter_map(|status| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse::<f64>().ok()
    });
    waited.sum()
}
