//! Cove without a window, and with ears: sessions on an engine, and every event that they told.

pub(crate) mod fake_engine;
pub(crate) mod own_image;
#[cfg(unix)]
pub(crate) mod slow_engine;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cove_core::assets::Assets;
use cove_core::engine::docker::DockerPlaces;
use cove_core::engine::{EngineView, Places, RememberedEngines};
use cove_core::error::{ErrorCode, ErrorReport};
use cove_core::estimate::History;
use cove_core::event::{FilesChanged, Phase, PortsEvent, Progress, Reporter, SessionEvent};
use cove_core::journal::Journal;
use cove_core::remembered::RememberedSession;
use cove_core::session::SessionId;
use cove_core::sessions::{ConnectedSession, Names, Persistence, ReadySession, Sessions};
use cove_core::settings::Settings;
use cove_testbed as testbed;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use self::fake_engine::{FakeEngine, FakePlaces, fake_assets};

/// How long a test waits for what should long have happened.
const PATIENCE: Duration = Duration::from_secs(60);

/// Something that was heard, and when, counted from the last create or open.
#[derive(Debug, Clone)]
pub(crate) struct Moment {
    pub(crate) at: Duration,
    pub(crate) event: SessionEvent,
}

type Hook = Box<dyn FnMut(&SessionEvent) + Send>;

/// Every event so far.
pub(crate) struct Heard {
    begin: Mutex<Instant>,
    moments: Mutex<Vec<Moment>>,
    hook: Mutex<Option<Hook>>,
    count: watch::Sender<usize>,
    /// How often a session was told to be another than it was.
    pub(crate) changes: watch::Sender<usize>,
    /// How often the engines were told.
    pub(crate) engines: watch::Sender<usize>,
    /// What was told of files that are watched.
    pub(crate) files: watch::Sender<Vec<FilesChanged>>,
    /// The `seq` of what was told last of ports.
    pub(crate) ports: watch::Sender<u64>,
    /// The `seq` of the last event: there is no gap, so that none is lost.
    seq: Mutex<u64>,
}

impl Heard {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            begin: Mutex::new(Instant::now()),
            moments: Mutex::default(),
            hook: Mutex::default(),
            count: watch::Sender::new(0),
            changes: watch::Sender::new(0),
            engines: watch::Sender::new(0),
            files: watch::Sender::default(),
            ports: watch::Sender::new(0),
            seq: Mutex::default(),
        })
    }

    /// Calls this at every event from now on, from within the run.
    pub(crate) fn on_event(&self, hook: impl FnMut(&SessionEvent) + Send + 'static) {
        *self.hook.lock().unwrap() = Some(Box::new(hook));
    }

    pub(crate) fn begin(&self) {
        *self.begin.lock().unwrap() = Instant::now();
    }

    /// Returns what was heard of a session.
    pub(crate) fn of(&self, id: SessionId) -> Vec<Moment> {
        let moments = self.moments.lock().unwrap();
        let of_id = moments
            .iter()
            .filter(|moment| moment.event.session_id() == id);
        of_id.cloned().collect()
    }

    /// Waits until the session's events satisfy the look.
    pub(crate) async fn until<T>(&self, id: SessionId, look: impl Fn(&[Moment]) -> Option<T>) -> T {
        let mut count = self.count.subscribe();
        let waiting = async {
            loop {
                if let Some(found) = look(&self.of(id)) {
                    return found;
                }
                count.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .unwrap_or_else(|_| panic!("waited in vain: {:#?}", self.of(id).last()))
    }

    /// Waits for the end of the session's `count`th run, and returns that run.
    pub(crate) async fn run(&self, id: SessionId, count: usize) -> Vec<Moment> {
        self.until(id, |moments| {
            let mut runs = moments.split_inclusive(|moment| moment.event.is_terminal());
            let run = runs.nth(count - 1)?;
            run.last()?.event.is_terminal().then(|| run.to_vec())
        })
        .await
    }
}

struct Ear(Arc<Heard>);

impl Reporter for Ear {
    fn report(&self, event: &SessionEvent) {
        {
            let mut seq = self.0.seq.lock().unwrap();
            assert_eq!(seq_of(event), *seq + 1, "{event:?}");
            *seq += 1;
        }
        if let SessionEvent::Changed(_) = event {
            self.0.changes.send_modify(|count| *count += 1);
        } else {
            let at = self.0.begin.lock().unwrap().elapsed();
            let moment = Moment {
                at,
                event: event.clone(),
            };
            self.0.moments.lock().unwrap().push(moment);
            self.0.count.send_modify(|count| *count += 1);
        }
        if let Some(hook) = &mut *self.0.hook.lock().unwrap() {
            hook(event);
        }
    }

    fn ports_changed(&self, event: &PortsEvent) {
        self.0.ports.send_replace(event.list.seq);
    }

    fn engines_changed(&self, _: &[EngineView]) {
        self.0.engines.send_modify(|count| *count += 1);
    }

    fn files_changed(&self, changed: &FilesChanged) {
        self.0.files.send_modify(|told| told.push(changed.clone()));
    }
}

/// What an app starts with.
#[derive(Clone, Default)]
pub(crate) struct Start {
    pub(crate) settings: Settings,
    pub(crate) history: History,
    pub(crate) names: Names,
    /// The engine that was chosen for new sessions, and the others that have sessions.
    pub(crate) engines: RememberedEngines,
    /// The sessions that there were on them.
    pub(crate) remembered: Vec<RememberedSession>,
    /// The folder of its journal; absent for none.
    pub(crate) journal: Option<PathBuf>,
}

/// What an app kept, newest last.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) histories: Mutex<Vec<History>>,
    pub(crate) names: Mutex<Names>,
    pub(crate) engines: Mutex<RememberedEngines>,
    pub(crate) sessions: Mutex<Vec<RememberedSession>>,
}

struct Keeper(Arc<Kept>);

impl Persistence for Keeper {
    fn history(&self, history: &History) {
        self.0.histories.lock().unwrap().push(history.clone());
    }

    fn names(&self, names: &Names) {
        self.0.names.lock().unwrap().clone_from(names);
    }

    fn engines(&self, engines: &RememberedEngines) {
        self.0.engines.lock().unwrap().clone_from(engines);
    }

    fn sessions(&self, sessions: &[RememberedSession]) {
        *self.0.sessions.lock().unwrap() = sessions.to_vec();
    }
}

/// Cove without a window. What it made is gone from the engine when it is dropped.
pub(crate) struct App {
    pub(crate) sessions: Sessions,
    pub(crate) heard: Arc<Heard>,
    pub(crate) kept: Arc<Kept>,
    /// The engine for a look from outside; absent over an engine that is made up.
    engine: Option<Arc<testbed::Engine>>,
    made: Mutex<Vec<SessionId>>,
}

impl App {
    /// Starts on the engine that all tests share; `None` when there is none, which is then noted.
    pub(crate) fn shared() -> Option<Self> {
        Some(Self::on(&Arc::new(testbed::Engine::from_env_or_skip()?)))
    }

    pub(crate) fn on(engine: &Arc<testbed::Engine>) -> Self {
        Self::with(engine, Start::default())
    }

    pub(crate) fn with(engine: &Arc<testbed::Engine>, start: Start) -> Self {
        Self::through(engine, engine.host(), start)
    }

    /// Starts on an engine that is reached by another address than its own.
    pub(crate) fn through(engine: &Arc<testbed::Engine>, address: &str, start: Start) -> Self {
        Self::among(&[address], Some(Arc::clone(engine)), start)
    }

    /// Starts where engines listen at these addresses.
    pub(crate) fn among(
        addresses: &[&str],
        outside: Option<Arc<testbed::Engine>>,
        start: Start,
    ) -> Self {
        let places = Box::new(DockerPlaces::at(addresses));
        Self::at(places, assets(), outside, start)
    }

    /// Starts on an engine that is made up.
    pub(crate) fn over(engine: Arc<FakeEngine>, start: Start) -> Self {
        Self::at(Box::new(FakePlaces(engine)), fake_assets(), None, start)
    }

    fn at(
        places: Box<dyn Places>,
        assets: Assets,
        outside: Option<Arc<testbed::Engine>>,
        start: Start,
    ) -> Self {
        let heard = Heard::new();
        let kept = Arc::new(Kept::default());
        let journal = match &start.journal {
            Some(folder) => Journal::open(folder),
            None => (Journal::none(), Vec::new()),
        };
        let sessions = Sessions::new(cove_core::sessions::Start {
            places,
            engines: start.engines,
            remembered: start.remembered,
            assets,
            reporter: Box::new(Ear(Arc::clone(&heard))),
            settings: start.settings.check().unwrap(),
            history: start.history,
            names: start.names,
            keep: Box::new(Keeper(Arc::clone(&kept))),
            journal,
            drafts: cove_core::drafts::Drafts::default(),
        });
        Self {
            sessions,
            heard,
            kept,
            engine: outside,
            made: Mutex::default(),
        }
    }

    /// Starts once more on the same engine, as after a restart of the app.
    pub(crate) fn again(&self) -> Self {
        Self::on(self.engine.as_ref().unwrap())
    }

    /// Cleans up this session too after the test.
    pub(crate) fn adopt(&self, id: SessionId) {
        self.made.lock().unwrap().push(id);
    }

    /// Leaves what it made to another app, which cleans up after the test.
    pub(crate) fn leave_to(&self, other: &Self) {
        let mut made = self.made.lock().unwrap();
        other.made.lock().unwrap().append(&mut made);
    }

    pub(crate) fn engine(&self) -> &testbed::Engine {
        self.engine.as_ref().unwrap()
    }

    pub(crate) fn create(&self, image: Option<&str>) -> SessionId {
        self.create_from(&json!({ "workspace_id": "tests", "image": image }))
    }

    pub(crate) fn create_from(&self, request: &Value) -> SessionId {
        self.heard.begin();
        let id = self.sessions.create(request).unwrap();
        self.made.lock().unwrap().push(id);
        id
    }

    /// Creates a session and waits for the end of its first run.
    pub(crate) async fn create_and_wait(&self, image: Option<&str>) -> (SessionId, Vec<Moment>) {
        let id = self.create(image);
        (id, self.heard.run(id, 1).await)
    }

    /// Creates a session that has to become ready.
    pub(crate) async fn ready(&self, image: Option<&str>) -> SessionId {
        let (id, run) = self.create_and_wait(image).await;
        check_ready(&run);
        id
    }

    /// Returns a session that has to be ready.
    pub(crate) async fn session(&self, id: SessionId) -> ReadySession {
        self.sessions.ready(id).await.unwrap()
    }

    /// Reads a file of a session that has to be ready.
    pub(crate) async fn read(&self, id: SessionId, path: &str) -> String {
        self.session(id)
            .await
            .read_file(path)
            .await
            .unwrap()
            .content
    }

    /// Returns a session that has to be ready or held up.
    pub(crate) async fn connected(&self, id: SessionId) -> ConnectedSession {
        self.sessions.connected(id).await.unwrap()
    }

    /// Opens a session that has to become ready by the `count`th run that this app hears of.
    pub(crate) async fn open(&self, id: SessionId, count: usize) -> Vec<Moment> {
        self.heard.begin();
        self.sessions.open(id).await.unwrap();
        let run = self.heard.run(id, count).await;
        check_ready(&run);
        run
    }

    fn output_of(&self, id: SessionId, user: &str, command: &[&str]) -> (bool, [String; 2]) {
        let name = id.resource_name();
        let output = self
            .engine()
            .run(&[&["exec", "--user", user, &name], command].concat())
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        (
            output.status.success(),
            [text(&output.stdout), text(&output.stderr)],
        )
    }

    /// Runs a command in the session's container as a user, and says whether it succeeded and
    /// what it printed.
    pub(crate) fn exec(&self, id: SessionId, user: &str, command: &[&str]) -> (bool, String) {
        let (done, text) = self.output_of(id, user, command);
        (done, text.concat())
    }

    /// Runs a shell command in the session's container as root; it has to succeed. Returns what it printed, but for what went
    /// wrong.
    pub(crate) fn sh(&self, id: SessionId, script: &str) -> String {
        let (done, [text, wrong]) = self.output_of(id, "0", &["sh", "-c", script]);
        assert!(done, "{script}: {text} {wrong}");
        text
    }

    /// Sends a signal to each process of the agent in the session's container that has this role, and returns how many there are.
    pub(crate) fn signal_agents(&self, id: SessionId, role: &str, signal: &str) -> usize {
        // No other image program is needed; arguments end with NUL.
        let script = format!(
            "for p in /proc/[0-9]*; do \
             a=$(tr '\\0' ' ' < $p/cmdline 2> /dev/null); \
             case \"$a\" in /.cove/agent\\ {role}*) kill {signal} ${{p#/proc/}} && echo $p;; esac; done; true"
        );
        self.sh(id, &script).lines().count()
    }

    /// Returns what `docker inspect` says of the session's container.
    pub(crate) fn inspect(&self, id: SessionId) -> Value {
        let text = self.engine().docker(&["inspect", &id.resource_name()]);
        serde_json::from_str::<Value>(&text.unwrap()).unwrap()[0].clone()
    }

    /// Nothing of the session is on the engine.
    #[track_caller]
    pub(crate) fn check_nothing_is_left(&self, id: SessionId) {
        let left = self.engine().resources_of(&id.to_string()).unwrap();
        assert!(left.is_empty(), "left behind: {left:?}");
    }

    /// Waits until nothing of the session is on the engine.
    pub(crate) async fn until_nothing_is_left(&self, id: SessionId) {
        eventually("the end of all leftovers", || {
            let left = self.engine().resources_of(&id.to_string()).unwrap();
            left.is_empty().then_some(())
        })
        .await;
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let made = self.made.get_mut().unwrap();
        let (Some(engine), false) = (&self.engine, made.is_empty()) else {
            return;
        };
        let names: Vec<_> = made.iter().map(|id| id.resource_name()).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        // Most tests leave nothing, and the engine goes with its own guard.
        let _ = engine.run(&[&["rm", "--force"], &names[..]].concat());
        let _ = engine.run(&[&["volume", "rm", "--force"], &names[..]].concat());
    }
}

/// Returns the files that are built into the app.
pub(crate) fn assets() -> Assets {
    let folder = std::env::var_os("COVE_ASSETS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../assets"),
        PathBuf::from,
    );
    Assets::from_folder(&folder).unwrap()
}

/// Starts an engine of the test's own: a pull is cold only where no other test has had its layers.
pub(crate) fn own_engine() -> Option<Arc<testbed::Engine>> {
    if let Some(reason) = testbed::Engine::cannot_start() {
        testbed::skip(reason);
        return None;
    }
    Some(Arc::new(testbed::Engine::start().unwrap()))
}

/// Returns the registry that all tests share, without a password.
pub(crate) fn shared_registry() -> testbed::Registry {
    testbed::Registry::from_env().expect("whoever starts an engine for all starts a registry too")
}

pub(crate) fn seq_of(event: &SessionEvent) -> u64 {
    match event {
        SessionEvent::Progress(event) => event.seq,
        SessionEvent::Ready(event) => event.seq,
        SessionEvent::Failed(event) => event.seq,
        SessionEvent::Cancelled(event) => event.seq,
        SessionEvent::Export(event) => event.seq,
        SessionEvent::Changed(event) => event.seq,
        SessionEvent::Transfer(event) => event.seq,
    }
}

/// Returns phase and figures of what tells them.
pub(crate) fn progress_of(event: &SessionEvent) -> Option<(Phase, &Progress)> {
    match event {
        SessionEvent::Progress(event) => Some((event.phase, &event.progress)),
        SessionEvent::Ready(event) => Some((Phase::Ready, &event.progress)),
        SessionEvent::Failed(_)
        | SessionEvent::Cancelled(_)
        | SessionEvent::Export(_)
        | SessionEvent::Transfer(_)
        | SessionEvent::Changed(_) => None,
    }
}

/// What holds for every run, however it ends: `seq` that rises, percents that rise within their
/// bands, one terminal event, and that last.
#[track_caller]
pub(crate) fn check_run(run: &[Moment]) {
    let mut seq = 0;
    let (mut percent, mut phase, mut elapsed) = (0.0, Phase::Starting, 0);
    for (index, Moment { event, .. }) in run.iter().enumerate() {
        assert!(seq_of(event) > seq, "{event:?} after {seq}");
        seq = seq_of(event);
        assert_eq!(event.is_terminal(), index + 1 == run.len(), "{event:?}");
        let Some((now, progress)) = progress_of(event) else {
            continue;
        };
        let (low, high) = now.band();
        assert!((low..=high).contains(&progress.percent), "{event:?}");
        assert!(progress.percent >= percent, "{event:?} after {percent}");
        assert!(now >= phase, "{event:?} after {phase:?}");
        assert!(progress.elapsed_ms >= elapsed, "{event:?}");
        assert!(progress.percent < 100.0 || now == Phase::Ready, "{event:?}");
        (percent, phase, elapsed) = (progress.percent, now, progress.elapsed_ms);
    }
    for (index, moment) in run.iter().enumerate() {
        let second = run[index..].iter();
        let within = second.take_while(|later| later.at < moment.at + Duration::from_secs(1));
        let count = within.filter(|later| !later.event.is_terminal()).count();
        assert!(count <= 10, "{count} events in a second");
    }
}

/// The run is one that ended in a session that is ready.
#[track_caller]
pub(crate) fn check_ready(run: &[Moment]) {
    check_run(run);
    let last = &run.last().unwrap().event;
    assert!(matches!(last, SessionEvent::Ready(_)), "{last:#?}");
}

/// The run is one that failed with this code, and this `details.reason`. Returns the whole error.
#[track_caller]
pub(crate) fn check_failed(run: &[Moment], code: ErrorCode, reason: Option<&str>) -> ErrorReport {
    check_run(run);
    let SessionEvent::Failed(failed) = &run.last().unwrap().event else {
        panic!("{:#?}", run.last());
    };
    let told = failed.error.details.get("reason").and_then(Value::as_str);
    assert_eq!((failed.error.error, told), (code, reason), "{failed:#?}");
    assert!(!failed.error.hint.is_empty());
    for undone in &failed.undone {
        assert_eq!(undone.failure, None, "{failed:#?}");
    }
    failed.error.clone()
}

/// Looks again until there is something to see.
pub(crate) async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(15),
            "{what} did not come"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Prints a figure for whoever reads the log of the tests.
#[expect(clippy::print_stderr, reason = "figures are for the log of the tests")]
pub(crate) fn note(figure: &str) {
    eprintln!("{figure}");
}
