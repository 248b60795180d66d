//! What a program says to a user who looks elsewhere: marks in the window, and a notice on the desktop.

use std::collections::HashMap;
use std::sync::mpsc;
use std::time::Duration;

use crate::app::{App, SOON};

/// What a desktop that shows notices has on its session bus.
struct Desktop(mpsc::Sender<(String, String)>);

#[zbus::interface(name = "org.freedesktop.Notifications")]
impl Desktop {
    #[expect(clippy::too_many_arguments, reason = "so the desktops have agreed")]
    fn notify(
        &self,
        app: &str,
        replaces: u32,
        icon: &str,
        summary: String,
        body: String,
        actions: Vec<String>,
        hints: HashMap<String, zbus::zvariant::OwnedValue>,
        expires: i32,
    ) -> u32 {
        // What else a desktop could show.
        let _ = (app, replaces, icon, actions, hints, expires);
        // A test that has ended hears no more.
        let _ = self.0.send((summary, body));
        1
    }
}

/// The mark of the first tab, and that of the session's row.
const OF_TAB: &str = "[role=tab]:first-child [data-testid=attention-waiting], .tab:first-child [data-testid=attention-waiting]";
const OF_ROW: &str = "[data-testid=session-row] [data-testid=attention-waiting]";

#[test]
fn a_program_that_waits_is_marked_until_it_is_looked_at_and_told_on_the_desktop() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let (sender, notices) = mpsc::channel();
    let desktop = app
        .session_bus()
        .serve_at("/org/freedesktop/Notifications", Desktop(sender));
    let desktop = desktop.unwrap().name("org.freedesktop.Notifications");
    let _desktop = desktop.unwrap().build().unwrap();
    app.draw_readable_terminals();
    app.ready_session("waits");

    // A bell of who is looked at is no news.
    app.type_line("printf '\\a'; echo ra''ng");
    app.wait_for_screen("the bell", |screen| {
        screen.lines().any(|line| line == "rang")
    });
    assert!(!app.window.has(OF_ROW).unwrap());

    app.type_line("sleep 1; echo out; sleep 1; printf '\\a'");
    app.window.click("[data-testid=new-terminal]").unwrap();
    app.window
        .wait_for("[data-testid=attention-unseen]", SOON)
        .unwrap();
    app.window.wait_for(OF_TAB, SOON).unwrap();
    app.window.wait_for(OF_ROW, SOON).unwrap();
    app.picture("waiting");
    app.window
        .click("[aria-label=Terminals] [role=tab]")
        .unwrap();
    app.window.wait_gone(OF_TAB, SOON).unwrap();
    app.window.wait_gone(OF_ROW, SOON).unwrap();
    assert!(notices.try_recv().is_err(), "the window is in front");

    // The tab has the program's title.
    app.wait_for_terminal();
    app.type_line("printf '\\033]0;build\\a'");
    let titled = "[role=tablist][aria-label=Terminals] [role=tab][title='Terminal 1 · build']";
    app.window.wait_for(titled, SOON).unwrap();
    let shown = format!("return document.querySelector(\"{titled}\").textContent.trim()");
    assert_eq!(app.window.execute(&shown, &[]).unwrap(), "build");

    // A program with words, while the user is in another window.
    app.wait_for_terminal();
    app.type_line("sleep 1; printf '\\033]777;notify;Build;<b>done</b>\\a\\a'");
    let leave = "document.hasFocus = () => false; window.dispatchEvent(new Event('blur'))";
    app.window.execute(leave, &[]).unwrap();
    let (summary, body) = notices.recv_timeout(SOON).unwrap();
    assert_eq!(summary, "waits");
    assert_eq!(body, "Build: &lt;b&gt;done&lt;/b&gt;");
    app.window.wait_for(OF_ROW, SOON).unwrap();
    assert!(
        notices.recv_timeout(Duration::from_secs(1)).is_err(),
        "one is enough"
    );
    let back = "document.hasFocus = () => true; window.dispatchEvent(new Event('focus'))";
    app.window.execute(back, &[]).unwrap();
    app.window.wait_gone(OF_ROW, SOON).unwrap();
}
