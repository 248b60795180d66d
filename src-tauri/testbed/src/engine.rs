//! A private Docker engine: its own data, socket, network bridge and process family, all gone with its guard.
//!
//! The host's firewall and its own engine are left alone: containers reach the host and published ports work (the
//! engine's userland proxy carries them), but there is no way out to the internet, and no network is kept apart from
//! another. Where a test is about that, the engine has a firewall of its own.

use std::fs;
#[cfg(unix)]
use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::image::Image;
use crate::process::{self, Guarded};
use crate::scratch::Scratch;
use crate::skip;

const HOST: &str = "COVE_TEST_DOCKER_HOST";
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(20);
const SESSION_LABEL: &str = "dev.cove.session";
const NETWORK_LABEL: &str = "dev.cove.network";

/// How an engine is started.
#[derive(Debug, Clone, Default)]
pub struct EngineOptions {
    /// Which one it is.
    pub kind: EngineKind,
    /// Whether it may touch the host's firewall.
    pub firewall: Firewall,
    /// Where images and containers are kept; absent for a folder that goes with the guard.
    pub data: Option<PathBuf>,
    /// More arguments of the daemon, `--max-download-attempts=1`.
    pub arguments: Vec<&'static str>,
}

/// Which engine it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EngineKind {
    /// Docker.
    #[default]
    Docker,
    /// Podman's service as root, in a network of its own. It reaches no registry: images are loaded.
    Podman,
}

/// Whether an engine may touch the host's firewall.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Firewall {
    /// No: a second engine would take the rules of the first away. Containers have no internet.
    #[default]
    Untouched,
    /// Yes: it is the only engine, and containers reach the internet.
    Managed,
    /// It has a network of its own, with a firewall. Containers reach the host at [`Engine::gateway`], which is another
    /// machine to them. It reaches no registry: images are loaded. Podman always has one.
    Own,
}

/// A Docker engine for tests.
#[derive(Debug)]
pub struct Engine {
    host: String,
    /// Absent when another process started the engine.
    own: Option<Own>,
}

#[derive(Debug)]
struct Own {
    daemon: Mutex<Option<Guarded>>,
    options: EngineOptions,
    bridge: Option<Bridge>,
    cgroup: String,
    // Last, so that it is removed when the daemon is gone.
    scratch: Scratch,
}

/// What an engine holds of one session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Names of containers, running or not.
    pub containers: Vec<String>,
    /// Names of volumes.
    pub volumes: Vec<String>,
    /// Names of networks that are the session's alone.
    pub networks: Vec<String>,
}

impl Resources {
    /// Returns whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.containers.is_empty() && self.volumes.is_empty() && self.networks.is_empty()
    }
}

impl Engine {
    /// Starts an engine of one's own for tests.
    ///
    /// # Errors
    /// When [`Self::cannot_start`] has a reason, or the daemon does not come up.
    pub fn start() -> Result<Self> {
        Self::start_with(EngineOptions::default())
    }

    /// Starts an engine of one's own.
    ///
    /// # Errors
    /// When [`Self::cannot_start`] has a reason, or the daemon does not come up.
    pub fn start_with(options: EngineOptions) -> Result<Self> {
        let reason = match options.kind {
            EngineKind::Docker => Self::cannot_start(),
            EngineKind::Podman => Self::cannot_start_podman(),
        };
        if let Some(reason) = reason {
            bail!("failed to start an engine: {reason}");
        }
        let scratch = Scratch::new()?;
        let bridge = match (options.kind, options.firewall) {
            (EngineKind::Docker, Firewall::Untouched) => Some(Bridge::new()?),
            (EngineKind::Docker, Firewall::Own) | (EngineKind::Podman, _) => Some(Bridge::line()),
            (EngineKind::Docker, Firewall::Managed) => None,
        };
        let name = scratch
            .path()
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let engine = Self {
            host: format!("unix://{}", scratch.path().join("docker.sock").display()),
            own: Some(Own {
                daemon: Mutex::new(None),
                options,
                bridge,
                cgroup: name.unwrap_or_default(),
                scratch,
            }),
        };
        engine.start_again()?;
        Ok(engine)
    }

    /// Returns why no engine can be started here, or `None` when one can.
    #[must_use]
    pub fn cannot_start() -> Option<&'static str> {
        if !cfg!(target_os = "linux") {
            Some("an engine can be started on Linux only")
        } else if !process::on_path("dockerd") {
            Some("`dockerd` is not installed")
        } else if !process::can_contain() {
            Some("starting an engine needs root")
        } else {
            None
        }
    }

    /// Returns why no Podman can be started here, or `None` when one can.
    #[must_use]
    pub fn cannot_start_podman() -> Option<&'static str> {
        if !cfg!(target_os = "linux") {
            Some("Podman can be started on Linux only")
        } else if !process::on_path("podman") {
            Some("`podman` is not installed")
        } else if !process::can_contain() {
            Some("starting Podman needs root")
        } else {
            None
        }
    }

    /// Takes from a Podman what tidies up after a program that ends by itself, as where its processes are killed: the
    /// container's state stays `stopped`.
    ///
    /// # Errors
    /// When the engine is no Podman of one's own.
    pub fn stop_tidying_up(&self) -> Result<()> {
        fs::remove_file(self.own()?.scratch.path().join("podman"))
            .context("failed to take Podman's program away")
    }

    /// Returns the engine that the test command started.
    #[must_use]
    pub fn from_env() -> Option<Self> {
        std::env::var(HOST)
            .ok()
            .map(|host| Self { host, own: None })
    }

    /// Returns the engine that the test command started; without one the calling test is noted as skipped.
    #[must_use]
    pub fn from_env_or_skip() -> Option<Self> {
        let engine = Self::from_env();
        if engine.is_none() {
            skip("no test engine: run by `cargo xtask test` or `cargo xtask testbed`");
        }
        engine
    }

    /// Returns the environment by which another process finds this engine.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![(HOST, self.host.clone())]
    }

    /// Returns the engine's address, `unix:///…/docker.sock`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns an address of this machine that is the engine's own network and not a loopback: what listens there is
    /// another host to the engine. Absent for an engine of another process.
    #[must_use]
    pub fn gateway(&self) -> Option<IpAddr> {
        Some(self.own.as_ref()?.bridge.as_ref()?.address)
    }

    /// Returns the path of the engine's socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        Path::new(self.host.strip_prefix("unix://").unwrap_or(&self.host))
    }

    /// Stops the daemon in its own way, containers first; its data stays.
    ///
    /// # Errors
    /// When the engine belongs to another process.
    pub fn stop(&self) -> Result<()> {
        let daemon = self.own()?.daemon().take();
        if let Some(mut daemon) = daemon {
            daemon.terminate(STOP_LIMIT);
        }
        Ok(())
    }

    /// Ends daemon and containers at once, as a power cut would; the data stays, and so does the dead socket.
    ///
    /// # Errors
    /// When the engine belongs to another process.
    pub fn kill(&self) -> Result<()> {
        *self.own()?.daemon() = None;
        Ok(())
    }

    /// Stops the daemon and starts it again with the same data on the same socket.
    ///
    /// # Errors
    /// When the engine belongs to another process, or the daemon does not come up.
    pub fn restart(&self) -> Result<()> {
        self.stop()?;
        self.start_again()
    }

    /// Starts the daemon with the same data on the same socket.
    ///
    /// # Errors
    /// When the engine belongs to another process, or the daemon does not come up.
    pub fn start_again(&self) -> Result<()> {
        let own = self.own()?;
        let folder = own.scratch.path();
        // The process ids in there would be those of other processes in the new namespace.
        let _ = fs::remove_dir_all(folder.join("exec"));
        let _ = fs::remove_file(folder.join("docker.pid"));
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())
            .context("failed to open the engine's log")?;
        let mut command = match own.options.kind {
            EngineKind::Docker => self.docker_command(own)?,
            EngineKind::Podman => self.podman_command(own)?,
        };
        command.stdin(Stdio::null());
        command
            .stdout(log.try_clone().context("failed to open the engine's log")?)
            .stderr(log);

        let mut daemon = Guarded::spawn_family("dockerd", command)?;
        if let Err(error) = daemon.wait_until(START_LIMIT, || self.answers()) {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(10).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            return Err(error).context(format!("failed to start an engine:\n{}", tail.join("\n")));
        }
        if let Some(bridge) = own.bridge.as_ref().filter(|bridge| bridge.is_line) {
            bridge.lay(daemon.in_family())?;
        }
        *own.daemon() = Some(daemon);
        Ok(())
    }

    fn docker_command(&self, own: &Own) -> Result<Command> {
        let folder = own.scratch.path();
        let data = own
            .options
            .data
            .clone()
            .unwrap_or_else(|| folder.join("data"));
        let mut command = match own.options.firewall {
            Firewall::Own => {
                let mut command = process::command_with_family("unshare");
                command.args(["--net", "--", "dockerd"]);
                command
            }
            Firewall::Untouched | Firewall::Managed => process::command_with_family("dockerd"),
        };
        command
            .arg("--host")
            .arg(&self.host)
            .args(["--group", "root", "--shutdown-timeout", "3"]);
        command.arg("--data-root").arg(data);
        command.arg("--exec-root").arg(folder.join("exec"));
        command.arg("--pidfile").arg(folder.join("docker.pid"));
        command.args(&own.options.arguments);
        // The daemon's own settings file is the user's: it may name hosts that clash with ours.
        fs::write(folder.join("daemon.json"), "{}")
            .context("failed to write the engine's settings")?;
        command.arg("--config-file").arg(folder.join("daemon.json"));
        command.args([
            "--exec-opt",
            "native.cgroupdriver=cgroupfs",
            "--cgroup-parent",
        ]);
        command.arg(format!("/{}", own.cgroup));
        if let Some(bridge) = own.bridge.as_ref().filter(|bridge| !bridge.is_line) {
            command.args(["--bridge", &bridge.name]);
            for pool in bridge.pools() {
                let pool = format!("base={pool}.0/24,size=26");
                command.args(["--default-address-pool", &pool]);
            }
            for setting in ["iptables", "ip6tables", "ip-forward", "ip-masq"] {
                command.arg(format!("--{setting}=false"));
            }
        }
        Ok(command)
    }

    fn podman_command(&self, own: &Own) -> Result<Command> {
        let folder = own.scratch.path();
        // The program that runs is the one that each container's monitor calls at the end: a copy can be taken away.
        let program = folder.join("podman");
        let installed = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .map(|place| place.join("podman"))
            .find(|place| place.is_file())
            .context("`podman` is not installed")?;
        fs::copy(installed, &program).context("failed to copy Podman's program")?;
        // Docker's runtime, where there is one, runs on every kind of control groups.
        let runtime = ["runc", "crun"]
            .into_iter()
            .find(|name| process::on_path(name));
        let settings = format!(
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n\
             [engine]\nruntime = \"{}\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n\
             [network]\nnetwork_backend = \"netavark\"\n",
            runtime.context("neither `runc` nor `crun` is installed")?
        );
        let files = [
            ("CONTAINERS_CONF", "containers.conf", settings.as_str()),
            (
                "CONTAINERS_REGISTRIES_CONF",
                "registries.conf",
                "unqualified-search-registries = [\"docker.io\"]\n",
            ),
        ];
        let mut command = process::command_with_family("unshare");
        for (variable, name, content) in files {
            let path = folder.join(name);
            fs::write(&path, content).with_context(|| format!("failed to write `{name}`"))?;
            command.env(variable, path);
        }
        command.args(["--net", "--"]).arg(program);
        command.arg("--root").arg(folder.join("data"));
        command.arg("--runroot").arg(folder.join("run"));
        command.arg("--tmpdir").arg(folder.join("tmp"));
        // Else all of this machine have their networks in the same place.
        command
            .arg("--network-config-dir")
            .arg(folder.join("networks"));
        command.args(["system", "service", "--time=0", &self.host]);
        Ok(command)
    }

    /// Returns whether the engine answers.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.ask("/_ping", Duration::from_secs(2))
            .is_ok_and(|(status, _)| status == 200)
    }

    /// Asks the engine's API for something; `None` when there is no such thing. Takes a small part of the time
    /// that the `docker` command needs.
    ///
    /// # Errors
    /// When the engine does not answer in time, or refuses.
    pub fn look(&self, path: &str, limit: Duration) -> Result<Option<Value>> {
        let answer = self.ask(path, limit);
        match answer.with_context(|| format!("failed to ask for {path}"))? {
            (200, body) => Ok(Some(serde_json::from_slice(&body)?)),
            (404, _) => Ok(None),
            (status, body) => bail!(
                "{path} was answered by {status}: {}",
                String::from_utf8_lossy(&body)
            ),
        }
    }

    /// Returns status and body. An answer to a request of HTTP 1.0 ends with its connection.
    #[cfg(unix)]
    fn ask(&self, path: &str, limit: Duration) -> Result<(u16, Vec<u8>)> {
        let mut socket = std::os::unix::net::UnixStream::connect(self.socket())?;
        socket.set_read_timeout(Some(limit))?;
        write!(socket, "GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n")?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let body = answer.split_off(end.context("it is cut short")? + 4);
        let status = answer.get(9..12).and_then(|code| str::from_utf8(code).ok());
        let status = status.and_then(|code| code.parse().ok());
        Ok((status.context("it has no status")?, body))
    }

    #[cfg(not(unix))]
    fn ask(&self, _: &str, _: Duration) -> Result<(u16, Vec<u8>)> {
        bail!("an engine is asked on Unix only")
    }

    /// Returns where the daemon of one's own engine logs.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.own
            .as_ref()
            .map_or_else(PathBuf::new, |own| own.scratch.path().join("dockerd.log"))
    }

    /// Runs the `docker` command against this engine and returns what it printed, trimmed.
    ///
    /// # Errors
    /// When the command is missing or fails; the message carries what it said.
    pub fn docker(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!(
                "failed to run `docker {}`: {}",
                arguments.join(" "),
                said.trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Runs the `docker` command against this engine, whatever comes of it.
    ///
    /// # Errors
    /// When the command is missing.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        self.command()
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .context("failed to run `docker`")
    }

    /// Returns the `docker` command, bound to this engine and to no settings of the user.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new("docker");
        command
            .args(["--host", &self.host])
            .env("DOCKER_CONFIG", "/nonexistent")
            .env_remove("DOCKER_HOST")
            .env_remove("DOCKER_CONTEXT");
        command
    }

    /// Loads an image under this name.
    ///
    /// # Errors
    /// When the engine refuses it.
    pub fn load(&self, image: &Image, name: &str) -> Result<()> {
        let failed = || format!("failed to load `{name}`");
        let mut child = self
            .command()
            .arg("load")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(failed)?;
        if let Some(stdin) = child.stdin.take() {
            // When the command ends early, its message below says why.
            let _ = image.write_archive(&[name], std::io::BufWriter::with_capacity(1 << 20, stdin));
        }
        let output = child.wait_with_output().with_context(failed)?;
        if !output.status.success() {
            bail!(
                "{}: {}",
                failed(),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(())
    }

    /// Returns whether the engine has an image of this name.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub fn has_image(&self, name: &str) -> Result<bool> {
        Ok(!self.docker(&["images", "--quiet", name])?.is_empty())
    }

    /// Removes an image of this name, so that the next pull is cold; one that is not there is no failure.
    ///
    /// # Errors
    /// When a container still uses it.
    pub fn remove_image(&self, name: &str) -> Result<()> {
        if self.has_image(name)? {
            self.docker(&["rmi", "--force", name])?;
        }
        Ok(())
    }

    /// Returns what the engine holds of a session, found by label and by name.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub fn resources_of(&self, session: &str) -> Result<Resources> {
        let label = format!("label={SESSION_LABEL}={session}");
        let name = format!("name=cove-{session}");
        let mut resources = Resources::default();
        for filter in [&label, &name] {
            let format = "{{.Names}}";
            let containers =
                self.docker(&["ps", "--all", "--filter", filter, "--format", format])?;
            resources
                .containers
                .extend(containers.lines().map(str::to_owned));
            let volumes = self.docker(&["volume", "ls", "--quiet", "--filter", filter])?;
            resources.volumes.extend(volumes.lines().map(str::to_owned));
        }
        resources.networks = self.networks_labelled(&format!("{SESSION_LABEL}={session}"))?;
        for names in [&mut resources.containers, &mut resources.volumes] {
            names.sort();
            names.dedup();
        }
        Ok(resources)
    }

    /// Returns the names of the networks that Cove has on the engine.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub fn networks(&self) -> Result<Vec<String>> {
        self.networks_labelled(NETWORK_LABEL)
    }

    fn networks_labelled(&self, label: &str) -> Result<Vec<String>> {
        let filter = format!("label={label}");
        let format = "{{.Name}}";
        let names = self.docker(&["network", "ls", "--filter", &filter, "--format", format])?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    fn own(&self) -> Result<&Own> {
        self.own
            .as_ref()
            .context("this engine belongs to another process: start one of your own")
    }
}

impl Own {
    fn daemon(&self) -> MutexGuard<'_, Option<Guarded>> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        *self.daemon() = None;
        remove_cgroups(Path::new("/sys/fs/cgroup"), &self.cgroup);
    }
}

/// Removes the control groups of an engine, below the root and below each controller of the first version.
fn remove_cgroups(root: &Path, name: &str) {
    let controllers = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    for parent in controllers.chain([root.to_owned()]) {
        remove_cgroup(&parent.join(name));
    }
}

fn remove_cgroup(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    // A missing one is what we want; one in use would belong to somebody else.
    let _ = fs::remove_dir(group);
}

/// A network bridge of one's own, so that two engines never hand out the same addresses; or the line from this machine
/// to an engine that has a network of its own.
#[derive(Debug)]
struct Bridge {
    name: String,
    /// The second and the third number of its addresses.
    numbers: (u8, u8),
    address: IpAddr,
    is_line: bool,
}

impl Bridge {
    fn new() -> Result<Self> {
        let mut bridge = Self::line();
        bridge.is_line = false;
        ip(&["link", "add", "name", &bridge.name, "type", "bridge"])?;
        let address = format!("{}/24", bridge.address);
        ip(&["addr", "add", &address, "dev", &bridge.name])?;
        ip(&["link", "set", &bridge.name, "up"])?;
        Ok(bridge)
    }

    /// Returns a line that is not laid yet.
    fn line() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        sweep_bridges();
        let pid = std::process::id();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let number = pid.wrapping_mul(7).wrapping_add(count);
        let [_, .., second, third] = (number % 250 + 256 * (200 + number / 250 % 50)).to_be_bytes();
        Self {
            name: format!("cvt{pid}-{count}"),
            numbers: (second, third),
            address: IpAddr::from([10, second, third, 1]),
            is_line: true,
        }
    }

    /// Lays the line to the network that this process is in. It goes with that network.
    fn lay(&self, process: u32) -> Result<()> {
        const END: &str = "outside0";
        let (pid, (second, third)) = (process.to_string(), self.numbers);
        let end = ["type", "veth", "peer", "name", END, "netns", &pid];
        ip(&[&["link", "add", "name", &self.name][..], &end].concat())?;
        let address = format!("{}/24", self.address);
        ip(&["addr", "add", &address, "dev", &self.name])?;
        ip(&["link", "set", &self.name, "up"])?;
        let there = |arguments: &[&str]| {
            let enter = ["--target", &pid, "--net", "--", "ip"];
            run("nsenter", &[&enter, arguments].concat())
        };
        there(&["link", "set", "lo", "up"])?;
        there(&[
            "addr",
            "add",
            &format!("10.{second}.{third}.2/24"),
            "dev",
            END,
        ])?;
        there(&["link", "set", END, "up"])?;
        there(&["route", "add", "default", "via", &self.address.to_string()])
    }

    /// Returns the first three numbers of the addresses for the networks of the engine that has this bridge.
    fn pools(&self) -> [String; 3] {
        let (second, third) = self.numbers;
        [150, 100, 50].map(|below| format!("10.{}.{third}", second.saturating_sub(below)))
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // A failure leaves idle bridges that the next run sweeps up, networks first.
        if !self.is_line {
            sweep_networks(&self.pools());
        }
        let _ = ip(&["link", "del", &self.name]);
    }
}

/// Removes the bridges of networks with these addresses: an engine that is killed leaves them.
fn sweep_networks(pools: &[String]) {
    let told = ip_command().args(["-o", "-4", "addr", "show"]).output();
    let told = told.map(|output| output.stdout).unwrap_or_default();
    for line in String::from_utf8_lossy(&told).lines() {
        let mut words = line.split_whitespace().skip(1);
        let name = words.next().unwrap_or_default();
        let address = words.nth(1).unwrap_or_default();
        let is_in = |pool: &String| address.starts_with(&format!("{pool}."));
        if name.starts_with("br-") && pools.iter().any(is_in) {
            // Another run may be sweeping too.
            let _ = ip(&["link", "del", name]);
        }
    }
}

/// Removes the bridges of processes that were killed.
fn sweep_bridges() {
    for entry in fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix("cvt")
            .and_then(|rest| rest.split('-').next())
            .and_then(|pid| pid.parse().ok());
        if owner.is_some_and(|pid| !process::is_alive(pid)) {
            if let Some(numbers) = numbers_of(&name) {
                let bridge = Bridge {
                    name,
                    numbers,
                    address: IpAddr::from([10, numbers.0, numbers.1, 1]),
                    is_line: false,
                };
                drop(bridge);
                continue;
            }
            // Another run may be sweeping too.
            let _ = ip(&["link", "del", &name]);
        }
    }
}

/// Returns the second and the third number of the address that a bridge has.
fn numbers_of(bridge: &str) -> Option<(u8, u8)> {
    let mut command = ip_command();
    command.args(["-o", "-4", "addr", "show", "dev", bridge]);
    let told = command.output().ok()?.stdout;
    let told = String::from_utf8_lossy(&told);
    let address = told.split_whitespace().nth(3)?;
    let mut numbers = address.split(['.', '/']).skip(1);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn ip_command() -> Command {
    if process::on_path("ip") {
        Command::new("ip")
    } else {
        let mut command = Command::new("busybox");
        command.arg("ip");
        command
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    done("ip", ip_command().args(arguments), arguments)
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    done(program, Command::new(program).args(arguments), arguments)
}

fn done(program: &str, command: &mut Command, arguments: &[&str]) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("failed to run `{program}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "failed to run `{program} {}`: {}",
            arguments.join(" "),
            said.trim()
        );
    }
    Ok(())
}
