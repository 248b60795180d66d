//! `agent pack`: tells the whole workspace to the app, or with `--measure` only how much there is. The daemon tells
//! single entries in the same way, as the session's user.
//!
//! The command runs as root, because what the session's user may not read is the session's all the same, and it changes
//! nothing. A file that changes while it is read is read again; one that never holds still is named, and there is
//! no end then. It goes down by descriptors, one name at a time, following no link and with no limit on depth but
//! that of open files.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RawDir, SeekFrom, Stat, fstat, fstatvfs, openat,
    readlinkat, seek, statat,
};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::path;
use crate::protocol;
use crate::tree::{Facts, Failed, MOST_EXTENTS, PIECE, Piece, TRASH, Total, Why};
use crate::workspace::is_temporary;

/// How often a file that changes is read before it is given up.
const ATTEMPTS: u32 = 6;
/// How long a file that changed is left alone before it is read again, times the number of attempts.
const PAUSE: Duration = Duration::from_millis(30);
/// A change within this of another may leave no mark: clocks of files tick as slowly as every 10 ms.
const TICK: Duration = Duration::from_millis(50);
/// How often the count is told while it goes on.
const TELL: Duration = Duration::from_millis(100);
/// Files with several names that are remembered; more are told as files of their own.
const MOST_LINKS: usize = 1 << 20;

/// Tells the workspace on stdout, until the app goes away.
#[must_use]
pub fn run(workspace: &Path, only_measure: bool) -> ExitCode {
    allow_depth();
    // An engine lets a command go on when nobody listens any more; the end of its input tells.
    std::thread::spawn(|| {
        // Whatever ends the input, there is nobody left.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        std::process::exit(1);
    });
    let mut packer = Packer::new(io::stdout().lock());
    match packer.tell_all(workspace, only_measure) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// A path holds one descriptor for each of its directories.
pub(crate) fn allow_depth() {
    let limit = getrlimit(Resource::Nofile);
    // A limit that cannot be raised is met only by paths of a depth that nobody has.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
}

/// Why a walk ends early.
enum Stop {
    /// Nobody listens any more.
    Gone,
    Failed(Failed),
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

pub(crate) struct Packer<W: Write> {
    output: BufWriter<W>,
    /// Files that have several names, by device and inode, and the first path to each.
    names: HashMap<(u64, u64), Vec<String>>,
    /// How many bytes of the first file are left out, because they were told before.
    skipped: u64,
}

/// A directory on the way down.
pub(crate) struct Level {
    pub(crate) directory: OwnedFd,
    /// What is still to be told of it, the next at the end.
    pub(crate) names: Vec<Vec<u8>>,
}

impl<W: Write> Packer<W> {
    pub(crate) fn new(output: W) -> Self {
        Self {
            output: BufWriter::with_capacity(2 * PIECE, output),
            names: HashMap::new(),
            skipped: 0,
        }
    }

    /// Tells everything, and how that ended.
    ///
    /// # Errors
    /// Nobody listens any more.
    pub(crate) fn tell_all(&mut self, workspace: &Path, only_measure: bool) -> io::Result<()> {
        let counted = self.count(workspace, only_measure);
        let told = counted.and_then(|()| {
            if only_measure {
                Ok(())
            } else {
                self.walk(workspace)
            }
        });
        self.tell_end(told)
    }

    /// Tells some names of each of these directories, and how that ended; of a single file only what is behind the
    /// first `skipped` bytes.
    ///
    /// # Errors
    /// Nobody listens any more.
    pub(crate) fn tell_some(
        &mut self,
        some: impl Fn() -> io::Result<Vec<Level>>,
        skipped: u64,
    ) -> io::Result<()> {
        self.skipped = skipped;
        let counted = self.count_in(some()?, Total::default());
        let told = counted.and_then(|()| self.walk_in(some()?));
        self.tell_end(told)
    }

    fn tell_end(&mut self, told: Result<(), Stop>) -> io::Result<()> {
        match told {
            Ok(()) => self.tell(&Piece::End, &[])?,
            Err(Stop::Gone) => return Err(io::ErrorKind::BrokenPipe.into()),
            Err(Stop::Failed(failed)) => self.tell(&Piece::Failed(failed), &[])?,
        }
        self.output.flush()
    }

    fn tell(&mut self, piece: &Piece, body: &[u8]) -> io::Result<()> {
        let frame = protocol::encode(piece, body).map_err(io::Error::other)?;
        self.output.write_all(&frame)
    }

    /// Counts what there is, and says so now and then. The trash is lost with the workspace and copied nowhere.
    fn count(&mut self, workspace: &Path, with_trash: bool) -> Result<(), Stop> {
        let mut total = Total::default();
        let root = open_directory(&CWD, workspace.as_os_str().as_encoded_bytes());
        let root = root.map_err(|errno| failed(&[], "open", errno))?;
        note(
            &mut total,
            &fstat(&root).map_err(|errno| failed(&[], "look at", errno))?,
        );
        if let Ok(disk) = fstatvfs(&root) {
            total.free = disk.f_bavail.checked_mul(disk.f_frsize);
            total.capacity = disk.f_blocks.checked_mul(disk.f_frsize);
        }
        let root = level(root).map_err(|errno| failed(&[], "list", errno))?;
        let root = if with_trash {
            root
        } else {
            without_trash(root)
        };
        self.count_in(vec![root], total)
    }

    /// Counts what is in these directories, the last first, beside what was counted before.
    fn count_in(&mut self, mut levels: Vec<Level>, mut total: Total) -> Result<(), Stop> {
        let mut linked = HashSet::new();
        let mut told = Instant::now();
        while let Some(Level { directory, names }) = levels.last_mut() {
            let Some(name) = names.pop() else {
                levels.pop();
                continue;
            };
            // What cannot be looked at is found out, and told, when it is read.
            let Ok(stat) = statat(&*directory, &*name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            let is_counted = stat.st_nlink > 1
                && kind_of(&stat) == FileType::RegularFile
                && linked.len() < MOST_LINKS
                && !linked.insert((stat.st_dev, stat.st_ino));
            if is_counted {
                continue;
            }
            note(&mut total, &stat);
            if kind_of(&stat) == FileType::Directory
                && let Ok(directory) = open_directory(&*directory, &name)
                && let Ok(level) = level(directory)
            {
                levels.push(level);
            }
            if told.elapsed() >= TELL {
                self.tell(&Piece::Total(total.clone()), &[])?;
                self.output.flush()?;
                told = Instant::now();
            }
        }
        total.is_all = true;
        self.tell(&Piece::Total(total), &[])?;
        Ok(self.output.flush()?)
    }

    fn walk(&mut self, workspace: &Path) -> Result<(), Stop> {
        let root = open_directory(&CWD, workspace.as_os_str().as_encoded_bytes());
        let root = root.map_err(|errno| failed(&[], "open", errno))?;
        let stat = fstat(&root).map_err(|errno| failed(&[], "look at", errno))?;
        let facts = facts_of(&stat);
        self.tell(&Piece::Root { facts }, &[])?;
        let root = level(root).map_err(|errno| failed(&[], "list", errno))?;
        self.walk_in(vec![without_trash(root)])
    }

    /// Tells what is in these directories, the last first.
    fn walk_in(&mut self, mut levels: Vec<Level>) -> Result<(), Stop> {
        let mut path: Vec<String> = Vec::new();
        while let Some(Level { directory, names }) = levels.last_mut() {
            let Some(name) = names.pop() else {
                levels.pop();
                if path.pop().is_some() {
                    self.tell(&Piece::Leave, &[])?;
                }
                continue;
            };
            path.push(path::encode(&name));
            let entered = self.tell_entry(directory, &name, &path)?;
            match entered {
                Some(entered) => levels.push(entered),
                None => {
                    path.pop();
                }
            }
        }
        Ok(())
    }

    /// Tells what a name stands for, and returns the level of a directory. What is gone meanwhile was never there.
    fn tell_entry(
        &mut self,
        directory: &OwnedFd,
        name: &[u8],
        path: &[String],
    ) -> Result<Option<Level>, Stop> {
        for _ in 0..ATTEMPTS {
            let stat = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => return Ok(None),
                Err(errno) => return Err(failed(path, "look at", errno)),
            };
            let name_text = path.last().cloned().unwrap_or_default();
            let facts = facts_of(&stat);
            let entered = match kind_of(&stat) {
                FileType::Directory => open_directory(directory, name).and_then(level),
                FileType::RegularFile => match self.tell_file(directory, name, path) {
                    Err(Ok(errno)) => Err(errno),
                    Err(Err(stop)) => return Err(stop),
                    Ok(()) => return Ok(None),
                },
                FileType::Symlink => match readlinkat(directory, name, Vec::new()) {
                    Ok(target) => {
                        let target = path::encode(target.as_bytes());
                        let name = name_text;
                        let link = Piece::Symlink {
                            name,
                            facts,
                            target,
                        };
                        self.tell(&link, &[])?;
                        return Ok(None);
                    }
                    Err(errno) => Err(errno),
                },
                FileType::Fifo => {
                    let name = name_text;
                    self.tell(&Piece::Pipe { name, facts }, &[])?;
                    return Ok(None);
                }
                // A socket is nothing without the program behind it.
                FileType::Socket => return Ok(None),
                FileType::CharacterDevice | FileType::BlockDevice | FileType::Unknown => {
                    return Err(Stop::Failed(Failed {
                        why: Why::Invalid,
                        message: format!("`{}` is a device", shown(path)),
                    }));
                }
            };
            match entered {
                Ok(level) => {
                    let name = name_text;
                    let facts = Some(facts);
                    self.tell(&Piece::Enter { name, facts }, &[])?;
                    return Ok(Some(level));
                }
                // Something else has the name since it was looked at: look again.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::INVAL) => {}
                Err(errno) => return Err(failed(path, "read", errno)),
            }
        }
        Err(changed(path))
    }

    fn tell_file(
        &mut self,
        directory: &OwnedFd,
        name: &[u8],
        path: &[String],
    ) -> Result<(), Result<Errno, Stop>> {
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat(directory, name, flags, Mode::empty()).map_err(Ok)?;
        let stat = fstat(&file).map_err(Ok)?;
        if kind_of(&stat) != FileType::RegularFile {
            return Err(Ok(Errno::INVAL));
        }
        let gone = |error: io::Error| Err(Stop::from(error));
        let identity = (stat.st_dev, stat.st_ino);
        let text = path.last().cloned().unwrap_or_default();
        if stat.st_nlink > 1
            && let Some(first) = self.names.get(&identity)
        {
            let link = Piece::HardLink {
                name: text,
                path: first.clone(),
            };
            return self.tell(&link, &[]).map_err(gone);
        }
        let file = File::from(file);
        for attempt in 1..=ATTEMPTS {
            let is_whole = self.attempt(&file, &text, path).map_err(Err)?;
            if is_whole {
                if stat.st_nlink > 1 && self.names.len() < MOST_LINKS {
                    self.names.insert(identity, path.to_vec());
                }
                return self.tell(&Piece::Whole, &[]).map_err(gone);
            }
            self.tell(&Piece::Void, &[]).map_err(gone)?;
            std::thread::sleep(PAUSE * attempt);
        }
        Err(Err(changed(path)))
    }

    /// Tells a file as it is now; `false` when it changed meanwhile.
    fn attempt(&mut self, file: &File, name: &str, path: &[String]) -> Result<bool, Stop> {
        let failed = |errno| failed(path, "read", errno);
        let begin = SystemTime::now();
        let before = fstat(file).map_err(failed)?;
        let size = size_of(&before);
        let extents = if stored_of(&before) < size {
            extents_of(file, size).map_err(failed)?
        } else {
            None
        };
        let skipped = std::mem::take(&mut self.skipped).min(size);
        let extents = if skipped > 0 {
            Some(behind(extents.as_deref().unwrap_or(&[(0, size)]), skipped))
        } else {
            extents
        };
        let whole = [(0, size)];
        let to_read = extents.as_deref().unwrap_or(&whole);
        self.tell(
            &Piece::File {
                name: name.to_owned(),
                facts: facts_of(&before),
                size,
                extents: extents.clone(),
            },
            &[],
        )?;
        let told = read_extents(file, to_read, path, |offset, content| {
            Ok(self.tell(&Piece::Content { offset }, content)?)
        })?;
        let Some(told) = told else {
            return Ok(false);
        };
        let after = fstat(file).map_err(failed)?;
        let is_as_before = (before.st_mtime, before.st_mtime_nsec, before.st_size)
            == (after.st_mtime, after.st_mtime_nsec, after.st_size);
        let is_old = modified(&before)
            .and_then(|modified| begin.duration_since(modified).ok())
            .is_some_and(|age| age > TICK);
        if is_as_before && is_old {
            return Ok(true);
        }
        if size_of(&after) < size {
            return Ok(false);
        }
        // What was read is still there: if anything, it grew, and this is how it was at the beginning.
        let again = read_extents(file, to_read, path, |_, _| Ok(()))?;
        Ok(again == Some(told) && size_of(&fstat(file).map_err(failed)?) >= size)
    }
}

/// Returns what of extents lies behind the first `skipped` bytes.
fn behind(extents: &[(u64, u64)], skipped: u64) -> Vec<(u64, u64)> {
    let extents = extents.iter().map(|(offset, length)| {
        let begin = (*offset).max(skipped);
        (begin, (offset + length).saturating_sub(begin))
    });
    extents.filter(|(_, length)| *length > 0).collect()
}

/// Returns whether a file was changed so long ago that one more change would be seen.
pub(crate) fn would_show_a_change(stat: &Stat) -> bool {
    modified(stat)
        .and_then(|modified| SystemTime::now().duration_since(modified).ok())
        .is_some_and(|age| age > TICK)
}

/// Reads what a file has in these extents, gives it away piece by piece with the place of each, and returns the sum over
/// all of it; `None` when the file became shorter.
fn read_extents(
    file: &File,
    extents: &[(u64, u64)],
    path: &[String],
    mut give: impl FnMut(u64, &[u8]) -> Result<(), Stop>,
) -> Result<Option<Sum>, Stop> {
    let mut sum = Sum::default();
    let mut buffer = vec![0; PIECE];
    for (offset, length) in extents.iter().copied() {
        let mut at = offset;
        while at < offset + length {
            let want = usize::try_from(offset + length - at)
                .unwrap_or(PIECE)
                .min(PIECE);
            let buffer = buffer.get_mut(..want).unwrap_or_default();
            let count = read_at(file, buffer, at).map_err(|errno| failed(path, "read", errno))?;
            if count == 0 {
                return Ok(None);
            }
            let content = buffer.get(..count).unwrap_or_default();
            sum.add(content);
            give(at, content)?;
            at += count as u64;
        }
    }
    Ok(Some(sum))
}

/// A sum over content, for seeing changes; nobody tries to deceive it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    sum: u64,
    /// Bytes that do not fill a word yet.
    rest: Vec<u8>,
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        let mut bytes = bytes;
        if !self.rest.is_empty() {
            let missing = (8 - self.rest.len()).min(bytes.len());
            let (head, tail) = bytes.split_at(missing);
            self.rest.extend_from_slice(head);
            bytes = tail;
            if self.rest.len() == 8 {
                let word = std::mem::take(&mut self.rest);
                self.add_words(&word);
            }
        }
        let (words, rest) = bytes.split_at(bytes.len() / 8 * 8);
        self.add_words(words);
        self.rest.extend_from_slice(rest);
    }

    fn add_words(&mut self, words: &[u8]) {
        for word in words.chunks_exact(8) {
            let word = word.try_into().map_or(0, u64::from_ne_bytes);
            self.sum = (self.sum.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
    }
}

fn note(total: &mut Total, stat: &Stat) {
    total.names += 1;
    total.stored = total.stored.saturating_add(stored_of(stat));
    if kind_of(stat) == FileType::RegularFile {
        total.bytes = total.bytes.saturating_add(size_of(stat));
        total.content = total
            .content
            .saturating_add(size_of(stat).min(stored_of(stat)));
    }
    let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or_default();
    let milliseconds = stat
        .st_mtime
        .saturating_mul(1000)
        .saturating_add(nanoseconds / 1_000_000);
    total.newest_ms = total.newest_ms.max(Some(milliseconds));
}

fn open_directory(at: &impl std::os::fd::AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

fn level(directory: OwnedFd) -> rustix::io::Result<Level> {
    let mut names = Vec::new();
    let mut buffer = [const { MaybeUninit::uninit() }; 16 << 10];
    let mut entries = RawDir::new(&directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let name = entry?.file_name().to_bytes().to_vec();
        // What is not whole yet is nobody's file.
        if !matches!(&*name, b"." | b"..") && !is_temporary(&name) {
            names.push(name);
        }
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(Level { directory, names })
}

fn without_trash(mut root: Level) -> Level {
    root.names.retain(|name| name != TRASH.as_bytes());
    root
}

/// Returns where a file has content, or `None` for one that does not say.
pub(crate) fn extents_of(file: &File, size: u64) -> rustix::io::Result<Option<Vec<(u64, u64)>>> {
    let mut extents: Vec<(u64, u64)> = Vec::new();
    let mut smallest = 1;
    let mut at = 0;
    while at < size {
        let begin = match seek(file, SeekFrom::Data(at)) {
            Ok(begin) if begin < size => begin,
            // There is nothing but a hole from here on.
            Ok(_) | Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let end = seek(file, SeekFrom::Hole(begin))?.min(size);
        // Archives count in blocks.
        let (begin, end) = (begin / 512 * 512, end.next_multiple_of(512).min(size));
        match extents.last_mut() {
            Some((offset, length)) if begin < *offset + *length + smallest => {
                *length = end.max(*offset + *length) - *offset;
            }
            _ => extents.push((begin, end - begin)),
        }
        if extents.len() > MOST_EXTENTS {
            smallest = (smallest * 4).max(64 << 10);
            extents = merged(&extents, smallest);
        }
        at = end.max(at + 1);
    }
    Ok(Some(extents))
}

/// Takes holes below `smallest` bytes for content.
fn merged(extents: &[(u64, u64)], smallest: u64) -> Vec<(u64, u64)> {
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (offset, length) in extents.iter().copied() {
        match merged.last_mut() {
            Some((first, so_far)) if offset < *first + *so_far + smallest => {
                *so_far = offset + length - *first;
            }
            _ => merged.push((offset, length)),
        }
    }
    merged
}

pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> rustix::io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
            Ok(count) => return Ok(count),
        }
    }
}

fn kind_of(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn size_of(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or_default()
}

pub(crate) fn stored_of(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks)
        .unwrap_or_default()
        .saturating_mul(512)
}

fn modified(stat: &Stat) -> Option<SystemTime> {
    let seconds = u64::try_from(stat.st_mtime).ok()?;
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds))
}

pub(crate) fn facts_of(stat: &Stat) -> Facts {
    Facts {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        modified: (
            stat.st_mtime,
            u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
        ),
    }
}

/// Returns a path for people; the middle of a very long one is left out.
pub(crate) fn shown(path: &[String]) -> String {
    const MOST: usize = 8;
    let (head, tail) = match path.len().checked_sub(2 * MOST) {
        None | Some(0) => (path, &[][..]),
        Some(_) => (
            path.get(..MOST).unwrap_or_default(),
            path.get(path.len() - MOST..).unwrap_or_default(),
        ),
    };
    let mut shown = head.join("/");
    if !tail.is_empty() {
        shown = format!("{shown}/…/{}", tail.join("/"));
    }
    if shown.is_empty() {
        shown.push('.');
    }
    shown
}

fn failed(path: &[String], operation: &str, errno: Errno) -> Stop {
    Stop::Failed(Failed {
        why: Why::Io,
        message: format!("failed to {operation} `{}`: {errno}", shown(path)),
    })
}

fn changed(path: &[String]) -> Stop {
    Stop::Failed(Failed {
        why: Why::Changed,
        message: format!("`{}` changed whenever it was read", shown(path)),
    })
}
