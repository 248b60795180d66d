//! The sessions of this app: what each one is, and what may be done with it when.
//!
//! The engine's labels are the truth about what exists; this registry adds what only a running
//! process can know: runs under way, connections to agents, terminals, and how the last run ended.
//! How a session comes to be is `provision.rs`.

mod arranging;
mod attending;
mod away;
mod drafting;
mod entry;
mod exporting;
mod following;
mod forwarding;
mod idle;
mod lifecycle;
mod live;
mod ready;
mod registry;
mod runs;
mod searching;
mod transferring;
mod watching;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::away::remembered;
use self::entry::{Activity, Entry};
pub use self::live::Watching;
pub use self::ready::{ConnectedSession, ReadySession};
use self::registry::Registry;
pub use self::runs::UnderWay;
pub use self::transferring::NameTaken;
use self::transferring::Transfers;
use self::watching::Watches;
pub use self::watching::{FiguresNews, LogNews, WatchId, WatchSink};
use crate::assets::Assets;
pub use crate::crossing::Destination;
use crate::drafts::Drafts;
use crate::engine::{EngineId, EngineView, ImageView, Places, RememberedEngines};
use crate::engines::Engines;
use crate::error::Error;
use crate::estimate::History;
use crate::event::Reporter;
use crate::journal::{Journal, Record};
use crate::provision::{Networks, Pulls, bounds, check};
use crate::remembered::RememberedSession;
use crate::session::SessionId;
use crate::settings::{EngineBounds, Settings};

/// How long an engine may take to say what it has before nobody waits for that.
const BOUNDS_LIMIT: Duration = Duration::from_secs(2);
/// How long a shutdown waits for what is under way.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// What users call their sessions, where that is not what the labels say: labels cannot be changed.
pub type Names = BTreeMap<SessionId, String>;

/// Keeps across restarts what may be lost. Must not block.
pub trait Persistence: Send + Sync + 'static {
    /// Keeps what runs have taught. Called at the end of a run.
    fn history(&self, history: &History);

    /// Keeps the names that sessions were given.
    fn names(&self, names: &Names);

    /// Keeps which engine new sessions are made on, and which others have sessions.
    fn engines(&self, engines: &RememberedEngines);

    /// Keeps which sessions there are.
    fn sessions(&self, sessions: &[RememberedSession]);
}

/// Keeps nothing.
impl Persistence for () {
    fn history(&self, _: &History) {}

    fn names(&self, _: &Names) {}

    fn engines(&self, _: &RememberedEngines) {}

    fn sessions(&self, _: &[RememberedSession]) {}
}

/// What a registry of sessions starts with.
pub struct Start {
    /// Where engines may listen.
    pub places: Box<dyn Places>,
    /// The engine that was chosen for new sessions, and the others that have sessions.
    pub engines: RememberedEngines,
    /// The sessions that there were on them.
    pub remembered: Vec<RememberedSession>,
    /// The agent and the built-in image.
    pub assets: Assets,
    /// Hears what happens.
    pub reporter: Box<dyn Reporter>,
    /// What the user has set.
    pub settings: Settings,
    /// What earlier runs took.
    pub history: History,
    /// The names that sessions were given.
    pub names: Names,
    /// Keeps what changes of these.
    pub keep: Box<dyn Persistence>,
    /// Where runs write down what they do, and what the last process has left in it.
    pub journal: (Journal, Vec<Record>),
    /// Texts of files that were not saved.
    pub drafts: Drafts,
}

impl Start {
    /// Returns a start without anything from earlier, of which nothing is kept.
    #[must_use]
    pub fn fresh(places: Box<dyn Places>, assets: Assets, reporter: Box<dyn Reporter>) -> Self {
        Self {
            places,
            engines: RememberedEngines::default(),
            remembered: Vec::new(),
            assets,
            reporter,
            settings: Settings::default(),
            history: History::default(),
            names: Names::default(),
            keep: Box::new(()),
            journal: (Journal::none(), Vec::new()),
            drafts: Drafts::default(),
        }
    }
}

/// All sessions. Cheap to clone; every clone is the same registry.
#[derive(Clone)]
pub struct Sessions {
    shared: Arc<Shared>,
}

struct Shared {
    engines: Engines,
    assets: Arc<Assets>,
    reporter: Box<dyn Reporter>,
    keep: Arc<dyn Persistence>,
    journal: Arc<Journal>,
    drafts: Arc<Drafts>,
    tracker: TaskTracker,
    /// Cancelled when the app shuts down.
    closing: CancellationToken,
    /// Whether engines are to be followed.
    following: AtomicBool,
    /// The engines that are followed, and whether the list is kept current by the engine's events now.
    followed: Mutex<BTreeMap<EngineId, bool>>,
    /// How many sessions were deleted so far.
    deleted: AtomicU64,
    /// How often the ports of a session were told.
    port_news: AtomicU64,
    /// Who looks at what sessions use and print.
    watches: Mutex<Watches>,
    transfers: Transfers,
    pulls: Arc<Pulls>,
    networks: Arc<Networks>,
    registry: Mutex<Registry>,
    settings: watch::Sender<Settings>,
    history: Mutex<History>,
    names: Mutex<Names>,
    /// What was kept last of which sessions there are.
    remembered: Mutex<Vec<RememberedSession>>,
}

impl Sessions {
    /// Returns a registry that knows of no session but those that the last process has left in the
    /// middle of a run, and those that were on an engine that has not answered since.
    #[must_use]
    pub fn new(start: Start) -> Self {
        let (journal, left) = start.journal;
        let keep: Arc<dyn Persistence> = Arc::from(start.keep);
        let keep_engines = {
            let keep = Arc::clone(&keep);
            Box::new(move |engines: &RememberedEngines| keep.engines(engines))
        };
        let engines = Engines::new(start.places, start.engines, keep_engines);
        let mut entries = remembered(&engines, &start.remembered, &start.names);
        entries.extend(
            left.into_iter()
                .filter_map(|record| Entry::left(record, &engines)),
        );
        Self {
            shared: Arc::new(Shared {
                engines,
                assets: Arc::new(start.assets),
                reporter: start.reporter,
                keep,
                journal: Arc::new(journal),
                drafts: Arc::new(start.drafts),
                tracker: TaskTracker::new(),
                closing: CancellationToken::new(),
                following: AtomicBool::new(false),
                followed: Mutex::default(),
                deleted: AtomicU64::new(0),
                port_news: AtomicU64::new(0),
                watches: Mutex::default(),
                transfers: Transfers::default(),
                pulls: Arc::default(),
                networks: Arc::default(),
                registry: Mutex::new(Registry::new(entries)),
                settings: watch::Sender::new(start.settings),
                history: Mutex::new(start.history),
                names: Mutex::new(start.names),
                remembered: Mutex::new(start.remembered),
            }),
        }
    }

    /// Ends all runs, waits for what is under way, at most 5 s, and closes all connections. What is not
    /// over then stays in the journal for the next start. Containers go on running.
    pub async fn shutdown(&self) {
        self.shared.closing.cancel();
        self.shared.transfers.cancel_all();
        let ids: Vec<_> = {
            let entries = self.shared.entries();
            for entry in entries.values() {
                if let Activity::Provisioning { cancel, .. } = &entry.activity {
                    cancel.cancel();
                }
                if let Some(export) = &entry.export {
                    export.cancel.cancel();
                }
            }
            entries.keys().copied().collect()
        };
        for id in ids {
            self.close(id);
        }
        self.shared.tracker.close();
        if tokio::time::timeout(SHUTDOWN_LIMIT, self.shared.tracker.wait())
            .await
            .is_err()
        {
            log::warn!("{} tasks did not end in time", self.shared.tracker.len());
        }
    }

    /// Looks for engines.
    pub async fn engines(&self) -> Vec<EngineView> {
        let engines = self.shared.engines.survey().await;
        self.follow_those_with_sessions().await;
        engines
    }

    /// Makes new sessions on this engine from now on; those that there are stay where they are.
    ///
    /// # Errors
    /// [`Error::Validation`] for an engine that was not found.
    pub async fn select_engine(&self, id: &EngineId) -> Result<Vec<EngineView>, Error> {
        let mut chosen = self.shared.engines.choose(id);
        if chosen.is_err() {
            self.shared.engines.survey().await;
            chosen = self.shared.engines.choose(id);
        }
        self.follow(chosen?);
        let engines = self.engines().await;
        self.shared.reporter.engines_changed(&engines);
        Ok(engines)
    }

    /// Returns the images that are on the engine that new sessions are made on.
    ///
    /// # Errors
    /// What the engine answers.
    pub async fn images(&self) -> Result<Vec<ImageView>, Error> {
        let engines = &self.shared.engines;
        let chosen = engines.for_new().await?;
        engines.reach(&chosen).await?.images().await
    }

    /// Returns the settings.
    #[must_use]
    pub fn settings(&self) -> Settings {
        *self.shared.settings.borrow()
    }

    /// Returns what the engine has, which bounds what can be set; `None` when it does not answer at once.
    pub async fn engine_bounds(&self) -> Option<EngineBounds> {
        let engines = &self.shared.engines;
        let asked = async {
            let chosen = engines.for_new().await?;
            engines.reach(&chosen).await?.capacity().await
        };
        let answer = tokio::time::timeout(BOUNDS_LIMIT, asked).await;
        Some(bounds(&answer.ok()?.ok()?))
    }

    /// Changes the settings to what the engine can hold; one that does not answer at once is not waited for.
    ///
    /// # Errors
    /// [`Error::Validation`].
    pub async fn change_settings(&self, settings: Settings) -> Result<Settings, Error> {
        let settings = settings.check()?;
        if let Some(bounds) = self.engine_bounds().await {
            check(&settings, &bounds)?;
        }
        self.set_settings(settings)
    }

    /// Changes the settings; what is under way goes on with those it began with. Limits that the engine
    /// cannot hold are lowered when a container is made.
    ///
    /// # Errors
    /// [`Error::Validation`].
    pub fn set_settings(&self, settings: Settings) -> Result<Settings, Error> {
        let settings = settings.check()?;
        self.shared.settings.send_replace(settings);
        Ok(settings)
    }
}

impl Shared {
    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock()
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock()
    }
}
