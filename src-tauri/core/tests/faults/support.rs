//! An engine of one's own with others on it, Cove without a window, and the book of what came of each run.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cove_core::assets::Assets;
use cove_core::engine::RememberedEngines;
use cove_core::engine::docker::DockerPlaces;
use cove_core::error::{Error, ErrorCode, ErrorReport};
use cove_core::estimate::History;
use cove_core::event::{FilesChanged, Reporter, SessionEvent, TransferEvent};
use cove_core::home::Home;
use cove_core::journal::Journal;
use cove_core::remembered::RememberedSession;
use cove_core::session::{SessionId, SessionState};
use cove_core::sessions::{Names, Persistence, Sessions, Start};
use cove_core::settings::Settings;
use cove_testbed::{
    Engine, EngineOptions, EngineProxy, FaultRecord, FaultTable, Image, ImageConfig, Random,
    Registry, RegistryOptions, SmallDisk, TestImage, Tree, skip,
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::bystanders::Bystanders;

/// How many runs there are in all, and of one kind at most, unless the environment says so.
const RUNS: u64 = 30;
const RUNS_OF_A_KIND: u64 = 12;
/// How long a run may take. Nothing here takes a tenth of it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take until a session is seen not to be ready any more.
const NOTICED: Duration = Duration::from_secs(2);
/// How long what is late may take to go.
const LATE: Duration = Duration::from_secs(10);

/// Returns the seeds of a kind of run that has this many of a hundred.
pub(crate) fn seeds(percent: usize) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let asked = number("COVE_FAULT_RUNS");
    let of_a_kind = (asked.unwrap_or(RUNS) * percent as u64).div_ceil(100);
    let runs = asked.map_or(of_a_kind.min(RUNS_OF_A_KIND), |_| of_a_kind);
    let first = number("COVE_FAULT_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        now.as_secs() * 1_000
    });
    first..first + runs
}

/// Returns the numbers of a run.
pub(crate) fn random(seed: u64) -> Random {
    // Seeds that follow each other must not give rows that look alike.
    let mut random = Random::after(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    random.number();
    random
}

/// Returns a time up to this one.
pub(crate) fn up_to(random: &mut Random, longest: Duration) -> Duration {
    let longest = u64::try_from(longest.as_micros()).unwrap();
    Duration::from_micros(random.number() % (longest + 1))
}

/// Returns a number up to this one.
pub(crate) fn up_to_number(random: &mut Random, highest: u64) -> u64 {
    random.number() % (highest + 1)
}

/// Returns one of these.
pub(crate) fn one_of<T: Copy>(random: &mut Random, all: &[T]) -> T {
    let index = usize::try_from(random.number() % all.len() as u64).unwrap();
    *all.get(index).unwrap()
}

/// Says something to whoever reads the log of the tests.
#[expect(clippy::print_stderr, reason = "figures are for the log of the tests")]
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}

/// What came of the runs of a test.
#[derive(Default)]
pub(crate) struct Book {
    table: FaultTable,
}

impl Book {
    pub(crate) fn add(&mut self, record: FaultRecord) {
        note(&record.to_string());
        if let Some(path) = std::env::var_os(cove_testbed::FAULT_RECORDS) {
            record.append_to(&PathBuf::from(path)).unwrap();
        }
        self.table.records.push(record);
    }

    /// Returns whether a run has ended so.
    pub(crate) fn has(&self, outcome: &str) -> bool {
        self.table
            .records
            .iter()
            .any(|record| record.outcome == outcome)
    }

    /// Every promise was kept in every run.
    pub(crate) fn check(&self) {
        note(&self.table.to_string());
        let broken: Vec<_> = self.table.broken().map(ToString::to_string).collect();
        assert!(broken.is_empty(), "{}", broken.join("\n"));
        let cancel = self.table.cancel_within(99).unwrap_or_default();
        assert!(cancel < Duration::from_secs(2), "cancels took {cancel:?}");
        assert!(!self.table.records.is_empty(), "nothing was run");
    }
}

type Hook = Box<dyn FnMut(&SessionEvent) + Send>;

/// Every event since the last run began.
pub(crate) struct Heard {
    events: Mutex<Vec<SessionEvent>>,
    hook: Mutex<Option<Hook>>,
    count: watch::Sender<usize>,
    /// How often files were told to have changed.
    files: watch::Sender<usize>,
}

impl Heard {
    /// Forgets what was heard so far.
    pub(crate) fn forget(&self) {
        self.events.lock().unwrap().clear();
    }

    /// Returns what says that files have changed.
    pub(crate) fn files(&self) -> watch::Receiver<usize> {
        self.files.subscribe()
    }
}

struct Ear(Arc<Heard>);

impl Reporter for Ear {
    fn report(&self, event: &SessionEvent) {
        // What a session becomes beside its runs is asked for where it matters.
        if let SessionEvent::Changed(_) = event {
            return;
        }
        self.0.events.lock().unwrap().push(event.clone());
        self.0.count.send_modify(|count| *count += 1);
        if let Some(hook) = &mut *self.0.hook.lock().unwrap() {
            hook(event);
        }
    }

    fn files_changed(&self, _: &FilesChanged) {
        self.0.files.send_modify(|count| *count += 1);
    }
}

/// Keeps which engines there are, and nothing else.
struct Memory(Home);

impl Persistence for Memory {
    fn history(&self, _: &History) {}

    fn names(&self, _: &Names) {}

    fn engines(&self, engines: &RememberedEngines) {
        self.0.keep_engines(engines).unwrap();
    }

    fn sessions(&self, sessions: &[RememberedSession]) {
        self.0.keep_sessions(sessions).unwrap();
    }
}

/// Cove without a window.
pub(crate) struct App {
    pub(crate) sessions: Sessions,
    pub(crate) heard: Arc<Heard>,
    /// Of the journal, when nobody else has it.
    folder: Option<tempfile::TempDir>,
}

impl App {
    /// Starts on the engine at this address with a journal of its own.
    pub(crate) fn at(address: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut app = Self::with(address, folder.path(), Settings::default());
        app.folder = Some(folder);
        app
    }

    /// Starts with what the last app has left in this folder.
    pub(crate) fn with(address: &str, journal: &Path, settings: Settings) -> Self {
        Self::among(&[address], journal, settings)
    }

    /// Starts where engines listen at these addresses.
    pub(crate) fn among(addresses: &[&str], journal: &Path, settings: Settings) -> Self {
        let heard = Arc::new(Heard {
            events: Mutex::default(),
            hook: Mutex::default(),
            count: watch::Sender::new(0),
            files: watch::Sender::new(0),
        });
        let places = Box::new(DockerPlaces::at(addresses));
        // Beside the records, so that it is not taken for one.
        let folder = journal.join("home");
        std::fs::create_dir_all(&folder).unwrap();
        let home = Home::new(Some(folder));
        let sessions = Sessions::new(Start {
            settings: settings.check().unwrap(),
            journal: Journal::open(journal),
            engines: home.engines(),
            remembered: home.sessions(),
            keep: Box::new(Memory(home)),
            ..Start::fresh(places, assets(), Box::new(Ear(Arc::clone(&heard))))
        });
        sessions.follow_engines();
        Self {
            sessions,
            heard,
            folder: None,
        }
    }

    /// Calls this at every event from now on, from within the run.
    pub(crate) fn on_event(&self, hook: impl FnMut(&SessionEvent) + Send + 'static) {
        *self.heard.hook.lock().unwrap() = Some(Box::new(hook));
    }

    pub(crate) fn quiet(&self) {
        *self.heard.hook.lock().unwrap() = None;
    }

    pub(crate) fn create(&self, image: Option<&str>) -> SessionId {
        self.heard.events.lock().unwrap().clear();
        let request = json!({ "workspace_id": "faults", "image": image });
        self.sessions.create(&request).unwrap()
    }

    /// Opens a session that is not ready, and returns how the run ended.
    pub(crate) async fn open(&self, id: SessionId) -> Result<SessionEvent, String> {
        self.heard.events.lock().unwrap().clear();
        let opened = self.sessions.open(id).await;
        opened.map_err(|error| format!("it could not be opened: {error}"))?;
        self.end(id).await
    }

    /// Waits for a session that is on its way, opens one that is not, and uses its files: whatever happened before, it
    /// takes no more than one attempt of the user.
    pub(crate) async fn until_ready(&self, id: SessionId) -> Result<(), String> {
        let begin = Instant::now();
        let (mut opened, mut unusable) = (false, None);
        while begin.elapsed() < PATIENCE {
            let status = self.sessions.status(id).await;
            let status = status.map_err(|error| format!("it has no status: {error}"))?;
            match status.state {
                SessionState::Ready => match self.use_files(id).await {
                    Ok(()) => return Ok(()),
                    // The connection may have been lost just now.
                    Err(problem) => {
                        let since = *unusable.get_or_insert_with(Instant::now);
                        if since.elapsed() > NOTICED {
                            return Err(problem);
                        }
                    }
                },
                SessionState::Provisioning => {}
                _ if opened => {
                    let error = status.error.map(|error| code_of(&error));
                    return Err(format!(
                        "opened, it is {:?}: {error:?} {}",
                        status.state, status.message
                    ));
                }
                _ => {
                    let opening = self.sessions.open(id).await;
                    opening.map_err(|error| format!("it could not be opened: {error}"))?;
                    opened = true;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(format!("not ready within {} s", PATIENCE.as_secs()))
    }

    /// Creates a session that has to become ready.
    pub(crate) async fn ready(&self, image: Option<&str>) -> SessionId {
        let id = self.create(image);
        let end = self.end(id).await.unwrap();
        assert!(matches!(end, SessionEvent::Ready(_)), "{end:#?}");
        id
    }

    /// Waits until no run of the session is under way, and returns its state; `None` when it is gone.
    pub(crate) async fn settled(&self, id: SessionId) -> Result<Option<SessionState>, String> {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            match self.sessions.status(id).await {
                Ok(status) if status.state == SessionState::Provisioning => {}
                Ok(status) => return Ok(Some(status.state)),
                Err(Error::SessionNotFound(_)) => return Ok(None),
                Err(error) => return Err(format!("it has no status: {error}")),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(format!(
            "its run did not end within {} s",
            PATIENCE.as_secs()
        ))
    }

    /// Returns whether the session is gone, or a run of it is known to have failed, once that can be known.
    pub(crate) async fn is_gone_or_over(&self, id: SessionId) -> bool {
        let begin = Instant::now();
        while begin.elapsed() < NOTICED {
            let state = self.settled(id).await;
            if matches!(state, Ok(None | Some(SessionState::Failed))) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    /// Waits for the end of the session's run.
    pub(crate) async fn end(&self, id: SessionId) -> Result<SessionEvent, String> {
        let is_end = |event: &&SessionEvent| event.session_id() == id && event.is_terminal();
        let end = self
            .hear(|events| events.iter().find(is_end).cloned())
            .await;
        end.ok_or_else(|| format!("the run did not end within {} s", PATIENCE.as_secs()))
    }

    /// Waits for the end of a transfer.
    pub(crate) async fn transferred(&self, transfer: &str) -> Result<TransferEvent, String> {
        let end = |event: &SessionEvent| match event {
            SessionEvent::Transfer(event) if event.transfer_id == transfer => {
                event.outcome.is_some().then(|| (**event).clone())
            }
            _ => None,
        };
        let ended = self.hear(|events| events.iter().find_map(end)).await;
        ended.ok_or_else(|| format!("a transfer did not end within {} s", PATIENCE.as_secs()))
    }

    /// Waits until the look finds something among the events.
    async fn hear<T>(&self, look: impl Fn(&[SessionEvent]) -> Option<T>) -> Option<T> {
        let mut count = self.heard.count.subscribe();
        let waiting = async {
            loop {
                let found = look(&self.heard.events.lock().unwrap());
                if let Some(found) = found {
                    return found;
                }
                count.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.ok()
    }

    async fn use_files(&self, id: SessionId) -> Result<(), String> {
        let listed = async { self.sessions.ready(id).await?.list_dir("/workspace").await }.await;
        listed
            .map(drop)
            .map_err(|error| format!("ready, and its files cannot be listed: {error}"))
    }

    /// Deletes a session.
    pub(crate) async fn delete(&self, id: SessionId) -> Result<(), String> {
        let deleted = self.sessions.delete(id).await;
        deleted.map_err(|error| format!("it could not be deleted: {error}"))
    }
}

/// Returns code and reason in one word.
pub(crate) fn code_of(error: &ErrorReport) -> String {
    let code = json!(error.error);
    let reason = error.details.get("reason").and_then(Value::as_str);
    let reason = reason.map(|reason| format!("/{reason}"));
    format!(
        "{}{}",
        code.as_str().unwrap_or_default(),
        reason.unwrap_or_default()
    )
}

/// Returns the files that are built into the app.
pub(crate) fn assets() -> Assets {
    let folder = std::env::var_os("COVE_ASSETS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../assets"),
        PathBuf::from,
    );
    Assets::from_folder(&folder).unwrap()
}

/// Looks until it sees what it waits for; returns whether it has.
pub(crate) async fn eventually(mut look: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < LATE {
        if look() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

/// An engine that a test may do anything to, with what belongs to others on it.
pub(crate) struct Ground {
    pub(crate) bystanders: Bystanders,
    pub(crate) proxy: EngineProxy,
    pub(crate) registry: Registry,
    /// An image that is on the engine.
    pub(crate) tiny: String,
    /// An image that only the registry has.
    pub(crate) cold: String,
    pub(crate) engine: Arc<Engine>,
    repairing: Mutex<()>,
    /// Last, so that it is unmounted when the engine is gone.
    pub(crate) disk: Option<SmallDisk>,
}

/// What an engine has of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) containers: usize,
    pub(crate) volumes: usize,
}

/// What a ground has beyond an engine.
#[derive(Default)]
pub(crate) struct Plot {
    pub(crate) arguments: Vec<&'static str>,
    pub(crate) disk: Option<SmallDisk>,
    /// A container of somebody else's runs; not where the engine is killed, for that ends it.
    pub(crate) running: bool,
}

impl Ground {
    /// Starts an engine on which a container of somebody else's runs.
    pub(crate) fn with_running() -> Option<Self> {
        Self::new(Plot {
            running: true,
            ..Plot::default()
        })
    }

    /// Starts an engine; `None` when none can be started, which is then noted.
    pub(crate) fn new(plot: Plot) -> Option<Self> {
        if let Some(reason) = Engine::cannot_start() {
            skip(reason);
            return None;
        }
        let options = EngineOptions {
            data: plot.disk.as_ref().map(|disk| disk.path().to_owned()),
            arguments: plot.arguments,
            ..EngineOptions::default()
        };
        let engine = Arc::new(Engine::start_with(options).unwrap());
        let registry = Registry::start(RegistryOptions::default()).unwrap();
        registry.publish(TestImage::Tiny).unwrap();
        registry
            .publish_image(&noise(1, 1 << 20), "cold", "latest")
            .unwrap();
        let tiny = registry.reference(TestImage::Tiny);
        engine.docker(&["pull", "--quiet", &tiny]).unwrap();
        Some(Self {
            bystanders: Bystanders::place(&engine, &tiny, plot.running),
            proxy: EngineProxy::start(engine.socket()).unwrap(),
            cold: format!("{}/cold:latest", registry.address()),
            registry,
            tiny,
            engine,
            repairing: Mutex::default(),
            disk: plot.disk,
        })
    }

    /// Returns Cove, with the line to the engine in between.
    pub(crate) fn app(&self) -> App {
        App::at(&self.proxy.address())
    }

    /// Makes sure that the engine runs and that the line to it is open.
    pub(crate) fn repair(&self) {
        let _one_at_a_time = self.repairing.lock().unwrap();
        if !self.engine.answers() {
            self.engine.start_again().unwrap();
        }
        self.proxy.resume().unwrap();
    }

    /// Counts what is there of a session and should not be, once what is late has had its time.
    pub(crate) async fn leftovers(&self, id: SessionId) -> usize {
        let mut count = usize::MAX;
        eventually(|| {
            let left = self.left(id);
            count = left.containers + left.volumes;
            if count == 0 {
                count = self.unused_networks();
            }
            count == 0
        })
        .await;
        count
    }

    /// Counts the networks of Cove's that no container uses, running or not: the last that did has left them.
    fn unused_networks(&self) -> usize {
        let is_unused = |name: &String| {
            let filter = format!("network={name}");
            let users = ["ps", "--all", "--quiet", "--filter", &filter];
            self.engine.docker(&users).unwrap().is_empty()
        };
        let networks = self.engine.networks().unwrap();
        networks.into_iter().filter(is_unused).count()
    }

    /// Counts what is there of a session, by label or by name. Two questions instead of the four of the test bed's own.
    pub(crate) fn left(&self, id: SessionId) -> Left {
        let (id, name) = (id.to_string(), id.resource_name());
        let count = |command: &[&str], format: &str| {
            let told = self
                .engine
                .docker(&[command, &["--format", format]].concat());
            let is_its = |line: &&str| line.split(' ').any(|word| word == name || word == id);
            told.unwrap().lines().filter(is_its).count()
        };
        Left {
            containers: count(
                &["ps", "--all"],
                r#"{{.Names}} {{.Label "dev.cove.session"}}"#,
            ),
            volumes: count(
                &["volume", "ls"],
                r#"{{.Name}} {{.Label "dev.cove.session"}}"#,
            ),
        }
    }
}

/// Returns an image of one layer that no other image has.
pub(crate) fn noise(seed: u64, size: usize) -> Image {
    let mut tree = Tree::default();
    tree.file("opt/noise", 0o644, 0, random(seed).bytes(size));
    Image::new(&ImageConfig::default(), vec![tree.into_layer().unwrap()]).unwrap()
}

/// A session that was there before, with a file of its user.
pub(crate) struct Kept {
    pub(crate) id: SessionId,
    content: String,
}

const KEPT: &str = "/workspace/kept.txt";

impl Kept {
    pub(crate) async fn new(app: &App, image: &str, content: &str) -> Self {
        let id = app.ready(Some(image)).await;
        let written = async {
            app.sessions
                .ready(id)
                .await?
                .write_file(
                    KEPT,
                    content.to_owned(),
                    cove_core::files::Encoding::Utf8,
                    None,
                )
                .await
        };
        written.await.unwrap();
        Self {
            id,
            content: content.to_owned(),
        }
    }

    /// Returns whether the file of the session, which is ready, is as it was.
    pub(crate) async fn is_whole(&self, app: &App) -> Result<bool, Error> {
        let read = app
            .sessions
            .ready(self.id)
            .await
            .unwrap()
            .read_file(KEPT)
            .await?;
        Ok(read.content == self.content)
    }
}

/// Returns whether the failure is one of these.
pub(crate) fn is_one_of(error: &ErrorReport, codes: &[ErrorCode]) -> bool {
    codes.contains(&error.error)
}
