//! From a keystroke to its echo, from Ctrl-C to silence, and from a break of the connection to the next echo.

use std::cell::Cell;
use std::fs::remove_file;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use cove_core::sessions::Destination;

use crate::bench::{Bench, Shell};
use crate::table::Table;
use crate::transfers::end_of;

const KEYSTROKES: usize = 500;
const INTERRUPTS: usize = 100;
const BREAKS: usize = 15;
/// How long a flood goes on before it is interrupted.
const FLOOD: Duration = Duration::from_millis(100);
/// As quick as anybody types.
const BETWEEN: Duration = Duration::from_millis(5);

pub(crate) async fn measure(bench: &Bench, table: &mut Table) -> Result<()> {
    let mut shell = Shell::open(bench).await?;
    shell.type_in("cat > /dev/null\n").await?;
    shell.until("\n").await?;
    let idle = echoes(&mut shell).await?;
    let bare = bare_echoes(bench)?;
    table.compared(
        "keystroke to echo, idle",
        &idle,
        ("docker exec -i … cat", &bare),
        "p99 < 50 ms",
    );

    let flooding = Shell::open(bench).await?;
    flooding.type_in("yes\n").await?;
    let flood = flooding.hear_on();
    let beside = echoes(&mut shell).await?;
    flood.abort();
    bench.sh("pkill yes || killall yes")?;
    table.compared(
        "keystroke to echo, another terminal floods",
        &beside,
        ("idle", &idle),
        "≤ 1.5; p99 < 50 ms",
    );

    bench.sh("head -c 1073741824 /dev/urandom > /workspace/large")?;
    let folder = bench.folder.parent().context("no folder")?;
    let folder = tempfile::tempdir_in(folder)?;
    let under_way = Cell::default();
    let beside = tokio::select! {
        beside = echoes(&mut shell) => beside?,
        ended = downloads(bench, folder.path(), &under_way) => bail!("{ended:?}"),
    };
    let transfer = under_way.take();
    bench.sessions.cancel_transfer(bench.id, &transfer).await?;
    table.compared(
        "keystroke to echo, during a download of 1 GB",
        &beside,
        ("idle", &idle),
        "≤ 1.5; p99 < 50 ms",
    );
    bench.sh("rm /workspace/large")?;

    shell.type_in("\u{3}").await?;
    shell.until(Shell::PROMPT).await?;
    let mut interrupted = Vec::new();
    for _ in 0..INTERRUPTS {
        shell.type_in("yes\n").await?;
        shell.hear_for(FLOOD).await?;
        let begin = Instant::now();
        shell.type_in("\u{3}").await?;
        shell.until(Shell::PROMPT).await?;
        interrupted.push(begin.elapsed());
    }
    table.times(
        "Ctrl-C during `yes` to the prompt",
        &interrupted,
        "p99 < 100 ms",
    );

    let mut healed = Vec::new();
    for _ in 0..BREAKS {
        let begin = Instant::now();
        bench.sh(
            "for p in /proc/[0-9]*; do if grep -q '^/.cove/agent.connect' $p/cmdline 2> /dev/null; \
             then kill -KILL ${p#/proc/}; fi; done",
        )?;
        shell.type_in("echo a''b\n").await?;
        shell.until("ab\r\n").await?;
        healed.push(begin.elapsed());
        shell.until(Shell::PROMPT).await?;
    }
    table.times(
        "cut of the connection to the next echo",
        &healed,
        "< 1000 ms",
    );
    Ok(())
}

/// Downloads the large file again and again, by the transfer that is `under_way`; ends only with an error.
async fn downloads(bench: &Bench, folder: &Path, under_way: &Cell<String>) -> Result<()> {
    for number in 0_u64.. {
        let destination = Destination::File(folder.join(number.to_string()));
        let session = bench.sessions.ready(bench.id).await?;
        let transfer = session.download(vec!["/workspace/large".to_owned()], destination)?;
        under_way.set(transfer.clone());
        end_of(bench, &transfer).await?;
        remove_file(folder.join(number.to_string()))?;
    }
    Ok(())
}

async fn echoes(shell: &mut Shell) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..KEYSTROKES {
        tokio::time::sleep(BETWEEN).await;
        let begin = Instant::now();
        shell.type_in("x").await?;
        shell.next().await?;
        times.push(begin.elapsed());
    }
    Ok(times)
}

/// The same by the engine's command line, to a program that says what it hears.
fn bare_echoes(bench: &Bench) -> Result<Vec<Duration>> {
    let mut cat = bench
        .engine
        .command()
        .args(["exec", "--interactive", &bench.container(), "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = cat.stdin.take().context("no input")?;
    let mut output = cat.stdout.take().context("no output")?;
    let mut times = Vec::new();
    // The first one waits for the program.
    for round in 0..=KEYSTROKES {
        std::thread::sleep(BETWEEN);
        let begin = Instant::now();
        input.write_all(b"x")?;
        output.read_exact(&mut [0])?;
        if round > 0 {
            times.push(begin.elapsed());
        }
    }
    drop(input);
    cat.wait()?;
    Ok(times)
}
