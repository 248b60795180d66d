//! Quick open beside `fzf`, and search in files beside `grep` and `rg`, where those are on this machine.

use std::fs::{self, File};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cove_core::search::{NameQuery, SearchNews, TextQuery};
use tokio::sync::mpsc::unbounded_channel;

use crate::bench::Bench;
use crate::table::Table;

const NAMES: usize = 500_000;
const IN_A_FOLDER: usize = 500;
/// What is typed, letter by letter.
const TYPED: [&str; 4] = ["service", "conf12", "modrs", "testuser"];
/// Bytes of a file that is searched, and how many there are: 1 GB.
const LINE: &str = "the quick brown fox jumps over the lazy dog, and some more words follow it\n";
const FILE: usize = 16 << 10;
const FILES: usize = 64_000;
const SEARCHES: usize = 7;
const NEEDLE: &str = "needle_in_the_haystack";

pub(crate) async fn measure(bench: &Bench, table: &mut Table) -> Result<()> {
    find(bench, table).await?;
    search(bench, table).await
}

async fn find(bench: &Bench, table: &mut Table) -> Result<()> {
    let top = bench.folder.join("names");
    let stems = [
        "service",
        "config",
        "model",
        "test_user",
        "index",
        "handler",
    ];
    let mut list = String::new();
    for number in 0..NAMES {
        let folder = format!(
            "pkg{}/mod{}",
            number / IN_A_FOLDER / 40,
            number / IN_A_FOLDER
        );
        if number % IN_A_FOLDER == 0 {
            fs::create_dir_all(top.join(&folder))?;
        }
        let stem = stems.get(number % stems.len()).copied().unwrap_or_default();
        let name = format!("{folder}/{stem}_{number}.rs");
        File::create(top.join(&name))?;
        list.push_str(&name);
        list.push('\n');
    }
    let query = |text: &str, fresh| NameQuery {
        text: text.to_owned(),
        limit: Some(100),
        fresh,
        partial: false,
    };
    bench
        .sessions
        .ready(bench.id)
        .await?
        .find_files(&query("", true))
        .await?;
    let has_fzf = exists("fzf");
    let (mut found, mut bare) = (Vec::new(), Vec::new());
    for typed in TYPED {
        for end in 1..=typed.len() {
            let text = typed.get(..end).unwrap_or_default();
            let begin = Instant::now();
            let names = bench
                .sessions
                .ready(bench.id)
                .await?
                .find_files(&query(text, false))
                .await?;
            found.push(begin.elapsed());
            ensure!(
                names.settled && !names.entries.is_empty(),
                "nothing like `{text}`"
            );
            if has_fzf {
                bare.push(filtered(&list, text)?);
            }
        }
    }
    if has_fzf {
        table.compared(
            "quick open in 500,000 names, a letter",
            &found,
            ("fzf --filter", &bare),
            "≤ 1.0; p99 < 100 ms",
        );
    } else {
        table.times(
            "quick open in 500,000 names, a letter",
            &found,
            "p99 < 100 ms; no `fzf` here",
        );
    }
    fs::remove_dir_all(&top)?;
    Ok(())
}

fn filtered(list: &str, text: &str) -> Result<Duration> {
    let begin = Instant::now();
    let mut fzf = Command::new("fzf")
        .args(["--filter", text])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    fzf.stdin
        .take()
        .context("no input")?
        .write_all(list.as_bytes())?;
    fzf.wait()?;
    Ok(begin.elapsed())
}

async fn search(bench: &Bench, table: &mut Table) -> Result<()> {
    let top = bench.folder.join("text");
    let text = LINE.repeat(FILE / LINE.len());
    for number in 0..FILES {
        let folder = top.join(format!("dir{}", number / 100));
        if number % 100 == 0 {
            fs::create_dir_all(&folder)?;
        }
        let mut file = File::create(folder.join(format!("file{number}.txt")))?;
        file.write_all(text.as_bytes())?;
        if number % 10_000 == 7 {
            writeln!(file, "{NEEDLE}")?;
        }
    }
    let folder = top.to_str().context("a folder of odd name")?;
    let (mut found, mut grep, mut rg) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..SEARCHES {
        let begin = Instant::now();
        searched(bench).await?;
        found.push(begin.elapsed());
        grep.push(run("grep", &["-r", NEEDLE, folder])?);
        if exists("rg") {
            rg.push(run("rg", &[NEEDLE, folder])?);
        }
    }
    table.compared("search of 1 GB", &found, ("grep -r", &grep), "≤ 0.7");
    if !rg.is_empty() {
        table.compared("search of 1 GB", &found, ("rg", &rg), "≤ 1.5");
    }
    fs::remove_dir_all(&top)?;
    Ok(())
}

async fn searched(bench: &Bench) -> Result<()> {
    let (sender, mut heard) = unbounded_channel();
    let sink = Box::new(move |news| sender.send(news).unwrap_or_default());
    let query = TextQuery {
        text: NEEDLE.to_owned(),
        ..TextQuery::default()
    };
    bench
        .sessions
        .ready(bench.id)
        .await?
        .search_files(query, sink)
        .await?;
    loop {
        if let SearchNews::End(end) = heard.recv().await.context("no end")? {
            ensure!(end.error.is_none() && end.matches == 7, "{end:?}");
            return Ok(());
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<Duration> {
    let begin = Instant::now();
    let mut command = Command::new(program);
    let status = command.args(arguments).stdout(Stdio::null()).status()?;
    ensure!(status.success(), "{program}: {status}");
    Ok(begin.elapsed())
}

fn exists(program: &str) -> bool {
    let mut command = Command::new(program);
    let status = command.arg("--version").stdout(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
