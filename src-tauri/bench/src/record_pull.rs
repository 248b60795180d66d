//! Records what an engine says during a pull, with times, for the tests to replay: `tests/pulls`.
//!
//! `cargo run --release -p cove-bench --bin record-pull -- <scenario|all> <out folder>`
//!
//! Every scenario gets an engine of its own, images built from seeds in a registry of its own, and a line to it
//! that follows a script. It talks to the engine's socket itself: what is recorded is what was sent, not what a
//! library made of it. Dialects of engines that cannot run here are written by hand.

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<()> {
    recorder::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
#[expect(clippy::print_stdout, reason = "it says what it is doing")]
mod recorder {
    use std::collections::BTreeSet;
    use std::env;
    use std::fmt::Write as _;
    use std::fs;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpStream;
    use std::os::unix::net::UnixStream;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};
    use std::thread;
    use std::time::{Duration, Instant};

    use anyhow::{Context as _, Result, bail, ensure};
    use cove_testbed::{Engine, Guarded, Proxy, Random, Registry, RegistryOptions, Scratch};
    use flate2::{Compression, GzBuilder};
    use serde_json::{Map, Value, json};

    const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    const REPOSITORY: &str = "app";

    /// What takes the registry's place in the recordings.
    const REGISTRY: &str = "registry.test";

    /// The keys of a message that are kept. What is drawn from them, Docker's bar in `progress`, is not.
    const KEPT: [&str; 5] = ["status", "id", "progressDetail", "error", "errorDetail"];

    const KB: usize = 1_000;
    const MB: usize = 1_000_000;

    /// One layer. Equal contents are the same layer, whichever image they are in.
    #[derive(Debug, Clone, Copy)]
    struct Content {
        seed: u64,
        /// Bytes that do not compress.
        noise: usize,
        /// Bytes that compress some twenty times.
        text: usize,
    }

    #[derive(Debug, Clone, Copy)]
    struct Image {
        tag: &'static str,
        /// None for an image that the registry does not have.
        layers: &'static [Content],
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Dialect {
        Docker,
        Podman,
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        /// Bytes per second, over all connections.
        Rate(usize),
        Stall,
        Resume,
        Cut,
        Refuse,
    }

    /// A pull that is recorded.
    #[derive(Debug, Clone, Copy)]
    struct Recorded {
        /// Follows the scenario's name in the file's name.
        suffix: &'static str,
        /// When it begins, in milliseconds.
        begins: u64,
        image: Image,
    }

    #[derive(Debug, Clone, Copy)]
    struct Scenario {
        name: &'static str,
        shows: &'static str,
        link: &'static str,
        dialect: Dialect,
        /// Pulled before, and not recorded.
        before: &'static [Image],
        pulls: &'static [Recorded],
        /// What becomes of the line, and when, in milliseconds.
        script: &'static [(u64, Step)],
    }

    const fn layer(seed: u64, noise: usize, text: usize) -> Content {
        Content { seed, noise, text }
    }

    const fn once(image: Image) -> Recorded {
        Recorded {
            suffix: "",
            begins: 0,
            image,
        }
    }

    const APP: Image = Image {
        tag: "1",
        layers: &[
            layer(1, 2_200 * KB, 3 * MB),
            layer(2, 700 * KB, 400 * KB),
            layer(3, 40 * KB, 10 * KB),
            layer(4, 4_600 * KB, 6 * MB),
            layer(5, 1_400 * KB, MB),
            layer(6, 0, 300),
            layer(7, 2_900 * KB, 2 * MB),
        ],
    };

    /// Shares its first, second and fourth layer with [`APP`].
    const COUSIN: Image = Image {
        tag: "cousin",
        layers: &[
            layer(1, 2_200 * KB, 3 * MB),
            layer(2, 700 * KB, 400 * KB),
            layer(13, 900 * KB, 100 * KB),
            layer(4, 4_600 * KB, 6 * MB),
            layer(15, 1_900 * KB, 500 * KB),
        ],
    };

    /// [`APP`]'s first three layers.
    const BASE: Image = Image {
        tag: "base",
        layers: &[
            layer(1, 2_200 * KB, 3 * MB),
            layer(2, 700 * KB, 400 * KB),
            layer(3, 40 * KB, 10 * KB),
        ],
    };

    /// [`APP`]'s layers under another configuration.
    const TWIN: Image = Image {
        tag: "twin",
        layers: APP.layers,
    };

    const STEADY: Image = Image {
        tag: "steady",
        layers: &[
            layer(21, 1_300 * KB, 2 * MB),
            layer(22, 6_800 * KB, 4 * MB),
            layer(23, 500 * KB, 0),
            layer(24, 3_100 * KB, 5 * MB),
        ],
    };

    const HEAVY: Image = Image {
        tag: "heavy",
        layers: &[
            layer(31, 300 * KB, 90 * MB),
            layer(32, 200 * KB, 0),
            layer(33, 100 * KB, 70 * MB),
        ],
    };

    const TINY: Image = Image {
        tag: "tiny",
        layers: &[
            layer(40, 0, 200),
            layer(41, 0, 220),
            layer(42, 0, 240),
            layer(43, 0, 260),
            layer(44, 0, 280),
            layer(45, 0, 300),
            layer(46, 0, 320),
            layer(47, 0, 340),
            layer(48, 0, 360),
            layer(49, 0, 380),
            layer(50, 0, 400),
            layer(51, 0, 420),
            layer(52, 0, 440),
            layer(53, 0, 460),
            layer(54, 0, 480),
            layer(55, 0, 500),
        ],
    };

    /// Has a layer three times, as images with empty layers do.
    const REPEATED: Image = Image {
        tag: "repeated",
        layers: &[
            layer(61, 900 * KB, 200 * KB),
            layer(62, 0, 100),
            layer(63, 1_200 * KB, 0),
            layer(62, 0, 100),
            layer(62, 0, 100),
        ],
    };

    const MISSING: Image = Image {
        tag: "missing",
        layers: &[],
    };

    const EIGHT_MB: (u64, Step) = (0, Step::Rate(8 * MB));
    const STEADY_LINK: (u64, Step) = (0, Step::Rate(MB));

    // What both engines are asked; Podman's differ in their names.
    const COLD: Scenario = Scenario {
        name: "docker-cold",
        shows: "seven layers, none of them there",
        link: "8 MB/s",
        dialect: Dialect::Docker,
        before: &[],
        pulls: &[once(APP)],
        script: &[EIGHT_MB],
    };

    const PARTLY_CACHED: Scenario = Scenario {
        name: "docker-partly-cached",
        shows: "seven layers, the first three there through another image",
        link: "8 MB/s",
        dialect: Dialect::Docker,
        before: &[BASE],
        pulls: &[once(APP)],
        script: &[EIGHT_MB],
    };

    const THROTTLED: Scenario = Scenario {
        name: "docker-throttled",
        shows: "four layers over a slow, steady line",
        link: "1 MB/s",
        dialect: Dialect::Docker,
        before: &[],
        pulls: &[once(STEADY)],
        script: &[STEADY_LINK],
    };

    const NOTHING_TO_DO: Scenario = Scenario {
        name: "docker-nothing-to-do",
        shows: "an image that is there already",
        link: "8 MB/s",
        dialect: Dialect::Docker,
        before: &[APP],
        pulls: &[once(APP)],
        script: &[EIGHT_MB],
    };

    const HEAVY_EXTRACTION: Scenario = Scenario {
        name: "docker-heavy-extraction",
        shows: "layers of a few MB that hold 90 and 70 MB",
        link: "20 MB/s",
        dialect: Dialect::Docker,
        before: &[],
        pulls: &[once(HEAVY)],
        script: &[(0, Step::Rate(20 * MB))],
    };

    const TWO_AT_ONCE: Scenario = Scenario {
        name: "docker-two-at-once",
        shows: "one of two pulls at once, of images that share three layers",
        link: "3 MB/s; a begins at 0, b at 0.8 s",
        dialect: Dialect::Docker,
        before: &[],
        pulls: &[
            Recorded {
                suffix: "-a",
                begins: 0,
                image: APP,
            },
            Recorded {
                suffix: "-b",
                begins: 800,
                image: COUSIN,
            },
        ],
        script: &[(0, Step::Rate(3 * MB))],
    };

    const NOT_FOUND: Scenario = Scenario {
        name: "docker-not-found",
        shows: "a tag that the registry does not have",
        link: "8 MB/s",
        dialect: Dialect::Docker,
        before: &[],
        pulls: &[once(MISSING)],
        script: &[EIGHT_MB],
    };

    const SCENARIOS: [Scenario; 22] = [
        COLD,
        PARTLY_CACHED,
        Scenario {
            name: "docker-cached-elsewhere",
            shows: "seven layers: the first two there, and the fourth too, but on top of another third one",
            link: "8 MB/s",
            dialect: Dialect::Docker,
            before: &[COUSIN],
            pulls: &[once(APP)],
            script: &[EIGHT_MB],
        },
        Scenario {
            name: "docker-all-layers-cached",
            shows: "an image that is not there, of layers that all are",
            link: "8 MB/s",
            dialect: Dialect::Docker,
            before: &[APP],
            pulls: &[once(TWIN)],
            script: &[EIGHT_MB],
        },
        NOTHING_TO_DO,
        THROTTLED,
        Scenario {
            name: "docker-variable",
            shows: "a line that is fast, slow, silent for 5 s, slow and fast again",
            link: "3 MB/s; from 1.2 s 300 kB/s; from 4 s nothing; from 9 s 300 kB/s; from 11 s 3 MB/s",
            dialect: Dialect::Docker,
            before: &[],
            pulls: &[once(STEADY)],
            script: &[
                (0, Step::Rate(3 * MB)),
                (1_200, Step::Rate(300 * KB)),
                (4_000, Step::Stall),
                (9_000, Step::Resume),
                (11_000, Step::Rate(3 * MB)),
            ],
        },
        Scenario {
            name: "docker-retry",
            shows: "every connection is cut in mid-layer, once; the engine tries again",
            link: "2 MB/s; cut at 2 s",
            dialect: Dialect::Docker,
            before: &[],
            pulls: &[once(STEADY)],
            script: &[(0, Step::Rate(2 * MB)), (2_000, Step::Cut)],
        },
        Scenario {
            name: "docker-cut",
            shows: "the registry refuses from some moment on; the engine gives up in the end",
            link: "2 MB/s; from 1.5 s connections are cut and refused",
            dialect: Dialect::Docker,
            before: &[],
            pulls: &[once(STEADY)],
            script: &[(0, Step::Rate(2 * MB)), (1_500, Step::Refuse)],
        },
        Scenario {
            name: "docker-tiny-layers",
            shows: "sixteen layers of a few hundred bytes",
            link: "8 MB/s",
            dialect: Dialect::Docker,
            before: &[],
            pulls: &[once(TINY)],
            script: &[EIGHT_MB],
        },
        Scenario {
            name: "docker-repeated-layer",
            shows: "five layers, one of them three times in the manifest",
            link: "2 MB/s",
            dialect: Dialect::Docker,
            before: &[],
            pulls: &[once(REPEATED)],
            script: &[(0, Step::Rate(2 * MB))],
        },
        TWO_AT_ONCE,
        HEAVY_EXTRACTION,
        NOT_FOUND,
        Scenario {
            name: "podman-cold",
            dialect: Dialect::Podman,
            ..COLD
        },
        Scenario {
            name: "podman-partly-cached",
            dialect: Dialect::Podman,
            ..PARTLY_CACHED
        },
        Scenario {
            name: "podman-throttled",
            dialect: Dialect::Podman,
            ..THROTTLED
        },
        Scenario {
            name: "podman-nothing-to-do",
            dialect: Dialect::Podman,
            ..NOTHING_TO_DO
        },
        Scenario {
            name: "podman-heavy-extraction",
            dialect: Dialect::Podman,
            ..HEAVY_EXTRACTION
        },
        Scenario {
            name: "podman-cut",
            shows: "every connection is cut in mid-layer, once; the engine gives up at once",
            link: "2 MB/s; cut at 2 s",
            dialect: Dialect::Podman,
            before: &[],
            pulls: &[once(STEADY)],
            script: &[(0, Step::Rate(2 * MB)), (2_000, Step::Cut)],
        },
        Scenario {
            name: "podman-two-at-once",
            dialect: Dialect::Podman,
            ..TWO_AT_ONCE
        },
        Scenario {
            name: "podman-not-found",
            dialect: Dialect::Podman,
            ..NOT_FOUND
        },
    ];

    pub(super) fn main() -> Result<()> {
        let arguments: Vec<String> = env::args().skip(1).collect();
        let [wanted, folder] = arguments.as_slice() else {
            bail!("usage: record-pull <scenario|all> <out folder>");
        };
        let chosen: Vec<&Scenario> = SCENARIOS
            .iter()
            .filter(|scenario| wanted == "all" || wanted == scenario.name)
            .collect();
        ensure!(!chosen.is_empty(), "there is no scenario `{wanted}`");
        fs::create_dir_all(folder)?;
        for scenario in chosen {
            println!("{}", scenario.name);
            record(scenario, Path::new(folder))
                .with_context(|| format!("failed to record `{}`", scenario.name))?;
        }
        Ok(())
    }

    fn record(scenario: &Scenario, folder: &Path) -> Result<()> {
        let registry = Registry::start(RegistryOptions::default())?;
        let proxy = Proxy::start(registry.address())?;
        let engine = RunningEngine::start(scenario.dialect, &proxy.address())?;
        let source = format!("{}/{REPOSITORY}", proxy.address());

        for image in scenario.before {
            publish(registry.address(), *image)?;
            let answer = pull(engine.socket(), &source, image.tag)?;
            ensure!(answer.status == 200, "the pull before failed: {answer:?}");
        }
        let mut sizes = Vec::new();
        for recorded in scenario.pulls {
            sizes.push(publish(registry.address(), recorded.image)?);
        }
        let version = engine.version()?;

        let begin = Instant::now();
        let answers: Vec<Result<Answer>> = thread::scope(|scope| {
            scope.spawn(|| {
                for (at, step) in scenario.script {
                    sleep_until(begin, *at);
                    step.take(&proxy);
                }
            });
            let pulls: Vec<_> = scenario
                .pulls
                .iter()
                .map(|recorded| {
                    let (engine, source) = (&engine, &source);
                    scope.spawn(move || {
                        // The line has its first rate by then.
                        sleep_until(begin, recorded.begins + 20);
                        pull(engine.socket(), source, recorded.image.tag)
                    })
                })
                .collect();
            pulls
                .into_iter()
                .map(|pull| match pull.join() {
                    Ok(answer) => answer,
                    Err(_) => bail!("the pull's thread is gone"),
                })
                .collect()
        });

        for ((recorded, answer), sizes) in scenario.pulls.iter().zip(answers).zip(sizes) {
            let answer = answer?;
            let mut text = format!(
                "# {}\n# engine: {version}\n# link: {}\n# obtained: recorded\n# answer: {}\n# sizes: {sizes}\n",
                scenario.shows, scenario.link, answer.status,
            );
            for (at, message) in &answer.messages {
                let message = kept(message, &proxy.address());
                writeln!(text, "{}\t{message}", at.as_millis())?;
            }
            let name = format!("{}{}.txt", scenario.name, recorded.suffix);
            println!(
                "  {name}: {} messages, {} bytes",
                answer.messages.len(),
                text.len()
            );
            fs::write(folder.join(name), text)?;
        }
        Ok(())
    }

    fn sleep_until(begin: Instant, milliseconds: u64) {
        thread::sleep(Duration::from_millis(milliseconds).saturating_sub(begin.elapsed()));
    }

    impl Step {
        fn take(self, proxy: &Proxy) {
            match self {
                Self::Rate(bytes) => proxy.set_rate(bytes as u64),
                Self::Stall => proxy.stall(),
                Self::Resume => proxy.resume(),
                Self::Cut => proxy.cut(),
                Self::Refuse => proxy.refuse(),
            }
        }
    }

    /// Returns a message without what the recordings leave out.
    fn kept(message: &Value, address: &str) -> Value {
        let Some(fields) = message.as_object() else {
            return message.clone();
        };
        // An answer that is no stream is one object, and is kept whole.
        let is_answer = fields.contains_key("message");
        fields
            .iter()
            .filter(|(key, _)| is_answer || KEPT.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), without_address(value, address)))
            .collect::<Map<String, Value>>()
            .into()
    }

    fn without_address(value: &Value, address: &str) -> Value {
        match value {
            Value::String(text) => text.replace(address, REGISTRY).into(),
            Value::Object(fields) => fields
                .iter()
                .map(|(key, value)| (key.clone(), without_address(value, address)))
                .collect::<Map<String, Value>>()
                .into(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => value.clone(),
        }
    }

    /// An engine with nothing in it.
    enum RunningEngine {
        Docker(Engine),
        Podman {
            socket: PathBuf,
            _process: Guarded,
            // Last, so that it is removed when the process is gone.
            _scratch: Scratch,
        },
    }

    impl RunningEngine {
        fn start(dialect: Dialect, registry: &str) -> Result<Self> {
            match dialect {
                Dialect::Docker => Ok(Self::Docker(Engine::start()?)),
                Dialect::Podman => Self::start_podman(registry),
            }
        }

        fn start_podman(registry: &str) -> Result<Self> {
            let scratch = Scratch::new()?;
            let folder = scratch.path();
            let socket = folder.join("podman.sock");
            let settings = folder.join(".config/containers");
            fs::create_dir_all(&settings)?;
            let accept_all = json!({"default": [{"type": "insecureAcceptAnything"}]});
            fs::write(settings.join("policy.json"), accept_all.to_string())?;
            let registries = settings.join("registries.conf");
            fs::write(
                &registries,
                format!("[[registry]]\nlocation = \"{registry}\"\ninsecure = true\n"),
            )?;
            let open_log = || fs::File::create(folder.join("podman.log"));
            // Its mounts go with the namespace, and it with this process.
            let mut command = Command::new("setpriv");
            command
                .args(["--pdeathsig", "KILL", "--", "unshare", "--mount", "--pid"])
                .args(["--mount-proc", "--fork", "--kill-child=KILL", "--"])
                .args(["podman", "--cgroup-manager", "cgroupfs"])
                .args(["--storage-driver", "overlay", "--root"])
                .arg(folder.join("data"))
                .arg("--runroot")
                .arg(folder.join("run"))
                .args(["system", "service", "--time=0"])
                .arg(format!("unix://{}", socket.display()))
                .env("HOME", folder)
                .env("CONTAINERS_REGISTRIES_CONF", &registries)
                .stdin(Stdio::null())
                .stdout(open_log()?)
                .stderr(open_log()?);
            let process = Guarded::spawn("podman", command)?;
            let begin = Instant::now();
            while UnixStream::connect(&socket).is_err() {
                if begin.elapsed() > Duration::from_secs(30) {
                    bail!("podman does not answer");
                }
                thread::sleep(Duration::from_millis(20));
            }
            Ok(Self::Podman {
                socket,
                _process: process,
                _scratch: scratch,
            })
        }

        fn socket(&self) -> &Path {
            match self {
                Self::Docker(engine) => engine.socket(),
                Self::Podman { socket, .. } => socket,
            }
        }

        /// Returns name and version, for the header.
        fn version(&self) -> Result<String> {
            let mut stream = UnixStream::connect(self.socket())?;
            let answer = ask(&mut stream, "GET", "/version", "", &[])?;
            let version: Value = serde_json::from_slice(&answer.body)?;
            let field = |name: &str| version.get(name).and_then(Value::as_str).unwrap_or("?");
            let name = match self {
                Self::Docker(_) => "Docker",
                Self::Podman { .. } => "Podman",
            };
            Ok(format!(
                "{name} {} (API {}, overlay storage)",
                field("Version"),
                field("ApiVersion")
            ))
        }
    }

    /// What an engine answered to a pull.
    #[derive(Debug)]
    struct Answer {
        status: u16,
        /// With the time since the request.
        messages: Vec<(Duration, Value)>,
    }

    fn pull(socket: &Path, image: &str, tag: &str) -> Result<Answer> {
        let mut stream = UnixStream::connect(socket)?;
        let path = format!("/images/create?fromImage={image}&tag={tag}");
        let begin = Instant::now();
        send(&mut stream, "POST", &path, "", &[])?;
        let mut reader = BufReader::new(stream);
        let (status, _) = read_head(&mut reader)?;
        let mut messages = Vec::new();
        let mut line = String::new();
        while reader.read_line(&mut line)? > 0 {
            let at = begin.elapsed();
            if !line.trim().is_empty() {
                let message = serde_json::from_str(&line)
                    .with_context(|| format!("the engine sent `{}`", line.trim()))?;
                messages.push((at, message));
            }
            line.clear();
        }
        Ok(Answer { status, messages })
    }

    /// Puts an image into the registry. Returns its layers' ids and sizes as JSON, in the manifest's order.
    fn publish(registry: &str, image: Image) -> Result<String> {
        if image.layers.is_empty() {
            return Ok("{}".into());
        }
        let mut layers = Vec::new();
        let mut diffs = Vec::new();
        let mut sizes = Vec::new();
        let mut seen = BTreeSet::new();
        for content in image.layers {
            let tar = content.tar()?;
            let mut gzip = GzBuilder::new()
                .mtime(0)
                .write(Vec::new(), Compression::new(6));
            gzip.write_all(&tar)?;
            let packed = gzip.finish()?;
            let digest = push(registry, &packed)?;
            let id = digest
                .strip_prefix("sha256:")
                .and_then(|hex| hex.get(..12))
                .context("a digest is too short")?;
            if seen.insert(digest.clone()) {
                sizes.push(format!("\"{id}\": {}", packed.len()));
            }
            diffs.push(digest_of(&tar)?);
            layers.push(json!({"mediaType": LAYER, "size": packed.len(), "digest": digest}));
        }
        let architecture = match env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let history: Vec<Value> = diffs
            .iter()
            .map(|_| json!({"created": "2025-01-01T00:00:00Z"}))
            .collect();
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "created": "2025-01-01T00:00:00Z",
            "config": {"Cmd": ["true"], "Labels": {"tag": image.tag}},
            "history": history,
            "rootfs": {"type": "layers", "diff_ids": diffs},
        })
        .to_string();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": CONFIG,
                "size": config.len(),
                "digest": push(registry, config.as_bytes())?,
            },
            "layers": layers,
        })
        .to_string();
        let path = format!("/v2/{REPOSITORY}/manifests/{}", image.tag);
        let mut stream = TcpStream::connect(registry)?;
        let answer = ask(&mut stream, "PUT", &path, MANIFEST, manifest.as_bytes())?;
        ensure!(
            answer.status == 201,
            "the registry refused a manifest: {}",
            answer.status
        );
        Ok(format!("{{{}}}", sizes.join(", ")))
    }

    /// Puts a blob into the registry and returns its digest.
    fn push(registry: &str, blob: &[u8]) -> Result<String> {
        let digest = digest_of(blob)?;
        let path = format!("/v2/{REPOSITORY}/blobs/uploads/");
        let begun = ask(&mut TcpStream::connect(registry)?, "POST", &path, "", &[])?;
        let place = begun
            .headers
            .iter()
            .find_map(|header| header.strip_prefix("location: "))
            .context("the registry names no place for an upload")?;
        // The place is a whole address.
        let path = place
            .splitn(4, '/')
            .nth(3)
            .context("the registry names a strange place for an upload")?;
        let path = format!("/{path}&digest={digest}");
        let mut stream = TcpStream::connect(registry)?;
        let kind = "application/octet-stream";
        let answer = ask(&mut stream, "PUT", &path, kind, blob)?;
        ensure!(
            answer.status == 201,
            "the registry refused a blob: {}",
            answer.status
        );
        Ok(digest)
    }

    fn digest_of(bytes: &[u8]) -> Result<String> {
        let mut child = Command::new("sha256sum")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to run `sha256sum`")?;
        child.stdin.take().context("no input")?.write_all(bytes)?;
        let output = child.wait_with_output()?;
        let text = String::from_utf8(output.stdout)?;
        let hex = text.split(' ').next().unwrap_or_default();
        Ok(format!("sha256:{hex}"))
    }

    impl Content {
        fn tar(self) -> Result<Vec<u8>> {
            const FILE: usize = 4 * MB;
            let mut random = Random::after(0x9E37_79B9_7F4A_7C15 ^ (self.seed << 32));
            let mut archive = tar::Builder::new(Vec::new());
            for (kind, size) in [("noise", self.noise), ("text", self.text)] {
                for (index, from) in (0..size).step_by(FILE).enumerate() {
                    let size = FILE.min(size - from);
                    let content = match kind {
                        "noise" => random.bytes(size),
                        _ => text(&mut random, size),
                    };
                    let mut header = tar::Header::new_ustar();
                    header.set_mode(0o644);
                    header.set_size(size as u64);
                    let path = format!("{kind}-{}-{index}", self.seed);
                    archive.append_data(&mut header, path, content.as_slice())?;
                }
            }
            Ok(archive.into_inner()?)
        }
    }

    /// Lines out of a stock of two hundred, each with a number of its own.
    fn text(random: &mut Random, size: usize) -> Vec<u8> {
        const WORDS: [&str; 16] = [
            "anchor", "bow", "cable", "deck", "ebb", "fathom", "galley", "harbour", "island",
            "jetty", "keel", "lantern", "mast", "north", "oar", "pilot",
        ];
        let mut stock = Vec::new();
        for _ in 0..200 {
            let words: Vec<&str> = (0..14)
                .filter_map(|_| WORDS.get((random.number() >> 32) as usize % WORDS.len()))
                .copied()
                .collect();
            stock.push(words.join(" "));
        }
        let mut bytes = Vec::with_capacity(size + 100);
        while bytes.len() < size {
            let chosen = random.number() >> 32;
            if let Some(line) = stock.get(chosen as usize % stock.len()) {
                bytes.extend_from_slice(line.as_bytes());
            }
            bytes.extend_from_slice(format!(" {}\n", chosen % 1000).as_bytes());
        }
        bytes.truncate(size);
        bytes
    }

    /// A whole answer.
    struct Whole {
        status: u16,
        /// Names in lower case.
        headers: Vec<String>,
        body: Vec<u8>,
    }

    fn ask<S: Read + Write>(
        stream: &mut S,
        method: &str,
        path: &str,
        kind: &str,
        body: &[u8],
    ) -> Result<Whole> {
        send(stream, method, path, kind, body)?;
        let mut reader = BufReader::new(stream);
        let (status, headers) = read_head(&mut reader)?;
        let mut body = Vec::new();
        reader.read_to_end(&mut body)?;
        Ok(Whole {
            status,
            headers,
            body,
        })
    }

    /// Sends a request as HTTP 1.0: the answer's body then comes bare, not in chunks, and ends with the connection.
    fn send(
        stream: &mut impl Write,
        method: &str,
        path: &str,
        kind: &str,
        body: &[u8],
    ) -> Result<()> {
        let kind = if kind.is_empty() {
            String::new()
        } else {
            format!("Content-Type: {kind}\r\n")
        };
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\n{kind}Content-Length: {}\r\n\r\n",
            body.len()
        )?;
        stream.write_all(body)?;
        Ok(())
    }

    fn read_head(reader: &mut impl BufRead) -> Result<(u16, Vec<String>)> {
        let mut first = String::new();
        reader.read_line(&mut first)?;
        let status = first
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .with_context(|| format!("a strange answer: `{}`", first.trim()))?;
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim().split_once(": ") else {
                return Ok((status, headers));
            };
            headers.push(format!("{}: {value}", name.to_lowercase()));
        }
    }
}
