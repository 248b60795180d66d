//! Notices on the desktop: that a program of a session waits for a user who is in another window.
//!
//! What the window hands over was said by a program in a container, so it is shown as words and nothing else.

use notify_rust::Notification;
use tauri::AppHandle;

/// The most characters of a notice.
const LONGEST_NOTICE: usize = 200;

/// What is said of a program that has no words.
const WAITS: &str = "A program waits for you";

/// Shows a notice of a session by its name. Returns before it is shown; where the desktop shows none, nothing happens.
pub(crate) fn show(app: &AppHandle, session: &str, notice: Option<&str>) {
    let mut notification = Notification::new();
    notification
        .appname("Cove")
        .summary(session)
        .body(&body(notice.unwrap_or(WAITS)));
    #[cfg(target_os = "linux")]
    notification.icon("cove");
    #[cfg(windows)]
    notification.app_id(&app.config().identifier);
    #[cfg(target_os = "macos")]
    // Known already after the first notice.
    let _ = notify_rust::set_application(&app.config().identifier);
    let name = app.package_info().name.clone();
    // The desktop may take its time.
    tauri::async_runtime::spawn_blocking(move || {
        if let Err(error) = notification.show() {
            log::info!("{name} can show no notice: {error}");
        }
    });
}

/// Returns the words as a desktop is to show them: those of the XDG kind read them as markup.
fn body(notice: &str) -> String {
    let shown = notice.chars().filter(|character| !character.is_control());
    let text: String = shown.take(LONGEST_NOTICE).collect();
    if cfg!(target_os = "linux") {
        text.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_words_of_a_bounded_length() {
        assert_eq!(body("done\u{7} in 3 s\n"), "done in 3 s");
        assert_eq!(body(&"x".repeat(5_000)).len(), LONGEST_NOTICE);
        if cfg!(target_os = "linux") {
            assert_eq!(
                body("<a href='file:///'>a & b</a>"),
                "&lt;a href='file:///'&gt;a &amp; b&lt;/a&gt;"
            );
        }
    }
}
