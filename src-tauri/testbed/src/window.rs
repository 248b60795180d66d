//! The real app in a real window on a virtual display, driven by WebDriver.
//!
//! Each window has its own display, session bus, home folder and driver; all of them end with the guard.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::process::{self, Guarded, Signal};
use crate::registry::free_port;
use crate::scratch::Scratch;
use crate::webdriver::{Element, WebDriver};

const REQUEST_LIMIT: Duration = Duration::from_secs(60);
const START_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(25);
/// How long [`Window::find`] waits for an element: the time a page takes to draw what it already knows.
const FIND_LIMIT: Duration = Duration::from_secs(10);

/// How a window is opened.
#[derive(Debug, Clone)]
pub struct WindowOptions {
    /// What the app gets as `DOCKER_HOST`; absent for the engines that it finds by itself.
    pub docker_host: Option<String>,
    /// The home folder, to open a second window on the settings of the first; absent for a new one.
    pub home: Option<PathBuf>,
    /// The display's size in pixels.
    pub size: (u32, u32),
    /// More environment for the app.
    pub environment: BTreeMap<String, String>,
}

impl Default for WindowOptions {
    fn default() -> Self {
        Self {
            docker_host: None,
            home: None,
            size: (1280, 800),
            environment: BTreeMap::new(),
        }
    }
}

/// The app's window.
#[derive(Debug)]
pub struct Window {
    driver: WebDriver,
    lines: Arc<Lines>,
    binary: PathBuf,
    home: PathBuf,
    display: String,
    // The order of the fields is the order of their end.
    processes: Guarded,
    _display: Guarded,
    _scratch: Scratch,
}

#[derive(Debug, Default)]
struct Lines {
    lines: Mutex<Vec<String>>,
    changed: Condvar,
}

impl Window {
    /// Starts the app and waits for its page.
    ///
    /// # Errors
    /// When [`Self::cannot_open`] has a reason, the binary is missing, or the app shows no page in time.
    pub fn open(binary: &Path, options: &WindowOptions) -> Result<Self> {
        let window = Self::start(binary, &[], options)?;
        // The driver takes a program that does not start for one that shows an empty page.
        window.wait("the app's page", START_LIMIT, |window| {
            let url = window.driver.url()?;
            Ok((!url.is_empty() && url != "about:blank").then_some(()))
        })?;
        Ok(window)
    }

    fn start(binary: &Path, arguments: &[&str], options: &WindowOptions) -> Result<Self> {
        if let Some(reason) = Self::cannot_open() {
            bail!("failed to open a window: {reason}");
        }
        let binary = binary
            .canonicalize()
            .with_context(|| format!("failed to find the app `{}`", binary.display()))?;
        let scratch = Scratch::new()?;
        let home = options
            .home
            .clone()
            .unwrap_or_else(|| scratch.path().join("home"));
        let (display, name) = start_display(options.size)?;

        let port = free_port()?;
        let mut command = process::command_with_family("dbus-run-session");
        command
            .args(["--", "WebKitWebDriver", "--host=127.0.0.1"])
            .arg(format!("--port={port}"));
        command
            .env("DISPLAY", &name)
            .env_remove("WAYLAND_DISPLAY")
            .env("GDK_BACKEND", "x11");
        command
            .env("TAURI_WEBVIEW_AUTOMATION", "true")
            .env("NO_AT_BRIDGE", "1");
        command.env("LANG", "C.UTF-8").env("HOME", &home);
        for (variable, folder) in [
            ("XDG_CONFIG_HOME", ".config"),
            ("XDG_DATA_HOME", ".local/share"),
            ("XDG_CACHE_HOME", ".cache"),
            ("XDG_STATE_HOME", ".local/state"),
            ("XDG_RUNTIME_DIR", "run"),
        ] {
            let path = home.join(folder);
            make_private(&path)?;
            command.env(variable, path);
        }
        match &options.docker_host {
            Some(host) => command.env("DOCKER_HOST", host),
            None => &mut command,
        };
        command.envs(&options.environment);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());

        let mut processes = Guarded::spawn_family("WebKitWebDriver", command)?;
        let lines = Arc::new(Lines::default());
        if let Some(stdout) = processes.child().stdout.take() {
            lines.follow(stdout);
        }
        if let Some(stderr) = processes.child().stderr.take() {
            lines.follow(stderr);
        }
        let address = format!("127.0.0.1:{port}");
        processes.wait_until(START_LIMIT, || {
            std::net::TcpStream::connect(&address).is_ok()
        })?;
        let capabilities =
            json!({"webkitgtk:browserOptions": {"binary": binary, "args": arguments}});
        let driver = WebDriver::open(&address, &capabilities, REQUEST_LIMIT)
            .with_context(|| format!("the app said:\n{}", lines.tail()))?;
        Ok(Self {
            driver,
            lines,
            binary,
            home,
            display: name,
            processes,
            _display: display,
            _scratch: scratch,
        })
    }

    /// Returns why no window can be opened here, or `None` when one can.
    #[must_use]
    pub fn cannot_open() -> Option<&'static str> {
        let missing = |program: &&(&str, &'static str)| !process::on_path(program.0);
        if !cfg!(target_os = "linux") {
            return Some("a window can be driven on Linux only");
        }
        [
            ("Xvfb", "`Xvfb` is not installed"),
            ("dbus-run-session", "`dbus-run-session` is not installed"),
            ("WebKitWebDriver", "`WebKitWebDriver` is not installed"),
        ]
        .iter()
        .find(missing)
        .map(|program| program.1)
    }

    /// Returns the driver, for what the methods here do not cover.
    #[must_use]
    pub fn driver(&self) -> &WebDriver {
        &self.driver
    }

    /// Returns the home folder that the app sees.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Returns the first element that fits, waiting for it a few seconds.
    ///
    /// # Errors
    /// When none comes.
    pub fn find(&self, selector: &str) -> Result<Element> {
        self.wait_for(selector, FIND_LIMIT)
    }

    /// Returns whether an element fits right now.
    ///
    /// # Errors
    /// When the driver does not answer.
    pub fn has(&self, selector: &str) -> Result<bool> {
        Ok(self.driver.try_find(selector)?.is_some())
    }

    /// Returns how many elements fit right now.
    ///
    /// # Errors
    /// When the driver does not answer.
    pub fn count(&self, selector: &str) -> Result<usize> {
        Ok(self.driver.find_all(selector)?.len())
    }

    /// Waits for an element.
    ///
    /// # Errors
    /// When none comes within the limit.
    pub fn wait_for(&self, selector: &str, limit: Duration) -> Result<Element> {
        self.wait(selector, limit, |window| window.driver.try_find(selector))
    }

    /// Waits until no element fits any more.
    ///
    /// # Errors
    /// When one still does after the limit.
    pub fn wait_gone(&self, selector: &str, limit: Duration) -> Result<()> {
        let what = format!("the end of {selector}");
        self.wait(&what, limit, |window| {
            Ok((!window.has(selector)?).then_some(()))
        })
    }

    /// Waits until an element's text fits.
    ///
    /// # Errors
    /// When it still does not after the limit; the message carries the text.
    pub fn wait_text(
        &self,
        selector: &str,
        limit: Duration,
        fits: impl Fn(&str) -> bool,
    ) -> Result<String> {
        let mut last = String::new();
        let outcome = self.wait(&format!("the text of {selector}"), limit, |window| {
            let Some(element) = window.driver.try_find(selector)? else {
                return Ok(None);
            };
            last = window.driver.text(&element)?;
            Ok(fits(&last).then(|| last.clone()))
        });
        outcome.with_context(|| format!("the text was: {last}"))
    }

    /// Waits until `check` has a value, asking again and again.
    ///
    /// # Errors
    /// When it has none after the limit; the message names `what` and carries the app's last lines.
    pub fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        mut check: impl FnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let start = Instant::now();
        loop {
            // An element may vanish between two requests while the page redraws: then it is asked again.
            let outcome = check(self);
            if let Ok(Some(value)) = outcome {
                return Ok(value);
            }
            if start.elapsed() > limit {
                let seconds = limit.as_secs_f32();
                let message = format!(
                    "waited {seconds} s in vain for {what}; the app said:\n{}",
                    self.lines.tail()
                );
                return match outcome {
                    Err(error) => Err(error).context(message),
                    Ok(_) => bail!(message),
                };
            }
            thread::sleep(POLL);
        }
    }

    /// Clicks an element once it is there and can be clicked.
    ///
    /// # Errors
    /// When it does not come, or stays covered.
    pub fn click(&self, selector: &str) -> Result<()> {
        self.wait(&format!("a click on {selector}"), FIND_LIMIT, |window| {
            let Some(element) = window.driver.try_find(selector)? else {
                return Ok(None);
            };
            window.driver.click(&element).map(Some)
        })
    }

    /// Focuses an element and types into it.
    ///
    /// # Errors
    /// When it does not come or takes no keys.
    pub fn keys(&self, selector: &str, text: &str) -> Result<()> {
        self.driver.keys(&self.find(selector)?, text)
    }

    /// Returns the text that a user sees in an element.
    ///
    /// # Errors
    /// When it does not come.
    pub fn text(&self, selector: &str) -> Result<String> {
        self.driver.text(&self.find(selector)?)
    }

    /// Returns an element's attribute, or `None`.
    ///
    /// # Errors
    /// When the element does not come.
    pub fn attribute(&self, selector: &str, name: &str) -> Result<Option<String>> {
        self.driver.attribute(&self.find(selector)?, name)
    }

    /// Runs the body of a function in the page and returns its result.
    ///
    /// # Errors
    /// When it throws.
    pub fn execute(&self, script: &str, arguments: &[Value]) -> Result<Value> {
        self.driver.execute(script, arguments)
    }

    /// Runs the body of an asynchronous function in the page; it ends by calling its last argument.
    ///
    /// # Errors
    /// When it throws or does not end in time.
    pub fn execute_async(&self, script: &str, arguments: &[Value]) -> Result<Value> {
        self.driver.execute_async(script, arguments)
    }

    /// Loads the page again, as a user's reload would.
    ///
    /// # Errors
    /// When the driver does not answer.
    pub fn reload(&self) -> Result<()> {
        self.driver.reload()
    }

    /// Saves what the window shows as a PNG file, once what the page knows now is drawn.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn screenshot(&self, path: &Path) -> Result<()> {
        // The second frame begins when the first is on the screen; a hidden page draws none at all.
        let drawn = "const done = arguments[0];
            requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 50)));
            setTimeout(done, 1000);";
        self.execute_async(drawn, &[])?;
        self.driver.screenshot(path)
    }

    /// Returns the lines that the app has printed so far.
    #[must_use]
    pub fn log_lines(&self) -> Vec<String> {
        self.lines.all().clone()
    }

    /// Returns the lines that the app has printed after the first `seen`, waiting up to `limit` for one.
    #[must_use]
    pub fn log_lines_after(&self, seen: usize, limit: Duration) -> Vec<String> {
        self.lines.after(seen, limit)
    }

    /// Asks the app to close its window, as a click on the window's frame does.
    ///
    /// # Errors
    /// When the display has no such window.
    #[cfg(unix)]
    pub fn close(&self) -> Result<()> {
        frame::close(&self.display)
    }

    /// Returns whether the app's window is on the screen.
    ///
    /// # Errors
    /// When the display has no such window.
    #[cfg(unix)]
    pub fn is_on_screen(&self) -> Result<bool> {
        frame::is_on_screen(&self.display)
    }

    /// Starts the app once more beside the one that runs, for the same user, and waits for its end.
    ///
    /// # Errors
    /// When the app does not run, or the second one does not end in time.
    pub fn start_again(&self) -> Result<std::process::ExitStatus> {
        let app = self.app_process().context("the app does not run")?;
        let environment = fs::read(format!("/proc/{app}/environ"))
            .context("failed to read the app's environment")?;
        let mut command = std::process::Command::new(&self.binary);
        command
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        for variable in environment.split(|byte| *byte == 0) {
            let variable = String::from_utf8_lossy(variable);
            if let Some((name, value)) = variable.split_once('=') {
                command.env(name, value);
            }
        }
        let mut child = command.spawn().context("failed to start the app again")?;
        let begin = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if begin.elapsed() > START_LIMIT {
                child.kill()?;
                bail!("the second app did not hand over");
            }
            thread::sleep(POLL);
        }
    }

    /// Kills the app at this instant, as a crash would; the driver is of no use afterwards.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_app(&self) -> Result<()> {
        let app = self.app_process().context("the app does not run")?;
        process::signal(app, Signal::Kill);
        Ok(())
    }

    /// Returns the app's process id.
    #[must_use]
    pub fn app_process(&self) -> Option<u32> {
        family_member(self.processes.id(), |pid| {
            fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| path == self.binary)
        })
    }

    /// Returns the id of the process, and of the thread in it, that the page runs in.
    #[must_use]
    pub fn page_process(&self) -> Option<u32> {
        family_member(self.app_process()?, |pid| {
            // The kernel keeps fifteen bytes of a name.
            fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|name| name.starts_with("WebKitWebProces"))
        })
    }
}

/// Returns the first that fits of a process, its children, theirs, and so on.
fn family_member(first: u32, fits: impl Fn(u32) -> bool) -> Option<u32> {
    let mut family = vec![first];
    while let Some(pid) = family.pop() {
        if fits(pid) {
            return Some(pid);
        }
        family.extend(process::children(pid));
    }
    None
}

/// What a window manager would do, on a display that has none.
#[cfg(unix)]
mod frame {
    use anyhow::{Context as _, Result};
    use x11rb::connection::Connection as _;
    use x11rb::protocol::xproto::{
        AtomEnum, ClientMessageEvent, ConnectionExt as _, EventMask, MapState, Window,
    };
    use x11rb::rust_connection::RustConnection;

    const TITLE: &[u8] = b"Cove";

    /// Sends the message that a window manager sends when its close button is pressed.
    pub(super) fn close(display: &str) -> Result<()> {
        let (connection, window) = find(display)?;
        let atom =
            |name: &[u8]| -> Result<u32> { Ok(connection.intern_atom(false, name)?.reply()?.atom) };
        let data = [atom(b"WM_DELETE_WINDOW")?, x11rb::CURRENT_TIME, 0, 0, 0];
        let message = ClientMessageEvent::new(32, window, atom(b"WM_PROTOCOLS")?, data);
        // A connection that ends before the display has taken the message loses it one time in four.
        connection
            .send_event(false, window, EventMask::NO_EVENT, message)?
            .check()?;
        Ok(())
    }

    pub(super) fn is_on_screen(display: &str) -> Result<bool> {
        let (connection, window) = find(display)?;
        let state = connection.get_window_attributes(window)?.reply()?.map_state;
        Ok(state == MapState::VIEWABLE)
    }

    /// Finds the app's own window: the largest of its title that can be closed.
    fn find(display: &str) -> Result<(RustConnection, Window)> {
        let (connection, screen) =
            RustConnection::connect(Some(display)).context("failed to reach the display")?;
        let roots = &connection.setup().roots;
        let root = roots.get(screen).context("the display has no screen")?.root;
        let protocols = connection
            .intern_atom(false, b"WM_PROTOCOLS")?
            .reply()?
            .atom;
        let mut found = None;
        for window in connection.query_tree(root)?.reply()?.children {
            let value = |property: u32| -> Result<Vec<u8>> {
                let property =
                    connection.get_property(false, window, property, AtomEnum::ANY, 0, 64)?;
                Ok(property.reply()?.value)
            };
            if value(AtomEnum::WM_NAME.into())? == TITLE && !value(protocols)?.is_empty() {
                let size = connection.get_geometry(window)?.reply()?;
                let area = u32::from(size.width) * u32::from(size.height);
                found = found.max(Some((area, window)));
            }
        }
        if let Some((_, window)) = found {
            return Ok((connection, window));
        }
        anyhow::bail!("the display has no window of Cove")
    }
}

impl Lines {
    fn follow(self: &Arc<Self>, output: impl Read + Send + 'static) {
        let lines = Arc::clone(self);
        thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            while output
                .read_until(b'\n', &mut line)
                .is_ok_and(|count| count > 0)
            {
                lines
                    .all()
                    .push(String::from_utf8_lossy(&line).trim_end().to_owned());
                lines.changed.notify_all();
                line.clear();
            }
        });
    }

    fn all(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the lines from `seen` on, waiting a while when there are none yet.
    fn after(&self, seen: usize, limit: Duration) -> Vec<String> {
        let (lines, _) = self
            .changed
            .wait_timeout_while(self.all(), limit, |lines| lines.len() <= seen)
            .unwrap_or_else(PoisonError::into_inner);
        lines.iter().skip(seen).cloned().collect()
    }

    fn tail(&self) -> String {
        let lines = self.all();
        let skipped = lines.len().saturating_sub(20);
        lines
            .iter()
            .skip(skipped)
            .cloned()
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// Starts a virtual display and returns its name, `:99`.
fn start_display((width, height): (u32, u32)) -> Result<(Guarded, String)> {
    let mut command = process::command("Xvfb");
    command.args([
        "-displayfd",
        "1",
        "-noreset",
        "-nolisten",
        "tcp",
        "-screen",
        "0",
    ]);
    command.arg(format!("{width}x{height}x24"));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut display = Guarded::spawn("Xvfb", command)?;
    let stdout = display
        .child()
        .stdout
        .take()
        .context("failed to ask `Xvfb` for its display")?;
    let mut number = String::new();
    BufReader::new(stdout)
        .read_line(&mut number)
        .context("failed to ask `Xvfb` for its display")?;
    let number = number.trim();
    if number.is_empty() {
        bail!("`Xvfb` ended before it had a display");
    }
    Ok((display, format!(":{number}")))
}

fn make_private(path: &Path) -> Result<()> {
    let failed = || format!("failed to make `{}`", path.display());
    fs::create_dir_all(path).with_context(failed)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).with_context(failed)?;
    }
    Ok(())
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    /// The browser that comes with the web view stands in for the app.
    fn browser() -> Option<Window> {
        let path = format!(
            "/usr/lib/{}-linux-gnu/webkit2gtk-4.1/MiniBrowser",
            std::env::consts::ARCH
        );
        let path = Path::new(&path);
        if Window::cannot_open().is_some() || !path.exists() {
            crate::skip("no virtual display, driver or browser here");
            return None;
        }
        let options = WindowOptions::default();
        Some(Window::start(path, &["--automation"], &options).unwrap())
    }

    #[test]
    fn a_window_is_driven_as_a_user_would() {
        let Some(window) = browser() else {
            return;
        };
        let page = "document.body.innerHTML = `<input id=name><button id=go>Go</button><p id=said></p>`;
            go.onclick = () => setTimeout(() => { said.textContent = `ahoy ${document.getElementById('name').value}`; go.remove() }, 50)";
        window.execute(page, &[]).unwrap();
        window.keys("#name", "sailor").unwrap();
        window.click("#go").unwrap();
        window.wait_gone("#go", Duration::from_secs(5)).unwrap();
        assert_eq!(window.text("#said").unwrap(), "ahoy sailor");
        assert_eq!(
            window.attribute("#said", "id").unwrap().as_deref(),
            Some("said")
        );
        assert!(!window.has("#nobody").unwrap());

        window.click("#name").unwrap();
        window.driver().press(&['\u{E009}'], "a").unwrap();
        window.driver().press(&[], "captain").unwrap();
        let script = "arguments[1](document.getElementById(arguments[0]).value)";
        assert_eq!(
            window.execute_async(script, &[json!("name")]).unwrap(),
            json!("captain")
        );
        let thrown = window.execute("throw new Error('storm')", &[]).unwrap_err();
        assert!(format!("{thrown:#}").contains("storm"), "{thrown:#}");

        let picture = window.home().join("picture.png");
        window.screenshot(&picture).unwrap();
        assert!(fs::read(&picture).unwrap().starts_with(b"\x89PNG"));
    }

    #[test]
    fn nothing_of_a_window_outlives_its_guard() {
        let Some(window) = browser() else {
            return;
        };
        let app = window.app_process().unwrap();
        let home = window.home().to_owned();
        drop(window);
        assert!(!process::is_alive(app));
        assert!(!home.exists());
    }

    #[test]
    fn what_the_app_prints_is_read() {
        use std::os::unix::fs::PermissionsExt as _;
        let Some(window) = browser() else {
            return;
        };
        let talking = window.home().join("talking");
        let script = format!(
            "#!/bin/sh\necho ahoy from $HOME\nexec {} \"$@\"\n",
            window.binary.display()
        );
        fs::write(&talking, script).unwrap();
        fs::set_permissions(&talking, fs::Permissions::from_mode(0o755)).unwrap();
        let options = WindowOptions {
            home: Some(window.home().join("second")),
            ..WindowOptions::default()
        };
        let second = Window::start(&talking, &["--automation"], &options).unwrap();
        let line = format!("ahoy from {}", second.home().display());
        assert!(
            second.log_lines().contains(&line),
            "{:?}",
            second.log_lines()
        );
    }

    #[test]
    fn a_killed_app_is_gone_at_once() {
        let Some(window) = browser() else {
            return;
        };
        let app = window.app_process().unwrap();
        window.kill_app().unwrap();
        window
            .wait("the app's end", Duration::from_secs(5), |_| {
                Ok((!process::is_alive(app)).then_some(()))
            })
            .unwrap();
    }
}
