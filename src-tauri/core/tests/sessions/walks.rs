//! Random walks: whatever is asked, in whatever order, and whatever the engine does meanwhile, the
//! sessions go only where a small model of their states says that they may, and keep their promises.
//!
//! The model knows for each session the set of states it may be in, and what of it is on the engine.
//! A step maps the set; what is then observed has to be in it, and is what the next step begins with.
//! A walk that fails is made as short as it can be and printed.

mod model;
mod steps;
mod witness;
mod world;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use cove_core::engine::ContainerState;
use cove_core::error::{Error, ErrorCode};
use cove_core::event::Undone;
use cove_core::session::{SessionId, SessionState, SessionStatus};
use cove_core::sessions::Sessions;
use cove_testbed as testbed;
use proptest::test_runner::{Config, FileFailurePersistence, TestCaseError, TestRng, TestRunner};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::model::{
    Is, Kept, States, closure, effect, effect_if_asked, fits, listed, passes, refused_effect,
};
use self::steps::{Ask, CANCEL_LOOKS, Fault, Step};
use self::witness::{Figures, Told, Witness};
use self::world::World;
use crate::support::{App, note};

/// How long anything that is asked may take, in the time of the walk.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a session may be called ready after its container has died: the engine says so, and an engine in
/// trouble says it late.
const NOTICE_LIMIT: Duration = Duration::from_secs(40);
/// How long a cancel may take, however slow the engine is to undo.
const CANCEL_LIMIT: Duration = Duration::from_secs(2);

/// A session in the model.
#[derive(Debug)]
struct Known {
    id: SessionId,
    states: States,
    container: Kept,
    volume: Kept,
    /// How many runs were begun by this start of the app, while nothing was asked at the same time.
    runs: Option<usize>,
    /// Whether its runs may fail whatever the engine does.
    doomed: bool,
    /// Whether somebody removed its container in the middle of things: a run that becomes ready just then
    /// does not mean that there is one.
    meddled: bool,
}

/// An answer, and how long it took.
struct Answer {
    /// The session that was made.
    made: Option<SessionId>,
    result: Result<Option<SessionStatus>, Error>,
    took: Duration,
}

/// What is asked, and of which session.
type Asked = (Ask, SessionId);

/// Something that was asked, and whose answer is still to come.
type Left = (Asked, JoinHandle<Result<Answer>>);

struct Walk {
    world: World,
    app: App,
    witness: Arc<Mutex<Witness>>,
    known: Vec<Known>,
    stranger: SessionId,
    left: Vec<Left>,
    /// Whether a fault may break a run or a call.
    trouble: bool,
    /// Whether the looks that a cancel waits for may be slow.
    slow_look: bool,
    /// What earlier starts of the app have told.
    told: Figures,
}

impl Walk {
    fn new(world: World) -> Self {
        let (app, witness) = start(&world);
        Self {
            world,
            app,
            witness,
            known: Vec::new(),
            stranger: SessionId::random(),
            left: Vec::new(),
            trouble: false,
            slow_look: false,
            told: Figures::default(),
        }
    }

    /// Takes all steps, and comes to an end; returns what was told on the way.
    async fn go(&mut self, steps: &[Step]) -> Result<Figures> {
        for (index, step) in steps.iter().enumerate() {
            let step = self.take(*step).await;
            step.with_context(|| format!("step {index}, {:?}", steps.get(index)))?;
        }
        self.end().await.context("at the end")?;
        self.told.add(&self.witness.lock().unwrap().figures);
        Ok(self.told)
    }

    async fn take(&mut self, step: Step) -> Result<()> {
        if !self.left.is_empty() {
            self.expect_any(&[]);
        }
        let left = std::mem::take(&mut self.left);
        let (ended, left) = left.into_iter().partition(|(_, task)| task.is_finished());
        self.left = left;
        self.hear_of(ended).await?;
        match step {
            Step::Create { pulls } => self.create(pulls)?,
            Step::Do(ask) => {
                let asked = self.choose(ask);
                let answer = put(self.app.sessions.clone(), asked).await?;
                let alone = self.left.is_empty();
                self.check_answer(asked, &answer, alone)?;
                if alone {
                    self.expect(asked, &answer)?;
                } else {
                    self.expect_any(&[asked]);
                }
                self.settle_kept(asked, &answer, alone);
            }
            Step::Both(one, other) => {
                let (one, other) = (self.choose(one), self.choose(other));
                let sessions = &self.app.sessions;
                let (first, second) =
                    tokio::join!(put(sessions.clone(), one), put(sessions.clone(), other));
                self.expect_any(&[one, other]);
                for (asked, answer) in [(one, first?), (other, second?)] {
                    self.check_answer(asked, &answer, false)?;
                    self.settle_kept(asked, &answer, false);
                }
            }
            Step::Leave(ask) => {
                let asked = self.choose(ask);
                let task = tokio::spawn(put(self.app.sessions.clone(), asked));
                self.left.push((asked, task));
                self.expect_any(&[]);
            }
            Step::Fault(operation, fault) => {
                self.trouble |= !matches!(fault, Fault::Late(_));
                let is_slow = matches!(
                    fault,
                    Fault::Late(_) | Fault::VeryLate | Fault::Never | Fault::Lost
                );
                self.slow_look |= CANCEL_LOOKS.contains(&operation) && is_slow;
                self.world.fault(operation, fault);
            }
            Step::LoseImages => {
                // A run that has just made sure of its image may find it gone again.
                self.trouble |= !self.left.is_empty()
                    || self
                        .known
                        .iter()
                        .any(|known| known.states.contains(&Is::Provisioning));
                self.world.lose_images();
            }
            Step::EngineAway => {
                self.trouble = true;
                self.world.go_away();
                self.pass(1).await;
            }
            Step::EngineBack => {
                self.world.come_back();
                self.pass(1).await;
            }
            Step::Kill(which) | Step::Remove(which) => self.interfere(step, which).await?,
            Step::Pass(milliseconds) => self.pass(milliseconds).await,
            Step::Rest => self.rest().await?,
            Step::Relaunch => {
                self.rest().await?;
                self.relaunch().await?;
            }
        }
        self.observe().await
    }

    /// Waits for what was asked and left.
    async fn hear_of(&mut self, left: Vec<Left>) -> Result<()> {
        for (asked, task) in left {
            let answer = task
                .await
                .map_err(|error| anyhow!("{asked:?}: {error}"))??;
            self.check_answer(asked, &answer, false)?;
            self.settle_kept(asked, &answer, false);
        }
        Ok(())
    }

    fn choose(&self, ask: Ask) -> Asked {
        let which = ask.which().filter(|which| *which < 7);
        let known = which.and_then(|which| self.known.get(which % self.known.len().max(1)));
        (ask, known.map_or(self.stranger, |known| known.id))
    }

    fn create(&mut self, pulls: bool) -> Result<()> {
        let image = pulls.then(|| self.world.image());
        let request = json!({ "workspace_id": "walk", "image": image });
        let id = self.app.sessions.create(&request)?;
        self.know(id, pulls && self.world.cannot_pull());
        Ok(())
    }

    fn know(&mut self, id: SessionId, doomed: bool) {
        self.known.push(Known {
            id,
            states: States::from([Is::Provisioning]),
            container: Kept::Absent,
            volume: Kept::Absent,
            runs: Some(1),
            doomed,
            meddled: false,
        });
    }

    /// What holds of every answer.
    fn check_answer(&self, (ask, _): Asked, answer: &Answer, alone: bool) -> Result<()> {
        if matches!(ask, Ask::Cancel(_)) && !self.slow_look {
            ensure!(
                answer.took <= CANCEL_LIMIT,
                "a cancel took {:?}",
                answer.took
            );
        }
        let Err(error) = &answer.result else {
            return Ok(());
        };
        let is_due = match error.code() {
            ErrorCode::SessionNotFound => !(ask.deletes() || ask == Ask::List),
            ErrorCode::SessionNotReady => matches!(ask, Ask::ListDir(_) | Ask::Duplicate(_)),
            ErrorCode::FileNotUsable => matches!(ask, Ask::ListDir(_)),
            // The session may be stopped meanwhile.
            ErrorCode::AgentUnavailable => {
                (self.trouble || !alone) && matches!(ask, Ask::ListDir(_))
            }
            ErrorCode::EngineUnavailable
            | ErrorCode::EngineRefused
            | ErrorCode::EngineSilent
            | ErrorCode::Timeout => self.trouble,
            _ => false,
        };
        ensure!(is_due, "{ask:?} was answered by {error}");
        Ok(())
    }

    /// What follows from an answer, when nothing else was asked meanwhile.
    fn expect(&mut self, asked: Asked, answer: &Answer) -> Result<()> {
        let (ask, id) = asked;
        let trouble = self.trouble;
        let looks = self.looks(asked);
        let surely_looks = !trouble && matches!(ask, Ask::List | Ask::Stop(_));
        for known in &mut self.known {
            let trouble = trouble || known.doomed;
            let truth = self.world.truth(known.id);
            let before = closure(known.states.clone(), |is| passes(is, trouble));
            let mut after: States = if known.id == id {
                let told = &answer.result;
                before
                    .iter()
                    .filter(|is| fits(ask, **is, truth, told))
                    .map(|is| {
                        if told.is_ok() {
                            effect(ask, *is, truth)
                        } else {
                            refused_effect(ask, *is)
                        }
                    })
                    .collect()
            } else {
                before.clone()
            };
            if looks {
                let looked: States = after.iter().map(|is| listed(*is, truth)).collect();
                if surely_looks {
                    after = looked;
                } else {
                    after.extend(looked);
                }
            }
            ensure!(
                !after.is_empty(),
                "{ask:?} in {:?} was answered by {:?}",
                known.states,
                told(&answer.result)
            );
            if known.id == id && answer.result.is_ok() {
                let begins = |is: &Is| {
                    *is != Is::Provisioning && effect(ask, *is, truth) == Is::Provisioning
                };
                let count = before.iter().filter(|is| begins(is)).count();
                known.runs = match count {
                    0 => known.runs,
                    _ if count == before.len() => known.runs.map(|runs| runs + 1),
                    _ => None,
                };
            }
            known.states = closure(after, |is| passes(is, trouble));
        }
        Ok(())
    }

    /// Returns whether an answer may come with a look at the engine's labels.
    fn looks(&self, (ask, id): Asked) -> bool {
        let is_known = |known: &Known| known.id == id && !known.states.contains(&Is::Gone);
        match ask {
            Ask::List | Ask::Stop(_) | Ask::Restart(_) | Ask::Discard(_) | Ask::Duplicate(_) => {
                true
            }
            _ => !ask.deletes() && !self.known.iter().any(is_known),
        }
    }

    /// What may follow when these and what was left is asked in any order.
    fn expect_any(&mut self, asked: &[Asked]) {
        let all: Vec<Asked> = asked
            .iter()
            .copied()
            .chain(self.left.iter().map(|(asked, _)| *asked))
            .collect();
        let trouble = self.trouble;
        // One that is asked for after its deletion is looked for.
        let looks = all
            .iter()
            .any(|asked| self.looks(*asked) || asked.0.deletes());
        for known in &mut self.known {
            let trouble = trouble || known.doomed;
            let mine: Vec<Ask> = all
                .iter()
                .filter(|(_, id)| *id == known.id)
                .map(|(ask, _)| *ask)
                .collect();
            if mine
                .iter()
                .any(|ask| !matches!(ask, Ask::Status(_) | Ask::ListDir(_)))
            {
                known.runs = None;
            }
            known.states = closure(known.states.clone(), |is| {
                let mut next = passes(is, trouble);
                for ask in &mine {
                    for truth in [Is::Stopped, Is::Interrupted, Is::Gone] {
                        next.push(effect_if_asked(*ask, is, truth));
                    }
                    next.push(refused_effect(*ask, is));
                }
                if looks && matches!(is, Is::Stopped | Is::Interrupted | Is::Gone) {
                    next.extend([Is::Stopped, Is::Interrupted, Is::Gone]);
                }
                next
            });
        }
    }

    /// Takes in what a deletion means for what is on the engine.
    fn settle_kept(&mut self, (ask, id): Asked, answer: &Answer, alone: bool) {
        self.take_in_ends();
        if let Some(id) = answer.made {
            // Whatever becomes of the original meanwhile is in its way.
            self.know(id, true);
            self.expect_any(&[(Ask::Cancel(0), id)]);
        }
        let Some(known) = self.known.iter_mut().find(|known| known.id == id) else {
            return;
        };
        if !ask.deletes() {
            return;
        }
        let keeps_volume = matches!(ask, Ask::DeleteContainer(_));
        let perhaps = |kept: Kept| match kept {
            Kept::Absent => Kept::Absent,
            Kept::Present | Kept::Perhaps => Kept::Perhaps,
        };
        match (&answer.result, keeps_volume) {
            (Ok(_), true) if alone => known.container = Kept::Absent,
            // It may have been opened since the deletion, and have become ready before this is heard.
            (Ok(_), true) => known.container = Kept::Perhaps,
            (Ok(_), false) => (known.container, known.volume) = (Kept::Absent, Kept::Absent),
            (Err(_), true) => known.container = perhaps(known.container),
            (Err(_), false) => {
                known.container = perhaps(known.container);
                known.volume = perhaps(known.volume);
            }
        }
    }

    /// Takes in what the ends of runs mean for what is on the engine.
    fn take_in_ends(&mut self) {
        let mut witness = self.witness.lock().unwrap();
        for known in &mut self.known {
            let Some(tale) = witness.tales.get_mut(&known.id) else {
                continue;
            };
            for end in std::mem::take(&mut tale.fresh) {
                match end {
                    Told::Ready if known.meddled => {
                        (known.container, known.volume) = (Kept::Perhaps, Kept::Present);
                    }
                    Told::Ready => (known.container, known.volume) = (Kept::Present, Kept::Present),
                    Told::Failed(_, undone) | Told::Cancelled(undone) => {
                        let failed = |what: &str| {
                            undone.iter().any(|undone| {
                                undone.failure.is_some() && undone.what.starts_with(what)
                            })
                        };
                        if known.container == Kept::Absent && failed("Container") {
                            known.container = Kept::Perhaps;
                        }
                        // The container that a rebuild was to replace.
                        if known.container == Kept::Present && failed("Replacement") {
                            known.container = Kept::Perhaps;
                        }
                        if known.volume == Kept::Absent && failed("Volume") {
                            known.volume = Kept::Perhaps;
                        }
                    }
                    Told::Nothing | Told::Progress(_) => {}
                }
            }
        }
    }

    async fn interfere(&mut self, step: Step, which: usize) -> Result<()> {
        self.take_in_ends();
        let count = self.known.len().max(1);
        let is_quiet = self.left.is_empty();
        let Some(known) = self.known.get_mut(which % count) else {
            return Ok(());
        };
        self.trouble = true;
        let (id, name) = (known.id, known.id.resource_name());
        let state = self.world.container_state(&name);
        if matches!(step, Step::Kill(_)) {
            if state == Some(ContainerState::Running) {
                self.world.kill(&name);
            }
        } else if state.is_some() {
            self.world.remove(&name);
            // A run may make it anew, and what is late may put another back.
            known.meddled = known.states.contains(&Is::Provisioning) || !is_quiet;
            known.container = if known.meddled || known.container == Kept::Perhaps {
                Kept::Perhaps
            } else {
                Kept::Absent
            };
        }
        // A session whose container has died is not ready for long.
        let begin = Instant::now();
        loop {
            self.pass(1).await;
            let is_running = self.world.container_state(&name) == Some(ContainerState::Running);
            let known = self.known.iter().find(|known| known.id == id);
            let is_gone = known.is_none_or(|known| known.states.contains(&Is::Gone));
            if is_running || is_gone || !self.app.sessions.status(id).await?.ready {
                return Ok(());
            }
            // An engine that does not answer cannot say so, and only it can.
            if self.trouble && begin.elapsed() >= NOTICE_LIMIT {
                return Ok(());
            }
            ensure!(begin.elapsed() < NOTICE_LIMIT, "ready without a container");
        }
    }

    async fn pass(&mut self, milliseconds: u64) {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        self.expect_any(&[]);
    }

    /// Ends all faults, and waits until nothing more can happen by itself.
    async fn rest(&mut self) -> Result<()> {
        self.world.calm_down();
        // What was left may begin runs yet.
        self.expect_any(&[]);
        let left = std::mem::take(&mut self.left);
        self.hear_of(left).await?;
        self.pass_until_quiet().await?;
        self.trouble = false;
        self.slow_look = false;
        self.take_in_ends();
        for known in &mut self.known {
            known.meddled = false;
        }
        for known in &self.known {
            let tale = {
                let witness = self.witness.lock().unwrap();
                witness.tales.get(&known.id).cloned()
            };
            if let Some(tale) = &tale {
                let is_untold = matches!(tale.told, Told::Progress(_));
                ensure!(!is_untold, "a run ended untold: {tale:?}");
                let ends = tale.ends;
                let runs = known.runs.unwrap_or(ends);
                ensure!(ends == runs, "{runs} runs, and {ends} ends were told");
            }
            let begin = Instant::now();
            while let Some(odd) = self.odd(known) {
                // What the engine was late with is taken back after the end was told.
                let is_late = begin.elapsed() > self.world.lateness();
                ensure!(!is_late, "{odd}; {known:?}, {tale:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// Waits until no run is under way.
    async fn pass_until_quiet(&mut self) -> Result<()> {
        let begin = Instant::now();
        loop {
            tokio::time::sleep(self.world.rest()).await;
            self.expect_any(&[]);
            self.observe().await?;
            let under_way = |known: &&Known| known.states.contains(&Is::Provisioning);
            let Some(known) = self.known.iter().find(under_way) else {
                return Ok(());
            };
            let witness = self.witness.lock().unwrap();
            let tale = witness.tales.get(&known.id);
            ensure!(begin.elapsed() < PATIENCE, "a run does not end: {tale:?}");
        }
    }

    /// Returns what of a session is on the engine and should not be, or is not and should be.
    fn odd(&self, known: &Known) -> Option<String> {
        let name = known.id.resource_name();
        let container = self.world.container_state(&name);
        let found = [
            ("the container", known.container, container.is_some()),
            ("the volume", known.volume, self.world.has_volume(&name)),
        ];
        let mut odd = found.into_iter().filter(|(_, kept, is_there)| match kept {
            Kept::Absent => *is_there,
            Kept::Present => !is_there,
            Kept::Perhaps => false,
        });
        odd.next()
            .map(|(what, _, is_there)| format!("{what} is there: {is_there}"))
    }

    async fn relaunch(&mut self) -> Result<()> {
        let begin = Instant::now();
        self.app.sessions.shutdown().await;
        ensure!(
            begin.elapsed() <= Duration::from_secs(6),
            "a shutdown took {:?}",
            begin.elapsed()
        );
        self.told.add(&self.witness.lock().unwrap().figures);
        (self.app, self.witness) = start(&self.world);
        for known in &mut self.known {
            known.states = States::from([self.world.truth(known.id)]);
            known.runs = Some(0);
        }
        let listed = self.app.sessions.list().await;
        let listed: BTreeSet<_> = listed.into_iter().map(|one| one.session_id).collect();
        let is_ours = |id: &SessionId| self.known.iter().any(|known| known.id == *id);
        let listed: BTreeSet<_> = listed.into_iter().filter(is_ours).collect();
        let expected: BTreeSet<_> = self
            .known
            .iter()
            .filter(|known| !known.states.contains(&Is::Gone))
            .map(|known| known.id)
            .collect();
        ensure!(
            listed == expected,
            "listed {listed:?}, expected {expected:?}"
        );
        Ok(())
    }

    /// Compares the snapshots of all sessions with the model and with what was told.
    async fn observe(&mut self) -> Result<()> {
        // The app looks by itself when a connection breaks, and what the engine has nothing of is forgotten then.
        for known in &mut self.known {
            if self.world.truth(known.id) == Is::Gone {
                let looked: Vec<_> = known
                    .states
                    .iter()
                    .map(|is| listed(*is, Is::Gone))
                    .collect();
                known.states.extend(looked);
            }
        }
        let may_be_gone = |known: &Known| known.states.contains(&Is::Gone);
        let is_sure = |known: &Known| known.states.len() == 1;
        let mut listed = None;
        if self
            .known
            .iter()
            .any(|known| may_be_gone(known) && !is_sure(known))
        {
            let answer = tokio::time::timeout(PATIENCE, self.app.sessions.list()).await;
            let answer = answer.context("`list` does not end")?.into_iter();
            let ids: BTreeSet<_> = answer.map(|session| session.session_id).collect();
            listed = Some(ids);
            self.look();
        }
        if let World::Real(_) = self.world {
            // After a look the app may be under way on another thread: not from here to the next await.
            tokio::task::yield_now().await;
            self.expect_any(&[]);
        }
        let mut ready = Vec::new();
        for index in 0..self.known.len() {
            let Some(known) = self.known.get(index) else {
                continue;
            };
            let is_listed = match &listed {
                Some(ids) => ids.contains(&known.id),
                None => !(may_be_gone(known) && is_sure(known)),
            };
            let snapshot = if is_listed {
                match self.app.sessions.status(known.id).await {
                    Err(Error::SessionNotFound(_)) if may_be_gone(known) => None,
                    snapshot => Some(snapshot?),
                }
            } else {
                None
            };
            let is = if let Some(snapshot) = snapshot {
                self.check_snapshot(known.id, &snapshot)?;
                if snapshot.ready {
                    ready.push((known.id, snapshot.seq));
                }
                snapshot.state.into()
            } else {
                Is::Gone
            };
            let may_be = &known.states;
            let heard = || self.witness.lock().unwrap().tales.get(&known.id).cloned();
            ensure!(
                may_be.contains(&is),
                "is {is:?}, and may be {may_be:?}: {known:?}, {:?}",
                heard()
            );
            if let Some(known) = self.known.get_mut(index) {
                known.states = States::from([is]);
            }
        }
        for (id, seq) in ready {
            self.check_runs(id, seq).await?;
        }
        let witness = self.witness.lock().unwrap();
        ensure!(witness.broken.is_empty(), "{:#?}", witness.broken);
        Ok(())
    }

    /// Takes in that the app has looked at the engine's labels, by itself or in the midst of things.
    fn look(&mut self) {
        if self.trouble || !self.left.is_empty() {
            self.expect_any(&[(Ask::List, self.stranger)]);
            return;
        }
        for known in &mut self.known {
            let truth = self.world.truth(known.id);
            let looked = known.states.iter().map(|is| listed(*is, truth)).collect();
            known.states = closure(looked, |is| passes(is, known.doomed));
        }
    }

    /// The snapshot agrees with the last event.
    fn check_snapshot(&self, id: SessionId, status: &SessionStatus) -> Result<()> {
        let witness = self.witness.lock().unwrap();
        let tale = witness.tales.get(&id);
        ensure!(
            status.seq == tale.map_or(0, |tale| tale.seq),
            "{status:?} after {tale:?}"
        );
        ensure!(
            status.ready == (status.state == SessionState::Ready),
            "{status:?}"
        );
        ensure!(status.session.state == status.state, "{status:?}");
        ensure!(
            (status.progress.percent >= 100.0) == status.ready,
            "{status:?}"
        );
        let told = tale.map_or(&Told::Nothing, |tale| &tale.told);
        let agrees = match status.state {
            SessionState::Provisioning => match told {
                Told::Progress(percent) => status.progress.percent >= *percent,
                Told::Nothing | Told::Ready | Told::Failed(..) | Told::Cancelled(_) => true,
            },
            SessionState::Ready => matches!(told, Told::Ready),
            SessionState::Paused
            | SessionState::Stopped
            | SessionState::Interrupted
            | SessionState::Away => !matches!(told, Told::Progress(_)),
            SessionState::Failed => match told {
                Told::Failed(error, undone) => {
                    status.error.as_ref() == Some(error) && is_undone(&status.undone, undone)
                }
                _ => false,
            },
            SessionState::Cancelled => match told {
                Told::Cancelled(undone) => {
                    status.error.is_none() && is_undone(&status.undone, undone)
                }
                _ => false,
            },
        };
        ensure!(agrees, "{status:?} after {told:?}");
        Ok(())
    }

    /// The container of a session that was ready at that `seq` runs.
    async fn check_runs(&self, id: SessionId, seq: u64) -> Result<()> {
        let state = self.world.container_state(&id.resource_name());
        // An engine in trouble cannot say that a container is gone, and only it can.
        if state != Some(ContainerState::Running) && !self.trouble {
            // What was left may have stopped or deleted it since.
            let now = self.app.sessions.status(id).await;
            let is_still_ready = now.is_ok_and(|now| now.ready && now.seq == seq);
            ensure!(!is_still_ready, "ready, and the container is {state:?}");
        }
        Ok(())
    }

    /// After everything, every session can be deleted, and then nothing is left and nothing is told.
    async fn end(&mut self) -> Result<()> {
        self.rest().await?;
        for known in &self.known {
            let asked = (Ask::Delete(0), known.id);
            let answer = put(self.app.sessions.clone(), asked).await?;
            ensure!(
                answer.result.is_ok(),
                "a deletion was answered by {:?}",
                told(&answer.result)
            );
        }
        let listed = self.app.sessions.list().await;
        for Known { id, .. } in &self.known {
            ensure!(
                self.world.truth(*id) == Is::Gone,
                "{id} left something behind"
            );
            let is_listed = listed.iter().any(|session| session.session_id == *id);
            ensure!(!is_listed, "{id} is deleted and listed");
        }
        ensure!(self.world.is_empty(), "something was left behind");
        let count = self.witness.lock().unwrap().figures.events;
        tokio::time::sleep(self.world.rest()).await;
        ensure!(
            self.witness.lock().unwrap().figures.events == count,
            "something was told of nothing"
        );
        Ok(())
    }
}

fn start(world: &World) -> (App, Arc<Mutex<Witness>>) {
    let app = world.launch();
    let witness = Arc::new(Mutex::new(Witness::default()));
    let (hears, world) = (Arc::clone(&witness), world.clone());
    app.heard
        .on_event(move |event| hears.lock().unwrap().hear(event, &world));
    (app, witness)
}

/// Returns whether the first is what was told, or what has become of that since.
fn is_undone(now: &[Undone], told: &[Undone]) -> bool {
    let mut both = now.iter().zip(told);
    now.len() == told.len()
        && both.all(|(now, told)| now == told || told.failure.is_some() && now.failure.is_none())
}

/// Asks, and waits for the answer, which has to come.
async fn put(sessions: Sessions, (ask, id): Asked) -> Result<Answer> {
    let begin = Instant::now();
    let made = Mutex::new(None);
    let asking = async {
        match ask {
            Ask::Restart(_) => sessions.restart(id).await.map(Some),
            Ask::Rebuild(_) => sessions.rebuild(id, None).await.map(Some),
            Ask::Rename(_) => sessions.rename(id, "another").await.map(|_| None),
            Ask::Duplicate(_) => {
                let copy = sessions.duplicate(id, None).await?;
                *made.lock().unwrap() = Some(copy);
                Ok(None)
            }
            Ask::Discard(_) => sessions.discard(id).await.map(|()| None),
            Ask::DeleteContainer(_) => sessions.delete_container(id).await.map(|()| None),
            Ask::Open(_) => sessions.open(id).await.map(Some),
            Ask::Cancel(_) => sessions.cancel(id).await.map(Some),
            Ask::Stop(_) => sessions.stop(id).await.map(|()| None),
            Ask::Delete(_) => sessions.delete(id).await.map(|()| None),
            Ask::Status(_) => sessions.status(id).await.map(Some),
            Ask::ListDir(_) => async { sessions.ready(id).await?.list_dir("/workspace").await }
                .await
                .map(|_| None),
            Ask::List => {
                sessions.list().await;
                Ok(None)
            }
        }
    };
    let result = tokio::time::timeout(PATIENCE, asking).await;
    let result = result.with_context(|| format!("{ask:?} does not end"))?;
    let took = begin.elapsed();
    let made = made.into_inner().unwrap();
    Ok(Answer { made, result, took })
}

fn told(result: &Result<Option<SessionStatus>, Error>) -> String {
    match result {
        Ok(Some(status)) => format!("{:?}", status.state),
        Ok(None) => "ok".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// Walks on an engine that is made up, in time that is made up.
fn walk(pace: u64, steps: &[Step]) -> Result<Figures> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async { Walk::new(World::made_up(pace)).go(steps).await })
}

/// What a run was about to make is in doubt, and the engine takes 200 ms for every call of the undo.
#[test]
fn a_cancel_does_not_wait_for_every_undo_of_a_slow_engine() {
    let create = Step::Create { pulls: false };
    let steps = [
        create,
        create,
        Step::Pass(1801),
        create,
        Step::Fault("create_container", Fault::Lost),
        Step::EngineBack,
        Step::Both(Ask::Stop(3), Ask::Open(0)),
        Step::Do(Ask::Cancel(2)),
    ];
    walk(200, &steps).unwrap();
}

/// A run that has failed is being taken back, by an engine that does not answer.
#[test]
fn a_cancel_does_not_wait_for_the_undos_of_a_run_that_has_failed() {
    let create = Step::Create { pulls: false };
    let steps = [
        create,
        create,
        Step::EngineBack,
        Step::Fault("remove_volume", Fault::Never),
        Step::EngineAway,
        create,
        Step::Do(Ask::Open(0)),
        Step::Do(Ask::Open(0)),
        Step::Both(Ask::Open(0), Ask::Cancel(7)),
        Step::EngineBack,
        Step::Do(Ask::Cancel(0)),
    ];
    walk(20, &steps).unwrap();
}

/// The volume of a session that never became ready was kept, and a second run was cancelled.
#[test]
fn a_delete_also_removes_a_volume_that_an_earlier_one_has_kept() {
    let create = Step::Create { pulls: false };
    let steps = [
        create,
        Step::Fault("remove_volume", Fault::VeryLate),
        Step::EngineBack,
        Step::Fault("remove_volume", Fault::VeryLate),
        Step::Both(Ask::DeleteContainer(0), Ask::Status(0)),
        Step::Do(Ask::Restart(0)),
        create,
        Step::Do(Ask::Open(0)),
        Step::Do(Ask::DeleteContainer(1)),
        create,
        Step::Do(Ask::Delete(3)),
    ];
    walk(200, &steps).unwrap();
}

#[test]
fn whatever_is_asked_and_whatever_fails_every_session_keeps_its_promises() {
    let failed = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/sessions/walks-that-failed.txt"
    );
    let mut config = Config {
        max_shrink_iters: 4_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(failed))),
        ..Config::default()
    };
    // The same walks each time, so that a change is judged by what it changes; others, with `PROPTEST_CASES`, are for who
    // looks for what nobody has found.
    let mut runner = if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 2_000;
        let same = TestRng::deterministic_rng(config.rng_algorithm);
        TestRunner::new_with_rng(config, same)
    } else {
        TestRunner::new(config)
    };
    let begin = std::time::Instant::now();
    let figures = std::cell::RefCell::new(Figures::default());
    let result = runner.run(&steps::walk(), |(pace, steps)| {
        let told = walk(pace, &steps).map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
        let mut figures = figures.borrow_mut();
        figures.walks += 1;
        figures.steps += steps.len();
        figures.add(&told);
        Ok(())
    });
    note(&format!("{:?} in {:?}", figures.borrow(), begin.elapsed()));
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

#[test]
fn a_real_engine_keeps_the_same_promises_on_walks_without_faults() {
    let Some(engine) = testbed::Engine::from_env_or_skip() else {
        return;
    };
    let world = World::Real(Arc::new(engine));
    let config = Config {
        cases: 20,
        // A walk takes seconds here: one that fails is told as it is.
        max_shrink_iters: 0,
        failure_persistence: None,
        ..Config::default()
    };
    let begin = std::time::Instant::now();
    let figures = std::cell::RefCell::new(Figures::default());
    let result = TestRunner::new(config).run(&steps::real_walk(), |steps| {
        // One thread, so that nothing happens between two awaits, and another while it waits for a look.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (world, count) = (world.clone(), steps.len());
        let walk = async move {
            let mut walk = Walk::new(world.clone());
            let told = walk.go(&steps).await;
            walk.known.iter().for_each(|known| world.clear(known.id));
            told
        };
        let told = runtime.block_on(runtime.spawn(walk)).unwrap();
        let told = told.map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
        let mut figures = figures.borrow_mut();
        figures.walks += 1;
        figures.steps += count;
        figures.add(&told);
        Ok(())
    });
    note(&format!("{:?} in {:?}", figures.borrow(), begin.elapsed()));
    if let Err(failure) = result {
        panic!("{failure}");
    }
}
