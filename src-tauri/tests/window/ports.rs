//! Ports, as one uses them: a server that is started in the terminal is at hand on this machine.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;

use cove_testbed::WindowOptions;
use serde_json::{Value, json};

use crate::app::{App, SOON, Shell, with_environment};
use crate::keys::ENTER;

const PANE: &str = "[data-testid=ports-pane]";

/// Fetches a page by HTTP, and returns what comes behind the head.
pub(crate) fn get(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    Ok(body.to_owned())
}

/// Waits for what the page shows of a port by this script, which finds its row or chip as `arguments[0]`.
pub(crate) fn wait_shown(
    app: &App,
    what: &str,
    selector: &str,
    fits: impl Fn(&str) -> bool,
) -> String {
    let script = "return document.querySelector(arguments[0])?.textContent.replace(/\\s+/g, ' ').trim() ?? null";
    let mut last = Value::Null;
    let outcome = app.window.wait(what, SOON, |window| {
        last = window.execute(script, &[json!(selector)])?;
        let found = last.as_str().filter(|text| fits(text));
        Ok(found.map(str::to_owned))
    });
    outcome.unwrap_or_else(|error| panic!("{error:#}: {last}"))
}

pub(crate) fn chip(port: u16) -> String {
    format!("[data-testid=port-chips] [data-port='{port}']")
}

pub(crate) fn row(port: u16) -> String {
    format!("{PANE} li[data-port='{port}']")
}

/// Waits until a chip leads to an address, and returns that.
pub(crate) fn wait_for_chip(app: &App, port: u16) -> String {
    let shown = wait_shown(app, "the chip", &chip(port), |_| true);
    shown.split_once('→').unwrap().1.to_owned()
}

/// Serves a page at several ports, and shows them all.
pub(crate) fn show(app: &App) {
    let session =
        "return document.querySelector('[data-testid=workbench]:not([hidden])').dataset.sessionId";
    let id = app.window.execute(session, &[]).unwrap();
    let shell = Shell::open(app, id.as_str().unwrap());
    shell.run("for p in 18210 18211 18212 18213; do busybox httpd -p $p -h /workspace; done");
    app.window
        .wait_for("[data-testid=more-ports]", SOON)
        .unwrap();
    app.press("[data-testid=more-ports]");
    app.window.wait_for(&row(18_213), SOON).unwrap();
    app.window.wait_gone("[data-sonner-toast]", SOON).unwrap();
}

#[test]
fn a_server_in_the_terminal_is_said_once_and_is_a_press_away() {
    // Stands for the browser: it writes down what it was to show.
    let folder = tempfile::tempdir().unwrap();
    let (browser, shown) = (folder.path().join("xdg-open"), folder.path().join("shown"));
    let script = format!("#!/bin/sh\necho \"$1\" >> {}\n", shown.display());
    fs::write(&browser, script).unwrap();
    fs::set_permissions(&browser, fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", folder.path().display());
    let Some(app) = App::open_with_or_skip(|_| with_environment("PATH", &path)) else {
        return;
    };
    let id = app.ready_session("ports");
    app.press("[data-panel=ports]");
    app.window.wait_for("[data-testid=no-ports]", SOON).unwrap();
    app.picture("ports-empty");
    app.window.click("[data-panel=files]").unwrap();

    app.type_line("echo from the session > index.html; busybox httpd -f -p 18200 &");
    let address = wait_for_chip(&app, 18_200);
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    app.window
        .wait_text("[data-sonner-toast]", SOON, |text| {
            text.contains("Port 18200 (busybox) is at 127.0.0.1:")
        })
        .unwrap();
    app.settle();
    app.picture("ports-chip");
    assert_eq!(get(&address).unwrap(), "from the session\n");

    // The chip and the view lead to the browser, by an address that the window does not name.
    app.press(&chip(18_200));
    app.press("[data-panel=ports]");
    let row_of = row(18_200);
    wait_shown(&app, "the row", &row_of, |text| text.contains("busybox"));
    app.picture("ports-view");
    app.press(&format!("{row_of} [data-act=open]"));
    let opened = app.window.wait("both presses in the browser", SOON, |_| {
        let shown = fs::read_to_string(&shown).unwrap_or_default();
        Ok((shown.lines().count() == 2).then_some(shown))
    });
    let expected = format!("http://{address}");
    for line in opened.unwrap().lines() {
        assert_eq!(line.trim_end_matches('/'), expected);
    }
    let asked = app.recorded().asked;
    let opens = asked.iter().filter(|asked| asked.command == "open_port");
    for open in opens {
        assert_eq!(open.parameters, json!({"id": id, "port": 18_200}));
    }

    // Stopped by hand it stays so, and comes back to where the user wants it.
    app.press(&format!("{row_of} [data-act=stop]"));
    wait_shown(&app, "the end", &row_of, |text| {
        text.contains("not forwarded")
    });
    app.window.wait_gone(&chip(18_200), SOON).unwrap();
    app.window
        .wait("the end of the listener", SOON, |_| Ok(get(&address).err()))
        .unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let local = free.local_addr().unwrap();
    let typed = format!("18200:{}", local.port());
    app.press("[data-testid=port-to-forward]");
    app.window
        .driver()
        .press(&[], &format!("{typed}{ENTER}"))
        .unwrap();
    app.window
        .wait_text(&format!("{PANE} [role=alert]"), SOON, |text| {
            text.contains("is taken on this machine; choose another")
        })
        .unwrap();
    app.picture("ports-taken");
    drop(free);
    app.window.driver().press(&[], &ENTER.to_string()).unwrap();
    wait_shown(&app, "the row", &row_of, |text| {
        text.contains(&local.to_string())
    });
    assert_eq!(wait_for_chip(&app, 18_200), local.to_string());
    assert_eq!(get(&local.to_string()).unwrap(), "from the session\n");

    // A reload loses nothing, and says nothing again that is known; a program that ends is shown as ended.
    app.reload();
    app.wait_for_terminal();
    assert_eq!(wait_for_chip(&app, 18_200), local.to_string());
    app.window.wait_for(&row_of, SOON).unwrap();
    app.type_line("kill %1");
    wait_shown(&app, "the end of the server", &row_of, |text| {
        text.contains("nothing listens now")
    });
    assert!(get(&local.to_string()).is_err());
}

#[test]
fn many_ports_and_a_small_window_leave_the_header_usable() {
    let Some(app) = App::open_with_or_skip(|_| WindowOptions {
        size: (900, 600),
        ..WindowOptions::default()
    }) else {
        return;
    };
    app.ready_session("a-session-with-a-rather-long-name-and-many-ports");
    show(&app);
    app.settle();
    app.picture("ports-many");
    let overflow = "
        const header = document.querySelector('main header');
        const ends = [...header.children].map((child) => child.getBoundingClientRect().right);
        return Math.max(...ends) <= header.getBoundingClientRect().right && header.scrollWidth <= header.clientWidth;
    ";
    assert_eq!(app.window.execute(overflow, &[]).unwrap(), true);
}
