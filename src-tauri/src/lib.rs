//! The shell: the window, its commands and events, and what is kept between runs. It is the only
//! place that says `tauri::`; what sessions are and do is `cove_core`.

mod archives;
mod commands;
mod embedded;
mod ipc;
mod leaving;
mod settings;

use std::process::ExitCode;
use std::sync::Arc;

use cove_core::engine::docker::DockerEngine;
use cove_core::sessions::{Sessions, Start};
use tauri::plugin::TauriPlugin;
use tauri::{App, Manager, RunEvent, Wry};
use tauri_plugin_log::{Builder, RotationStrategy, Target, TargetKind};

use crate::archives::Archives;
use crate::ipc::EventReporter;
use crate::settings::Keeper;

/// Runs the app until its window is closed.
#[must_use]
pub fn run() -> ExitCode {
    let app = tauri::Builder::default()
        // First, so that a second start does nothing before it hands over.
        .plugin(tauri_plugin_single_instance::init(|app, _, _| {
            leaving::show(app);
        }))
        .plugin(tauri_plugin_dialog::init())
        .plugin(tauri_plugin_opener::init())
        .plugin(tauri_plugin_store::Builder::default().build())
        .invoke_handler(commands::handle)
        .on_window_event(leaving::on_window_event)
        .setup(|app| {
            start_log(app)?;
            set_up(app);
            Ok(())
        })
        .build(tauri::generate_context!());
    let app = match app {
        Ok(app) => app,
        Err(error) => return fail(&error),
    };
    app.run(|app, event| {
        if let RunEvent::Exit = event {
            let sessions = app.state::<Sessions>();
            tauri::async_runtime::block_on(sessions.shutdown());
        }
    });
    ExitCode::SUCCESS
}

#[expect(clippy::print_stderr, reason = "there may be no log yet")]
fn fail(error: &tauri::Error) -> ExitCode {
    eprintln!("failed to start: {error}");
    ExitCode::FAILURE
}

fn set_up(app: &App) {
    let handle = app.handle();
    app.manage(Archives::default());
    let sessions = Sessions::new(Start {
        settings: settings::load(handle),
        history: settings::load_history(handle),
        names: settings::load_names(handle),
        keep: Box::new(Keeper::new(handle)),
        journal: settings::open_journal(handle),
        ..Start::fresh(
            Arc::new(DockerEngine::new()),
            embedded::assets(),
            Box::new(EventReporter::new(handle.clone())),
        )
    });
    app.manage(sessions.clone());
    tauri::async_runtime::spawn(async move { sessions.follow_engine() });
    tauri::async_runtime::spawn_blocking(cove_core::image::prepare);
}

/// Logs to the standard output and, where that can be written, to the system's place for logs.
fn start_log(app: &App) -> tauri::Result<()> {
    let output = || Target::new(TargetKind::Stdout);
    let file = Target::new(TargetKind::LogDir { file_name: None });
    if let Err(error) = app.handle().plugin(log_plugin([output(), file])) {
        app.handle().plugin(log_plugin([output()]))?;
        log::warn!("there is no log file: {error}");
    }
    Ok(())
}

/// Logs what matters; `COVE_LOG=debug` says more.
fn log_plugin(targets: impl IntoIterator<Item = Target>) -> TauriPlugin<Wry> {
    let level = match std::env::var("COVE_LOG").as_deref() {
        Ok("debug") => log::LevelFilter::Debug,
        Ok("trace") => log::LevelFilter::Trace,
        _ => log::LevelFilter::Info,
    };
    Builder::new()
        .level(log::LevelFilter::Warn)
        .level_for("cove", level)
        .level_for("cove_core", level)
        .level_for(ipc::EVENT_LOG, level)
        .targets(targets)
        .max_file_size(2_000_000)
        .rotation_strategy(RotationStrategy::KeepOne)
        .build()
}
