//! Terminals: bytes in, bytes out, unaltered, at the window's pace.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cove_core::error::Error;
use cove_core::session::SessionId;
use cove_core::terminal::{Output, Size, Terminal};
use cove_testbed::TestImage;
use tokio::sync::watch;

use crate::support::{App, eventually, note, shared_registry};

/// A terminal and what it has shown.
pub(crate) struct Shell {
    pub(crate) terminal: Arc<Terminal>,
    seen: Arc<Mutex<Seen>>,
    count: watch::Receiver<usize>,
}

#[derive(Default)]
struct Seen {
    bytes: Vec<u8>,
    exit: Option<(Option<i32>, String)>,
}

impl Shell {
    pub(crate) async fn open(app: &App, id: SessionId) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (sender, count) = watch::channel(0);
        let shown = Arc::clone(&seen);
        let sink = Box::new(move |output| {
            let mut seen = shown.lock().unwrap();
            match output {
                Output::Bytes(bytes) => seen.bytes.extend(bytes),
                Output::Pause | Output::Replayed => {}
                Output::Exit { code, message } => {
                    assert!(seen.exit.is_none(), "two ends");
                    seen.exit = Some((code, message));
                }
            }
            sender.send_modify(|count| *count += 1);
        });
        let size = Size { cols: 80, rows: 24 };
        let terminal = app
            .session(id)
            .await
            .open_terminal(size, sink)
            .await
            .unwrap();
        let terminal = app.connected(id).await.terminal(&terminal).unwrap();
        Self {
            terminal,
            seen,
            count,
        }
    }

    pub(crate) async fn type_line(&self, line: &str) {
        self.terminal
            .write(format!("{line}\n").as_bytes())
            .await
            .unwrap();
    }

    /// Acknowledges all that comes until the look finds something.
    async fn until<T>(&self, look: impl Fn(&Seen) -> Option<T>) -> T {
        let mut count = self.count.clone();
        let waiting = async {
            loop {
                let (found, shown) = {
                    let seen = self.seen.lock().unwrap();
                    (look(&seen), seen.bytes.len() as u64)
                };
                self.terminal.acknowledge(shown);
                if let Some(found) = found {
                    return found;
                }
                count.changed().await.unwrap();
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        found.unwrap_or_else(|_| {
            let seen = self.seen.lock().unwrap();
            let tail = &seen.bytes[seen.bytes.len().saturating_sub(500)..];
            panic!(
                "after {} bytes: {}",
                seen.bytes.len(),
                String::from_utf8_lossy(tail)
            )
        })
    }

    /// Waits until all that was shown satisfies the look.
    pub(crate) async fn until_seen<T>(&self, look: impl Fn(&[u8]) -> Option<T>) -> T {
        self.until(|seen| look(&seen.bytes)).await
    }

    pub(crate) async fn until_shown(&self, text: &str) {
        self.until(|seen| find(&seen.bytes, text.as_bytes()).map(drop))
            .await;
    }

    /// Waits, without acknowledging anything, until a flood has come to its end; returns the bytes of it.
    pub(crate) async fn until_it_stands_still(&self) -> usize {
        let (mut before, begin) = (0, Instant::now());
        loop {
            tokio::time::sleep(Duration::from_millis(400)).await;
            let now = self.seen.lock().unwrap().bytes.len();
            if now == before && now > 100_000 {
                return now;
            }
            assert!(
                begin.elapsed() < Duration::from_secs(20),
                "it never stopped, {now} bytes"
            );
            before = now;
        }
    }

    /// Runs a command and returns what it prints.
    pub(crate) async fn output_of(&self, command: &str) -> String {
        let from = self.seen.lock().unwrap().bytes.len();
        // In pieces, so that the echo of the command is not taken for its output.
        self.type_line(&format!("printf 'BE%s' GIN; {command}; printf 'E%s' ND"))
            .await;
        self.until(|seen| {
            let shown = String::from_utf8_lossy(&seen.bytes[from..]).into_owned();
            let (_, output) = shown.split_once("BEGIN")?;
            let (output, _) = output.split_once("END")?;
            Some(output.to_owned())
        })
        .await
    }

    pub(crate) fn seen_end(&self) -> bool {
        self.seen.lock().unwrap().exit.is_some()
    }

    pub(crate) async fn until_exit(&self) -> (Option<i32>, String) {
        self.until(|seen| seen.exit.clone()).await
    }
}

fn find(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window == text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_echoes_follows_its_size_and_tells_the_exit_code() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    let shell = Shell::open(&app, id).await;
    shell.type_line("echo a$((1+1))b").await;
    shell.until_shown("a2b").await;
    shell.type_line("stty size; pwd; tty").await;
    shell.until_shown("24 80\r\n/workspace\r\n/dev/pts/").await;
    shell
        .terminal
        .resize(Size {
            cols: 133,
            rows: 51,
        })
        .await
        .unwrap();
    shell.type_line("stty size").await;
    shell.until_shown("51 133").await;
    shell.type_line("sleep 1000; echo never").await;
    eventually("the sleep", || {
        let all = app.sh(id, "cat /proc/[0-9]*/stat 2>/dev/null");
        all.contains("(sleep)").then_some(())
    })
    .await;
    shell.terminal.write(b"\x03").await.unwrap();
    shell
        .type_line("printf '\\342\\202\\254%s' end; exit 7")
        .await;
    shell.until_shown("€end").await;
    assert_eq!(shell.until_exit().await.0, Some(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_megabytes_arrive_complete_and_unaltered() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    let shell = Shell::open(&app, id).await;
    // In pieces, so that the echo of the command is not taken for its output.
    shell
        .type_line("stty -echo -opost; printf 'read%s' y")
        .await;
    shell.until_shown("ready").await;
    let count = 2_700_000;
    shell
        .type_line(&format!(
            "printf 'BE%s' GIN; seq 1 {count}; printf 'E%s' ND; exit"
        ))
        .await;
    let begin = Instant::now();
    shell.until_exit().await;
    let took = begin.elapsed();
    let seen = shell.seen.lock().unwrap();
    let start = find(&seen.bytes, b"BEGIN").unwrap() + 5;
    let mut expected = String::new();
    for number in 1..=count {
        writeln!(expected, "{number}").unwrap();
    }
    assert!(expected.len() > 20_000_000);
    let arrived = &seen.bytes[start..start + expected.len()];
    let differs = arrived
        .iter()
        .zip(expected.as_bytes())
        .position(|(a, b)| a != b);
    assert_eq!(differs, None);
    assert_eq!(&seen.bytes[start + expected.len()..][..3], b"END");
    note(&format!("{} bytes in {took:?}", expected.len()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_never_acknowledges_stops_the_output_within_its_allowance() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    let shell = Shell::open(&app, id).await;
    shell.type_line("yes").await;
    let before = shell.until_it_stands_still().await;
    assert!((1 << 20..5 << 19).contains(&before), "{before} bytes");
    // The program that writes is waited for, and goes on when the window has caught up.
    shell
        .until(|seen| (seen.bytes.len() > 8 << 20).then_some(()))
        .await;
    shell.terminal.write(b"\x03").await.unwrap();
    shell.type_line("exit 3").await;
    assert_eq!(shell.until_exit().await.0, Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_a_terminal_hangs_up_all_that_runs_in_it() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    let shell = Shell::open(&app, id).await;
    // A job that an interactive shell was told to put into the background may outlive it, as anywhere.
    shell.type_line("sh -c 'sleep 1000 & sleep 2000'").await;
    let top = || {
        app.engine()
            .docker(&["top", &id.resource_name(), "-eo", "pid,args"])
            .unwrap()
    };
    eventually("both sleeps", || {
        (top().matches("sleep ").count() == 2).then_some(())
    })
    .await;
    let terminal = shell.terminal.id().to_owned();
    drop(shell);
    app.connected(id).await.close_terminal(&terminal);
    eventually("the end of all of them", || {
        let all = top();
        let gone = !all.contains("sleep") && !all.contains("sh ");
        gone.then_some(())
    })
    .await;
    let gone = app.connected(id).await.terminal(&terminal);
    assert!(matches!(gone, Err(Error::TerminalNotFound(_))));
    app.connected(id).await.close_terminal(&terminal);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_a_session_ends_its_terminals() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    let shell = Shell::open(&app, id).await;
    shell.type_line("echo a$((1+1))b").await;
    shell.until_shown("a2b").await;
    app.sessions.stop(id).await.unwrap();
    shell.until_exit().await;
    let refused = app.sessions.ready(id).await.err();
    assert!(
        matches!(refused, Some(Error::SessionNotReady("stopped"))),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_a_shell_says_so() {
    let Some(app) = App::shared() else { return };
    let id = app
        .ready(Some(&shared_registry().reference(TestImage::StaticOnly)))
        .await;
    let shell = Shell::open(&app, id).await;
    // It stays to be read, until a key is pressed.
    shell.until_shown("This image has no shell").await;
    shell.terminal.write(b" ").await.unwrap();
    assert_eq!(shell.until_exit().await.0, Some(127));
}
