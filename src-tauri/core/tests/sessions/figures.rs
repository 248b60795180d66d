//! What a session uses and prints: measured and read while somebody looks, by the engine, and said in words where its memory
//! was used up.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cove_core::container_log::{LogText, MOST_BYTES};
use cove_core::error::ErrorCode;
use cove_core::figures::Figures;
use cove_core::session::{OutOfMemory, Session, SessionId, SessionState};
use cove_core::sessions::{FiguresNews, LogNews, WatchId};
use cove_core::settings::Settings;
use cove_testbed::{Engine, EngineKind, EngineProxy};
use serde_json::Value;
use tokio::sync::watch;

use crate::following::{follow, until_shown};
use crate::support::{App, Start, eventually, note, own_engine};
use crate::terminals::Shell;

const PATIENCE: Duration = Duration::from_secs(60);
const MEBIBYTE: u64 = 1 << 20;

/// A small memory limit, which a real program can use up.
fn limited(memory_limit_mb: u64) -> Start {
    Start {
        settings: Settings {
            memory_limit_mb: Some(memory_limit_mb),
            pids_limit: 100,
            ..Settings::default()
        },
        ..Start::default()
    }
}

/// What was heard over a channel, as the window has it.
struct Told<T> {
    news: Arc<Mutex<Vec<T>>>,
    count: watch::Receiver<usize>,
}

impl<T: Send + Sync + 'static> Told<T> {
    fn new() -> (Self, cove_core::sessions::WatchSink<T>) {
        let news = Arc::new(Mutex::new(Vec::new()));
        let (sender, count) = watch::channel(0);
        let heard = Arc::clone(&news);
        let sink = Box::new(move |told| {
            heard.lock().unwrap().push(told);
            sender.send_modify(|count| *count += 1);
        });
        (Self { news, count }, sink)
    }

    async fn until<U>(&self, what: &str, look: impl Fn(&[T]) -> Option<U>) -> U {
        let mut count = self.count.clone();
        let waiting = async {
            loop {
                if let Some(found) = look(&self.news.lock().unwrap()) {
                    return found;
                }
                count.changed().await.unwrap();
            }
        };
        let found = tokio::time::timeout(PATIENCE, waiting).await;
        found.unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }

    fn count(&self) -> usize {
        self.news.lock().unwrap().len()
    }
}

fn latest(news: &[FiguresNews]) -> Option<Figures> {
    news.iter().rev().find_map(|news| match news {
        FiguresNews::Figures(figures) => Some(*figures),
        FiguresNews::Ended { .. } => None,
    })
}

fn is_over(news: &[FiguresNews]) -> Option<()> {
    matches!(news.last(), Some(FiguresNews::Ended { error: None })).then_some(())
}

/// What the `docker` command says at the same time.
#[derive(Debug)]
struct Beside {
    cpu: f64,
    memory: f64,
    limit: f64,
    pids: u64,
}

fn beside(engine: &Engine, id: SessionId) -> Beside {
    let name = id.resource_name();
    let format = "{{json .}}";
    let text = engine.docker(&["stats", "--no-stream", "--format", format, &name]);
    let said: Value = serde_json::from_str(&text.unwrap()).unwrap();
    let text = |field: &str| said[field].as_str().unwrap();
    let (usage, limit) = text("MemUsage").split_once(" / ").unwrap();
    Beside {
        cpu: text("CPUPerc").trim_end_matches('%').parse().unwrap(),
        memory: bytes(usage),
        limit: bytes(limit),
        pids: text("PIDs").parse().unwrap(),
    }
}

/// Reads `31.4MiB`.
fn bytes(text: &str) -> f64 {
    let units = [
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
        ("B", 1),
    ];
    let (number, unit) = units
        .iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))
        .unwrap();
    number.parse::<f64>().unwrap() * f64::from(unit)
}

fn as_f64(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes / 1024).unwrap()) * 1024.0
}

/// Does known work: one processor is busy, 40 MiB are held, three processes sleep.
const WORK: &str = "head -c 40m /dev/zero > /dev/shm/held; for i in 1 2 3; do sleep 600 & done; (while :; do :; done) & true";

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_those_of_docker_stats() {
    let Some(engine) = Engine::from_env_or_skip() else {
        return;
    };
    check_figures(&Arc::new(engine), EngineKind::Docker).await;
}

pub(crate) async fn check_figures(engine: &Arc<Engine>, kind: EngineKind) {
    let app = App::with(engine, limited(128));
    let id = app.ready(None).await;
    let shell = Shell::open(&app, id).await;
    shell.output_of(WORK).await;
    let (told, sink) = Told::new();
    let (watch, first) = app.sessions.watch_figures(id, sink).await.unwrap();
    assert_eq!(first.memory_limit, Some(128 * MEBIBYTE));
    assert_eq!(first.pids_limit, Some(100));
    // Ours are taken while the command takes its own, which are of the second that it waits for.
    let mut worst = (0.0_f64, 0.0_f64);
    for _ in 0..3 {
        let from = told.count();
        let said = {
            let engine = Arc::clone(engine);
            let look = tokio::task::spawn_blocking(move || beside(&engine, id));
            look.await.unwrap()
        };
        let ours = told
            .until("figures of the same time", |news| latest(news.get(from..)?))
            .await;
        note(&format!("docker stats {said:?}, ours {ours:?}"));
        let cpu = ours.cpu.unwrap();
        match kind {
            // An engine tells each second of its own to all who look: it is the same one or the next. On a machine that is
            // busy with other tests the loop has not the same share of each; a wrong formula is wrong by a factor.
            EngineKind::Docker => {
                worst.0 = worst.0.max((cpu - said.cpu).abs());
                assert!(
                    (cpu - said.cpu).abs() < 0.35 * said.cpu.max(20.0),
                    "{cpu} beside {said:?}"
                );
            }
            // The command reckons with what Podman does not count: it says next to nothing of a loop.
            EngineKind::Podman => assert!((15.0..150.0).contains(&cpu), "{cpu} of one busy loop"),
        }
        // Nothing allocates meanwhile but the kernel itself, for a process that comes or goes.
        let memory = as_f64(ours.memory.unwrap());
        worst.1 = worst.1.max((memory - said.memory).abs());
        assert!(
            (memory - said.memory).abs() < 2.0 * as_f64(MEBIBYTE),
            "{memory} beside {said:?}"
        );
        let held = 40.0 * as_f64(MEBIBYTE);
        assert!(memory > held, "the files in memory count: {memory}");
        assert!((as_f64(ours.memory_limit.unwrap()) - said.limit).abs() < 1.0);
        assert_eq!(ours.pids, Some(said.pids));
        assert_eq!(ours.cpu_limit, Some(processors(&app) * 100.0));
    }
    note(&format!(
        "apart by at most {:.1} % and {:.0} kB",
        worst.0,
        worst.1 / 1000.0
    ));
    app.sessions.end_watch(watch);

    let once = app.sessions.figures(id).await.unwrap();
    assert!(once.cpu.unwrap() > 10.0, "{once:?}");
    // What the files take, and what is free beside them: only the kernel of the container knows that disk.
    app.sh(id, "head -c 3m /dev/urandom > /workspace/file");
    let usage = app.sessions.usage(id).await.unwrap();
    assert!(usage.stored_bytes.unwrap() >= 3 * MEBIBYTE, "{usage:?}");
    let df = app.sh(id, "df -k /workspace | tail -n 1 | awk '{print $2, $4}'");
    let (all, free) = df.split_once(' ').unwrap();
    assert_eq!(
        usage.disk_bytes.unwrap() / 1024,
        all.parse::<u64>().unwrap()
    );
    let apart = (usage.free_bytes.unwrap() / 1024).abs_diff(free.parse().unwrap());
    // Others write to the same disk.
    assert!(apart < 1 << 20, "{apart} kB apart: {usage:?}, {df}");
}

fn processors(app: &App) -> f64 {
    let count = app.engine().docker(&["info", "--format", "{{.NCPU}}"]);
    count.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_measured_or_read_while_nobody_looks() {
    let Some(engine) = own_engine() else { return };
    let proxy = EngineProxy::start(engine.socket()).unwrap();
    let app = App::through(&engine, &proxy.address(), Start::default());
    follow(&app).await;
    let id = app.ready(None).await;
    let shell = Shell::open(&app, id).await;
    shell.output_of("sleep 600 & true").await;
    let looks = || {
        let is_look = |request: &&String| {
            ["/stats", "/logs"]
                .iter()
                .any(|look| request.contains(look))
        };
        proxy
            .requests()
            .iter()
            .filter(is_look)
            .cloned()
            .collect::<Vec<_>>()
    };
    // A session that is used is not measured by that.
    app.session(id).await.list_dir("/workspace").await.unwrap();
    app.sessions.list().await;
    assert_eq!(looks(), Vec::<String>::new());

    let (told, sink) = Told::new();
    let (watch, _) = app.sessions.watch_figures(id, sink).await.unwrap();
    told.until("two figures", |news| (news.len() >= 2).then_some(()))
        .await;
    // However long somebody looks, the engine was asked once.
    assert_eq!(looks().len(), 1, "{:?}", looks());
    let (log, sink) = Told::new();
    let log_watch = app.sessions.watch_log(id, 10, sink).await.unwrap();
    eventually("the question for the log", || {
        (looks().len() == 2).then_some(())
    })
    .await;
    assert_eq!((proxy.open("/stats"), proxy.open("/logs")), (1, 1));
    app.sessions.end_watch(watch);
    app.sessions.end_watch(log_watch);
    // The engine is told by the end of the connection.
    eventually("the end of both", || {
        (proxy.open("/stats") + proxy.open("/logs") == 0).then_some(())
    })
    .await;
    let (figures, lines) = (told.count(), log.count());
    shell.output_of("echo still there").await;
    assert_eq!((told.count(), log.count()), (figures, lines));
    assert_eq!(looks().len(), 2, "{:?}", looks());

    // A window that is gone looks at nothing.
    let (told, sink) = Told::new();
    app.sessions.watch_figures(id, sink).await.unwrap();
    told.until("figures", |news| latest(news).map(drop)).await;
    app.sessions.end_watches();
    eventually("the end of it", || {
        (proxy.open("/stats") == 0).then_some(())
    })
    .await;
    // One that forgets to end what it began has a few at most.
    let mut kept = Vec::new();
    for _ in 0..18 {
        let (told, sink) = Told::<FiguresNews>::new();
        app.sessions.watch_figures(id, sink).await.unwrap();
        kept.push(told);
    }
    eventually("the end of the oldest", || {
        (proxy.open("/stats") == 16).then_some(())
    })
    .await;
    app.sessions.shutdown().await;
    eventually("the end of all", || {
        (proxy.open("/stats") == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_stops_is_not_measured_any_more_and_one_that_is_not_ready_never() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    let (told, sink) = Told::new();
    app.sessions.watch_figures(id, sink).await.unwrap();
    app.sessions.stop(id).await.unwrap();
    told.until("the end", is_over).await;
    let (never, sink) = Told::new();
    let refused = [
        app.sessions.figures(id).await.err(),
        app.sessions.watch_figures(id, sink).await.err(),
    ];
    for error in refused {
        assert_eq!(error.unwrap().code(), ErrorCode::SessionNotReady);
    }
    assert_eq!(never.count(), 0);
}

/// A program that holds more than the session may: the shell stays.
const GREEDY: &str = "head -c 200m /dev/zero | tail -c 190m | wc -c";

fn is_told(session: Option<&Session>) -> bool {
    session.is_some_and(|session| session.out_of_memory.is_some())
}

async fn note_of(app: &App, id: SessionId) -> Option<OutOfMemory> {
    app.sessions.status(id).await.unwrap().session.out_of_memory
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_ended_for_want_of_memory_is_said_until_the_user_knows() {
    let Some(engine) = Engine::from_env_or_skip() else {
        return;
    };
    let app = App::with(&Arc::new(engine), limited(64));
    follow(&app).await;
    let (id, other) = (app.ready(None).await, app.ready(None).await);
    let shell = Shell::open(&app, id).await;
    shell.type_line(GREEDY).await;
    until_shown(&app, id, is_told).await;
    let told = note_of(&app, id).await.unwrap();
    assert_eq!(told.limit_bytes, Some(64 * MEBIBYTE));
    // The session goes on, and its shell.
    shell.output_of("echo here").await;
    let status = app.sessions.status(id).await.unwrap();
    assert_eq!(status.state, SessionState::Ready);
    assert_eq!(note_of(&app, other).await, None, "it is the one session's");

    // What the engine tells while that program comes to its end is no other end.
    shell.output_of("sleep 3").await;
    app.sessions.dismiss_note(id).await.unwrap();
    assert_eq!(note_of(&app, id).await, None);
    shell.type_line(GREEDY).await;
    until_shown(&app, id, is_told).await;
    assert!(note_of(&app, id).await.unwrap().at_ms >= told.at_ms);
    // A new container may have another limit.
    app.sessions.rebuild(id, None).await.unwrap();
    app.heard.run(id, 2).await;
    assert_eq!(note_of(&app, id).await, None);
    app.sessions.shutdown().await;
}

/// Lets the first process of the container have a child that prints all that is written to a file: the agent itself says
/// next to nothing. It begins when the container is started next.
const PRINTER: &str = r#"
    mv /.cove/agent /.cove/agent.real
    cat > /.cove/agent <<'END'
#!/bin/sh
if [ "$1" = init ]; then
    : > /tmp/print
    tail -n 1000 -f /tmp/print >&2 &
fi
exec /.cove/agent.real "$@"
END
    chmod 755 /.cove/agent
"#;

/// Creates a session whose first process prints what this script and [`print`] say.
async fn printing(app: &App, script: &str) -> SessionId {
    let id = app.ready(None).await;
    app.sh(id, PRINTER);
    app.sessions.stop(id).await.unwrap();
    // Cove would put its agent there again.
    let name = id.resource_name();
    app.engine().docker(&["start", &name]).unwrap();
    app.sh(id, &format!("({script}) >> /tmp/print"));
    id
}

/// Has something printed as the first process of the container does.
fn print(app: &App, id: SessionId, script: &str) {
    app.sh(id, &format!("({script}) >> /tmp/print"));
}

async fn log_of(app: &App, id: SessionId, tail: usize) -> LogText {
    app.sessions.read_log(id, tail).await.unwrap()
}

/// Returns all text that was told.
fn text_of(news: &[LogNews]) -> String {
    let text = news.iter().filter_map(|news| match news {
        LogNews::Text { text } => Some(text.as_str()),
        LogNews::Ended { .. } => None,
    });
    text.collect()
}

/// Acknowledges all that comes until the text satisfies the look.
async fn until_read(
    app: &App,
    log: &Told<LogNews>,
    watch: WatchId,
    what: &str,
    look: impl Fn(&str) -> bool,
) {
    let mut count = log.count.clone();
    let waiting = async {
        loop {
            app.sessions.acknowledge_log(watch);
            if look(&text_of(&log.news.lock().unwrap())) {
                return;
            }
            count.changed().await.unwrap();
        }
    };
    let found = tokio::time::timeout(PATIENCE, waiting).await;
    found.unwrap_or_else(|_| {
        let text = text_of(&log.news.lock().unwrap());
        panic!("waited in vain for {what} after {text:?}")
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_followed_cut_and_harmless_and_can_be_read_of_a_stopped_session() {
    let Some(app) = App::shared() else { return };
    check_log(&app).await;
}

pub(crate) async fn check_log(app: &App) {
    let said = "for i in $(seq 300); do echo line $i; done; \
        printf '\\033[31mred\\033[0m \\033[2J\\377 \\342\\200\\256right\\n'";
    let id = printing(app, said).await;
    let hostile = "red \u{241b}[2J\u{fffd} \\u{202e}right";
    let (first, sink) = Told::new();
    let watch = app.sessions.watch_log(id, 1_000, sink).await.unwrap();
    let has_come = |text: &str| text.ends_with(&format!("{hostile}\n"));
    until_read(app, &first, watch, "what was printed", has_come).await;
    app.sessions.end_watch(watch);
    let read = log_of(app, id, 4).await;
    let lines: Vec<_> = read.text.lines().collect();
    assert_eq!(lines, ["line 298", "line 299", "line 300", hostile]);

    let (log, sink) = Told::new();
    let watch = app.sessions.watch_log(id, 2, sink).await.unwrap();
    until_read(app, &log, watch, "the last lines", |text| {
        text.lines().count() == 2
    })
    .await;
    print(app, id, "echo more");
    until_read(app, &log, watch, "what is printed", |text| {
        text.ends_with("right\nmore\n")
    })
    .await;

    // Nobody acknowledges anything: no more is read than a few batches, however much is printed.
    print(
        app,
        id,
        "for i in $(seq 15000); do echo a line that is as long as most of them are, number $i; done",
    );
    let ahead = log.count();
    log.until("what may come unacknowledged", |news| {
        (news.len() >= ahead + 4).then_some(())
    })
    .await;
    // Time for more, if there were any: a batch is told twenty times a second.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(log.count(), ahead + 4);
    until_read(app, &log, watch, "the rest", |text| {
        text.ends_with("number 15000\n")
    })
    .await;

    // What was asked for is more than is kept.
    let read = log_of(app, id, 10_000).await;
    assert!(
        read.text.ends_with("number 15000\n"),
        "the end is what is kept"
    );
    assert!(read.text.len() <= MOST_BYTES);
    let error = app.sessions.read_log(id, 10_001).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ValidationError);

    app.sessions.stop(id).await.unwrap();
    log.until("the end", |news| {
        matches!(news.last(), Some(LogNews::Ended { error: None })).then_some(())
    })
    .await;
    let read = log_of(app, id, 1).await;
    assert!(!read.text.is_empty(), "of a stopped session");
    app.sessions.delete_container(id).await.unwrap();
    let error = app.sessions.read_log(id, 1).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::SessionNotReady);
}
