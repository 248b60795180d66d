//! Somebody else stops, pauses, renames or removes a session's container, or its volume too, while Cove uses it: every
//! call works or says what is wrong, none hangs, and the session can be opened again or is clearly gone.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use cove_core::error::{Error, ErrorCode};
use cove_core::files::Encoding;
use cove_core::session::SessionId;
use cove_core::terminal::Size;
use cove_testbed::FaultRecord;
use tokio::time::Instant;

use crate::support::{App, Book, Ground, Kept, note, one_of, random, seeds, up_to};

/// How long a call may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);
/// How long calls are made, so that some come before and some after.
const USED: Duration = Duration::from_millis(1_200);

/// What somebody does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Stop,
    Kill,
    Pause,
    Rename,
    Remove,
    RemoveWithVolume,
}

const ACTS: [Act; 6] = [
    Act::Stop,
    Act::Kill,
    Act::Pause,
    Act::Rename,
    Act::Remove,
    Act::RemoveWithVolume,
];

impl Act {
    fn commands(self, name: &str) -> Vec<Vec<String>> {
        let aside = format!("{name}-old");
        let commands: &[&[&str]] = match self {
            Self::Stop => &[&["stop", "--time", "0", name]],
            Self::Kill => &[&["kill", name]],
            Self::Pause => &[&["pause", name]],
            Self::Rename => &[&["rename", name, &aside]],
            Self::Remove => &[&["rm", "--force", name]],
            Self::RemoveWithVolume => &[&["rm", "--force", name], &["volume", "rm", name]],
        };
        let owned = |command: &&[&str]| command.iter().map(|word| (*word).to_owned()).collect();
        commands.iter().map(owned).collect()
    }
}

/// What Cove does meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Opening,
    Files,
    Terminal,
}

const USES: [Use; 3] = [Use::Opening, Use::Files, Use::Terminal];

/// Notes what a call came to: it works, or says clearly what is wrong, and in time.
pub(crate) async fn call<T>(
    problems: &mut Vec<String>,
    what: &str,
    call: impl Future<Output = Result<T, Error>>,
) -> Option<T> {
    let begin = Instant::now();
    let Ok(result) = tokio::time::timeout(LIMIT, call).await else {
        problems.push(format!("{what} hung for {} s", LIMIT.as_secs()));
        return None;
    };
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            let clear = [
                ErrorCode::SessionNotReady,
                ErrorCode::SessionNotFound,
                ErrorCode::AgentUnavailable,
                ErrorCode::ContainerGone,
                ErrorCode::TerminalNotFound,
            ];
            if !clear.contains(&error.code()) {
                problems.push(format!(
                    "{what}: {:?} {error} after {:?}",
                    error.code(),
                    begin.elapsed()
                ));
            }
            None
        }
    }
}

async fn use_files(app: &App, id: SessionId, problems: &mut Vec<String>) {
    let begin = Instant::now();
    let mut count = 0;
    while begin.elapsed() < USED && problems.is_empty() {
        count += 1;
        let sessions = &app.sessions;
        call(problems, "list_dir", async {
            sessions.ready(id).await?.list_dir("/workspace").await
        })
        .await;
        let path = "/workspace/other.txt";
        let text = format!("line {count}\n").repeat(1_000);
        call(problems, "write_file", async {
            sessions
                .ready(id)
                .await?
                .write_file(path, text, Encoding::Utf8, None)
                .await
        })
        .await;
        call(problems, "read_file", async {
            sessions
                .ready(id)
                .await?
                .read_file("/workspace/kept.txt")
                .await
        })
        .await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn use_terminals(app: &App, id: SessionId, problems: &mut Vec<String>) {
    let begin = Instant::now();
    let size = Size { cols: 80, rows: 24 };
    let sessions = &app.sessions;
    let mut terminal = None;
    while begin.elapsed() < USED && problems.is_empty() {
        if terminal.is_none() {
            let opening = async {
                sessions
                    .ready(id)
                    .await?
                    .open_terminal(size, Box::new(|_| {}))
                    .await
            };
            terminal = call(problems, "open_terminal", opening).await;
        }
        if let Some(name) = &terminal {
            let typing = async {
                let terminal = sessions.connected(id).await?.terminal(name)?;
                terminal.write(b"echo ahoy\n").await?;
                terminal.resize(size).await
            };
            if call(problems, "write_terminal", typing).await.is_none() {
                call(problems, "close_terminal", async {
                    sessions.connected(id).await?.close_terminal(name);
                    Ok(())
                })
                .await;
                terminal = None;
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    if let Some(name) = &terminal {
        call(problems, "close_terminal", async {
            sessions.connected(id).await?.close_terminal(name);
            Ok(())
        })
        .await;
    }
}

async fn check(ground: &Arc<Ground>, app: &App, seed: u64) -> FaultRecord {
    let mut random = random(seed);
    let index = usize::try_from(seed).unwrap();
    let act = *ACTS.get(index % ACTS.len()).unwrap();
    let used = *USES.get(index / ACTS.len() % USES.len()).unwrap();
    let mut record = FaultRecord {
        kind: "outside".to_owned(),
        phase: format!("{used:?}"),
        fault: format!("{act:?}"),
        seed,
        ..FaultRecord::default()
    };
    let kept = Kept::new(app, &ground.tiny, "what its user wrote\n").await;
    let id = kept.id;
    let delay = up_to(
        &mut random,
        Duration::from_millis(if used == Use::Opening { 300 } else { 600 }),
    );
    let removes_first = one_of(&mut random, &[true, false]);
    if used == Use::Opening {
        app.sessions.stop(id).await.unwrap();
        if removes_first {
            ground.engine.docker(&["rm", &id.resource_name()]).unwrap();
        }
    }
    let (outside, name) = (Arc::clone(ground), id.resource_name());
    let acting = std::thread::spawn(move || {
        std::thread::sleep(delay);
        for command in act.commands(&name) {
            let words: Vec<_> = command.iter().map(String::as_str).collect();
            // There may be nothing to stop or to remove just then.
            outside.engine.run(&words).unwrap();
        }
    });
    let mut problems = Vec::new();
    match used {
        Use::Opening => {
            if call(&mut problems, "open_session", app.sessions.open(id))
                .await
                .is_some()
                && let Err(problem) = app.settled(id).await
            {
                problems.push(problem);
            }
        }
        Use::Files => use_files(app, id, &mut problems).await,
        Use::Terminal => use_terminals(app, id, &mut problems).await,
    }
    // What is done in the end must not meet what comes next.
    acting.join().unwrap();
    if act == Act::Pause && is_stuck(ground, id) {
        note(&format!(
            "seed {seed}: the engine hangs by itself, so what is on it is not judged"
        ));
        "unjudged".clone_into(&mut record.outcome);
        record.broken = problems.join("; ");
        record.bystanders = ground.bystanders.touched();
        return record;
    }
    if problems.is_empty() {
        match finish(ground, app, &kept, act, &mut record).await {
            Ok(()) => {}
            Err(problem) => problems.push(problem),
        }
    }
    record.broken = problems.join("; ");
    // Whatever happened, the next run begins with a clean table.
    let _ = app.delete(id).await;
    record.leftovers = ground.leftovers(id).await;
    record.bystanders = ground.bystanders.touched();
    for kind in ["container", "volume"] {
        let left = ground.engine.docker(&[
            kind,
            "ls",
            "--quiet",
            "--filter",
            &format!("label=dev.cove.session={id}"),
        ]);
        for name in left.unwrap().lines() {
            ground
                .engine
                .docker(&[kind, "rm", "--force", name])
                .unwrap();
        }
    }
    record
}

/// Returns whether the engine has locked itself out of a container. Docker 20.10 does, until it is killed, when a
/// pause meets the start of a command: it waits for the frozen command with the container's lock in its hand, so
/// that it can neither look at the container nor continue, stop or remove it.
fn is_stuck(ground: &Ground, id: SessionId) -> bool {
    let path = format!("/containers/{}/json", id.resource_name());
    ground.engine.look(&path, LIMIT).is_err()
}

/// The session can be opened and has its files, or it is clearly gone with its volume.
async fn finish(
    ground: &Ground,
    app: &App,
    kept: &Kept,
    act: Act,
    record: &mut FaultRecord,
) -> Result<(), String> {
    let id = kept.id;
    let has_volume = ground.left(id).volumes > 0;
    if act == Act::RemoveWithVolume && !has_volume {
        "gone".clone_into(&mut record.outcome);
        if !app.is_gone_or_over(id).await {
            return Err(
                "without container and volume, it is listed as if it were there".to_owned(),
            );
        }
        return app.delete(id).await;
    }
    app.until_ready(id).await?;
    "ready".clone_into(&mut record.outcome);
    let whole = kept.is_whole(app).await;
    // A volume that was removed before the run made a new one took the file with it, as it was told to.
    if act != Act::RemoveWithVolume
        && !whole.map_err(|error| format!("the kept file cannot be read: {error}"))?
    {
        record.lost = 1;
    }
    app.delete(id).await
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_done_to_a_session_from_outside_is_told_and_no_call_hangs() {
    let Some(ground) = Ground::with_running() else {
        return;
    };
    let ground = Arc::new(ground);
    let app = ground.app();
    let mut book = Book::default();
    for seed in seeds(12) {
        book.add(check(&ground, &app, seed).await);
    }
    app.sessions.shutdown().await;
    book.check();
}
