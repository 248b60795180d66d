//! Searching the content of files, line by line.
//!
//! Several threads take folders and files from one pile. Where there can be no more threads, the one that asked does it
//! all. What was found is handed over in batches, one at a time; so is nothing, so that whoever wants no more can say so soon.
//!
//! A file with a NUL byte is no text: it is left out, and from such a byte on where that comes late. UTF-16 is
//! searched where a mark at its beginning says so; every other encoding byte for byte. A line longer than [`LONGEST_PIECE`] is
//! searched in pieces of that length, so that a match over a seam is not found.

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use memchr::{memchr, memchr_iter, memrchr};
use regex_automata::Input;
use regex_automata::meta::{Cache, Regex};

use super::walking::{Folder, open_file};
use super::{Workspace, errno_of, failed};
use crate::path::WorkspacePath;
use crate::protocol::{CallError, Failure};
use crate::search::{
    FoundFile, FoundLine, Globs, LONGEST_LINE, MOST_LINES, MOST_MATCHES, MOST_ON_LINE, Problem,
    Query, Searched,
};

/// How often something, or nothing, is handed over.
const TELL: Duration = Duration::from_millis(50);
/// Bytes of lines that are handed over at once.
const BATCH: usize = 64 << 10;
/// Bytes that are read at a time.
const CHUNK: usize = 256 << 10;
/// The most bytes of a line that are searched in one piece.
const LONGEST_PIECE: usize = 4 << 20;
/// The most bytes of a file in UTF-16; what is behind them is not searched.
const LONGEST_UTF_16: u64 = 16 << 20;
/// Files of one folder that a thread takes at a time.
const SHARE: usize = 32;
/// Bytes of a line that may be before the first match and are told.
const BEFORE: usize = 60;
/// The most threads of one search, and their stack.
const MOST_THREADS: usize = 8;
/// See [`MOST_THREADS`].
const STACK: usize = 512 << 10;

/// Files in which something was found; none when it is only asked whether to go on.
pub(crate) type Batch = Vec<FoundFile>;

impl Workspace {
    /// Hands over what is found, up to `limit` matches, until all was searched or `take` wants no more.
    pub(crate) fn search(
        &self,
        query: &Query,
        limit: u32,
        take: impl FnMut(Batch) -> ControlFlow<()> + Send,
    ) -> Result<Searched, CallError> {
        let (pattern, globs) = query
            .pattern()
            .and_then(|pattern| Ok((pattern, query.globs()?)))
            .map_err(|problem: Problem| CallError {
                failure: Failure::Invalid,
                message: problem.message,
            })?;
        // That the workspace cannot be read at all is a failure; what of it cannot be is counted.
        Folder::root()
            .read(&self.root, false)
            .map_err(|errno| failed("search", crate::path::ROOT, errno))?;
        let search = Search {
            workspace: self,
            regex: pattern.0,
            globs,
            heeds_rules: !query.ignored,
            pile: Mutex::new(Pile {
                tasks: vec![Task::Folder(Folder::root())],
                working: 0,
            }),
            changed: Condvar::new(),
            take: Mutex::new(Taker {
                take,
                told: Instant::now(),
            }),
            left: AtomicU32::new(limit.min(MOST_MATCHES)),
            is_over: AtomicBool::new(false),
            truncated: AtomicBool::new(false),
            files: AtomicU64::new(0),
            unread: AtomicU64::new(0),
        };
        search.run();
        Ok(Searched {
            files: search.files.into_inner(),
            truncated: search.truncated.into_inner(),
            unread: search.unread.into_inner(),
        })
    }
}

struct Search<'a, T> {
    workspace: &'a Workspace,
    regex: Regex,
    globs: Globs,
    heeds_rules: bool,
    pile: Mutex<Pile>,
    /// There is something on the pile again, or never will be.
    changed: Condvar,
    take: Mutex<Taker<T>>,
    /// How many matches may still be told.
    left: AtomicU32,
    is_over: AtomicBool,
    truncated: AtomicBool,
    files: AtomicU64,
    unread: AtomicU64,
}

struct Pile {
    /// The next one is at the end, so that no more lie here than there are beside the way down.
    tasks: Vec<Task>,
    /// Threads that may still put something here.
    working: usize,
}

enum Task {
    Folder(Folder),
    Files {
        directory: Arc<OwnedFd>,
        folder: Folder,
        names: Vec<Vec<u8>>,
    },
}

struct Taker<T> {
    take: T,
    told: Instant,
}

impl<T: FnMut(Batch) -> ControlFlow<()> + Send> Search<'_, T> {
    fn run(&self) {
        let threads =
            thread::available_parallelism().map_or(1, |threads| threads.get().min(MOST_THREADS));
        thread::scope(|scope| {
            for _ in 1..threads {
                let helper = thread::Builder::new().stack_size(STACK);
                if helper.spawn_scoped(scope, || self.work()).is_err() {
                    break;
                }
            }
            self.work();
        });
    }

    fn work(&self) {
        let mut searcher = Searcher {
            search: self,
            cache: self.regex.create_cache(),
            buffer: vec![0; CHUNK],
            batch: Vec::new(),
            size: 0,
        };
        while let Some(task) = self.next() {
            match task {
                Task::Folder(folder) => searcher.folder(&folder),
                Task::Files {
                    directory,
                    folder,
                    names,
                } => searcher.files(&directory, &folder, names),
            }
            let mut pile = lock(&self.pile);
            pile.working -= 1;
            if pile.working == 0 && pile.tasks.is_empty() {
                self.changed.notify_all();
            }
            drop(pile);
        }
        searcher.hand_over();
    }

    /// Takes from the pile; `None` when nothing is and will be there.
    fn next(&self) -> Option<Task> {
        let mut pile = lock(&self.pile);
        loop {
            if self.is_over.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(task) = pile.tasks.pop() {
                pile.working += 1;
                return Some(task);
            }
            if pile.working == 0 {
                return None;
            }
            pile = self
                .changed
                .wait(pile)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn put(&self, tasks: impl IntoIterator<Item = Task>) {
        lock(&self.pile).tasks.extend(tasks);
        self.changed.notify_all();
    }

    fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        // Under the lock, so that nobody begins to wait just now.
        let _pile = lock(&self.pile);
        self.changed.notify_all();
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

/// What one thread needs.
struct Searcher<'a, T> {
    search: &'a Search<'a, T>,
    cache: Cache,
    buffer: Vec<u8>,
    batch: Batch,
    /// Bytes of lines in the batch.
    size: usize,
}

impl<T: FnMut(Batch) -> ControlFlow<()> + Send> Searcher<'_, T> {
    fn folder(&mut self, folder: &Folder) {
        self.look_up();
        let search = self.search;
        let Ok(contents) = folder.read(&search.workspace.root, search.heeds_rules) else {
            // Not one that is gone: it cannot be told from one that may not be read without asking again.
            search.unread.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let is_taken = |is_ignored: bool| !(is_ignored && search.heeds_rules);
        let below = contents
            .folders
            .into_iter()
            .filter(|below| is_taken(below.is_ignored) && search.globs.take_folder(&below.path));
        let mut names = contents.files.into_iter().filter_map(|file| {
            let is_taken =
                is_taken(file.is_ignored) && search.globs.take_file(&folder.path_of(&file.name));
            is_taken.then_some(file.name)
        });
        search.put(below.map(Task::Folder));
        let mine: Vec<_> = names.by_ref().take(SHARE).collect();
        let directory = Arc::new(contents.directory);
        let mut others = Vec::new();
        loop {
            let share: Vec<_> = names.by_ref().take(SHARE).collect();
            if share.is_empty() {
                break;
            }
            others.push(Task::Files {
                directory: Arc::clone(&directory),
                folder: folder.clone(),
                names: share,
            });
        }
        if !others.is_empty() {
            search.put(others);
        }
        self.files(&directory, folder, mine);
    }

    fn files(&mut self, directory: &OwnedFd, folder: &Folder, names: Vec<Vec<u8>>) {
        for name in names {
            self.look_up();
            if self.search.is_over() {
                return;
            }
            let searched = open_file(directory, &name).and_then(|file| {
                let mut finds = Finds::default();
                let result = self.file(file, &mut finds);
                self.keep(folder, &name, finds.lines);
                result.map_err(|error| errno_of(&error))
            });
            if self.search.is_over() {
                return;
            }
            let count = match searched {
                Ok(()) => &self.search.files,
                Err(_) => &self.search.unread,
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn keep(&mut self, folder: &Folder, name: &[u8], lines: Vec<FoundLine>) {
        if lines.is_empty() {
            return;
        }
        let mut path = WorkspacePath::default();
        for name in folder.path_of(name).split(|byte| *byte == b'/') {
            path = path.join(name);
        }
        let path = path.to_string();
        self.size += path.len() + lines.iter().map(|line| line.text.len() + 64).sum::<usize>();
        self.batch.push(FoundFile { path, lines });
        if self.size >= BATCH {
            self.hand_over();
        }
    }

    /// Hands over what there is, if it is time.
    fn look_up(&mut self) {
        let Ok(taker) = self.search.take.try_lock() else {
            // Somebody else is just doing so.
            return;
        };
        let is_time = taker.told.elapsed() >= TELL;
        drop(taker);
        if is_time {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        self.size = 0;
        let batch = std::mem::take(&mut self.batch);
        let mut taker = lock(&self.search.take);
        if self.search.is_over() && batch.is_empty() {
            return;
        }
        taker.told = Instant::now();
        if (taker.take)(batch).is_break() {
            drop(taker);
            self.search.end();
        }
    }

    fn file(&mut self, mut file: File, finds: &mut Finds) -> io::Result<()> {
        let mut filled = fill(&mut file, &mut self.buffer, 0)?;
        let mut is_at_end = filled < self.buffer.len();
        let beginning = self.buffer.get(..filled).unwrap_or_default();
        let mut from = match *beginning {
            [0xff, 0xfe, ..] => return self.utf_16(file, filled, u16::from_le_bytes, finds),
            [0xfe, 0xff, ..] => return self.utf_16(file, filled, u16::from_be_bytes, finds),
            [0xef, 0xbb, 0xbf, ..] => 3,
            _ => 0,
        };
        if memchr(0, beginning).is_some() {
            return Ok(());
        }
        loop {
            let there = self.buffer.get(from..filled).unwrap_or_default();
            let whole = if is_at_end {
                there.len()
            } else {
                match memrchr(b'\n', there) {
                    Some(end) => end + 1,
                    None if there.len() < LONGEST_PIECE => 0,
                    None => there.len(),
                }
            };
            let lines = there.get(..whole).unwrap_or_default();
            finds.scan(lines, self.search, &mut self.cache);
            if is_at_end || finds.is_full || self.search.is_over() {
                return Ok(());
            }
            // What is not a whole line goes to the front, and what follows behind it.
            self.buffer.copy_within(from + whole..filled, 0);
            filled -= from + whole;
            from = 0;
            if filled == self.buffer.len() {
                self.buffer.resize((2 * filled).min(LONGEST_PIECE), 0);
            }
            let before = filled;
            filled = fill(&mut file, &mut self.buffer, filled)?;
            is_at_end = filled < self.buffer.len();
            // What comes behind a byte that no text has is none.
            let new = self.buffer.get(before..filled).unwrap_or_default();
            if let Some(end) = memchr(0, new) {
                filled = before + end;
                is_at_end = true;
            }
            self.look_up();
        }
    }

    fn utf_16(
        &mut self,
        file: File,
        filled: usize,
        unit: fn([u8; 2]) -> u16,
        finds: &mut Finds,
    ) -> io::Result<()> {
        let mut bytes = self.buffer.get(2..filled).unwrap_or_default().to_vec();
        file.take(LONGEST_UTF_16).read_to_end(&mut bytes)?;
        let (pairs, _) = bytes.as_chunks();
        let units = pairs.iter().map(|pair| unit(*pair));
        let text: String = char::decode_utf16(units)
            .map(|character| character.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect();
        drop(bytes);
        if !text.contains('\0') {
            finds.scan(text.as_bytes(), self.search, &mut self.cache);
        }
        Ok(())
    }
}

/// Reads until the buffer is full or the file is at its end; returns how much there is in it then.
fn fill(file: &mut File, buffer: &mut [u8], mut filled: usize) -> io::Result<usize> {
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// What was found in one file so far.
struct Finds {
    lines: Vec<FoundLine>,
    /// The number of the line that comes next.
    number: u32,
    /// UTF-16 units of that line that were in the piece before.
    column: u32,
    /// Whether no more of this file is told.
    is_full: bool,
}

impl Default for Finds {
    fn default() -> Self {
        Self {
            lines: Vec::new(),
            number: 1,
            column: 0,
            is_full: false,
        }
    }
}

impl Finds {
    /// Searches whole lines, or a piece of a long one.
    fn scan<T>(&mut self, lines: &[u8], search: &Search<'_, T>, cache: &mut Cache) {
        let (mut at, mut counted) = (0, 0);
        while at < lines.len() {
            // No match reaches over a line: it is in the line in which it ends.
            let input = Input::new(lines).range(at..).earliest(true);
            let Some(found) = search.regex.search_half_with(cache, &input) else {
                break;
            };
            let found = found.offset();
            let before = lines.get(..found).unwrap_or_default();
            let begin = memrchr(b'\n', before).map_or(0, |last| last + 1).max(at);
            let behind = lines.get(found..).unwrap_or_default();
            let end = memchr(b'\n', behind).map_or(lines.len(), |length| found + length);
            self.pass(lines.get(counted..begin).unwrap_or_default());
            counted = begin;
            let line = lines.get(begin..end).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if let Some(found) = self.line(line, search, cache) {
                self.lines.push(found);
            }
            if self.lines.len() >= MOST_LINES {
                search.truncated.store(true, Ordering::Relaxed);
                self.is_full = true;
            }
            if self.is_full {
                return;
            }
            at = end + 1;
        }
        self.pass(lines.get(counted..).unwrap_or_default());
    }

    /// Counts the lines that have gone by.
    fn pass(&mut self, lines: &[u8]) {
        let breaks = memchr_iter(b'\n', lines).count();
        if breaks > 0 {
            self.column = 0;
            self.number = self
                .number
                .saturating_add(u32::try_from(breaks).unwrap_or(u32::MAX));
        }
        if !lines.is_empty() && lines.last() != Some(&b'\n') {
            // A line is only passed in part where it goes on in the next piece.
            let last = memrchr(b'\n', lines).map_or(0, |last| last + 1);
            let rest = lines.get(last..).unwrap_or_default();
            self.column = self.column.saturating_add(utf_16_length(rest));
        }
    }

    /// Finds all matches on a line; `None` when there is none that can be seen.
    fn line<T>(
        &mut self,
        line: &[u8],
        search: &Search<'_, T>,
        cache: &mut Cache,
    ) -> Option<FoundLine> {
        let mut found: Vec<(usize, usize)> = Vec::new();
        let mut at = 0;
        while at <= line.len() {
            let input = Input::new(line).range(at..);
            let Some(one) = search.regex.search_with(cache, &input) else {
                break;
            };
            if one.is_empty() {
                at = one.end() + 1;
                continue;
            }
            if found.len() == MOST_ON_LINE {
                search.truncated.store(true, Ordering::Relaxed);
                break;
            }
            let claimed = search
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                    left.checked_sub(1)
                });
            if claimed.is_err() {
                search.truncated.store(true, Ordering::Relaxed);
                self.is_full = true;
                search.end_when_full();
                break;
            }
            found.push((one.start(), one.end()));
            at = one.end();
        }
        let &(start, end) = found.first()?;
        Some(told(line, (self.number, self.column), (start, end), &found))
    }
}

impl<T> Search<'_, T> {
    /// No more matches may be told.
    fn end_when_full(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _pile = lock(&self.pile);
        self.changed.notify_all();
    }
}

/// Tells a line, or what of it is around the first match.
fn told(
    line: &[u8],
    (number, column): (u32, u32),
    (start, end): (usize, usize),
    found: &[(usize, usize)],
) -> FoundLine {
    let is_blank = |byte: &&u8| matches!(byte, b' ' | b'\t');
    let indent = line.iter().take_while(is_blank).count().min(start);
    let from = if start - indent <= 2 * BEFORE {
        indent
    } else {
        boundary(line, start - BEFORE)
    };
    let to = boundary(line, line.len().min(from + LONGEST_LINE));
    let slice = |from: usize, to: usize| line.get(from..to).unwrap_or_default();
    let (mut text, mut units, mut marks, mut at) = (String::new(), 0, Vec::new(), from);
    let mut push = |piece: &[u8]| {
        let piece = String::from_utf8_lossy(piece);
        units += piece.encode_utf16().count();
        text.push_str(&piece);
        u32::try_from(units).unwrap_or(u32::MAX)
    };
    for &(start, end) in found {
        let (start, end) = (start.max(at), end.min(to));
        if start >= end {
            break;
        }
        let begins = push(slice(at, start));
        marks.push((begins, push(slice(start, end))));
        at = end;
    }
    push(slice(at, to));
    FoundLine {
        number,
        column: column.saturating_add(utf_16_length(slice(0, start))),
        length: utf_16_length(slice(start, end)),
        text,
        cut_before: from > indent,
        cut_after: to < line.len(),
        marks,
        matches: u32::try_from(found.len()).unwrap_or(u32::MAX),
    }
}

/// Returns the nearest place before `at` that is in no character of UTF-8.
fn boundary(line: &[u8], at: usize) -> usize {
    let is_inside = |at: usize| line.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    (at.saturating_sub(3)..=at)
        .rev()
        .find(|at| !is_inside(*at))
        .unwrap_or(at)
}

fn utf_16_length(bytes: &[u8]) -> u32 {
    let units = if bytes.is_ascii() {
        bytes.len()
    } else {
        let chunks = bytes.utf8_chunks();
        let units = chunks.map(|chunk| {
            let replaced = usize::from(!chunk.invalid().is_empty());
            chunk.valid().encode_utf16().count() + replaced
        });
        units.sum()
    };
    u32::try_from(units).unwrap_or(u32::MAX)
}

/// A panic elsewhere leaves these values whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
