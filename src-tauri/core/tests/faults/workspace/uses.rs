//! The ways in which a session is used, all at once, and what must have come of each.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use cove_core::error::{Error, ErrorCode};
use cove_core::event::{TransferEvent, TransferOutcome};
use cove_core::files::{Encoding, NewEntry, NewPlace};
use cove_core::search::{SearchNews, TextQuery};
use cove_core::session::SessionId;
use cove_core::sessions::Destination;
use cove_testbed::Random;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::{Material, NEEDLES, sh};
use crate::connection::Shell;
use crate::outside::call;
use crate::support::{App, Ground, random, up_to, up_to_number};

/// How long it may take until all that was typed is shown, with a fault in between.
const SHOWN: Duration = Duration::from_secs(15);
/// How long a forwarded connection may take, and how long until one works again.
const CARRIED: Duration = Duration::from_secs(20);
/// How long a search may take, and how long until a change is told.
const HEARD: Duration = Duration::from_secs(20);
/// When a transfer begins, at the latest.
const BEGUN: Duration = Duration::from_millis(800);
/// When something is cancelled, at the latest.
const CANCELLED: Duration = Duration::from_millis(700);

/// What was done in one way, to be looked at when it is quiet again.
pub(crate) enum Use {
    Upload(Moved),
    Download(Moved, tempfile::TempDir),
    /// What the file may hold that was saved.
    Saved(Vec<String>),
    /// What is known of each file that was made, by its number.
    Entries(BTreeMap<u64, bool>),
}

/// A transfer, and how it ended; absent when it did not begin.
pub(crate) struct Moved {
    name: &'static str,
    end: Option<TransferEvent>,
    /// Whether it was cancelled, be it after its end: then it is forgotten.
    is_forgotten: bool,
}

impl Moved {
    fn is_done(&self) -> bool {
        self.outcome() == Some(TransferOutcome::Done)
    }

    /// Returns the transfer that may begin again.
    fn failed(&self) -> Option<&str> {
        let has_failed = self.outcome() == Some(TransferOutcome::Failed) && !self.is_forgotten;
        let end = self.end.as_ref().filter(|_| has_failed);
        end.map(|end| end.transfer_id.as_str())
    }

    fn outcome(&self) -> Option<TransferOutcome> {
        self.end.as_ref().and_then(|end| end.outcome)
    }
}

/// What a run does, and where.
pub(crate) struct Work<'a> {
    app: &'a App,
    pub(crate) material: &'a Material,
    id: SessionId,
    local: u16,
    seed: u64,
    /// Whether what runs in the container may end.
    ends: bool,
    /// The folder of the run.
    pub(crate) folder: String,
}

impl<'a> Work<'a> {
    pub(crate) async fn new(
        (ground, app): (&Ground, &'a App),
        material: &'a Material,
        (id, local): (SessionId, u16),
        (seed, ends): (u64, bool),
    ) -> Result<Self, String> {
        let folder = format!("/workspace/run-{seed}");
        let make =
            format!("mkdir -p {folder}/watched; chown -R $(stat -c %u:%g /workspace) {folder}");
        sh(ground, id, &make)?;
        let work = Self {
            app,
            material,
            id,
            local,
            seed,
            ends,
            folder,
        };
        work.watch().await?;
        Ok(work)
    }

    async fn watch(&self) -> Result<(), String> {
        let paths = vec![format!("{}/watched", self.folder)];
        let watching = self.app.sessions.watch_dirs(self.id, paths).await;
        watching
            .map(drop)
            .map_err(|error| format!("nothing is watched: {error}"))
    }

    /// Uses everything at once until this time.
    pub(crate) async fn use_all(
        &self,
        shell: &Shell,
        random: &mut Random,
        until: Instant,
        cancels: bool,
    ) -> Result<Vec<Use>, String> {
        let mut own = || self::random(random.number());
        let (typed, up_tree, up_big, down_tree, down_big, carried, searched, saved, entries) = tokio::join!(
            self.type_all(shell, own(), until),
            self.upload("tree", own(), cancels),
            self.upload("big", own(), cancels),
            self.download("tree", own(), cancels),
            self.download("big", own(), cancels),
            self.carry(own(), until),
            self.search(own(), until, cancels),
            self.save(until),
            self.handle_entries(until),
        );
        if !self.ends {
            typed?;
        }
        carried?;
        searched?;
        Ok(vec![
            up_tree?, up_big?, down_tree?, down_big?, saved?, entries?,
        ])
    }

    /// Types numbers to a program that writes what it reads: each comes once, in order.
    async fn type_all(
        &self,
        shell: &Shell,
        mut random: Random,
        until: Instant,
    ) -> Result<(), String> {
        let count = 1_500 + usize::try_from(up_to_number(&mut random, 1_500)).unwrap_or_default();
        let marker = self.seed % 1_000_000;
        let shown = marker + 1;
        let line = format!(
            "stty -echo -icanon; echo g$(({marker}+1))h; dd bs=1 count={count} 2> /dev/null; \
             stty echo icanon; echo; echo e$(({marker}+1))f\n"
        );
        shell.write(line.as_bytes()).await?;
        let begin = format!("g{shown}h\r\n");
        let from = shell.until(SHOWN, &|shown| find(shown, &begin, 0)).await?;
        let numbers = (0..=count / 8).map(|number| format!("{number:07} "));
        let text = numbers.collect::<String>().into_bytes();
        let text = text.get(..count).unwrap_or_default();
        let mut left = text;
        while !left.is_empty() {
            let length = 1 + usize::try_from(up_to_number(&mut random, 40)).unwrap_or_default();
            let (piece, rest) = left.split_at(length.min(left.len()));
            shell.write(piece).await?;
            left = rest;
            if Instant::now() < until {
                sleep(up_to(&mut random, Duration::from_millis(15))).await;
            }
        }
        let end = format!("\r\ne{shown}f\r\n");
        let to = shell.until(SHOWN, &|shown| find(shown, &end, from)).await?;
        let echoed = shell.shown(from, to - end.len());
        if echoed != text {
            let same = echoed.iter().zip(text).take_while(|(a, b)| a == b).count();
            return Err(format!(
                "of {count} bytes that were typed came {}, the same up to {same}: {:?}",
                echoed.len(),
                String::from_utf8_lossy(echoed.get(same..).unwrap_or_default())
            ));
        }
        Ok(())
    }

    async fn cancel_soon(&self, transfer: &str, random: &mut Random) -> Result<(), String> {
        sleep(up_to(random, CANCELLED)).await;
        let cancelled = self.app.sessions.cancel_transfer(self.id, transfer).await;
        cancelled.map_err(|error| format!("a transfer cannot be cancelled: {error}"))
    }

    /// Waits for the end of a transfer, which may be cancelled before.
    async fn end_of(
        &self,
        name: &'static str,
        begun: Result<String, Error>,
        mut random: Random,
        cancels: bool,
    ) -> Result<Moved, String> {
        let moved = |end| Moved {
            name,
            end,
            is_forgotten: cancels,
        };
        let transfer = match begun {
            Ok(transfer) => transfer,
            Err(error) if is_clear(&error) => return Ok(moved(None)),
            Err(error) => return Err(format!("no transfer: {error}")),
        };
        if cancels {
            self.cancel_soon(&transfer, &mut random).await?;
        }
        let end = self.app.transferred(&transfer).await?;
        let is_clear = end.error.as_ref().is_none_or(|error| {
            // What breaks in the middle of a tree is not whole, whichever side finds that out.
            let broke = [ErrorCode::FilesIncomplete, ErrorCode::TransferFailed];
            CLEAR.contains(&error.error) || broke.contains(&error.error)
        });
        if !is_clear {
            return Err(format!("a transfer of {name}: {end:?}"));
        }
        Ok(moved(Some(end)))
    }

    async fn begin_upload(&self, name: &str) -> Result<String, Error> {
        let chosen = vec![self.material.original(name)];
        async {
            self.app
                .sessions
                .ready(self.id)
                .await?
                .upload(self.folder.clone(), &chosen)
        }
        .await
    }

    async fn begin_download(&self, name: &str, place: &tempfile::TempDir) -> Result<String, Error> {
        let paths = vec![format!("/workspace/src/{name}")];
        let to = Destination::Folder(place.path().to_owned());
        async { self.app.sessions.ready(self.id).await?.download(paths, to) }.await
    }

    async fn upload(
        &self,
        name: &'static str,
        mut random: Random,
        cancels: bool,
    ) -> Result<Use, String> {
        sleep(up_to(&mut random, BEGUN)).await;
        let begun = self.begin_upload(name).await;
        self.end_of(name, begun, random, cancels)
            .await
            .map(Use::Upload)
    }

    async fn download(
        &self,
        name: &'static str,
        mut random: Random,
        cancels: bool,
    ) -> Result<Use, String> {
        sleep(up_to(&mut random, BEGUN)).await;
        let place = self.material.place();
        let begun = self.begin_download(name, &place).await;
        let moved = self.end_of(name, begun, random, cancels).await?;
        Ok(Use::Download(moved, place))
    }

    /// Sends bytes through the port to a program that sends them back, again and again: all come back, or the connection
    /// breaks.
    async fn carry(&self, mut random: Random, until: Instant) -> Result<(), String> {
        while Instant::now() < until {
            let size = usize::try_from(up_to_number(&mut random, 1_500_000)).unwrap_or_default();
            let sent = random.bytes(size);
            match timeout(CARRIED, exchange(self.local, &sent)).await {
                Err(_elapsed) => return Err("a forwarded connection hangs".to_owned()),
                Ok(Ok(came)) if came == sent => {}
                // Whatever ends with its container ends as the kernel ends it.
                Ok(Ok(_)) if self.ends => {}
                Ok(Ok(came)) => {
                    return Err(format!(
                        "of {size} bytes through a port came {}",
                        came.len()
                    ));
                }
                Ok(Err(error)) if is_break(&error) => sleep(Duration::from_millis(20)).await,
                Ok(Err(error)) => return Err(format!("a forwarded connection: {error}")),
            }
        }
        Ok(())
    }

    pub(crate) async fn check_port_again(&self, local: u16) -> Result<(), String> {
        let sent = random(self.seed).bytes(100_000);
        let again = async {
            loop {
                match exchange(local, &sent).await {
                    Ok(came) if came == sent => return Ok(()),
                    Ok(came) => return Err(format!("{} bytes came back", came.len())),
                    Err(_) => sleep(Duration::from_millis(50)).await,
                }
            }
        };
        let again = timeout(CARRIED, again).await;
        again.unwrap_or_else(|_| Err("the port does not work again".to_owned()))
    }

    /// Searches again and again: all is found, or it is said that not all was.
    async fn search(
        &self,
        mut random: Random,
        until: Instant,
        cancels: bool,
    ) -> Result<(), String> {
        while Instant::now() < until {
            let query = TextQuery {
                text: "needle-in-src".to_owned(),
                ..TextQuery::default()
            };
            let (told, mut heard) = mpsc::unbounded_channel();
            let sink = Box::new(move |news| drop(told.send(news)));
            let begun = timeout(HEARD, async {
                self.app
                    .sessions
                    .ready(self.id)
                    .await?
                    .search_files(query, sink)
                    .await
            })
            .await;
            let search = match begun.map_err(|_| "a search does not begin")? {
                Ok(search) => search,
                Err(error) if is_clear(&error) => {
                    sleep(Duration::from_millis(20)).await;
                    continue;
                }
                Err(error) => return Err(format!("no search: {error}")),
            };
            if cancels && up_to_number(&mut random, 1) == 0 {
                sleep(up_to(&mut random, Duration::from_millis(20))).await;
                // It may have gone with its session.
                let _ = self
                    .app
                    .sessions
                    .connected(self.id)
                    .await
                    .map(|session| session.cancel_search(&search));
            }
            let mut found = 0;
            loop {
                let news = timeout(HEARD, heard.recv()).await;
                match news.map_err(|_| "a search does not end")? {
                    Some(SearchNews::Files(files)) => {
                        found += files.iter().map(|file| file.lines.len()).sum::<usize>();
                    }
                    Some(SearchNews::End(end)) => {
                        let is_all = !end.cancelled && !end.truncated && end.error.is_none();
                        if is_all && end.unread == 0 && found != NEEDLES {
                            return Err(format!("a search found {found}: {end:?}"));
                        }
                        break;
                    }
                    None => return Err("a search has no end".to_owned()),
                }
            }
        }
        Ok(())
    }

    /// Saves a file again and again, each time over what is known to be there.
    async fn save(&self, until: Instant) -> Result<Use, String> {
        let path = format!("{}/watched/saved.txt", self.folder);
        let sessions = &self.app.sessions;
        let mut problems = Vec::new();
        // What was answered as written last, and what may have been written since.
        let (mut may_be, mut revision) = (Vec::new(), None);
        for number in 0.. {
            if Instant::now() >= until || !problems.is_empty() {
                break;
            }
            sleep(Duration::from_millis(5)).await;
            let text = format!("{} {number}\n", self.seed).repeat(300);
            let write = async {
                sessions
                    .ready(self.id)
                    .await?
                    .write_file(&path, text.clone(), Encoding::Utf8, revision.clone())
                    .await
            };
            let written = match write.await {
                // What was in doubt has come meanwhile.
                Err(Error::Conflict { .. }) if may_be.len() > 1 => None,
                written => call(&mut problems, "write_file", async { written }).await,
            };
            if let Some(new) = written {
                (may_be, revision) = (vec![text], Some(new));
                continue;
            }
            may_be.push(text);
            match async { sessions.ready(self.id).await?.read_file(&path).await }.await {
                Ok(read) if may_be.contains(&read.content) => revision = Some(read.revision),
                Ok(read) => return Err(format!("saved was {:?}", read.content)),
                Err(Error::FileNotFound(_)) if revision.is_none() => {}
                read => drop(call(&mut problems, "read_file", async { read }).await),
            }
        }
        if problems.is_empty() {
            Ok(Use::Saved(may_be))
        } else {
            Err(problems.join("; "))
        }
    }

    /// Makes files, and renames, copies, deletes and puts back each.
    async fn handle_entries(&self, until: Instant) -> Result<Use, String> {
        let (id, sessions, folder) = (self.id, &self.app.sessions, &self.folder);
        let named = |name: String| NewPlace::Named {
            directory: folder.clone(),
            name,
        };
        let mut problems = Vec::new();
        let mut known = BTreeMap::new();
        for number in 0.. {
            if Instant::now() >= until || !problems.is_empty() {
                break;
            }
            sleep(Duration::from_millis(2)).await;
            let problems = &mut problems;
            let create = async {
                sessions
                    .ready(id)
                    .await?
                    .create_entry(named(format!("e {number}")), NewEntry::File)
                    .await
            };
            let Some(made) = call(problems, "create_entry", create).await else {
                continue;
            };
            known.insert(number, false);
            let text = format!("token-{}-{number};", self.seed);
            let write = async {
                sessions
                    .ready(id)
                    .await?
                    .write_file(&made, text, Encoding::Utf8, None)
                    .await
            };
            if call(problems, "write_file", write).await.is_none() {
                continue;
            }
            known.insert(number, true);
            let rename = async {
                sessions
                    .ready(id)
                    .await?
                    .move_entry(&made, named(format!("m {number}")))
                    .await
            };
            let Some(moved) = call(problems, "move_entry", rename).await else {
                continue;
            };
            let copy = async {
                sessions
                    .ready(id)
                    .await?
                    .copy_entry(&moved, named(format!("c {number}")), false)
                    .await
            };
            if call(problems, "copy_entry", copy).await.is_none() {
                continue;
            }
            let delete = async { sessions.ready(id).await?.delete_entries(vec![moved]).await };
            let Some(trash) = call(problems, "delete_entries", delete).await else {
                continue;
            };
            call(problems, "restore_entries", async {
                sessions.ready(id).await?.restore_entries(trash).await
            })
            .await;
        }
        if problems.is_empty() {
            Ok(Use::Entries(known))
        } else {
            Err(problems.join("; "))
        }
    }

    /// What changes now is told.
    pub(crate) async fn check_watch(&self, ground: &Ground, app: &App) -> Result<(), String> {
        if self.ends {
            self.watch().await?;
        }
        let path = format!("{}/watched", self.folder);
        let mut told = app.heard.files();
        told.borrow_and_update();
        sh(ground, self.id, &format!("echo > {path}/after"))?;
        let told = timeout(HEARD, told.changed()).await;
        told.map(drop)
            .map_err(|_| "a change is not told".to_owned())
    }
}

impl Use {
    /// Returns how a transfer ended, for the log.
    pub(crate) fn ended(&self) -> Option<String> {
        match self {
            Self::Upload(moved) | Self::Download(moved, _) => {
                let outcome = moved.outcome();
                Some(outcome.map_or_else(|| "-".to_owned(), |outcome| format!("{outcome:?}")))
            }
            Self::Saved(_) | Self::Entries(_) => None,
        }
    }

    /// It came to what was said, or can be done again.
    pub(crate) async fn check(
        self,
        ground: &Ground,
        app: &App,
        work: &Work<'_>,
    ) -> Result<(), String> {
        let (id, folder) = (work.id, &work.folder);
        match self {
            Self::Upload(moved) => {
                let name = moved.name;
                // Whether it is there, and whole, is seen with the others.
                let look = format!("[ ! -e {folder}/{name} ] || echo there");
                if moved.is_done() || sh(ground, id, &look)? == "there" {
                    return Ok(());
                }
                let again = match moved.failed() {
                    Some(transfer) => {
                        async { app.sessions.ready(id).await?.retry_transfer(transfer) }.await
                    }
                    None => work.begin_upload(name).await,
                };
                work.done(again, "upload").await
            }
            Self::Download(moved, place) => {
                let name = moved.name;
                let at = place.path().join(name);
                let left = std::fs::read_dir(place.path()).map_err(|error| error.to_string())?;
                let left: Vec<_> = left.flatten().map(|entry| entry.file_name()).collect();
                if !moved.is_done() {
                    if !left.is_empty() {
                        return Err(format!("of a download are left {left:?}: {:?}", moved.end));
                    }
                    let again = match moved.failed() {
                        Some(transfer) => {
                            async { app.sessions.ready(id).await?.retry_transfer(transfer) }.await
                        }
                        None => work.begin_download(name, &place).await,
                    };
                    work.done(again, "download").await?;
                } else if left != [name] {
                    return Err(format!("a download has left {left:?}"));
                }
                if !work.material.is_whole(name, &at) {
                    return Err(format!("`{name}` was downloaded and is another"));
                }
                Ok(())
            }
            Self::Saved(may_be) => {
                let path = format!("{folder}/watched/saved.txt");
                match async { app.sessions.ready(id).await?.read_file(&path).await }.await {
                    Ok(read) if may_be.contains(&read.content) => Ok(()),
                    Ok(read) => Err(format!("what was saved is {:?}", read.content)),
                    // Nothing was answered as written.
                    Err(Error::FileNotFound(_)) if may_be.len() != 1 => Ok(()),
                    Err(error) => Err(format!("what was saved cannot be read: {error}")),
                }
            }
            Self::Entries(known) => {
                let script = format!(
                    "cd {folder}; ls -1; echo; grep -H token- ./[emc]\\ * 2> /dev/null; \
                     grep -r token- /workspace/.cove-trash 2> /dev/null || :"
                );
                let told = sh(ground, id, &script)?;
                let (names, tokens) = told.split_once("\n\n").unwrap_or((&told, ""));
                for (number, is_written) in known {
                    let token = format!("token-{}-{number};", work.seed);
                    let copy = format!("./c {number}:");
                    let with = tokens.lines().filter(|line| line.ends_with(&token));
                    let (copies, others): (Vec<_>, Vec<_>) =
                        with.partition(|line| line.starts_with(&copy));
                    let has_copy = names.lines().any(|name| name == format!("c {number}"));
                    let is_good = (others.len() == 1 || (!is_written && others.is_empty()))
                        && copies.len() == usize::from(has_copy);
                    if !is_good {
                        return Err(format!(
                            "file {number} is at {others:?}, {copies:?}: {told}"
                        ));
                    }
                }
                Ok(())
            }
        }
    }
}

impl Work<'_> {
    async fn done(&self, begun: Result<String, Error>, what: &str) -> Result<(), String> {
        let transfer = begun.map_err(|error| format!("no {what} again: {error}"))?;
        let end = self.app.transferred(&transfer).await?;
        match end.outcome {
            Some(TransferOutcome::Done) => Ok(()),
            _ => Err(format!("the {what} again: {end:?}")),
        }
    }
}

/// What says clearly that something is not possible now.
const CLEAR: [ErrorCode; 4] = [
    ErrorCode::SessionNotReady,
    ErrorCode::AgentUnavailable,
    ErrorCode::ContainerGone,
    ErrorCode::SessionNotFound,
];

fn is_clear(error: &Error) -> bool {
    CLEAR.contains(&error.code())
}

fn is_break(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
    )
}

/// Writes all and ends that half, and reads to the end of the other.
async fn exchange(local: u16, sent: &[u8]) -> io::Result<Vec<u8>> {
    let stream = TcpStream::connect(("127.0.0.1", local)).await?;
    let (mut from, mut to) = stream.into_split();
    let mut came = Vec::new();
    let writing = async {
        to.write_all(sent).await?;
        to.shutdown().await
    };
    tokio::try_join!(writing, async {
        from.read_to_end(&mut came).await.map(drop)
    })?;
    Ok(came)
}

/// Returns where a text ends, behind a place.
fn find(shown: &[u8], text: &str, from: usize) -> Option<usize> {
    let mut windows = shown.get(from..)?.windows(text.len());
    let at = windows.position(|part| part == text.as_bytes())?;
    Some(from + at + text.len())
}
