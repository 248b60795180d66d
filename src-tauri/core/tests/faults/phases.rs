//! Every phase, and what may go wrong in it: a cancel, an engine that errs, a line that breaks before or after the
//! effect, an engine that goes away or dies.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cove_core::error::{ErrorCode, ErrorReport};
use cove_core::event::{Phase, SessionEvent};
use cove_core::image::ImageReference;
use cove_core::session::SessionId;
use cove_testbed::{EngineFault, EngineProxy, FaultRecord, Random, Target};

use crate::support::{
    App, Book, Ground, Kept, Left, Plot, code_of, eventually, is_one_of, one_of, random, seeds,
    up_to,
};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The user cancels.
    Cancel,
    /// The user cancels while the engine is slow.
    CancelSlow,
    /// The engine answers a request with an error.
    EngineError,
    /// The line breaks before the engine hears of a request.
    CutBefore,
    /// The line breaks while the engine is at it.
    CutMeanwhile,
    /// The line breaks after the engine has done what was asked.
    CutAfter,
    /// The line breaks in the middle of an answer.
    HalfAnswer,
    /// An answer is not HTTP.
    Garbage,
    /// All connections break at once.
    CutAll,
    /// The engine does not answer for a while.
    Away,
    /// The engine and all containers die, and it is started again.
    Killed,
}

const ON_A_LINE: [Fault; 10] = [
    Fault::Cancel,
    Fault::EngineError,
    Fault::CutBefore,
    Fault::CutAfter,
    Fault::CutMeanwhile,
    Fault::CancelSlow,
    Fault::HalfAnswer,
    Fault::Garbage,
    Fault::CutAll,
    Fault::Away,
];

impl Fault {
    const fn name(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::CancelSlow => "cancel, slow engine",
            Self::EngineError => "engine error",
            Self::CutBefore => "cut before the effect",
            Self::CutMeanwhile => "cut meanwhile",
            Self::CutAfter => "cut after the effect",
            Self::HalfAnswer => "half an answer",
            Self::Garbage => "garbage",
            Self::CutAll => "all connections cut",
            Self::Away => "engine away",
            Self::Killed => "engine killed",
        }
    }

    /// Returns whether what was done may be taken back only when the engine answers again.
    const fn delays_undos(self) -> bool {
        match self {
            // The engine may go on with a call whose line has broken: what it makes may be late.
            Self::CutBefore
            | Self::CutMeanwhile
            | Self::CutAfter
            | Self::HalfAnswer
            | Self::Garbage
            | Self::CutAll
            | Self::Away
            | Self::Killed
            // So is an engine on a busy machine. That nothing is left in the end is looked at anyway.
            | Self::Cancel
            | Self::CancelSlow => true,
            Self::EngineError => false,
        }
    }
}

/// What is asked to keep the list current; a run has nothing to do with it.
const FOLLOWING: [&str; 3] = ["/events", "/containers/json", "/volumes?"];

/// Returns how long a phase lasts about: the moments at which it can be met.
fn span(phase: Phase) -> Duration {
    Duration::from_millis(match phase {
        Phase::Starting | Phase::CreatingVolume => 10,
        Phase::CreatingContainer => 40,
        Phase::PullingImage | Phase::StartingContainer | Phase::Ready => 250,
    })
}

/// What has been let loose, if its moment has come.
#[derive(Clone, Default)]
struct Armed {
    took: Arc<Mutex<Option<Duration>>>,
    under_way: Arc<Mutex<Option<UnderWay>>>,
}

enum UnderWay {
    Cancel(tokio::task::JoinHandle<()>),
    Outage(std::thread::JoinHandle<()>),
}

impl Armed {
    /// Waits until it is over: it must not meet the next run. Returns how long a cancel took.
    async fn over(&self) -> Option<Duration> {
        let under_way = self.under_way.lock().unwrap().take();
        match under_way {
            Some(UnderWay::Cancel(task)) => task.await.unwrap(),
            Some(UnderWay::Outage(thread)) => thread.join().unwrap(),
            None => {}
        }
        *self.took.lock().unwrap()
    }
}

/// Lets it go wrong when the next run enters the phase, or some time after.
fn arm(
    ground: &Arc<Ground>,
    app: &App,
    plan: &mut Plan,
    is_meant: impl Fn(SessionId) -> bool + Send + 'static,
) -> Armed {
    let Plan { phase, fault, .. } = *plan;
    let random = &mut plan.random;
    let delay = up_to(random, span(phase));
    let away = up_to(random, Duration::from_millis(1_500));
    let slow = Duration::from_millis(100) + up_to(random, Duration::from_millis(1_400));
    let before = one_of(random, &[0, 0, 1, 2]);
    let slow = one_of(
        random,
        &[
            EngineFault::HoldRequest(slow),
            EngineFault::HoldAnswer(slow),
        ],
    );
    let (ground, sessions) = (Arc::clone(ground), app.sessions.clone());
    let armed = Armed::default();
    let told = armed.clone();
    let mut is_armed = true;
    app.on_event(move |event| {
        let SessionEvent::Progress(event) = event else {
            return;
        };
        // A session that was lost with the engine is on its way, too.
        if event.phase != phase || !is_meant(event.session_id) || !std::mem::take(&mut is_armed) {
            return;
        }
        let strike = |proxy: &EngineProxy, fault| {
            proxy.strike(Target::next().except(&FOLLOWING).after(before), fault);
        };
        match fault {
            Fault::Cancel | Fault::CancelSlow => {
                if fault == Fault::CancelSlow {
                    strike(&ground.proxy, slow);
                }
                let (sessions, id) = (sessions.clone(), event.session_id);
                let took = Arc::clone(&armed.took);
                let task = tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    let begin = Instant::now();
                    sessions.cancel(id).await.unwrap();
                    *took.lock().unwrap() = Some(begin.elapsed());
                });
                *armed.under_way.lock().unwrap() = Some(UnderWay::Cancel(task));
            }
            Fault::EngineError => strike(&ground.proxy, EngineFault::Refuse(500)),
            Fault::CutBefore => strike(&ground.proxy, EngineFault::CutBefore),
            Fault::CutMeanwhile => strike(&ground.proxy, EngineFault::CutMeanwhile),
            Fault::CutAfter => strike(&ground.proxy, EngineFault::CutAfter),
            Fault::HalfAnswer => strike(&ground.proxy, EngineFault::HalfAnswer),
            Fault::Garbage => strike(&ground.proxy, EngineFault::Garbage),
            Fault::CutAll | Fault::Away | Fault::Killed => {
                let ground = Arc::clone(&ground);
                let thread = std::thread::spawn(move || {
                    std::thread::sleep(delay);
                    match fault {
                        Fault::CutAll => ground.proxy.cut(),
                        Fault::Away => ground.proxy.refuse(),
                        _ => ground.engine.kill().unwrap(),
                    }
                    std::thread::sleep(away);
                    ground.repair();
                });
                *armed.under_way.lock().unwrap() = Some(UnderWay::Outage(thread));
            }
        }
    });
    told
}

/// What a run is to end with, and what it is made from.
struct Plan {
    seed: u64,
    phase: Phase,
    fault: Fault,
    random: Random,
}

impl Plan {
    fn new(seed: u64, faults: &[Fault]) -> Self {
        let mut random = random(seed);
        // Consecutive seeds meet every phase with every fault.
        let index = usize::try_from(seed % (Phase::WORKING.len() * faults.len()) as u64).unwrap();
        Self {
            seed,
            phase: *Phase::WORKING.get(index % Phase::WORKING.len()).unwrap(),
            fault: *faults.get(index / Phase::WORKING.len()).unwrap(),
            random: {
                random.number();
                random
            },
        }
    }

    fn record(&self, kind: &str) -> FaultRecord {
        FaultRecord {
            kind: kind.to_owned(),
            phase: format!("{:?}", self.phase),
            fault: self.fault.name().to_owned(),
            seed: self.seed,
            ..FaultRecord::default()
        }
    }
}

/// Whether a failure is the right one to tell for what went wrong.
fn is_right(fault: Fault, phase: Phase, struck: Option<&str>, error: &ErrorReport) -> bool {
    let away = [ErrorCode::EngineUnavailable];
    // The engine has gone in the middle of the agent's first words.
    let midway = [ErrorCode::EngineUnavailable, ErrorCode::AgentUnavailable];
    let is_late =
        phase == Phase::StartingContainer || struck.is_some_and(|it| it.contains("/exec"));
    match fault {
        Fault::Cancel | Fault::CancelSlow => false,
        Fault::EngineError => match struck {
            Some(request) if request.contains("/version") || request.contains("/_ping") => {
                is_one_of(error, &away)
            }
            Some(_) => is_one_of(error, &[ErrorCode::EngineRefused]),
            None => false,
        },
        Fault::CutBefore
        | Fault::CutMeanwhile
        | Fault::CutAfter
        | Fault::HalfAnswer
        | Fault::Garbage => {
            struck.is_some() && is_one_of(error, if is_late { &midway } else { &away })
        }
        Fault::CutAll | Fault::Away | Fault::Killed => {
            is_one_of(error, if is_late { &midway } else { &away })
        }
    }
}

/// Notes how a run ended, and returns whether the session is ready.
fn judge(record: &mut FaultRecord, plan: &Plan, struck: Option<&str>, end: &SessionEvent) -> bool {
    let undone = match end {
        SessionEvent::Failed(failed) => {
            "failed".clone_into(&mut record.outcome);
            record.code = code_of(&failed.error);
            if !is_right(plan.fault, plan.phase, struck, &failed.error) {
                record.broken = format!("wrong code after {struck:?}: {}", failed.error.message);
            }
            &failed.undone
        }
        SessionEvent::Cancelled(cancelled) => {
            "cancelled".clone_into(&mut record.outcome);
            if !matches!(plan.fault, Fault::Cancel | Fault::CancelSlow) {
                "cancelled, and nobody did that".clone_into(&mut record.broken);
            }
            &cancelled.undone
        }
        SessionEvent::Ready(_) => {
            "ready".clone_into(&mut record.outcome);
            return true;
        }
        SessionEvent::Progress(_)
        | SessionEvent::Export(_)
        | SessionEvent::Changed(_)
        | SessionEvent::Transfer(_) => {
            return false;
        }
    };
    let is_done = undone.iter().all(|undone| undone.failure.is_none());
    if !is_done && !plan.fault.delays_undos() {
        record.broken = format!("after {struck:?} something was not taken back: {undone:?}");
    }
    false
}

/// Ends the fault, judges how the run ended, and returns whether it became ready.
async fn settle(
    ground: &Ground,
    app: &App,
    armed: &Armed,
    plan: &Plan,
    record: &mut FaultRecord,
    end: &SessionEvent,
) -> bool {
    app.quiet();
    let took = armed.over().await;
    let struck = ground.proxy.calm();
    let is_ready = judge(record, plan, struck.as_deref(), end);
    record.cancel = took.filter(|_| record.outcome == "cancelled");
    ground.repair();
    is_ready
}

/// A new session: it becomes ready, or nothing is left of it; and whatever it became, it can be retried and deleted.
async fn create(ground: &Arc<Ground>, app: &App, kept: SessionId, mut plan: Plan) -> FaultRecord {
    let mut record = plan.record("create");
    let built_in = plan.random.number().is_multiple_of(4);
    if plan.phase == Phase::PullingImage {
        let image = if built_in {
            ImageReference::built_in().to_string()
        } else {
            ground.cold.clone()
        };
        ground.engine.remove_image(&image).unwrap();
    }
    let image = match (plan.phase, built_in) {
        (Phase::PullingImage, true) => None,
        (Phase::PullingImage, false) => Some(ground.cold.as_str()),
        _ => Some(ground.tiny.as_str()),
    };
    let armed = arm(ground, app, &mut plan, move |id| id != kept);
    let id = app.create(image);
    let told = finish_new(ground, app, &armed, &mut plan, &mut record, id).await;
    if let Err(problem) = told {
        record.broken = problem;
    }
    ground.repair();
    app.quiet();
    // Whatever happened, the next run begins with a clean table.
    let _ = app.delete(id).await;
    record.leftovers += ground.leftovers(id).await;
    record.bystanders = ground.bystanders.touched();
    record
}

async fn finish_new(
    ground: &Ground,
    app: &App,
    armed: &Armed,
    plan: &mut Plan,
    record: &mut FaultRecord,
    id: SessionId,
) -> Result<(), String> {
    let end = app.end(id).await?;
    if !settle(ground, app, armed, plan, record, &end).await {
        record.leftovers = ground.leftovers(id).await;
    }
    if plan.random.number().is_multiple_of(2) {
        app.until_ready(id).await?;
    }
    app.delete(id).await
}

/// A session that was there before: it becomes ready, or is as it was; and its files are there whatever happens.
async fn open(ground: &Arc<Ground>, app: &App, kept: &Kept, mut plan: Plan) -> FaultRecord {
    let mut record = plan.record("open");
    let name = kept.id.resource_name();
    app.sessions.stop(kept.id).await.unwrap();
    let had_container = !plan.random.number().is_multiple_of(3);
    if !had_container {
        ground.engine.docker(&["rm", "--force", &name]).unwrap();
        app.sessions.list().await;
    }
    let id = kept.id;
    let armed = arm(ground, app, &mut plan, move |other| other == id);
    let opened = finish_open(ground, app, &armed, kept, &plan, &mut record, had_container).await;
    if let Err(problem) = opened {
        record.broken = problem;
    }
    ground.repair();
    app.quiet();
    record.bystanders = ground.bystanders.touched();
    record
}

async fn finish_open(
    ground: &Ground,
    app: &App,
    armed: &Armed,
    kept: &Kept,
    plan: &Plan,
    record: &mut FaultRecord,
    had_container: bool,
) -> Result<(), String> {
    let end = app.open(kept.id).await?;
    if !settle(ground, app, armed, plan, record, &end).await {
        let before = Left {
            containers: usize::from(had_container),
            volumes: 1,
        };
        if !eventually(|| ground.left(kept.id) == before).await {
            record.broken = format!("not {before:?} as it was: {:?}", ground.left(kept.id));
        }
    }
    app.until_ready(kept.id).await?;
    let whole = kept.is_whole(app).await;
    if !whole.map_err(|error| format!("the kept file cannot be read: {error}"))? {
        record.lost = 1;
    }
    Ok(())
}

async fn run_all(ground: Ground, faults: &[Fault], seeds: std::ops::Range<u64>) {
    let ground = Arc::new(ground);
    let app = ground.app();
    let mut book = Book::default();
    let mut kept = Kept::new(&app, &ground.tiny, "what its user wrote\n").await;
    let mut met = BTreeSet::new();
    for seed in seeds {
        let mut plan = Plan::new(seed, faults);
        met.insert(format!("{:?} {:?}", plan.phase, plan.fault));
        let record = if plan.phase != Phase::PullingImage && plan.random.number().is_multiple_of(3)
        {
            open(&ground, &app, &kept, plan).await
        } else {
            create(&ground, &app, kept.id, plan).await
        };
        if record.kind == "open" && !record.is_good() {
            // The runs to come must not fail for what this one has done.
            let _ = app.delete(kept.id).await;
            kept = Kept::new(&app, &ground.tiny, "what its user wrote next\n").await;
        }
        book.add(record);
    }
    app.sessions.shutdown().await;
    book.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_breaks_in_any_phase_nothing_is_left_and_no_file_is_lost() {
    if let Some(ground) = Ground::with_running() {
        run_all(ground, &ON_A_LINE, seeds(60)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_dies_in_any_phase_costs_nothing_but_the_run() {
    if let Some(ground) = Ground::new(Plot::default()) {
        run_all(ground, &[Fault::Killed], seeds(17)).await;
    }
}
