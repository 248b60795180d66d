//! Uploads and downloads beside `docker cp`: one large file, and many small ones.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use cove_core::event::{SessionEvent, TransferOutcome};
use cove_core::sessions::Destination;
use tempfile::TempDir;

use crate::bench::Bench;
use crate::table::Table;

/// Bytes of the large file.
const LARGE: usize = 1 << 30;
const SMALL: usize = 20_000;
const ROUNDS: usize = 3;

pub(crate) async fn measure(bench: &Bench, table: &mut Table) -> Result<()> {
    // Beside the engine's own files, so that nobody crosses to another disk.
    let folder = tempfile::tempdir_in(bench.folder.parent().context("no folder")?)?;
    let large = folder.path().join("large");
    let mut file = File::create(&large)?;
    // No two blocks are alike, so that nobody can skip any.
    for block in 0..LARGE / 8 / 512 {
        let number = u64::try_from(block)?;
        file.write_all(&number.to_le_bytes().repeat(512))?;
    }
    drop(file);
    let small = folder.path().join("small");
    fs::create_dir(&small)?;
    for number in 0..SMALL {
        fs::write(
            small.join(format!("{number}.txt")),
            format!("file {number}\n"),
        )?;
    }
    both_ways(bench, table, &folder, &large, "1 GB in a file").await?;
    both_ways(bench, table, &folder, &small, "20,000 small files").await
}

async fn both_ways(
    bench: &Bench,
    table: &mut Table,
    folder: &TempDir,
    thing: &Path,
    what: &str,
) -> Result<()> {
    let name = thing
        .file_name()
        .and_then(|name| name.to_str())
        .context("no name")?;
    let inside = format!("{}:/workspace/{name}", bench.container());
    let (down, bare_down) = (folder.path().join("down"), folder.path().join("bare"));
    let (mut up, mut bare_up) = (Vec::new(), Vec::new());
    let (mut fetched, mut bare_fetched) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare_up.push(copy(bench, &[&thing.display().to_string(), &inside])?);
        remove(&bench.folder.join(name))?;
        let begin = Instant::now();
        let transfer = bench
            .sessions
            .ready(bench.id)
            .await?
            .upload("/workspace".to_owned(), &[thing.to_owned()]);
        end_of(bench, &transfer?).await?;
        up.push(begin.elapsed());

        bare_fetched.push(copy(bench, &[&inside, &bare_down.display().to_string()])?);
        remove(&bare_down)?;
        fs::create_dir(&down)?;
        let begin = Instant::now();
        let path = vec![format!("/workspace/{name}")];
        let destination = Destination::Folder(down.clone());
        let transfer = bench
            .sessions
            .ready(bench.id)
            .await?
            .download(path, destination);
        end_of(bench, &transfer?).await?;
        fetched.push(begin.elapsed());
        ensure!(down.join(name).exists(), "nothing came");
        remove(&down)?;
        remove(&bench.folder.join(name))?;
    }
    let by_engine = "docker cp";
    table.compared(
        &format!("upload of {what}"),
        &up,
        (by_engine, &bare_up),
        "≤ 1.1",
    );
    table.compared(
        &format!("download of {what}"),
        &fetched,
        (by_engine, &bare_fetched),
        "≤ 1.1",
    );
    Ok(())
}

fn copy(bench: &Bench, places: &[&str]) -> Result<Duration> {
    let begin = Instant::now();
    bench.engine.docker(&[&["cp"], places].concat())?;
    Ok(begin.elapsed())
}

/// Waits until a transfer is done.
pub(crate) async fn end_of(bench: &Bench, transfer: &str) -> Result<()> {
    let mut events = bench.events.lock().await;
    loop {
        if let SessionEvent::Transfer(event) = events.recv().await.context("no event")?
            && event.transfer_id == transfer
            && let Some(outcome) = event.outcome
        {
            if outcome == TransferOutcome::Done {
                return Ok(());
            }
            bail!("{outcome:?}: {:?}", event.error);
        }
    }
}

fn remove(path: &PathBuf) -> Result<()> {
    if path.is_dir() {
        fs::remove_dir_all(path)?;
    } else {
        fs::remove_file(path)?;
    }
    Ok(())
}
