//! A session is used in every way at once, and the way to it breaks, is held up or ends: somebody types, files come and go,
//! are saved, renamed, copied, deleted and put back, searched and watched, and a port carries bytes. Whatever is told as
//! done is whole, whatever is not is whole or not there, nothing is there twice, and soon all works again.

mod uses;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cove_core::event::TransferOutcome;
use cove_core::session::SessionId;
use cove_testbed::{FaultRecord, Random};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::uses::{Use, Work};
use crate::connection::{Shell, signal};
use crate::support::{
    App, Book, Ground, Plot, eventually, note, one_of, random, seeds, up_to, up_to_number,
};

/// How long the session is used around a fault.
const USED: Duration = Duration::from_millis(1_200);
/// When a fault comes, at the latest, and how long what is held up is, at most.
const LATEST: Duration = Duration::from_millis(800);
const HELD_UP: Duration = Duration::from_secs(3);
/// How long the app may leave a task of this process waiting.
const FREEZE: Duration = Duration::from_secs(1);
/// The most memory of the agent's daemon at any time, and of this process beyond what it has after its first runs.
const MOST_OF_AGENT: u64 = 20 << 10;
const MOST_MORE: u64 = 48 << 10;
/// Runs after which the memory of this process is compared.
const WARM: usize = 3;
const BIG: usize = 64 << 20;
/// Files with a word that is searched.
pub(crate) const NEEDLES: usize = 40;
pub(crate) const PORT: u16 = 18_300;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The agent's end of the pipe is killed.
    PipeKilled,
    /// So is the next one.
    PipeKilledTwice,
    /// The agent's end of the pipe does nothing for a while.
    PipeHeldUp,
    /// The session's daemon does nothing for a while.
    DaemonHeldUp,
    /// Every connection to the engine is cut.
    LineCut,
    /// Those that carry the agent's end of the pipe are.
    PipeCut,
    /// Nothing comes from the engine or to it for a while.
    LineHeldUp,
    /// Somebody pauses the session, and lets it go on.
    Paused,
    /// The user cancels what can be.
    Cancelled,
    /// Somebody kills the container.
    ContainerKilled,
    /// The engine is stopped and started.
    EngineRestarted,
}

/// How often each comes.
const FAULTS: [(Fault, u64); 11] = [
    (Fault::PipeKilled, 4),
    (Fault::PipeKilledTwice, 2),
    (Fault::PipeHeldUp, 3),
    (Fault::DaemonHeldUp, 3),
    (Fault::LineCut, 3),
    (Fault::PipeCut, 3),
    (Fault::LineHeldUp, 3),
    (Fault::Paused, 3),
    (Fault::Cancelled, 3),
    (Fault::ContainerKilled, 2),
    (Fault::EngineRestarted, 1),
];

impl Fault {
    fn any(random: &mut Random) -> Self {
        let all: Vec<Self> = FAULTS
            .iter()
            .flat_map(|(fault, times)| (0..*times).map(|_| *fault))
            .collect();
        one_of(random, &all)
    }

    /// Returns whether the session's programs end.
    const fn ends_programs(self) -> bool {
        matches!(self, Self::ContainerKilled | Self::EngineRestarted)
    }

    /// Does it, and takes back what can be.
    fn come(self, ground: &Ground, id: SessionId, held_up: Duration) {
        let name = id.resource_name();
        let docker = |words: &[&str]| {
            // It may have happened already.
            ground.engine.run(words).unwrap();
        };
        match self {
            Self::PipeKilled => signal(ground, id, "connect", "-KILL"),
            Self::PipeKilledTwice => {
                signal(ground, id, "connect", "-KILL");
                std::thread::sleep(held_up / 2);
                signal(ground, id, "connect", "-KILL");
            }
            Self::PipeHeldUp | Self::DaemonHeldUp => {
                let process = if self == Self::PipeHeldUp {
                    "connect"
                } else {
                    "daemon"
                };
                signal(ground, id, process, "-STOP");
                std::thread::sleep(held_up);
                signal(ground, id, process, "-CONT");
            }
            Self::LineCut => ground.proxy.cut(),
            Self::PipeCut => {
                ground.proxy.cut_only("/exec");
            }
            Self::LineHeldUp => ground.proxy.hold_up(held_up),
            Self::Paused => {
                docker(&["pause", &name]);
                std::thread::sleep(held_up);
                docker(&["unpause", &name]);
            }
            Self::Cancelled => {}
            Self::ContainerKilled => docker(&["kill", &name]),
            Self::EngineRestarted => ground.engine.restart().unwrap(),
        }
    }
}

/// What is copied into sessions and out of them, on this machine.
pub(crate) struct Material {
    folder: tempfile::TempDir,
}

impl Material {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let material = Self { folder };
        let mut random = random(1);
        std::fs::write(material.original("big"), random.bytes(BIG)).unwrap();
        for number in 0..60 {
            let place = material
                .original("tree")
                .join(format!("{}/{}", number % 5, number % 7));
            std::fs::create_dir_all(&place).unwrap();
            let size = usize::try_from(up_to_number(&mut random, 90_000)).unwrap();
            std::fs::write(place.join(format!("{number}.bin")), random.bytes(size)).unwrap();
        }
        material
    }

    pub(crate) fn original(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns a new folder for what is downloaded.
    pub(crate) fn place(&self) -> tempfile::TempDir {
        tempfile::tempdir_in(self.folder.path()).unwrap()
    }

    /// Returns whether a file or folder of this machine is as the one that was made here.
    pub(crate) fn is_whole(&self, name: &str, place: &Path) -> bool {
        let original = self.original(name);
        let compared = Command::new("diff")
            .arg("-rq")
            .args([&original, place])
            .output();
        compared.unwrap().status.success()
    }

    /// Returns what [`SUM`] says of both.
    fn sums(&self) -> String {
        let output = Command::new("sh")
            .args(["-c", SUM, "sh"])
            .arg(self.folder.path())
            .output();
        String::from_utf8_lossy(&output.unwrap().stdout)
            .trim()
            .to_owned()
    }
}

/// Says for `big` and `tree` in a folder `whole` sums, or that they are not there.
const SUM: &str = "cd \"$1\" || exit; for name in big tree; do \
    if [ -e $name ]; then find $name -type f | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -c 1-64; \
    else echo none; fi; done";

/// A session in use.
struct Desk {
    id: SessionId,
    shell: Shell,
    /// The process of the shell.
    pid: String,
    /// Where the port of its server is on this machine.
    local: u16,
}

impl Desk {
    async fn new(ground: &Ground, app: &App, material: &Material) -> Result<Self, String> {
        let id = app.ready(None).await;
        let chosen = vec![material.original("big"), material.original("tree")];
        sh(
            ground,
            id,
            &format!(
                "mkdir -p /workspace/src/needles && cd /workspace/src/needles && \
                 for i in $(seq {NEEDLES}); do echo a needle-in-src $i > $i.txt; done; \
                 chown -R $(stat -c %u:%g /workspace) /workspace/src"
            ),
        )?;
        let upload = async {
            app.sessions
                .ready(id)
                .await?
                .upload("/workspace/src".to_owned(), &chosen)
        }
        .await;
        let transfer = upload.map_err(|error| format!("no upload: {error}"))?;
        let end = app.transferred(&transfer).await?;
        if end.outcome != Some(TransferOutcome::Done) {
            return Err(format!("the first upload: {end:?}"));
        }
        Self::at(ground, app, id).await
    }

    /// Opens a shell and starts the server of a session that is ready.
    async fn at(ground: &Ground, app: &App, id: SessionId) -> Result<Self, String> {
        let shell = Shell::open(app, id).await?;
        let pid = shell.pid().await?;
        let user = sh(ground, id, "stat -c %u:%g /workspace")?;
        let serve = format!("busybox nc -ll -p {PORT} -e cat < /dev/null > /dev/null 2>&1 &");
        sh_as(ground, id, &user, &serve)?;
        let list = async { app.sessions.ready(id).await?.forward_port(PORT, None) }.await;
        let list = list.map_err(|error| format!("no port: {error}"))?;
        let port = list.ports.iter().find(|port| port.port == PORT);
        let local = port.and_then(|port| port.local.as_ref());
        let local = local.ok_or("the port is not forwarded")?.port;
        Ok(Self {
            id,
            shell,
            pid,
            local,
        })
    }

    /// Everything is as it was promised, soon after the fault.
    async fn check(
        &mut self,
        (ground, app): (&Ground, &App),
        work: &Work<'_>,
        uses: Vec<Use>,
        has_ended: bool,
    ) -> Result<(), String> {
        let (id, folder) = (self.id, &work.folder);
        app.until_ready(id).await?;
        if has_ended {
            let all = self.shell.end().is_some() || eventually(|| self.shell.end().is_some()).await;
            if !all {
                return Err("a shell of a container that has ended says nothing of it".to_owned());
            }
            *self = Self::at(ground, app, id).await?;
        }
        for one in uses {
            one.check(ground, app, work).await?;
        }
        let sums = sh(ground, id, &SUM.replace("$1", folder))?;
        if sums != work.material.sums() {
            return Err(format!("what was uploaded is not whole: {sums}"));
        }
        if !has_ended {
            let pid = self.shell.pid().await?;
            if pid != self.pid {
                return Err(format!("the shell was {} and is {pid}", self.pid));
            }
        }
        work.check_port_again(self.local).await?;
        work.check_watch(ground, app).await?;
        let halves = "find /workspace -name '.cove-*.tmp'";
        let mut left = String::new();
        let is_tidy = eventually(|| {
            left = sh(ground, id, halves).unwrap_or_default();
            left.is_empty()
        });
        if !is_tidy.await {
            return Err(format!("left in half: {left}"));
        }
        // The last look, and what makes room for the next run.
        let most = sh(
            ground,
            id,
            &format!(
                "for p in /proc/[0-9]*; do case \"$(tr '\\0' ' ' < $p/cmdline 2> /dev/null)\" in \
                 /.cove/agent\\ *) grep VmHWM $p/status;; esac; done 2> /dev/null | sort -k 2 -n | tail -n 1; \
                 rm -rf {folder} /workspace/.cove-trash"
            ),
        )?;
        let mut words = most.split_whitespace();
        let kilobytes = words.find_map(|word| word.parse::<u64>().ok());
        if kilobytes.is_none_or(|kilobytes| kilobytes > MOST_OF_AGENT) {
            return Err(format!("the agent takes too much: {most}"));
        }
        Ok(())
    }
}

/// Runs a shell command in the session's container as root; it has to succeed.
pub(crate) fn sh(ground: &Ground, id: SessionId, script: &str) -> Result<String, String> {
    sh_as(ground, id, "0", script)
}

fn sh_as(ground: &Ground, id: SessionId, user: &str, script: &str) -> Result<String, String> {
    let name = id.resource_name();
    let words = ["exec", "--user", user, &name, "sh", "-c", script];
    let output = ground
        .engine
        .run(&words)
        .map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if !output.status.success() {
        let (text, wrong) = (text(&output.stdout), text(&output.stderr));
        return Err(format!("{script}: {text} {wrong}"));
    }
    Ok(text(&output.stdout))
}

/// Returns how many kilobytes of memory this process has.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
    kilobytes.unwrap().parse().unwrap()
}

/// Looks at the clock again and again in a task, which nothing that blocks may keep from it.
struct Clock {
    task: JoinHandle<()>,
    worst: Arc<Mutex<Duration>>,
    starved: BTreeMap<OsString, u64>,
}

impl Clock {
    const PAUSE: Duration = Duration::from_millis(20);

    fn start() -> Self {
        let worst = Arc::<Mutex<Duration>>::default();
        let of_task = Arc::clone(&worst);
        let task = tokio::spawn(async move {
            loop {
                let begin = Instant::now();
                tokio::time::sleep(Self::PAUSE).await;
                let late = begin.elapsed().saturating_sub(Self::PAUSE);
                let mut worst = of_task.lock().unwrap();
                *worst = late.max(*worst);
            }
        });
        let starved = starved();
        Self {
            task,
            worst,
            starved,
        }
    }

    /// Returns how long the task had to wait at worst, and how long the thread has waited meanwhile for a processor that
    /// did longest.
    fn stop(self) -> (Duration, Duration) {
        self.task.abort();
        let worst = *self.worst.lock().unwrap();
        let more = starved().into_iter().map(|(thread, waited)| {
            let before = self.starved.get(&thread).copied();
            waited.saturating_sub(before.unwrap_or_default())
        });
        (worst, Duration::from_nanos(more.max().unwrap_or_default()))
    }
}

/// Returns how many nanoseconds each thread of this process has waited for a processor.
fn starved() -> BTreeMap<OsString, u64> {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten();
    let waits = threads.flatten().filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        Some((thread.file_name(), text.split(' ').nth(1)?.parse().ok()?))
    });
    waits.collect()
}

async fn check(
    ground: &Arc<Ground>,
    app: &App,
    material: &Material,
    desk: &mut Desk,
    seed: u64,
) -> FaultRecord {
    let mut random = random(seed);
    let fault = Fault::any(&mut random);
    let mut record = FaultRecord {
        kind: "workspace".to_owned(),
        phase: "Ready".to_owned(),
        fault: format!("{fault:?}"),
        seed,
        ..FaultRecord::default()
    };
    app.heard.forget();
    let (delay, held_up) = (up_to(&mut random, LATEST), up_to(&mut random, HELD_UP));
    let (id, outside) = (desk.id, Arc::clone(ground));
    let begin = Instant::now();
    let clock = Clock::start();
    let (mut problems, mut ended) = (Vec::new(), String::new());
    let ends = fault.ends_programs();
    let place = (id, desk.local);
    let work = Work::new((ground, app), material, place, (seed, ends)).await;
    match work {
        Err(problem) => problems.push(problem),
        Ok(work) => {
            let breaking = std::thread::spawn(move || {
                std::thread::sleep(delay);
                fault.come(&outside, id, held_up);
            });
            let cancels = fault == Fault::Cancelled || up_to_number(&mut random, 5) == 0;
            let until = begin + USED;
            let using = work.use_all(&desk.shell, &mut random, until, cancels);
            let came_of = Box::pin(using).await;
            breaking.join().unwrap();
            ground.repair();
            match came_of {
                Err(problem) => problems.push(problem),
                Ok(uses) => {
                    let all: Vec<_> = uses.iter().filter_map(Use::ended).collect();
                    ended = all.join(" ");
                    let all = desk.check((ground, app), &work, uses, ends).await;
                    problems.extend(all.err());
                }
            }
        }
    }
    let (worst, starved) = clock.stop();
    // A machine that has no processor to spare says nothing.
    if worst > FREEZE + starved {
        problems.push(format!("a task waited for {worst:?}"));
    }
    "ready".clone_into(&mut record.outcome);
    record.broken = problems.join("; ");
    record.bystanders = ground.bystanders.touched();
    note(&format!(
        "{seed}: {fault:?} after {delay:?} for {held_up:?}; {ended}; all in {:?}, the latest task {worst:?}, no processor for {starved:?}, {} kB",
        begin.elapsed(),
        memory()
    ));
    record
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_breaks_while_everything_is_used_nothing_is_in_half_and_all_goes_on() {
    let Some(ground) = Ground::new(Plot::default()) else {
        return;
    };
    let ground = Arc::new(ground);
    let app = ground.app();
    let material = Material::new();
    let mut book = Book::default();
    let mut desk = Desk::new(&ground, &app, &material).await.unwrap();
    let mut first = None;
    for (run, seed) in seeds(15).enumerate() {
        let checking = check(&ground, &app, &material, &mut desk, seed);
        let record = Box::pin(checking).await;
        let is_good = record.is_good();
        book.add(record);
        if !is_good {
            // What is broken must not break what comes next.
            app.delete(desk.id).await.unwrap();
            desk = Desk::new(&ground, &app, &material).await.unwrap();
        }
        if run == WARM {
            first = Some(memory());
        }
    }
    app.delete(desk.id).await.unwrap();
    app.sessions.shutdown().await;
    book.check();
    let more = memory().saturating_sub(first.unwrap_or(u64::MAX));
    assert!(more < MOST_MORE, "{more} kB more");
}
