//! The shell: the window, its commands and events, and what is kept between runs. It is the only
//! place that says `tauri::`; what sessions are and do is `cove_core`.

mod archives;
mod commands;
mod display;
mod embedded;
mod guard;
mod ipc;
mod leaving;
mod logging;
mod notifying;
mod settings;
mod transfers;

use std::process::ExitCode;

use cove_core::engine::docker::DockerPlaces;
use cove_core::sessions::{Sessions, Start};
use tauri::webview::PageLoadEvent;
use tauri::{App, Manager, RunEvent, Wry};

use crate::archives::Archives;
use crate::ipc::EventReporter;
use crate::settings::Keeper;
use crate::transfers::Dropped;

/// Runs the app until its window is closed.
#[must_use]
pub fn run() -> ExitCode {
    display::work_around();
    if let Err(problem) = display::open() {
        return fail(&problem);
    }
    // First, so that a second start does nothing before it hands over.
    let app = one_at_a_time(tauri::Builder::default())
        .plugin(guard::plugin())
        .plugin(tauri_plugin_dialog::init())
        .plugin(tauri_plugin_opener::init())
        .plugin(tauri_plugin_store::Builder::default().build())
        .invoke_handler(commands::handle)
        .on_page_load(|webview, load| {
            // Whoever looked at figures and logs on the page before is gone.
            if load.event() == PageLoadEvent::Started
                && let Some(sessions) = webview.try_state::<Sessions>()
            {
                sessions.end_watches();
            }
        })
        .on_window_event(|window, event| {
            leaving::on_window_event(window, event);
            transfers::on_window_event(window, event);
        })
        .on_menu_event(|app, event| leaving::on_menu_event(app, &event))
        .setup(|app| {
            logging::start(app)?;
            set_up(app);
            if cfg!(target_os = "macos") {
                leaving::set_menu(app.handle())?;
            }
            Ok(())
        })
        .build(tauri::generate_context!());
    let app = match app {
        Ok(app) => app,
        Err(error) => return fail(&format!("failed to start: {error}")),
    };
    app.run(|app, event| match event {
        RunEvent::Exit => {
            let sessions = app.state::<Sessions>();
            tauri::async_runtime::block_on(sessions.shutdown());
            app.state::<Keeper>().finish();
        }
        RunEvent::ExitRequested { code, api, .. } => leaving::on_exit_requested(app, code, &api),
        #[cfg(target_os = "macos")]
        RunEvent::Reopen { .. } => leaving::show(app),
        _ => {}
    });
    ExitCode::SUCCESS
}

/// Lets a second start show the window of the first instead of opening its own.
#[cfg(not(target_os = "macos"))]
fn one_at_a_time(builder: tauri::Builder<Wry>) -> tauri::Builder<Wry> {
    builder.plugin(tauri_plugin_single_instance::init(|app, _, _| {
        leaving::show(app);
    }))
}

/// macOS does that by itself, and says so with `RunEvent::Reopen`. The plugin would listen at a name in `/tmp`
/// there, where any other user of the machine can be first, and keep Cove from starting.
#[cfg(target_os = "macos")]
fn one_at_a_time(builder: tauri::Builder<Wry>) -> tauri::Builder<Wry> {
    builder
}

#[expect(clippy::print_stderr, reason = "there may be no log yet")]
fn fail(problem: &str) -> ExitCode {
    eprintln!("{problem}");
    ExitCode::FAILURE
}

fn set_up(app: &App) {
    let handle = app.handle();
    app.manage(Archives::default());
    app.manage(Dropped::default());
    let home = settings::home(handle);
    let keeper = Keeper::new(&home);
    app.manage(keeper.clone());
    let sessions = Sessions::new(Start {
        engines: home.engines(),
        remembered: home.sessions(),
        settings: settings::load(handle),
        history: home.history(),
        names: home.names(),
        keep: Box::new(keeper),
        journal: home.open_journal(),
        drafts: home.drafts(),
        ..Start::fresh(
            Box::new(DockerPlaces::new()),
            embedded::assets(),
            Box::new(EventReporter::new(handle.clone())),
        )
    });
    app.manage(sessions.clone());
    tauri::async_runtime::spawn(async move { sessions.follow_engines() });
    tauri::async_runtime::spawn_blocking(cove_core::image::prepare);
}
