//! Measures creating a session from an image that is on the engine, against the least that any tool
//! must do: the same three calls made bare on the engine's socket, and the `docker` command line.
//!
//! Run by `cargo xtask bench create`. Rounds are interleaved, so that noise of the machine meets all
//! alike; medians and their ratios are what counts.

#[cfg(unix)]
fn main() -> anyhow::Result<()> {
    measured::main()
}

#[cfg(not(unix))]
fn main() {}

#[cfg(unix)]
#[expect(clippy::print_stdout, reason = "a benchmark's result is its output")]
mod measured {
    use std::env;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::process::Stdio;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use anyhow::{Context as _, Result, bail, ensure};
    use cove_core::assets::Assets;
    use cove_core::engine::docker::DockerPlaces;
    use cove_core::event::{Reporter, SessionEvent};
    use cove_core::image::ImageReference;
    use cove_core::sessions::{Sessions, Start};
    use cove_testbed::Engine;
    use serde_json::json;
    use tokio::runtime::Runtime;

    /// Rounds that count, after one that does not.
    const ROUNDS: usize = 15;

    struct Heard(mpsc::Sender<SessionEvent>);

    impl Reporter for Heard {
        fn report(&self, event: &SessionEvent) {
            // Events after the last round are of no interest.
            let _ = self.0.send(event.clone());
        }
    }

    /// The ways to a running container, each with what it took in every round.
    #[derive(Default)]
    struct Times {
        cove: Vec<Duration>,
        cove_to_start: Vec<Duration>,
        bare: Vec<Duration>,
        bare_and_agent: Vec<Duration>,
        bare_apart: Vec<Duration>,
        bare_apart_and_exec: Vec<Duration>,
        command_line: Vec<Duration>,
        command_line_whole: Vec<Duration>,
    }

    pub(super) fn main() -> Result<()> {
        let Some(engine) = Engine::from_env() else {
            bail!("run `cargo xtask bench create`, which starts an engine");
        };
        let assets = Assets::from_folder(Path::new(&env::var("COVE_ASSETS")?))?;
        let agent = assets.agent(env::consts::ARCH)?.to_vec();
        let archive = pack(&agent)?;
        let runtime = Runtime::new()?;
        let (sender, events) = mpsc::channel();
        let sessions = Sessions::new(Start::fresh(
            Box::new(DockerPlaces::at(&[engine.host()])),
            assets,
            Box::new(Heard(sender)),
        ));

        // A container on a network that keeps sessions apart starts later than one on the engine's default network.
        let network = "bare-apart";
        engine.docker(&[
            "network",
            "create",
            "--opt",
            "com.docker.network.bridge.enable_icc=false",
            network,
        ])?;
        let mut times = Times::default();
        for round in 0..=ROUNDS {
            let (cove, cove_to_start) = create(&runtime, &sessions, &events)?;
            let plain = Bare::default();
            let with_agent = Bare {
                archive: Some(&archive),
                ..plain
            };
            let apart = Bare {
                network: Some(network),
                ..with_agent
            };
            let with_exec = Bare {
                exec: true,
                ..apart
            };
            let bare = plain.create(&engine, round)?;
            let bare_and_agent = with_agent.create(&engine, round)?;
            let bare_apart = apart.create(&engine, round)?;
            let bare_apart_and_exec = with_exec.create(&engine, round)?;
            let command_line = command_line(&engine, round)?;
            let command_line_whole = command_line_whole(&engine, round, &archive)?;
            // The first round loads the image and warms the engine's caches.
            if round > 0 {
                times.cove.push(cove);
                times.cove_to_start.push(cove_to_start);
                times.bare.push(bare);
                times.bare_and_agent.push(bare_and_agent);
                times.bare_apart.push(bare_apart);
                times.bare_apart_and_exec.push(bare_apart_and_exec);
                times.command_line.push(command_line);
                times.command_line_whole.push(command_line_whole);
            }
        }

        println!("create → ready on an image that is on the engine, {ROUNDS} interleaved rounds");
        println!("agent: {} KB\n", agent.len() / 1024);
        println!(
            "{:44} {:>8} {:>8} {:>8} {:>8}",
            "", "median", "min", "max", "Cove ÷"
        );
        let cove = median(&times.cove);
        for (name, times) in [
            ("Cove: create → ready", &times.cove),
            (
                "  of that, before the container is started",
                &times.cove_to_start,
            ),
            ("bare calls: volume, container, start", &times.bare),
            ("bare calls and the agent's copy", &times.bare_and_agent),
            ("the same on a network that keeps apart", &times.bare_apart),
            ("the same and one exec", &times.bare_apart_and_exec),
            ("docker command line: volume, run", &times.command_line),
            (
                "docker command line: the same and copy, exec",
                &times.command_line_whole,
            ),
        ] {
            let middle = median(times);
            let ms = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
            let (min, max) = (times.iter().min(), times.iter().max());
            println!(
                "{name:44} {:>8} {:>8} {:>8} {:>8.2}",
                ms(middle),
                ms(min.copied().unwrap_or_default()),
                ms(max.copied().unwrap_or_default()),
                cove.as_secs_f64() / middle.as_secs_f64(),
            );
        }
        println!("\nms; the last column is Cove's median divided by that line's");
        Ok(())
    }

    /// Creates a session and returns how long it took to be ready, and to come to the container's start.
    fn create(
        runtime: &Runtime,
        sessions: &Sessions,
        events: &mpsc::Receiver<SessionEvent>,
    ) -> Result<(Duration, Duration)> {
        let begin = Instant::now();
        let id = {
            let _context = runtime.enter();
            sessions.create(&json!({ "workspace_id": "bench" }))?
        };
        loop {
            match events.recv()? {
                SessionEvent::Progress(_)
                | SessionEvent::Changed(_)
                | SessionEvent::Transfer(_) => {}
                SessionEvent::Ready(event) => {
                    let ready = begin.elapsed();
                    let phases = &event.progress.finished;
                    let last = phases.last().map_or(0, |phase| phase.elapsed_ms);
                    runtime.block_on(sessions.delete(id))?;
                    return Ok((ready, ready.saturating_sub(Duration::from_millis(last))));
                }
                SessionEvent::Failed(event) => bail!("{}", event.error.message),
                SessionEvent::Cancelled(_) | SessionEvent::Export(_) => bail!("cancelled"),
            }
        }
    }

    /// The same calls on the engine's socket with nothing around them.
    #[derive(Clone, Copy, Default)]
    struct Bare<'a> {
        /// What is copied into the container.
        archive: Option<&'a [u8]>,
        /// The network that it is on; the engine's default one without.
        network: Option<&'a str>,
        /// Whether a command is run in it.
        exec: bool,
    }

    impl Bare<'_> {
        fn create(self, engine: &Engine, round: usize) -> Result<Duration> {
            let Self {
                archive,
                network,
                exec,
            } = self;
            let name = format!("bare-{round}");
            let socket = engine.socket();
            let volume = json!({ "Name": name }).to_string();
            let container = json!({
                "Image": ImageReference::built_in().to_string(),
                "Entrypoint": ["sleep", "1000"],
                "User": "0:0",
                "HostConfig": {
                    "Binds": [format!("{name}:/workspace")],
                    "SecurityOpt": ["no-new-privileges"],
                    "PidsLimit": 4096,
                    "NetworkMode": network.unwrap_or("default"),
                },
            })
            .to_string();

            let begin = Instant::now();
            post(
                socket,
                "POST",
                "/volumes/create",
                "application/json",
                volume.as_bytes(),
            )?;
            let path = format!("/containers/create?name={name}");
            post(
                socket,
                "POST",
                &path,
                "application/json",
                container.as_bytes(),
            )?;
            if let Some(archive) = archive {
                let path = format!("/containers/{name}/archive?path=/");
                post(socket, "PUT", &path, "application/x-tar", archive)?;
            }
            post(
                socket,
                "POST",
                &format!("/containers/{name}/start"),
                "application/json",
                b"",
            )?;
            if exec {
                let command = json!({ "Cmd": ["true"], "AttachStdout": true }).to_string();
                let path = format!("/containers/{name}/exec");
                let answer = post(
                    socket,
                    "POST",
                    &path,
                    "application/json",
                    command.as_bytes(),
                )?;
                let body = answer.split("\r\n\r\n").nth(1).context("no body")?;
                let body = body
                    .get(body.find('{').context("no JSON")?..)
                    .unwrap_or_default();
                let body = body
                    .get(..=body.rfind('}').context("no JSON")?)
                    .unwrap_or_default();
                let id: serde_json::Value = serde_json::from_str(body)?;
                let path = format!(
                    "/exec/{}/start",
                    id.get("Id")
                        .and_then(serde_json::Value::as_str)
                        .context("no id")?
                );
                post(
                    socket,
                    "POST",
                    &path,
                    "application/json",
                    br#"{"Detach":false,"Tty":false}"#,
                )?;
            }
            let time = begin.elapsed();

            engine.docker(&["rm", "--force", &name])?;
            engine.docker(&["volume", "rm", &name])?;
            Ok(time)
        }
    }

    fn command_line(engine: &Engine, round: usize) -> Result<Duration> {
        let name = format!("cli-{round}");
        let image = ImageReference::built_in().to_string();
        let mount = format!("{name}:/workspace");
        let begin = Instant::now();
        engine.docker(&["volume", "create", &name])?;
        let run = [
            "run",
            "--detach",
            "--name",
            &name,
            "--volume",
            &mount,
            "--entrypoint",
            "sleep",
        ];
        engine.docker(&[&run[..], &[&image, "1000"]].concat())?;
        let time = begin.elapsed();
        engine.docker(&["rm", "--force", &name])?;
        engine.docker(&["volume", "rm", &name])?;
        Ok(time)
    }

    /// Does by the command line all that Cove does: a started container that has answered an exec.
    fn command_line_whole(engine: &Engine, round: usize, archive: &[u8]) -> Result<Duration> {
        let name = format!("cli-whole-{round}");
        let image = ImageReference::built_in().to_string();
        let mount = format!("{name}:/workspace");
        let begin = Instant::now();
        engine.docker(&["volume", "create", &name])?;
        let create = [
            "create",
            "--name",
            &name,
            "--volume",
            &mount,
            "--entrypoint",
            "sleep",
        ];
        engine.docker(&[&create[..], &[&image, "1000"]].concat())?;
        let root = format!("{name}:/");
        let mut copy = engine
            .command()
            .args(["cp", "-", &root])
            .stdin(Stdio::piped())
            .spawn()?;
        copy.stdin.take().context("no input")?.write_all(archive)?;
        ensure!(copy.wait()?.success(), "docker cp failed");
        engine.docker(&["start", &name])?;
        engine.docker(&["exec", &name, "/.cove/agent", "version"])?;
        let time = begin.elapsed();
        engine.docker(&["rm", "--force", &name])?;
        engine.docker(&["volume", "rm", &name])?;
        Ok(time)
    }

    /// Sends one request on a connection of its own and returns the whole answer.
    fn post(socket: &Path, method: &str, path: &str, kind: &str, body: &[u8]) -> Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).unwrap_or_default();
        ensure!(status.starts_with('2'), "{method} {path}: {answer}");
        Ok(answer)
    }

    fn pack(agent: &[u8]) -> Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(agent.len() as u64);
        archive.append_data(&mut header, ".cove/agent", agent)?;
        Ok(archive.into_inner()?)
    }

    fn median(times: &[Duration]) -> Duration {
        let mut sorted = times.to_vec();
        sorted.sort();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }
}
