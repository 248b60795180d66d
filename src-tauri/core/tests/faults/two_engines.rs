//! Two engines, one of which goes and comes at any moment: every session stays on its own, those of the other are not
//! disturbed, what is away is shown as away, and nothing is forgotten because another engine has not heard of it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cove_core::engine::EngineId;
use cove_core::error::ErrorCode;
use cove_core::event::SessionEvent;
use cove_core::session::{SessionId, SessionState};
use cove_core::settings::Settings;
use cove_testbed::{FaultRecord, Random};
use tokio::time::Instant;

use crate::support::{
    App, Book, Ground, Kept, Left, Plot, code_of, eventually, is_one_of, one_of, random, seeds,
    up_to,
};

/// How long it may take until a session is shown as away.
const NOTICED: Duration = Duration::from_secs(2);
const NOTHING: Left = Left {
    containers: 0,
    volumes: 0,
};

/// What is done meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// Sessions are used.
    Use,
    /// A session is created.
    Create,
    /// A session that was stopped is opened.
    Open,
    /// The app is started anew while a session is being created and the engine is away.
    Restart,
}

const ACTS: [Act; 4] = [Act::Use, Act::Create, Act::Open, Act::Restart];

/// How an engine goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outage {
    Away,
    Killed,
}

struct Sides {
    grounds: [Arc<Ground>; 2],
    ids: [EngineId; 2],
}

impl Sides {
    fn addresses(&self) -> [String; 2] {
        self.grounds.each_ref().map(|ground| ground.proxy.address())
    }

    fn launch(&self, journal: &Path) -> App {
        let addresses = self.addresses();
        let addresses = addresses.each_ref().map(String::as_str);
        App::among(&addresses, journal, Settings::default())
    }

    /// Returns on how many engines something of the session is.
    fn spread(&self, id: SessionId) -> usize {
        let has_some = |ground: &&Arc<Ground>| ground.left(id) != NOTHING;
        self.grounds.iter().filter(has_some).count()
    }

    fn repair(&self) {
        for ground in &self.grounds {
            ground.repair();
        }
    }
}

/// An engine that goes after a while, and comes back.
struct Going {
    thread: std::thread::JoinHandle<()>,
    is_away: Arc<AtomicBool>,
}

fn go(ground: &Arc<Ground>, outage: Outage, after: Duration, for_: Duration) -> Going {
    let (ground, is_away) = (Arc::clone(ground), Arc::new(AtomicBool::new(false)));
    let told = Arc::clone(&is_away);
    let thread = std::thread::spawn(move || {
        std::thread::sleep(after);
        match outage {
            Outage::Away => ground.proxy.refuse(),
            Outage::Killed => ground.engine.kill().unwrap(),
        }
        told.store(true, Ordering::SeqCst);
        std::thread::sleep(for_);
        told.store(false, Ordering::SeqCst);
        ground.repair();
    });
    Going { thread, is_away }
}

struct Plan {
    /// The engine on which something is done.
    at: usize,
    /// The engine that goes.
    going: usize,
    random: Random,
}

async fn state(app: &App, id: SessionId) -> Option<SessionState> {
    let listed = app.sessions.list().await;
    let found = listed.iter().find(|session| session.session_id == id);
    found.map(|session| session.state)
}

/// While one engine is away its session is in the list as such, and that of the other is ready and can be used.
async fn use_both(app: &App, kept: &[Kept; 2], plan: &Plan, going: &Going) -> Result<(), String> {
    let (away, here) = (&kept[plan.going], &kept[1 - plan.going]);
    let mut gone_since = None;
    while !going.thread.is_finished() {
        let is_away = going.is_away.load(Ordering::SeqCst);
        let shown = state(app, away.id).await;
        match shown {
            None => return Err("what is on the engine that goes is not in the list".to_owned()),
            Some(SessionState::Away) => {}
            Some(_) if is_away => {
                let since = *gone_since.get_or_insert_with(Instant::now);
                // It may be on its way still: a run that was begun before.
                if since.elapsed() > NOTICED && shown != Some(SessionState::Provisioning) {
                    return Err(format!("its engine is away, and it is {shown:?}"));
                }
            }
            Some(_) => gone_since = None,
        }
        let other = state(app, here.id).await;
        if other != Some(SessionState::Ready) {
            return Err(format!("on the engine that stays, it is {other:?}"));
        }
        let listed = async {
            app.sessions
                .ready(here.id)
                .await?
                .list_dir("/workspace")
                .await
        }
        .await;
        listed.map_err(|error| format!("on the engine that stays: {error}"))?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Judges how a run ended. Where the engine stays, the run must succeed.
fn judge(record: &mut FaultRecord, plan: &Plan, end: &SessionEvent) -> Result<bool, String> {
    match end {
        SessionEvent::Ready(_) => {
            "ready".clone_into(&mut record.outcome);
            Ok(true)
        }
        SessionEvent::Failed(failed) => {
            "failed".clone_into(&mut record.outcome);
            record.code = code_of(&failed.error);
            let away = [ErrorCode::EngineUnavailable, ErrorCode::AgentUnavailable];
            if plan.at != plan.going {
                return Err(format!("its engine stayed: {}", failed.error.message));
            }
            if !is_one_of(&failed.error, &away) {
                return Err(format!("wrong code: {}", failed.error.message));
            }
            Ok(false)
        }
        other => Err(format!("the run ended with {other:?}")),
    }
}

async fn create(
    sides: &Sides,
    app: &App,
    plan: &mut Plan,
    going: Going,
    record: &mut FaultRecord,
) -> Result<(), String> {
    // The built-in image: what others have on the engines is not to be changed.
    let id = app.create(None);
    let told = async {
        let end = app.end(id).await?;
        let is_ready = judge(record, plan, &end)?;
        going.thread.join().unwrap();
        if is_ready {
            app.until_ready(id).await?;
        } else {
            if !eventually(|| sides.spread(id) == 0).await {
                return Err("something was left".to_owned());
            }
            if !is_nowhere(app, id).await {
                return Err("nothing was left, and it is still held to its engine".to_owned());
            }
            if plan.random.number().is_multiple_of(2) {
                // The user takes the other engine, and tries again.
                let other = &sides.ids[1 - plan.at];
                let chosen = app.sessions.select_engine(other).await;
                chosen.map_err(|error| format!("the other cannot be chosen: {error}"))?;
                let other = &sides.grounds[1 - plan.at];
                app.until_ready(id).await?;
                if other.left(id) == NOTHING {
                    return Err("the other was chosen, and it is not there".to_owned());
                }
            }
        }
        if sides.spread(id) > 1 {
            return Err("it is on both engines".to_owned());
        }
        Ok(())
    };
    let told = told.await;
    sides.repair();
    let deleted = app.delete(id).await;
    if !eventually(|| sides.spread(id) == 0).await {
        record.leftovers += sides.spread(id);
    }
    told.and(deleted)
}

/// Waits until Cove knows that nothing of a session is on any engine.
async fn is_nowhere(app: &App, id: SessionId) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < 10 * NOTICED {
        let listed = app.sessions.list().await;
        let found = listed.iter().find(|session| session.session_id == id);
        if found.is_none_or(|session| session.engine.is_none()) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

async fn open(
    app: &App,
    kept: &Kept,
    plan: &Plan,
    going: Going,
    record: &mut FaultRecord,
) -> Result<(), String> {
    let opened = app.sessions.open(kept.id).await;
    match opened {
        Ok(_) => {
            let end = app.end(kept.id).await?;
            judge(record, plan, &end)?;
        }
        Err(error) if plan.at == plan.going => {
            "away".clone_into(&mut record.outcome);
            let error = error.report();
            if !is_one_of(&error, &[ErrorCode::EngineUnavailable]) {
                return Err(format!("wrong code: {}", error.message));
            }
        }
        Err(error) => return Err(format!("its engine stayed: {error}")),
    }
    going.thread.join().unwrap();
    Ok(())
}

/// The app is ended in the middle of a run whose engine is away, and the next one begins before that is back.
async fn restart(
    sides: &Sides,
    app: &mut App,
    journal: &Path,
    plan: &mut Plan,
    record: &mut FaultRecord,
) -> Result<(), String> {
    let ground = &sides.grounds[plan.at];
    let id = app.create(None);
    tokio::time::sleep(up_to(&mut plan.random, Duration::from_millis(400))).await;
    ground.proxy.refuse();
    app.sessions.shutdown().await;
    *app = App::at("unix:///nowhere");
    *app = sides.launch(journal);
    tokio::time::sleep(up_to(&mut plan.random, Duration::from_millis(800))).await;
    let before = state(app, id).await;
    sides.repair();
    "restarted".clone_into(&mut record.outcome);
    // What was left is in the journal, and not forgotten by the engine that has not heard of it.
    let known = async {
        match app.settled(id).await? {
            None => Ok(()),
            Some(_) => app.delete(id).await,
        }
    };
    let known = known.await;
    if !eventually(|| sides.spread(id) == 0).await {
        record.leftovers += sides.spread(id);
        return Err(format!("it was {before:?} before the engine was back"));
    }
    known
}

async fn check(
    sides: &Sides,
    app: &mut App,
    kept: &[Kept; 2],
    journal: &Path,
    seed: u64,
) -> FaultRecord {
    let mut random = random(seed);
    let act = ACTS[usize::try_from(seed % ACTS.len() as u64).unwrap()];
    let outage = one_of(
        &mut random,
        &[Outage::Away, Outage::Away, Outage::Away, Outage::Killed],
    );
    let (at, going) = (one_of(&mut random, &[0, 1]), one_of(&mut random, &[0, 1]));
    let delay = up_to(&mut random, Duration::from_millis(400));
    let away = up_to(&mut random, Duration::from_millis(1_500));
    let mut plan = Plan { at, going, random };
    let mut record = FaultRecord {
        kind: "two engines".to_owned(),
        phase: format!("{act:?}"),
        fault: format!(
            "{} {outage:?}",
            if at == going { "its own" } else { "the other" }
        ),
        seed,
        ..FaultRecord::default()
    };
    let told = async {
        let chosen = app.sessions.select_engine(&sides.ids[at]).await;
        chosen.map_err(|error| format!("it cannot be chosen: {error}"))?;
        if act == Act::Open {
            let stopped = app.sessions.stop(kept[at].id).await;
            stopped.map_err(|error| format!("it could not be stopped: {error}"))?;
        }
        let begin = || go(&sides.grounds[going], outage, delay, away);
        match act {
            Act::Use => {
                let going = begin();
                "used".clone_into(&mut record.outcome);
                let used = use_both(app, kept, &plan, &going).await;
                going.thread.join().unwrap();
                used
            }
            Act::Create => {
                let going = begin();
                create(sides, app, &mut plan, going, &mut record).await
            }
            Act::Open => {
                let going = begin();
                open(app, &kept[at], &plan, going, &mut record).await
            }
            Act::Restart => restart(sides, app, journal, &mut plan, &mut record).await,
        }
    };
    let told = told.await;
    sides.repair();
    let told = match told {
        Ok(()) => whole(sides, app, kept, &mut record).await,
        Err(problem) => Err(problem),
    };
    record.broken = told.err().unwrap_or_default();
    let touched = sides
        .grounds
        .iter()
        .map(|ground| ground.bystanders.touched());
    record.bystanders = touched.sum();
    record
}

/// Both sessions are ready on their own engines, and on no other, with their files.
async fn whole(
    sides: &Sides,
    app: &App,
    kept: &[Kept; 2],
    record: &mut FaultRecord,
) -> Result<(), String> {
    for (index, kept) in kept.iter().enumerate() {
        app.until_ready(kept.id).await?;
        let whole = kept.is_whole(app).await;
        if !whole.map_err(|error| format!("the kept file cannot be read: {error}"))? {
            record.lost += 1;
        }
        if sides.grounds[1 - index].left(kept.id) != NOTHING {
            return Err("something of it is on the other engine".to_owned());
        }
        let listed = app.sessions.list().await;
        let on = listed
            .iter()
            .find(|session| session.session_id == kept.id)
            .and_then(|session| session.engine.clone());
        if on.as_ref() != Some(&sides.ids[index]) {
            return Err(format!("it is said to be on {on:?}"));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_two_engines_of_which_one_goes_and_comes_nothing_is_mixed_up_and_nothing_forgotten() {
    let (Some(one), Some(two)) = (Ground::new(Plot::default()), Ground::new(Plot::default()))
    else {
        return;
    };
    let journal = tempfile::tempdir().unwrap();
    let grounds = [Arc::new(one), Arc::new(two)];
    let addresses = grounds.each_ref().map(|ground| ground.proxy.address());
    let addresses = addresses.each_ref().map(String::as_str);
    let mut app = App::among(&addresses, journal.path(), Settings::default());
    let views = app.sessions.engines().await;
    let id_at = |address: &str| {
        let view = views.iter().find(|view| view.address == address);
        view.and_then(|view| view.engine_id.clone()).unwrap()
    };
    let sides = Sides {
        ids: addresses.map(id_at),
        grounds,
    };
    assert_ne!(sides.ids[0], sides.ids[1]);
    let mut kept = Vec::new();
    for (ground, id) in sides.grounds.iter().zip(&sides.ids) {
        app.sessions.select_engine(id).await.unwrap();
        kept.push(Kept::new(&app, &ground.tiny, "what its user wrote\n").await);
    }
    let Ok(kept) = <[Kept; 2]>::try_from(kept) else {
        return;
    };
    let mut book = Book::default();
    for seed in seeds(94) {
        book.add(check(&sides, &mut app, &kept, journal.path(), seed).await);
    }
    app.sessions.shutdown().await;
    book.check();
}
