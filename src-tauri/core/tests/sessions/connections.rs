//! A broken connection is not a broken session: shells go on, files are reached again, and nothing that was
//! paused is let go. Only a container that has stopped ends a session.

use std::time::{Duration, Instant};

use cove_core::session::{SessionId, SessionState};
use cove_core::terminal::tabs::{TerminalPane, TerminalTab};
use cove_core::terminal::{Opening, Size};
use cove_testbed::EngineProxy;

use crate::following::{follow, is, until_shown};
use crate::support::{App, Start, eventually, note, own_engine};
use crate::terminals::Shell;

/// The promise: no call hangs longer.
const LIMIT: Duration = Duration::from_secs(5);

/// Sends a signal to each of the agent's ends of the pipe in the session's container, and returns how many there are.
fn signal_pipes(app: &App, id: SessionId, signal: &str) -> usize {
    app.signal_agents(id, "connect", signal)
}

/// The session's files can be listed within the limit.
async fn check_files(app: &App, id: SessionId, what: &str) {
    let begin = Instant::now();
    let listed = tokio::time::timeout(LIMIT, async {
        app.sessions.ready(id).await?.list_dir("/workspace").await
    })
    .await;
    listed.unwrap().unwrap();
    note(&format!("{what}: listed after {:?}", begin.elapsed()));
}

async fn check_state(app: &App, id: SessionId, expected: SessionState) {
    let status = app.sessions.status(id).await.unwrap();
    assert_eq!(status.state, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_to_the_agent_that_ends_is_replaced_and_shells_go_on() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    let shell = Shell::open(&app, id).await;
    for round in 1..=3 {
        assert_eq!(signal_pipes(&app, id, "-KILL"), 1);
        check_files(&app, id, "killed").await;
        check_state(&app, id, SessionState::Ready).await;
        shell.type_line(&format!("echo a$(({round}+1))b")).await;
        shell.until_shown(&format!("a{}b", round + 1)).await;
    }
    app.sessions.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_to_the_agent_that_does_not_answer_is_replaced_and_shells_go_on() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    let shell = Shell::open(&app, id).await;
    assert_eq!(signal_pipes(&app, id, "-STOP"), 1);
    check_files(&app, id, "stopped").await;
    check_state(&app, id, SessionState::Ready).await;
    shell.type_line("echo a$((1+1))b").await;
    shell.until_shown("a2b").await;
    // The one that was stopped ends as soon as it can: nobody speaks to it any more.
    signal_pipes(&app, id, "-CONT");
    eventually("the end of the first server", || {
        (signal_pipes(&app, id, "-CONT") == 1).then_some(())
    })
    .await;
    app.sessions.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_break_off_take_no_shell_and_let_nothing_go_that_was_paused() {
    let Some(engine) = own_engine() else { return };
    let proxy = EngineProxy::start(engine.socket()).unwrap();
    let app = App::through(&engine, &proxy.address(), Start::default());
    follow(&app).await;
    let (used, paused) = (app.ready(None).await, app.ready(None).await);
    let shell = Shell::open(&app, used).await;
    let waiting = Shell::open(&app, paused).await;
    waiting.type_line("echo a$((1+1))b").await;
    waiting.until_shown("a2b").await;
    engine.docker(&["pause", &paused.resource_name()]).unwrap();
    until_shown(&app, paused, is(SessionState::Paused, true)).await;
    for round in 1..=3 {
        let before = events_asked(&proxy);
        assert_eq!(proxy.cut_only("/events"), 1);
        eventually("new events", || {
            (events_asked(&proxy) > before).then_some(())
        })
        .await;
        shell.type_line(&format!("echo a$(({round}+1))b")).await;
        shell.until_shown(&format!("a{}b", round + 1)).await;
        check_state(&app, used, SessionState::Ready).await;
        check_state(&app, paused, SessionState::Paused).await;
        assert_eq!(app.inspect(paused)["State"]["Paused"], true);
    }
    // Opening it lets its programs go on: they are the same as before.
    app.sessions.open(paused).await.unwrap();
    check_state(&app, paused, SessionState::Ready).await;
    waiting.type_line("echo a$((2+1))b").await;
    waiting.until_shown("a3b").await;
    check_files(&app, paused, "paused and opened").await;
    app.sessions.shutdown().await;
}

fn events_asked(proxy: &EngineProxy) -> usize {
    let requests = proxy.requests();
    requests
        .iter()
        .filter(|request| request.contains("/events"))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_not_reached_takes_no_session_and_is_told() {
    let Some(engine) = own_engine() else { return };
    let proxy = EngineProxy::start(engine.socket()).unwrap();
    let app = App::through(&engine, &proxy.address(), Start::default());
    follow(&app).await;
    let id = app.ready(None).await;
    proxy.refuse();
    let shown_as = |state: SessionState, reconnecting: bool| {
        move |session: Option<&cove_core::session::Session>| {
            session.is_some_and(|session| {
                session.state == state && session.reconnecting == reconnecting
            })
        }
    };
    until_shown(&app, id, shown_as(SessionState::Away, true)).await;
    let begin = Instant::now();
    let refused = app.sessions.ready(id).await.err();
    assert!(refused.is_some() && begin.elapsed() < LIMIT, "{refused:?}");
    proxy.resume().unwrap();
    until_shown(&app, id, shown_as(SessionState::Ready, false)).await;
    check_files(&app, id, "reached again").await;
    app.sessions.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn terminals_keep_their_order_and_one_that_ended_gives_its_place() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    let mut shells = Vec::new();
    for _ in 0..4 {
        shells.push(Shell::open(&app, id).await);
    }
    let mut ids: Vec<_> = shells
        .iter()
        .map(|shell| shell.terminal.id().to_owned())
        .collect();
    let open = async || app.sessions.status(id).await.unwrap().terminals;
    assert_eq!(open().await, ids);
    shells[1].type_line("exit 7").await;
    shells[1].until_exit().await;
    let size = Size { cols: 80, rows: 24 };
    // A window that comes back sees the end, and may have a new one in its place.
    let attached = app
        .connected(id)
        .await
        .attach_terminal(&ids[1], size, Box::new(|_| ()))
        .await;
    attached.unwrap();
    let in_its_place = Opening {
        replaces: Some(ids[1].clone()),
        begins: None,
    };
    let session = app.session(id).await;
    let opening = session.open_terminal_as(in_its_place, size, Box::new(|_| ()));
    ids[1] = opening.await.unwrap();
    assert_eq!(open().await, ids);
    app.connected(id).await.close_terminal(&ids[0]);
    assert_eq!(open().await, ids[1..]);
    app.sessions.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tabs_of_terminals_are_there_for_the_next_window_and_the_next_app() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let shell = Shell::open(&app, id).await;
        ids.push(shell.terminal.id().to_owned());
    }
    let tab = |name: &str, of: &[usize]| TerminalTab {
        name: name.to_owned(),
        stacked: name == "build",
        panes: of
            .iter()
            .map(|at| TerminalPane {
                terminal_id: ids[*at].clone(),
                share: 100 / u8::try_from(of.len()).unwrap(),
            })
            .collect(),
    };
    let shown = async |app: &App| app.connected(id).await.list_terminals();
    let apart = vec![tab("", &[0]), tab("", &[1]), tab("", &[2])];
    assert_eq!(shown(&app).await.tabs, apart);
    let tabs = vec![tab("build", &[2, 0]), tab("", &[1])];
    let arranging = app
        .connected(id)
        .await
        .arrange_terminals(tabs.clone())
        .await;
    arranging.unwrap();
    assert_eq!(shown(&app).await.tabs, tabs);

    let next = app.again();
    app.leave_to(&next);
    app.sessions.shutdown().await;
    next.open(id, 1).await;
    let listed = shown(&next).await;
    assert_eq!(listed.tabs, tabs);
    let listed: Vec<_> = listed
        .terminals
        .into_iter()
        .map(|terminal| (terminal.terminal_id, terminal.running))
        .collect();
    let all: Vec<_> = ids.iter().map(|id| (id.clone(), true)).collect();
    assert_eq!(listed, all);
    // One that is closed is in none.
    next.connected(id).await.close_terminal(&ids[0]);
    let mut left = tabs;
    left[0].panes.pop();
    assert_eq!(shown(&next).await.tabs, left);
    next.sessions.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_terminals_that_flood_leaves_nothing_and_delays_nothing() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    for _ in 0..6 {
        let shell = Shell::open(&app, id).await;
        shell.type_line("yes").await;
        // The window is not reading: it has been told as much as it may be, and the reader waits for it.
        shell.until_it_stands_still().await;
        let terminal = shell.terminal.id().to_owned();
        app.connected(id).await.close_terminal(&terminal);
    }
    let begin = Instant::now();
    let shell = Shell::open(&app, id).await;
    shell.type_line("echo a$((1+1))b").await;
    shell.until_shown("a2b").await;
    assert!(begin.elapsed() < LIMIT, "{:?}", begin.elapsed());
    let name = id.resource_name();
    eventually("the end of what flooded", || {
        let all = app.engine().docker(&["top", &name, "-eo", "pid,args"]);
        (!all.unwrap().contains("yes")).then_some(())
    })
    .await;
    drop(shell);
    let begin = Instant::now();
    app.sessions.shutdown().await;
    let took = begin.elapsed();
    note(&format!("shutdown after six floods: {took:?}"));
    assert!(took < Duration::from_secs(2), "{took:?}");
}
