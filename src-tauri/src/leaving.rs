//! Closing the window, with or without runs under way, and coming back: the tray, and the second start
//! that hands over to the first.

use cove_core::sessions::Sessions;
use serde::Deserialize;
use serde_json::json;
use tauri::menu::{Menu, MenuEvent, MenuItem, MenuItemKind};
use tauri::tray::{TrayIconBuilder, TrayIconEvent};
use tauri::{AppHandle, Emitter, ExitRequestApi, Manager, Window, WindowEvent};

const WINDOW: &str = "main";
const TRAY: &str = "cove";
const SHOW: &str = "show";
const QUIT: &str = "quit";
const QUIT_APP: &str = "quit-app";

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

/// Asks before a window is closed while something is under way.
pub(crate) fn on_window_event(window: &Window, event: &WindowEvent) {
    if let WindowEvent::CloseRequested { api, .. } = event
        && asks(window.app_handle())
    {
        api.prevent_close();
    }
}

/// Asks before the app ends by other ways than its window or an answer, while something is under way.
pub(crate) fn on_exit_requested(app: &AppHandle, code: Option<i32>, api: &ExitRequestApi) {
    if code.is_none() && asks(app) {
        api.prevent_exit();
    }
}

/// Ends the app for a menu's entry, or asks before.
pub(crate) fn on_menu_event(app: &AppHandle, event: &MenuEvent) {
    if event.id() == QUIT_APP && !asks(app) {
        app.exit(0);
    }
}

/// Puts an entry of our own in the place of the menu's Quit: the system's ends the app without asking.
pub(crate) fn set_menu(app: &AppHandle) -> tauri::Result<()> {
    let menu = Menu::default(app)?;
    let first = menu.items()?.into_iter().next();
    if let Some(submenu) = first.as_ref().and_then(MenuItemKind::as_submenu) {
        if let Some(last) = submenu.items()?.len().checked_sub(1) {
            submenu.remove_at(last)?;
        }
        let quit = MenuItem::with_id(app, QUIT_APP, "Quit Cove", true, Some("CmdOrCtrl+Q"))?;
        submenu.append(&quit)?;
    }
    app.set_menu(menu).map(drop)
}

/// Asks in the window, if something is under way and there is a window; returns whether it was asked.
fn asks(app: &AppHandle) -> bool {
    let under_way = app.state::<Sessions>().under_way();
    let Some(window) = app.get_webview_window(WINDOW) else {
        return false;
    };
    if under_way.is_nothing() {
        return false;
    }
    log::info!("the app is to end while this is under way: {under_way:?}");
    let is_hidden = !window.is_visible().unwrap_or(true);
    if is_hidden || window.is_minimized().unwrap_or(false) {
        show(app);
    }
    let question = json!({
        "running": under_way.runs,
        "exporting": under_way.exports,
        "transferring": under_way.transfers,
    });
    let asked = window.emit("app:closing", question);
    if let Err(error) = &asked {
        log::error!("the window cannot be asked, so the app ends: {error}");
    }
    asked.is_ok()
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
        .tooltip("Cove is at work")
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
