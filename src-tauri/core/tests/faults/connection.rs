//! The ways between Cove and a session break: the engine's events or all connections to it are cut, the agent's end of the
//! pipe is killed or held up, its daemon is held up, while files and terminals are in use. No shell is lost, no call hangs, and what was answered as written is there.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cove_core::files::Encoding;
use cove_core::session::{SessionId, SessionState};
use cove_core::terminal::{Output, Size, Terminal};
use cove_testbed::FaultRecord;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::outside::{LIMIT, call};
use crate::support::{App, Book, Ground, one_of, random, seeds, up_to};

/// How long the session is used around a fault.
const USED: Duration = Duration::from_millis(800);
/// When a fault comes, at the latest.
const LATEST: Duration = Duration::from_millis(500);
const PATH: &str = "/workspace/written.txt";

/// What breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Break {
    /// The engine's events.
    Events,
    /// Every connection to the engine.
    All,
    /// The agent's end of the pipe.
    PipeKilled,
    /// The agent's end of the pipe is there, and does nothing.
    PipeHeldUp,
    /// So is the session's daemon.
    DaemonHeldUp,
    /// Two at once.
    EventsAndPipe,
}

const BREAKS: [Break; 6] = [
    Break::Events,
    Break::All,
    Break::PipeKilled,
    Break::PipeHeldUp,
    Break::DaemonHeldUp,
    Break::EventsAndPipe,
];

/// A shell, and what it has shown.
pub(crate) struct Shell {
    terminal: Arc<Terminal>,
    shown: Arc<Mutex<Vec<u8>>>,
    /// How it ended, when it has.
    end: Arc<Mutex<Option<String>>>,
    count: watch::Receiver<usize>,
}

impl Shell {
    pub(crate) async fn open(app: &App, id: SessionId) -> Result<Self, String> {
        let shown = Arc::new(Mutex::new(Vec::new()));
        let end = Arc::new(Mutex::new(None));
        let (sender, count) = watch::channel(0);
        let (screen, over) = (Arc::clone(&shown), Arc::clone(&end));
        let sink = Box::new(move |output| {
            match output {
                Output::Bytes(bytes) => screen.lock().unwrap().extend(bytes),
                Output::Pause | Output::Replayed => {}
                Output::Exit { message, .. } => *over.lock().unwrap() = Some(message),
            }
            sender.send_modify(|count| *count += 1);
        });
        let size = Size { cols: 80, rows: 24 };
        let opened = async {
            let session = app.sessions.ready(id).await?;
            let terminal = session.open_terminal(size, sink).await?;
            app.sessions.connected(id).await?.terminal(&terminal)
        };
        let terminal = opened.await;
        Ok(Self {
            terminal: terminal.map_err(|error| format!("no terminal: {error}"))?,
            shown,
            end,
            count,
        })
    }

    pub(crate) async fn write(&self, bytes: &[u8]) -> Result<(), String> {
        let typed = self.terminal.write(bytes).await;
        typed.map_err(|error| format!("a shell is lost: {error}"))
    }

    /// Waits until the look finds something in all that was shown.
    pub(crate) async fn until<T>(
        &self,
        limit: Duration,
        look: &(dyn Fn(&[u8]) -> Option<T> + Sync),
    ) -> Result<T, String> {
        let mut count = self.count.clone();
        let answered = async {
            loop {
                let (found, seen) = {
                    let shown = self.shown.lock().unwrap();
                    (look(&shown), shown.len())
                };
                self.terminal.acknowledge(seen as u64);
                if found.is_some() || count.changed().await.is_err() {
                    return found;
                }
            }
        };
        if let Ok(Some(found)) = tokio::time::timeout(limit, answered).await {
            return Ok(found);
        }
        let shown = self.shown.lock().unwrap();
        let tail = shown.get(shown.len().saturating_sub(200)..);
        Err(format!(
            "a shell does not answer; its end: {:?}, behind {:?}",
            self.end(),
            String::from_utf8_lossy(tail.unwrap_or_default())
        ))
    }

    /// Returns how it ended, when it has.
    pub(crate) fn end(&self) -> Option<String> {
        self.end.lock().unwrap().clone()
    }

    /// Returns a part of what was shown.
    pub(crate) fn shown(&self, from: usize, to: usize) -> Vec<u8> {
        let shown = self.shown.lock().unwrap();
        shown.get(from..to).unwrap_or_default().to_vec()
    }

    /// Returns the process of the shell, as it says itself.
    pub(crate) async fn pid(&self) -> Result<String, String> {
        let from = self.shown.lock().unwrap().len();
        self.write(b"echo p$$q$((1+1))r\n").await?;
        let pid = |shown: &[u8]| {
            let text = String::from_utf8_lossy(shown.get(from..)?);
            let (before, _) = text.split_once("q2r")?;
            Some(before.rsplit_once('p')?.1.to_owned())
        };
        self.until(LIMIT, &pid).await
    }

    /// The shell answers, in time.
    async fn check(&self, number: u64) -> Result<(), String> {
        self.write(format!("echo a$(({number}+1))b\n").as_bytes())
            .await?;
        let wanted = format!("a{}b", number + 1);
        let is_there = |shown: &[u8]| {
            let mut windows = shown.windows(wanted.len());
            windows.find(|part| *part == wanted.as_bytes()).map(drop)
        };
        self.until(LIMIT, &is_there).await
    }
}

/// A session in use, whose shells live as long as it does.
struct Used {
    id: SessionId,
    shells: Vec<Shell>,
}

impl Used {
    async fn new(app: &App) -> Result<Self, String> {
        let id = app.ready(None).await;
        let shells = vec![Shell::open(app, id).await?, Shell::open(app, id).await?];
        Ok(Self { id, shells })
    }
}

pub(crate) fn signal(ground: &Ground, id: SessionId, process: &str, signal: &str) {
    // The pattern is not found in the command that looks for it.
    let script = format!(
        "pkill {signal} -f 'agent [{}]{}'",
        &process[..1],
        &process[1..]
    );
    let name = id.resource_name();
    let words = ["exec", "--user", "0", &name, "sh", "-c", &script];
    // There may be none just then.
    ground.engine.run(&words).unwrap();
}

fn break_it(ground: &Ground, id: SessionId, what: Break) {
    match what {
        Break::Events => {
            ground.proxy.cut_only("/events");
        }
        Break::All => {
            ground.proxy.cut();
        }
        Break::PipeKilled => signal(ground, id, "connect", "-KILL"),
        Break::PipeHeldUp => signal(ground, id, "connect", "-STOP"),
        Break::DaemonHeldUp => signal(ground, id, "daemon", "-STOP"),
        Break::EventsAndPipe => {
            ground.proxy.cut_only("/events");
            signal(ground, id, "connect", "-KILL");
        }
    }
}

/// Uses files until the time is over; what was answered as written is there.
async fn use_files(app: &App, id: SessionId, seed: u64, problems: &mut Vec<String>) -> usize {
    let (begin, mut count, mut lost) = (Instant::now(), 0, 0);
    while begin.elapsed() < USED && problems.is_empty() {
        count += 1;
        let sessions = &app.sessions;
        call(problems, "list_dir", async {
            sessions.ready(id).await?.list_dir("/workspace").await
        })
        .await;
        let text = format!("{seed} {count}\n");
        let write = async {
            sessions
                .ready(id)
                .await?
                .write_file(PATH, text.clone(), Encoding::Utf8, None)
                .await
        };
        let written = call(problems, "write_file", write).await;
        let read = call(problems, "read_file", async {
            sessions.ready(id).await?.read_file(PATH).await
        })
        .await;
        if let (Some(_), Some(read)) = (written, read)
            && read.content != text
        {
            lost = 1;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    lost
}

async fn check(ground: &Arc<Ground>, app: &App, used: &Used, seed: u64) -> FaultRecord {
    let mut random = random(seed);
    let what = one_of(&mut random, &BREAKS);
    let mut record = FaultRecord {
        kind: "connection".to_owned(),
        phase: "Ready".to_owned(),
        fault: format!("{what:?}"),
        seed,
        ..FaultRecord::default()
    };
    let (delay, id) = (up_to(&mut random, LATEST), used.id);
    let outside = Arc::clone(ground);
    let breaking = std::thread::spawn(move || {
        std::thread::sleep(delay);
        break_it(&outside, id, what);
    });
    let mut problems = Vec::new();
    record.lost = use_files(app, id, seed, &mut problems).await;
    breaking.join().unwrap();
    for (index, shell) in used.shells.iter().enumerate() {
        let number = seed % 1_000_000 * 10 + index as u64;
        problems.extend(shell.check(number).await.err());
    }
    if problems.is_empty() {
        problems.extend(app.until_ready(id).await.err());
    }
    match app.sessions.status(id).await {
        Ok(status) if status.state == SessionState::Ready => {
            "ready".clone_into(&mut record.outcome);
        }
        other => problems.push(format!("it is {other:?}")),
    }
    // A pipe that was held up ends as soon as it can: nobody speaks to it any more.
    signal(ground, id, "connect", "-CONT");
    record.broken = problems.join("; ");
    record.bystanders = ground.bystanders.touched();
    record
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_breaks_between_cove_and_a_session_no_shell_is_lost_and_no_call_hangs() {
    let Some(ground) = Ground::with_running() else {
        return;
    };
    let ground = Arc::new(ground);
    let app = ground.app();
    let mut book = Book::default();
    let mut used = Used::new(&app).await.unwrap();
    for seed in seeds(63) {
        let record = check(&ground, &app, &used, seed).await;
        let is_good = record.is_good();
        book.add(record);
        if !is_good {
            // What is broken must not break what comes next.
            app.delete(used.id).await.unwrap();
            used = Used::new(&app).await.unwrap();
        }
    }
    app.delete(used.id).await.unwrap();
    app.sessions.shutdown().await;
    book.check();
}
