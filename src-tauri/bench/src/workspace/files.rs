//! Files: a folder of many, and a change on the disk until it is told.

use std::fs::{self, File};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::time::{sleep, timeout};

use crate::bench::Bench;
use crate::table::Table;

const MANY: usize = 100_000;
const LISTS: usize = 11;
const CHANGES: usize = 100;
/// Longer than the rest that the agent takes after each change.
const BETWEEN: Duration = Duration::from_millis(60);
const LIMIT: Duration = Duration::from_secs(10);

pub(crate) async fn measure(bench: &Bench, table: &mut Table) -> Result<()> {
    let many = bench.folder.join("many");
    fs::create_dir(&many)?;
    for number in 0..MANY {
        File::create(many.join(format!("file-{number:06}.txt")))?;
    }
    let (mut lists, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..LISTS {
        let begin = Instant::now();
        let listed = bench
            .sessions
            .ready(bench.id)
            .await?
            .list_dir("/workspace/many")
            .await?;
        lists.push(begin.elapsed());
        ensure!(listed.entries.len() >= 200, "a short list");
        let begin = Instant::now();
        let names = bench.sh("find /workspace/many")?;
        bare.push(begin.elapsed());
        ensure!(names.lines().count() >= MANY, "a short list");
    }
    table.compared(
        "the first 10,000 of a folder of 100,000",
        &lists,
        ("docker exec … find", &bare),
        "≤ 1.0",
    );

    let paths = vec!["/workspace".to_owned()];
    bench.sessions.watch_dirs(bench.id, paths).await?;
    let mut files = bench.files.lock().await;
    let mut told = Vec::new();
    for number in 0..CHANGES {
        sleep(BETWEEN).await;
        while files.try_recv().is_ok() {}
        let begin = Instant::now();
        File::create(bench.folder.join(format!("new-{number}")))?;
        let changed = timeout(LIMIT, files.recv()).await.context("not told")?;
        told.push(begin.elapsed());
        ensure!(changed.is_some(), "nobody tells");
    }
    table.times(
        "a change on the disk until it is told",
        &told,
        "p99 < 200 ms",
    );
    bench.sessions.watch_dirs(bench.id, Vec::new()).await?;
    fs::remove_dir_all(&many)?;
    Ok(())
}
