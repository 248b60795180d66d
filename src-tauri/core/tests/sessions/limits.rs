//! Time: what stands still is ended, what moves is not, and the end of the app is quick.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cove_core::error::ErrorCode;
use cove_core::event::{Phase, SessionEvent};
use cove_core::files::Encoding;
use cove_core::session::SessionState;
use cove_core::settings::Settings;
use cove_core::terminal::Size;
use cove_testbed::{Engine, Proxy, Registry, RegistryOptions, TestImage};

use crate::support::{
    App, Start, check_failed, check_ready, check_run, eventually, note, own_engine, progress_of,
    shared_registry,
};
use crate::terminals::Shell;

/// The shortest limit that there is.
fn impatient() -> Start {
    let settings = Settings {
        time_limit_s: 10,
        ..Settings::default()
    };
    Start {
        settings,
        ..Start::default()
    }
}

fn layers() -> (Registry, Proxy, String) {
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    registry.publish(TestImage::Layers).unwrap();
    let proxy = Proxy::start(registry.address()).unwrap();
    let image = format!("{}/layers", proxy.address());
    (registry, proxy, image)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_stands_still_is_told_and_ended_by_the_limit() {
    let Some(engine) = own_engine() else { return };
    let (_registry, proxy, image) = layers();
    let app = App::with(&engine, impatient());
    proxy.set_rate(8 << 20);
    let id = app.create(Some(&image));
    let moved = |at: &crate::support::Moment| {
        let (_, progress) = progress_of(&at.event)?;
        (progress.pull?.downloaded_bytes > 1 << 20).then_some(())
    };
    app.heard
        .until(id, |moments| moments.iter().find_map(moved))
        .await;
    proxy.stall();
    let begin = Instant::now();
    let run = app.heard.run(id, 1).await;
    let took = begin.elapsed();
    let error = check_failed(&run, ErrorCode::Timeout, None);
    assert_eq!(error.details["limit_s"], 10);
    assert!((9.5..12.0).contains(&took.as_secs_f64()), "{took:?}");
    let idle = run.iter().filter_map(|moment| progress_of(&moment.event));
    let longest = idle.map(|(_, progress)| progress.idle_ms).max().unwrap();
    assert!(longest > 9_000, "a stall is told as one, {longest}");
    app.check_nothing_is_left(id);

    proxy.resume();
    proxy.unlimited();
    app.open(id, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_pull_that_moves_outlives_the_limit() {
    let Some(engine) = own_engine() else { return };
    let (_registry, proxy, image) = layers();
    let app = App::with(&engine, impatient());
    proxy.set_rate(3 << 20);
    let (_, run) = app.create_and_wait(Some(&image)).await;
    check_ready(&run);
    let took = run.last().unwrap().at;
    assert!(took > Duration::from_secs(11), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_ends_runs_and_leaves_ready_sessions_running() {
    let Some(engine) = Engine::from_env_or_skip() else {
        return;
    };
    let app = App::on(&Arc::new(engine));
    let ready = app.ready(None).await;
    let started = app.inspect(ready)["State"]["StartedAt"].clone();
    let (sender, reached) = tokio::sync::oneshot::channel();
    let mut sender = Some(sender);
    app.heard.on_event(move |event| {
        if matches!(event, SessionEvent::Progress(event) if event.phase == Phase::CreatingContainer)
            && let Some(sender) = sender.take()
        {
            sender.send(()).unwrap();
        }
    });
    let running = app.create(None);
    reached.await.unwrap();
    let begin = Instant::now();
    app.sessions.shutdown().await;
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    note(&format!("shutdown in {took:?}"));
    let run = app.heard.run(running, 1).await;
    check_run(&run);
    assert!(
        matches!(run.last().unwrap().event, SessionEvent::Cancelled(_)),
        "{run:#?}"
    );
    app.check_nothing_is_left(running);
    let state = app.inspect(ready)["State"].clone();
    assert_eq!(
        (&state["Running"], &state["StartedAt"]),
        (&true.into(), &started)
    );
}

/// As the user of a session may fill it up: with processes that sleep, from a terminal.
const FILL: &str = "while sleep 600 & do :; done 2>/dev/null; echo full";

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_processes_are_used_up_stays_usable_and_its_user_can_end_them() {
    let Some(engine) = Engine::from_env_or_skip() else {
        return;
    };
    let tiny = shared_registry().reference(TestImage::Tiny);
    check_process_limit(&Arc::new(engine), &[None, Some(tiny)]).await;
}

pub(crate) async fn check_process_limit(engine: &Arc<Engine>, images: &[Option<String>]) {
    let start = Start {
        settings: Settings {
            pids_limit: 64,
            ..Settings::default()
        },
        ..Start::default()
    };
    let app = App::with(engine, start);
    for image in images {
        let id = app.ready(image.as_deref()).await;
        let shell = Shell::open(&app, id).await;
        shell.type_line("echo begun").await;
        shell.until_shown("begun\r\n").await;
        // Its output is read, so that what fills the session does not wait for a window.
        shell.type_line(FILL).await;
        let name = id.resource_name();
        let count = ["stats", "--no-stream", "--format", "{{.PIDs}}", &name];
        eventually("the limit", || {
            let running = app.engine().docker(&count).unwrap();
            (running.trim().parse::<u64>().unwrap() >= 63).then_some(())
        })
        .await;
        let size = Size { cols: 80, rows: 24 };
        let open = app
            .session(id)
            .await
            .open_terminal(size, Box::new(|_| ()))
            .await;
        let error = open.unwrap_err();
        let report = error.report();
        assert_eq!(report.error, ErrorCode::ProcessLimit, "{report:?}");
        assert_eq!(report.details["limit"], 64);
        assert!(
            report.message.contains("may have 64 processes"),
            "{report:?}"
        );

        // Nothing of it needs a new process.
        let path = "/workspace/made";
        for round in 0..20 {
            let begin = Instant::now();
            let write = app
                .session(id)
                .await
                .write_file(path, round.to_string(), Encoding::Utf8, None)
                .await;
            write.unwrap();
            let listed = app.session(id).await.list_dir("/workspace").await.unwrap();
            assert_eq!(listed.entries.len(), 1);
            assert!(begin.elapsed() < Duration::from_secs(2));
        }
        let status = app.sessions.status(id).await.unwrap();
        assert_eq!(status.session.state, SessionState::Ready);
        assert!(!shell.seen_end(), "the terminal that is open stays");

        let begin = Instant::now();
        let ended = app.session(id).await.end_processes().await.unwrap();
        let took = begin.elapsed();
        note(&format!("{ended:?} in {took:?}"));
        assert!(ended.ended > 40, "{ended:?}");
        assert_eq!(ended.left, 0, "{ended:?}");
        let (_, message) = shell.until_exit().await;
        assert_eq!(message, "The shell was ended by signal 9.");
        let again = Shell::open(&app, id).await;
        again.type_line("echo there is r''oom").await;
        again.until_shown("there is room\r\n").await;
        assert_eq!(
            app.sessions.status(id).await.unwrap().session.state,
            SessionState::Ready
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_programs_do_is_seen_and_what_waits_does_nothing() {
    let Some(app) = App::shared() else { return };
    check_work(&app).await;
}

pub(crate) async fn check_work(app: &App) {
    let id = app.ready(None).await;
    let shell = Shell::open(app, id).await;
    shell.output_of("sleep 600 & true").await;
    let work = async || app.session(id).await.work().await.unwrap();
    // The agent is asked all the while, and that is none of the programs' doing.
    let before = work().await;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(3) {
        app.session(id).await.list_dir("/workspace").await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let after = work().await;
    note(&format!("at rest: {before:?}, 3 s later {after:?}"));
    assert_eq!(after.written_bytes, before.written_bytes);
    assert!(after.processor.saturating_sub(before.processor) < Duration::from_millis(100));

    let build =
        "nohup sh -c 'while sleep 0.2; do echo x >> /workspace/log; done' > /dev/null 2>&1 & true";
    shell.output_of(build).await;
    shell.type_line("exit").await;
    shell.until_exit().await;
    for _ in 0..2 {
        let before = work().await;
        let begin = Instant::now();
        while work().await.written_bytes == before.written_bytes {
            assert!(
                begin.elapsed() < Duration::from_secs(10),
                "it writes nothing"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let shell = Shell::open(app, id).await;
    let before = work().await;
    shell
        .output_of("timeout 20 sh -c 'while :; do :; done' & true")
        .await;
    let begin = Instant::now();
    while work().await.processor.saturating_sub(before.processor) < Duration::from_millis(200) {
        assert!(begin.elapsed() < Duration::from_secs(20), "it does no work");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
