//! The main job on a virtual display: the real app, driven as a user would, creates a session from the built-in image,
//! runs a command in its terminal, and deletes it again.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use cove_testbed::{Engine, Window, WindowOptions};
use serde_json::{Value, json};

use crate::workspace::{Workspace, say};

const PROJECT: &str = "first-voyage";
const READY_LIMIT: Duration = Duration::from_secs(120);
const STEP_LIMIT: Duration = Duration::from_secs(30);
const ENTER: char = '\u{E007}';

/// Calls a command of the app as its page does, and hands back the answer of either kind.
const INVOKE: &str = "
    const [command, parameters, done] = arguments;
    window.__TAURI_INTERNALS__.invoke(command, parameters).then(done, done);
";

/// Does the main job; an error says which step did not come to its end.
pub(crate) fn main_job(
    workspace: &Workspace,
    binary: &Path,
    engine: Option<&Engine>,
) -> Result<()> {
    let docker_host = engine
        .map(|engine| engine.host().to_owned())
        .or_else(|| std::env::var("DOCKER_HOST").ok());
    let window = Window::open(
        binary,
        &WindowOptions {
            docker_host,
            ..WindowOptions::default()
        },
    )?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| print_events(&window, &done));
        let outcome = drive(&window, &workspace.root().join("target/screenshots"));
        done.store(true, Ordering::Relaxed);
        outcome
    })
}

fn print_events(window: &Window, done: &AtomicBool) {
    let mut seen = 0;
    while !done.load(Ordering::Relaxed) {
        let lines = window.log_lines_after(seen, Duration::from_millis(100));
        seen += lines.len();
        for (name, payload) in lines.iter().filter_map(|line| event(line)) {
            println!("   {name} {payload}");
        }
    }
}

/// Takes the event out of a line of the app's log, `… cove::event … session:ready {…}`.
fn event(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once("cove::event")?;
    rest.get(rest.find("session:")?..)?.split_once(' ')
}

fn drive(window: &Window, screenshots: &Path) -> Result<()> {
    let picture = |name: &str| window.screenshot(&screenshots.join(name));

    say("New session");
    window.wait_for(
        "[data-testid=first-run], [data-testid=session-row]",
        STEP_LIMIT,
    )?;
    picture("1-start.png")?;
    window.click("[data-testid=new-session]")?;
    window.click("[data-template=built-in]")?;
    window.keys("input[name=project_name]", PROJECT)?;
    picture("2-new-session.png")?;
    window.click("[data-testid=create-session]")?;

    let id = window.wait("the first event of the session", STEP_LIMIT, |window| {
        Ok(window.log_lines().iter().find_map(|line| {
            let payload: Value = serde_json::from_str(event(line)?.1).ok()?;
            payload.get("session_id")?.as_str().map(str::to_owned)
        }))
    })?;
    let ready = window.wait("the end of the session's way", READY_LIMIT, |window| {
        let lines = window.log_lines();
        let last = lines
            .iter()
            .filter_map(|line| event(line))
            .find(|(name, _)| {
                ["session:ready", "session:failed", "session:cancelled"].contains(name)
            });
        Ok(last.map(|(name, payload)| (name == "session:ready", payload.to_owned())))
    });
    let (is_ready, payload) = ready?;
    if !is_ready {
        picture("failed.png")?;
        bail!("the session did not become ready: {payload}");
    }
    window.wait_for("[data-testid=terminal]", STEP_LIMIT)?;
    picture("3-ready.png")?;

    say("a command in the terminal");
    let greeting = "ahoy from the terminal";
    window.click("[data-testid=terminal]")?;
    window.driver().press(
        &[],
        &format!("echo {greeting} | tee greeting.txt; ls -la{ENTER}"),
    )?;
    window.wait("what the command wrote", STEP_LIMIT, |window| {
        let path = "/workspace/greeting.txt";
        let answer = window.execute_async(
            INVOKE,
            &[json!("read_file"), json!({"id": id, "path": path})],
        )?;
        let content = answer
            .get("content")
            .and_then(Value::as_str)
            .unwrap_or_default();
        Ok((content.trim_end() == greeting).then_some(()))
    })?;
    picture("4-terminal.png")?;

    say("deleting the session");
    let row = format!("[data-session-id='{id}']");
    window.click("header [aria-label^='Actions for']")?;
    window.click("[data-action=remove]")?;
    window.wait_for("[data-testid=delete-dialog]", STEP_LIMIT)?;
    picture("5-delete.png")?;
    window.click("[data-testid=delete-dialog] [data-testid=confirm]")?;
    window.wait_gone(&row, STEP_LIMIT)?;
    window.wait("the session's end", STEP_LIMIT, |window| {
        let answer = window.execute_async(INVOKE, &[json!("list_sessions"), json!({})])?;
        let sessions = answer.get("sessions").and_then(Value::as_array);
        let sessions = sessions.context("no list of sessions")?;
        let is_listed = sessions
            .iter()
            .any(|session| session.to_string().contains(&id));
        Ok((!is_listed).then_some(()))
    })?;
    picture("6-deleted.png")?;
    println!(
        "\nThe main job works: a session became ready, ran a command and left nothing behind."
    );
    println!("Screenshots: {}", screenshots.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_found_in_a_line_of_the_log() {
        let line = r#"[2026-11-22][12:00:00][INFO][cove::event] session:ready {"seq":7}"#;
        assert_eq!(event(line), Some(("session:ready", r#"{"seq":7}"#)));
        assert_eq!(
            event(r#"cove::event session:progress {"seq":1}"#),
            Some(("session:progress", r#"{"seq":1}"#))
        );
        assert_eq!(event("[INFO][cove::engine] connected"), None);
    }
}
