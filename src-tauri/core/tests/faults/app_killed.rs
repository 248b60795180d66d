//! The app is killed at any moment of a run, as by a power cut or an impatient user: the next one lists the session and
//! resumes or discards it, and the files of a session that was there before are there still.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use cove_core::event::{Phase, SessionEvent};
use cove_core::session::{SessionId, SessionState};
use cove_core::settings::Settings;
use cove_testbed::{EngineFault, FaultRecord, Target};

use crate::support::{App, Book, Ground, Kept, note, one_of, random, seeds, up_to};

/// The environment of a process that is this test itself, as the app that is to be killed: the engine's address, the
/// journal's folder, and the image of a session to create or the id of one to open.
const CHILD: [&str; 3] = [
    "COVE_TEST_VICTIM_ENGINE",
    "COVE_TEST_VICTIM_JOURNAL",
    "COVE_TEST_VICTIM_SESSION",
];
const TOLD: &str = "told: ";
const NAME: &str =
    "app_killed::an_app_that_is_killed_at_any_moment_loses_nothing_and_leaves_nothing";

/// What the victim does: it runs a session and tells of it, until it is killed or its killer is gone.
async fn be_victim(engine: &str) {
    std::thread::spawn(|| {
        // Ends with whoever started this process.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    let [journal, session] = [CHILD[1], CHILD[2]].map(|name| std::env::var(name).unwrap());
    let app = App::with(engine, journal.as_ref(), Settings::default());
    app.on_event(|event| match event {
        SessionEvent::Progress(event) => note(&format!("{TOLD}{:?}", event.phase)),
        SessionEvent::Ready(_) => note(&format!("{TOLD}Ready")),
        other => note(&format!("{TOLD}{other:?}")),
    });
    match session.parse::<SessionId>() {
        Ok(id) => drop(app.sessions.open(id).await.unwrap()),
        Err(_) => note(&format!("{TOLD}{}", app.create(Some(&session)))),
    }
    std::future::pending::<()>().await;
}

/// The app that is to be killed, and what it has told.
struct Victim {
    process: Child,
    told: Receiver<String>,
    _stdin: ChildStdin,
}

impl Victim {
    fn start(ground: &Ground, journal: &std::path::Path, session: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", NAME])
            .env(CHILD[0], ground.proxy.address())
            .env(CHILD[1], journal)
            .env(CHILD[2], session)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, told) = mpsc::channel();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(word) = line.strip_prefix(TOLD)
                    && sender.send(word.to_owned()).is_err()
                {
                    return;
                }
            }
        });
        Self {
            _stdin: process.stdin.take().unwrap(),
            process,
            told,
        }
    }

    /// Waits until it has told this, and keeps what it told before.
    fn until(&self, word: &str, heard: &mut Vec<String>) -> Result<(), String> {
        while heard.last().is_none_or(|last| last != word) {
            let next = self.told.recv_timeout(Duration::from_secs(30));
            heard.push(next.map_err(|_| format!("the app did not come to {word}: {heard:?}"))?);
        }
        Ok(())
    }

    /// Kills it, and returns all that it told.
    fn kill(mut self, mut heard: Vec<String>) -> Vec<String> {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        heard.extend(self.told.iter());
        heard
    }
}

/// The calls whose effects a slow engine may still be busy with when the app dies.
const EFFECTS: [(&str, &str); 5] = [
    ("POST", "/volumes/create"),
    ("POST", "/containers/create"),
    ("PUT", "/archive"),
    ("POST", "/start"),
    ("POST", "/images/create"),
];

async fn check(ground: &Ground, kept: &Kept, seed: u64) -> FaultRecord {
    let mut random = random(seed);
    let index = usize::try_from(seed).unwrap() % Phase::WORKING.len();
    let phase = *Phase::WORKING.get(index).unwrap();
    let is_open = phase != Phase::PullingImage && random.number().is_multiple_of(3);
    let is_slow = random.number().is_multiple_of(2);
    let resumes = random.number().is_multiple_of(2);
    let mut record = FaultRecord {
        kind: if is_open { "open" } else { "create" }.to_owned(),
        phase: format!("{phase:?}"),
        fault: format!(
            "app killed{}",
            if resumes { ", resume" } else { ", discard" }
        ),
        seed,
        ..FaultRecord::default()
    };
    if phase == Phase::PullingImage {
        ground.engine.remove_image(&ground.cold).unwrap();
    }
    let (method, path) = one_of(&mut random, &EFFECTS);
    let longest = if is_slow { 700 } else { 250 };
    let delay = up_to(&mut random, Duration::from_millis(longest));
    if is_slow {
        let late = up_to(&mut random, Duration::from_secs(1));
        ground
            .proxy
            .strike(Target::request(method, path), EngineFault::HoldAnswer(late));
    }
    let journal = tempfile::tempdir().unwrap();
    let session = match (is_open, phase) {
        (true, _) => kept.id.to_string(),
        (false, Phase::PullingImage) => ground.cold.clone(),
        (false, _) => ground.tiny.clone(),
    };
    let victim = Victim::start(ground, journal.path(), &session);
    let mut heard = Vec::new();
    let met = victim.until(&format!("{phase:?}"), &mut heard);
    if met.is_ok() {
        std::thread::sleep(delay);
    }
    let heard = victim.kill(heard);
    ground.proxy.calm();
    let next = App::with(&ground.proxy.address(), journal.path(), Settings::default());
    let id = heard
        .iter()
        .find_map(|word| word.parse().ok())
        .filter(|_| !is_open);
    let told = match (met, id.or(is_open.then_some(kept.id))) {
        (Err(problem), _) => Err(problem),
        (Ok(()), None) => Err(format!("the app told of no session: {heard:?}")),
        (Ok(()), Some(id)) if is_open => reopen(&next, kept, id, resumes, &mut record).await,
        (Ok(()), Some(id)) => {
            let told = recover(ground, &next, id, &heard, resumes, &mut record).await;
            // Whatever happened, the next run begins with a clean table.
            let _ = next.delete(id).await;
            record.leftovers += ground.leftovers(id).await;
            told
        }
    };
    if let Err(problem) = told {
        record.broken = problem;
    }
    next.sessions.shutdown().await;
    record.bystanders = ground.bystanders.touched();
    record
}

async fn state(app: &App, id: SessionId) -> Option<SessionState> {
    let listed = app.sessions.list().await;
    let found = listed.iter().find(|session| session.session_id == id);
    found.map(|session| session.state)
}

/// What the next app makes of a session that was being created.
async fn recover(
    ground: &Ground,
    next: &App,
    id: SessionId,
    heard: &[String],
    resumes: bool,
    record: &mut FaultRecord,
) -> Result<(), String> {
    let has = |word: &str| heard.iter().any(|told| told == word);
    let state = state(next, id).await;
    let expected: &[Option<SessionState>] = if has("Ready") {
        &[Some(SessionState::Stopped)]
    } else if has("StartingContainer") {
        // It may have become ready and not have come to tell it.
        &[Some(SessionState::Interrupted), Some(SessionState::Stopped)]
    } else if has("PullingImage") {
        &[Some(SessionState::Interrupted)]
    } else {
        &[Some(SessionState::Interrupted), None]
    };
    if !expected.contains(&state) {
        return Err(format!("after {:?} it is {state:?}", heard.last()));
    }
    match state {
        None => "nothing had begun".clone_into(&mut record.outcome),
        Some(SessionState::Interrupted) if !resumes => {
            let discarded = next.sessions.discard(id).await;
            discarded.map_err(|error| format!("it could not be discarded: {error}"))?;
            "discarded".clone_into(&mut record.outcome);
            record.leftovers = ground.leftovers(id).await;
            let state = self::state(next, id).await;
            if state.is_some() {
                return Err(format!("discarded, it is {state:?}"));
            }
        }
        Some(_) => {
            next.until_ready(id).await?;
            "ready".clone_into(&mut record.outcome);
            next.delete(id).await?;
        }
    }
    Ok(())
}

/// What the next app makes of a session that was there before.
async fn reopen(
    next: &App,
    kept: &Kept,
    id: SessionId,
    resumes: bool,
    record: &mut FaultRecord,
) -> Result<(), String> {
    let state = state(next, id).await;
    if !matches!(
        state,
        Some(SessionState::Interrupted | SessionState::Stopped)
    ) {
        return Err(format!("it is {state:?}"));
    }
    if !resumes {
        let discarded = next.sessions.discard(id).await;
        discarded.map_err(|error| format!("it could not be discarded: {error}"))?;
    }
    next.until_ready(id).await?;
    "ready".clone_into(&mut record.outcome);
    let whole = kept.is_whole(next).await;
    if !whole.map_err(|error| format!("the kept file cannot be read: {error}"))? {
        record.lost = 1;
    }
    let stopped = next.sessions.stop(id).await;
    stopped.map_err(|error| format!("it could not be stopped: {error}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_is_killed_at_any_moment_loses_nothing_and_leaves_nothing() {
    if let Ok(engine) = std::env::var(CHILD[0]) {
        return be_victim(&engine).await;
    }
    let Some(ground) = Ground::with_running() else {
        return;
    };
    let ground = Arc::new(ground);
    let first = ground.app();
    let kept = Kept::new(&first, &ground.tiny, "what its user wrote\n").await;
    first.sessions.stop(kept.id).await.unwrap();
    first.sessions.shutdown().await;
    let mut book = Book::default();
    for seed in seeds(23) {
        book.add(check(&ground, &kept, seed).await);
    }
    book.check();
}
