//! One window of the app with the engine and the registry behind it, and what a user does in it.

use crate::keys::ENTER;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use cove_testbed::{BINARY, Engine, Registry, TestImage, Window, WindowOptions, skip};
use serde::Deserialize;
use serde_json::{Value, json};

/// How long a page may take to show what it knows, or a command to answer.
pub(crate) const SOON: Duration = Duration::from_secs(10);
/// How long a session may take to become ready on a busy machine.
pub(crate) const READY: Duration = Duration::from_secs(60);

/// The built-in image's name on the engine.
const BUILT_IN: &str = concat!("cove.invalid/base:", env!("CARGO_PKG_VERSION"));
/// Names a folder in which pictures of interesting moments are kept.
const PICTURES: &str = "COVE_TEST_PICTURES";

const INVOKE: &str = "
    const [command, parameters, done] = arguments;
    // In a list, because the driver takes an object with an `error` for a failure of its own.
    const answer = (value) => done([value]);
    window.__TAURI_INTERNALS__.invoke(command, parameters).then(answer, answer);
";

pub(crate) struct App {
    pub(crate) window: Window,
    pub(crate) engine: Engine,
    pub(crate) registry: Registry,
    /// Whether its sessions go with it.
    removes_sessions: bool,
}

/// What `record.js` has noted.
#[derive(Debug, Deserialize)]
pub(crate) struct Record {
    pub(crate) heard: Vec<Heard>,
    pub(crate) asked: Vec<Asked>,
    pub(crate) shown: Vec<Shown>,
    /// The texts of the elapsed time, each once.
    pub(crate) clock: Vec<String>,
    /// When Create was pressed last, in milliseconds of the page's clock.
    pub(crate) pressed: Option<f64>,
}

/// An event that the page heard.
#[derive(Debug, Deserialize)]
pub(crate) struct Heard {
    pub(crate) name: String,
    pub(crate) at: f64,
    pub(crate) payload: Value,
}

/// A command that left the page.
#[derive(Debug, Deserialize)]
pub(crate) struct Asked {
    pub(crate) command: String,
    pub(crate) parameters: Value,
}

/// A part of the page that came or went.
#[derive(Debug, Deserialize)]
pub(crate) struct Shown {
    pub(crate) name: String,
    pub(crate) present: bool,
    /// How many events had been heard by then.
    pub(crate) heard: usize,
}

impl Heard {
    pub(crate) fn session(&self) -> &str {
        self.payload["session_id"].as_str().unwrap_or_default()
    }

    pub(crate) fn is_terminal(&self) -> bool {
        !["session:progress", "session:export"].contains(&self.name.as_str())
    }

    pub(crate) fn phase(&self) -> &str {
        self.payload["phase"].as_str().unwrap_or_default()
    }

    pub(crate) fn percent(&self) -> f64 {
        self.payload["progress"]["percent"].as_f64().unwrap()
    }
}

impl App {
    /// Opens a window on an engine without sessions; without an engine or a display the test is noted as skipped.
    pub(crate) fn open_or_skip() -> Option<Self> {
        Self::open_with_or_skip(|_| WindowOptions::default())
    }

    /// Opens a window with these options; `docker_host` is the engine's unless it is set.
    pub(crate) fn open_with_or_skip(
        options: impl FnOnce(&Engine) -> WindowOptions,
    ) -> Option<Self> {
        if let Some(reason) = Window::cannot_open() {
            skip(reason);
            return None;
        }
        let engine = Engine::from_env_or_skip()?;
        remove_sessions(&engine);
        Self::open_keeping_sessions_or_skip(options)
    }

    /// Opens a window on the sessions that there are.
    pub(crate) fn open_keeping_sessions_or_skip(
        options: impl FnOnce(&Engine) -> WindowOptions,
    ) -> Option<Self> {
        let engine = Engine::from_env_or_skip()?;
        let (Some(registry), Some(binary)) = (Registry::from_env(), std::env::var_os(BINARY))
        else {
            skip("no test registry or no app: run by `cargo xtask test`");
            return None;
        };
        let mut options = options(&engine);
        options
            .docker_host
            .get_or_insert_with(|| engine.host().to_owned());
        let window = Window::open(Path::new(&binary), &options).unwrap();
        let app = Self {
            window,
            engine,
            registry,
            removes_sessions: true,
        };
        app.window
            .wait_for("[data-testid=new-session]", SOON)
            .unwrap();
        app.record();
        Some(app)
    }

    /// Ends this window, and leaves its sessions to the next one.
    pub(crate) fn leave(mut self) {
        self.removes_sessions = false;
    }

    /// Kills the app, and returns a copy of its home folder: the folder itself goes with the window.
    pub(crate) fn kill(&self) -> tempfile::TempDir {
        self.window.kill_app().unwrap();
        let copy = tempfile::tempdir().unwrap();
        copy_folder(self.window.home(), copy.path());
        copy
    }

    /// Kills the app and opens the next one, on a copy of its home folder, and in it the only session.
    pub(crate) fn kill_and_open_again(self) -> Option<(Self, tempfile::TempDir)> {
        let copy = self.kill();
        // Its sessions are the next one's.
        self.leave();
        let next = Self::open_keeping_sessions_or_skip(|_| WindowOptions {
            home: Some(copy.path().to_owned()),
            ..WindowOptions::default()
        })?;
        next.press("[data-testid=session-row] button.main");
        next.press("[data-testid=way-on]");
        next.wait_for_terminal();
        Some((next, copy))
    }

    /// Starts noting what the page hears, asks and shows; a reload ends it.
    pub(crate) fn record(&self) {
        let failure = self
            .window
            .execute_async(include_str!("record.js"), &[])
            .unwrap();
        assert_eq!(failure, Value::Null);
    }

    pub(crate) fn recorded(&self) -> Record {
        serde_json::from_value(self.window.execute("return window.__record", &[]).unwrap()).unwrap()
    }

    /// Calls a command as the page does, and returns the answer of either kind.
    pub(crate) fn invoke(&self, command: &str, parameters: &Value) -> Value {
        let mut answer = self
            .window
            .execute_async(INVOKE, &[json!(command), parameters.clone()])
            .unwrap();
        answer[0].take()
    }

    /// Waits until nothing has moved for a few frames: a pointer that is as quick as a machine would miss.
    pub(crate) fn settle(&self) {
        let rest = "
            const done = arguments[arguments.length - 1];
            const isMoving = (animation) =>
                animation.playState === 'running' && animation.effect.getComputedTiming().iterations !== Infinity;
            const places = () =>
                JSON.stringify([...document.querySelectorAll('[role=dialog]')].map((dialog) => dialog.getBoundingClientRect()));
            const seen = { places: '', frames: 0 };
            const look = () => {
                const now = places();
                const still = now === seen.places && !document.getAnimations().some(isMoving);
                seen.frames = still ? seen.frames + 1 : 0;
                seen.places = now;
                if (seen.frames === 5) done(true);
                else requestAnimationFrame(look);
            };
            look();
        ";
        assert_eq!(self.window.execute_async(rest, &[]).unwrap(), true);
    }

    /// Returns how to be on the app's session bus beside it.
    #[cfg(target_os = "linux")]
    pub(crate) fn session_bus(&self) -> zbus::blocking::connection::Builder<'static> {
        let environment = format!("/proc/{}/environ", self.window.app_process().unwrap());
        let environment = String::from_utf8(fs::read(environment).unwrap()).unwrap();
        let address = environment
            .split('\0')
            .find_map(|variable| variable.strip_prefix("DBUS_SESSION_BUS_ADDRESS="));
        zbus::blocking::connection::Builder::address(address.unwrap()).unwrap()
    }

    /// Waits until what the page knows is drawn.
    pub(crate) fn draw(&self) {
        // The second frame begins when the first is on the screen.
        let drawn = "const [done] = arguments; requestAnimationFrame(() => requestAnimationFrame(() => done(true)))";
        assert_eq!(self.window.execute_async(drawn, &[]).unwrap(), true);
    }

    /// Returns the id of the container of the only session that there is.
    pub(crate) fn only_container(&self) -> String {
        let label = "label=dev.cove.session";
        self.engine
            .docker(&["ps", "--quiet", "--filter", label])
            .unwrap()
    }

    /// Returns how many bytes the app's own process holds in memory.
    pub(crate) fn memory(&self) -> u64 {
        let process = self.window.app_process().unwrap();
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        let kilobytes = line.split_whitespace().nth(1).unwrap();
        kilobytes.parse::<u64>().unwrap() << 10
    }

    /// Presses the row of a file in the tree; returns whether it is there.
    pub(crate) fn press_file(&self, name: &str) -> bool {
        let script = "
            const rows = [...document.querySelectorAll('[data-testid=file-tree] [role=treeitem]')];
            const row = rows.find((row) => row.querySelector('.name').textContent === arguments[0]);
            row?.click();
            return row !== undefined;
        ";
        self.window.execute(script, &[json!(name)]).unwrap() == true
    }

    /// Presses the row of a file in the tree, once it is there.
    pub(crate) fn wait_and_press_file(&self, name: &str) {
        self.window
            .wait(&format!("{name:?} in the tree"), SOON, |_| {
                Ok(self.press_file(name).then_some(()))
            })
            .unwrap();
    }

    /// Clicks what has come to rest.
    pub(crate) fn press(&self, selector: &str) {
        self.window.wait_for(selector, SOON).unwrap();
        self.settle();
        self.window.click(selector).unwrap();
    }

    /// Opens the New session dialog and fills it in; without an image it is the built-in one.
    pub(crate) fn fill_in(&self, name: &str, image: Option<&str>) {
        self.window.click("[data-testid=new-session]").unwrap();
        self.window
            .wait_for("[data-template=built-in]", SOON)
            .unwrap();
        self.settle();
        self.window.keys("input[name=project_name]", name).unwrap();
        match image {
            Some(image) => self.window.keys("input[name=image]", image).unwrap(),
            None => self.window.click("[data-template=built-in]").unwrap(),
        }
    }

    /// Creates a session as a user does, and returns its id once the page has heard of it.
    pub(crate) fn create(&self, name: &str, image: Option<&str>) -> String {
        let before = self.recorded().heard.len();
        self.fill_in(name, image);
        self.press("[data-testid=create-session]");
        self.window
            .wait("the first event of the session", SOON, |_| {
                let heard = self.recorded().heard;
                let (known, fresh) = heard.split_at(before.min(heard.len()));
                let is_known = |id: &str| known.iter().any(|heard| heard.session() == id);
                Ok(fresh
                    .iter()
                    .find(|heard| !is_known(heard.session()))
                    .map(|heard| heard.session().to_owned()))
            })
            .unwrap()
    }

    /// Creates a session by command alone.
    pub(crate) fn create_by_command(&self, image: Option<&str>) -> String {
        let answer = self.invoke(
            "create_session",
            &json!({"request": {"workspace_id": "tests", "image": image}}),
        );
        answer["session_id"]
            .as_str()
            .unwrap_or_else(|| panic!("{answer}"))
            .to_owned()
    }

    /// Waits for the end of the session's run that has ended `before` times already, and returns the event.
    pub(crate) fn end_of(&self, id: &str, before: usize) -> Heard {
        self.window
            .wait("the end of the session's run", READY, |_| {
                let heard = self.recorded().heard;
                Ok(heard
                    .into_iter()
                    .filter(|heard| heard.session() == id && heard.is_terminal())
                    .nth(before))
            })
            .unwrap()
    }

    #[track_caller]
    pub(crate) fn expect_ready(&self, id: &str) {
        let end = self.end_of(id, 0);
        assert_eq!(end.name, "session:ready", "{}", end.payload);
    }

    /// Creates a session from the built-in image and waits until its terminal is there.
    pub(crate) fn ready_session(&self, name: &str) -> String {
        let id = self.create(name, None);
        self.expect_ready(&id);
        self.wait_for_terminal();
        id
    }

    /// Waits until the terminal on the screen is connected; returns its id.
    pub(crate) fn wait_for_terminal(&self) -> String {
        let terminal = "[data-testid=terminal][data-terminal-id]";
        self.window.wait_for(terminal, SOON).unwrap();
        self.window
            .attribute(terminal, "data-terminal-id")
            .unwrap()
            .unwrap()
    }

    /// Types into the terminal on the screen.
    pub(crate) fn type_line(&self, line: &str) {
        let terminal = "[role=tabpanel]:not([hidden]) [data-testid=terminal]";
        self.window.click(terminal).unwrap();
        self.window
            .driver()
            .press(&[], &format!("{line}{ENTER}"))
            .unwrap();
    }

    /// Makes terminals draw text that can be read, and reloads the page so that it holds.
    pub(crate) fn draw_readable_terminals(&self) {
        self.window
            .execute("localStorage.setItem('cove.terminal.renderer', 'dom')", &[])
            .unwrap();
        self.reload();
    }

    pub(crate) fn reload(&self) {
        self.window.reload().unwrap();
        self.window
            .wait_for("[data-testid=new-session]", SOON)
            .unwrap();
        self.record();
    }

    /// Returns what the terminal on the screen shows, line by line.
    pub(crate) fn screen(&self) -> String {
        let script = "
            const rows = document.querySelectorAll('[data-testid=terminal]:not([hidden]) .xterm-rows > div');
            return [...rows].map((row) => row.textContent.replaceAll('\\u00a0', ' ').trimEnd()).join('\\n').trimEnd();
        ";
        self.window
            .execute(script, &[])
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Waits until the terminal on the screen shows what fits.
    pub(crate) fn wait_for_screen(&self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let mut screen = String::new();
        let outcome = self.window.wait(what, SOON, |_| {
            screen = self.screen();
            Ok(fits(&screen).then_some(()))
        });
        outcome.unwrap_or_else(|error| panic!("{error:#}\nthe screen:\n{screen}"));
        screen
    }

    /// Keeps a picture of this moment, if somebody wants to look at it.
    pub(crate) fn picture(&self, name: &str) {
        if let Some(folder) = std::env::var_os(PICTURES) {
            self.window
                .screenshot(&PathBuf::from(folder).join(format!("{name}.png")))
                .unwrap();
        }
    }

    /// Makes the next pull of a test image cold, whatever other tests have left.
    pub(crate) fn forget_image(&self, image: TestImage) {
        let listed = self
            .engine
            .docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"])
            .unwrap();
        let suffix = format!("/{}:latest", image.repository());
        for name in listed.lines().filter(|name| name.ends_with(&suffix)) {
            self.engine.remove_image(name).unwrap();
        }
    }

    pub(crate) fn forget_built_in_image(&self) {
        self.engine.remove_image(BUILT_IN).unwrap();
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if thread::panicking() {
            let test = thread::current()
                .name()
                .unwrap_or("test")
                .replace("::", "-");
            self.picture(&format!("failed-{test}"));
        }
        if self.removes_sessions {
            remove_sessions(&self.engine);
        }
    }
}

/// Removes what other tests have left, so that the window begins empty and images can be removed.
fn remove_sessions(engine: &Engine) {
    let label = "label=dev.cove.session";
    let list = |arguments: &[&str]| -> Vec<String> {
        engine
            .docker(arguments)
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    };
    for (listed, remove) in [
        (
            list(&["ps", "--all", "--quiet", "--filter", label]),
            &["rm", "--force"][..],
        ),
        (
            list(&["volume", "ls", "--quiet", "--filter", label]),
            &["volume", "rm", "--force"][..],
        ),
    ] {
        if !listed.is_empty() {
            let names = listed.iter().map(String::as_str);
            // The next test tries again.
            let _ = engine.docker(&remove.iter().copied().chain(names).collect::<Vec<_>>());
        }
    }
}

/// A shell in a session, beside those on the screen, whose commands can be waited for.
pub(crate) struct Shell<'a> {
    app: &'a App,
    session: String,
    terminal: String,
}

impl<'a> Shell<'a> {
    pub(crate) fn open(app: &'a App, session: &str) -> Self {
        let answer = app
            .window
            .execute_async(include_str!("shell.js"), &[json!(session)])
            .unwrap()[0]
            .take();
        let terminal = answer["terminal_id"]
            .as_str()
            .unwrap_or_else(|| panic!("{answer}"))
            .to_owned();
        let shell = Self {
            app,
            session: session.to_owned(),
            terminal,
        };
        // Without a prompt and an echo, what comes is what the command writes; Bash writes more, whatever it is told.
        shell.write("stty -echo; command -v busybox > /dev/null && exec busybox sh\n");
        shell.write("PS1= PS2=\n");
        shell.run("true");
        shell
    }

    pub(crate) fn write(&self, data: &str) {
        let answer = self.app.invoke(
            "write_terminal",
            &json!({"id": self.session, "terminal_id": self.terminal, "data": data}),
        );
        assert_eq!(answer["ok"], true, "{answer}");
    }

    /// Runs a command to its end and returns what it wrote.
    #[track_caller]
    pub(crate) fn run(&self, command: &str) -> String {
        let begin = self
            .app
            .window
            .execute("return window.__shell.length", &[])
            .unwrap();
        self.write(&format!(
            "printf '\\001'; {command}; printf '\\002%d\\003' $?\n"
        ));
        let script = "
            const { bytes, length } = window.__shell;
            return new TextDecoder().decode(bytes.subarray(arguments[0], length));
        ";
        let mut said = String::new();
        let outcome = self
            .app
            .window
            .wait(&format!("the end of `{command}`"), READY, |window| {
                let now = window.execute(script, std::slice::from_ref(&begin))?;
                now.as_str().unwrap_or_default().clone_into(&mut said);
                let output = said.rsplit_once('\u{1}').map(|(_, output)| output);
                Ok(output
                    .and_then(|output| output.split_once('\u{2}'))
                    .filter(|(_, code)| code.contains('\u{3}'))
                    .map(|(output, code)| (output.replace('\r', ""), code.to_owned())))
            });
        let (output, code) = outcome.unwrap_or_else(|error| panic!("{error:#}\nit said: {said:?}"));
        assert!(
            code.starts_with("0\u{3}"),
            "`{command}` failed: {output:?} {code:?}"
        );
        output
    }
}

/// Returns window options with one more variable for the app.
pub(crate) fn with_environment(name: &str, value: &str) -> WindowOptions {
    WindowOptions {
        environment: BTreeMap::from([(name.to_owned(), value.to_owned())]),
        ..WindowOptions::default()
    }
}

/// Measures how long something takes.
pub(crate) fn timed<T>(action: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let outcome = action();
    (outcome, start.elapsed())
}

/// Prints a figure that a reader of the test log may want to know.
#[expect(
    clippy::print_stderr,
    reason = "the reader of a test log is meant to see it"
)]
pub(crate) fn figure(what: &str, value: impl std::fmt::Display) {
    eprintln!("figure: {what}: {value}");
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (kind, target) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if kind.is_dir() {
            copy_folder(&entry.path(), &target);
        } else if kind.is_file() {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
