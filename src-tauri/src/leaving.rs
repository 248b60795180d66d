//! Closing the window, with or without runs under way, and coming back: the tray, and the second start
//! that hands over to the first.

use cove_core::sessions::Sessions;
use serde::Deserialize;
use serde_json::json;
use tauri::menu::{Menu, MenuItem};
use tauri::tray::{TrayIconBuilder, TrayIconEvent};
use tauri::{AppHandle, Emitter, Manager, Window, WindowEvent};

const WINDOW: &str = "main";
const TRAY: &str = "cove";
const SHOW: &str = "show";
const QUIT: &str = "quit";

/// What the user wants when the window is closed while runs are under way.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Choice {
    /// The runs go on; the window is gone until it is asked for.
    Background,
    /// The runs are cancelled, and the app ends.
    Cancel,
    /// Nothing changes.
    Stay,
}

/// Asks before a window is closed while runs are under way.
pub(crate) fn on_window_event(window: &Window, event: &WindowEvent) {
    let WindowEvent::CloseRequested { api, .. } = event else {
        return;
    };
    let running = window.state::<Sessions>().running();
    if running == 0 {
        return;
    }
    api.prevent_close();
    log::info!("the window is to be closed while {running} runs are under way");
    if window.is_minimized().unwrap_or(false) {
        show(window.app_handle());
    }
    if let Err(error) = window.emit("app:closing", json!({ "running": running })) {
        log::error!("the window cannot be asked, so it closes: {error}");
        window.app_handle().exit(0);
    }
}

/// Does what the user wants.
pub(crate) fn leave(app: &AppHandle, choice: Choice) {
    match choice {
        Choice::Background => hide(app),
        // The end of the app cancels what is under way.
        Choice::Cancel => app.exit(0),
        Choice::Stay => {}
    }
}

/// Shows the window: from the tray, or because the app was started once more.
pub(crate) fn show(app: &AppHandle) {
    // Without a tray there is none to remove.
    let _ = app.remove_tray_by_id(TRAY);
    let Some(window) = app.get_webview_window(WINDOW) else {
        return;
    };
    for shown in [window.show(), window.unminimize(), window.set_focus()] {
        if let Err(error) = shown {
            log::warn!("failed to show the window: {error}");
        }
    }
}

fn hide(app: &AppHandle) {
    let Some(window) = app.get_webview_window(WINDOW) else {
        return;
    };
    // Without a tray there would be no way back but starting the app once more, so it stays in the taskbar.
    let hidden = match add_tray(app) {
        Ok(()) => window.hide(),
        Err(error) => {
            log::warn!("there is no tray: {error}");
            window.minimize()
        }
    };
    if let Err(error) = hidden {
        log::warn!("failed to hide the window: {error}");
    }
}

fn add_tray(app: &AppHandle) -> tauri::Result<()> {
    let menu = Menu::with_items(
        app,
        &[
            &MenuItem::with_id(app, SHOW, "Show Cove", true, None::<&str>)?,
            &MenuItem::with_id(app, QUIT, "Cancel and quit", true, None::<&str>)?,
        ],
    )?;
    let mut tray = TrayIconBuilder::with_id(TRAY)
        .menu(&menu)
        .tooltip("Cove is creating sessions")
        .on_menu_event(|app, event| match event.id().as_ref() {
            SHOW => show(app),
            QUIT => app.exit(0),
            other => log::warn!("the tray has no entry {other}"),
        })
        .on_tray_icon_event(|tray, event| {
            if let TrayIconEvent::DoubleClick { .. } = event {
                show(tray.app_handle());
            }
        });
    if let Some(icon) = app.default_window_icon() {
        tray = tray.icon(icon.clone());
    }
    tray.build(app).map(drop)
}
