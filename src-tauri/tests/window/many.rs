//! A list of five hundred sessions.

use std::thread;

use cove_testbed::Engine;
use serde_json::json;

use crate::app::{App, READY, figure};

const MANY: usize = 500;

/// Renames a session and answers with the milliseconds until the list shows it.
const RENAME: &str = "
    const [id, name, done] = arguments;
    const begin = performance.now();
    const row = `[data-session-id='${id}']`;
    const look = () => {
        if (!document.querySelector(row)?.textContent.includes(name)) return;
        watching.disconnect();
        done(performance.now() - begin);
    };
    const watching = new MutationObserver(look);
    watching.observe(document, { childList: true, subtree: true, characterData: true });
    window.__TAURI_INTERNALS__.invoke('rename_session', { id, name });
";

/// Answers with the milliseconds that the list takes.
const LIST: &str = "
    const done = arguments[arguments.length - 1];
    const begin = performance.now();
    window.__TAURI_INTERNALS__.invoke('list_sessions').then(() => done(performance.now() - begin));
";

/// Makes the volume of a session that has no container.
fn make_volume(engine: &Engine, id: &str) {
    let session = format!("dev.cove.session={id}");
    let workspace = format!("dev.cove.workspace=w{}", &id[34..]);
    let name = format!("cove-{id}");
    let image = "dev.cove.image=docker.io/library/x:1";
    let labels = ["--label", &session, "--label", &workspace, "--label", image];
    let arguments = [&["volume", "create"][..], &labels, &[&name]].concat();
    engine.docker(&arguments).unwrap();
}

#[test]
fn a_list_of_five_hundred_sessions_is_shown_at_once() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let ids: Vec<String> = (0..MANY)
        .map(|index| format!("00000000-0000-4000-8000-{index:012}"))
        .collect();
    thread::scope(|scope| {
        for part in ids.chunks(MANY / 4) {
            let engine = &app.engine;
            scope.spawn(move || part.iter().for_each(|id| make_volume(engine, id)));
        }
    });
    app.window
        .wait("all sessions", READY, |window| {
            Ok((window.count("[data-testid=session-row]")? == MANY).then_some(()))
        })
        .unwrap();
    let answered = app
        .window
        .execute_async(LIST, &[])
        .unwrap()
        .as_f64()
        .unwrap();
    let shown = app
        .window
        .execute_async(RENAME, &[json!(ids[MANY - 1]), json!("renamed")])
        .unwrap()
        .as_f64()
        .unwrap();
    app.picture("five-hundred");
    figure("a list of 500 sessions answered, ms", answered);
    figure("a change in a list of 500 sessions shown, ms", shown);
    let names: Vec<String> = ids.iter().map(|id| format!("cove-{id}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    app.engine
        .docker(&[&["volume", "rm"], &names[..]].concat())
        .unwrap();
    assert!(
        answered < 300.0 && shown < 300.0,
        "{answered} and {shown} ms"
    );
}
