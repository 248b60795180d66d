//! Finding files by what is typed of their names.
//!
//! The names of the workspace are kept between two questions. They are read by and by, in the time that a question leaves
//! for it: the first letter is answered at once, from what is known until then. Names that `.gitignore` tells to ignore are read last
//! and come last. They are forgotten when nobody has asked for a minute.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nucleo_matcher::pattern::{Atom, AtomKind, CaseMatching, Normalization};
use nucleo_matcher::{Config, Matcher, Utf32Str};
use rustix::fs::FileType;

use super::Workspace;
use super::walking::{Folder, Name};
use crate::path::{WorkspacePath, display_name};
use crate::protocol::Reply;
use crate::resolve::{LastLink, Root};
use crate::search::{FoundName, MOST_NAMES};

/// The most names that are kept, and the most bytes of them.
const MOST_KEPT: usize = 1_000_000;
/// See [`MOST_KEPT`].
const MOST_BYTES: usize = 48 << 20;
/// How old names may be that are kept.
const LASTING: Duration = Duration::from_secs(5);
/// How long names are kept when nobody asks.
const REMEMBERED: Duration = Duration::from_secs(60);
/// What a match in the name itself is worth more than one in its folders.
const IN_NAME: i32 = 40;
/// What a file is worth less that is ignored.
const IS_IGNORED: i32 = 60;
/// Names that one thread takes at a time, and below twice of which there is one thread.
const SHARE: usize = 16_384;
/// The most letters of a word that is short.
const SHORT: usize = 3;
/// The most threads that look at names.
const MOST_THREADS: usize = 8;
/// Their stack.
const STACK: usize = 256 << 10;

/// The names that are known, and those that are being read.
#[derive(Debug, Default)]
pub(super) struct Finding {
    kept: Option<Kept>,
    walk: Option<Walk>,
    asked: Option<Instant>,
}

/// How names are asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// The most names.
    pub(crate) limit: u32,
    /// Whether names that were read before now do not count.
    pub(crate) fresh: bool,
    /// How long to read before answering.
    pub(crate) patience: Duration,
}

#[derive(Debug)]
struct Kept {
    names: Names,
    since: Instant,
    /// What was typed last, and which names matched: what is typed behind it can match no others.
    last: Option<(String, Vec<u32>)>,
}

#[derive(Debug)]
struct Walk {
    names: Names,
    ahead: Vec<Folder>,
    /// Those that are ignored come last.
    later: Vec<Folder>,
}

#[derive(Debug, Default)]
struct Names {
    /// Folders and names, one behind the other.
    text: Vec<u8>,
    /// Where in the text each folder is.
    folders: Vec<(u32, u32)>,
    entries: Vec<Entry>,
    is_cut: bool,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    folder: u32,
    start: u32,
    length: u16,
    is_ignored: bool,
    /// See [`letters_in`]: those of the path, and of the name alone.
    letters: u32,
    letters_in_name: u32,
}

impl Workspace {
    /// Returns the files whose names are most like `query`.
    pub(crate) fn find(&self, query: &str, wanted: Wanted) -> Reply {
        let begun = Instant::now();
        let mut finding = self.finding.lock().unwrap_or_else(PoisonError::into_inner);
        let finding = &mut *finding;
        finding.asked = Some(begun);
        let is_old = finding
            .kept
            .as_ref()
            .is_none_or(|kept| kept.since.elapsed() > LASTING);
        if wanted.fresh || (is_old && finding.walk.is_none()) {
            finding.walk = Some(Walk::new());
        }
        if let Some(mut walk) = finding.walk.take() {
            // Names that are known already can be told at once.
            let patience = if finding.kept.is_some() && !wanted.fresh {
                wanted.patience / 4
            } else {
                wanted.patience
            };
            if walk.go_on(&self.root, begun + patience) {
                finding.kept = Some(Kept {
                    names: walk.names,
                    since: Instant::now(),
                    last: None,
                });
            } else {
                finding.walk = Some(walk);
            }
        }
        let settled = finding.walk.is_none();
        match (&mut finding.kept, &finding.walk) {
            (Some(kept), _) => kept.find(query, wanted.limit, settled),
            (None, Some(walk)) => {
                let (best, _) = walk.names.best(query, None);
                walk.names.told(query, best, wanted.limit, settled)
            }
            (None, None) => Reply::Find {
                names: Vec::new(),
                total: 0,
                settled,
                truncated: false,
            },
        }
    }

    /// Gives the memory back that names take when nobody has asked for them for a while.
    pub(crate) fn forget_names(&self) {
        // Whoever holds it is asking.
        if let Ok(mut finding) = self.finding.try_lock()
            && finding
                .asked
                .is_some_and(|asked| asked.elapsed() > REMEMBERED)
        {
            *finding = Finding::default();
        }
    }
}

impl Kept {
    fn find(&mut self, query: &str, limit: u32, settled: bool) -> Reply {
        let among = self.last.take().filter(|(last, _)| query.starts_with(last));
        let (best, matching) = self
            .names
            .best(query, among.as_ref().map(|(_, matching)| &**matching));
        self.last = Some((query.to_owned(), matching));
        self.names.told(query, best, limit, settled)
    }
}

impl Walk {
    fn new() -> Self {
        Self {
            names: Names::default(),
            ahead: vec![Folder::root()],
            later: Vec::new(),
        }
    }

    /// Reads on until then, at least one folder; returns whether that was all.
    fn go_on(&mut self, root: &Root, until: Instant) -> bool {
        while let Some(folder) = self.ahead.pop().or_else(|| self.later.pop()) {
            // A folder that is gone or may not be read has no names.
            if let Ok(contents) = folder.read(root, true) {
                let files = contents.files.iter();
                let links = contents.links.iter();
                let links = links.filter(|link| leads_to_file(root, &folder, link));
                self.names.add(&folder.path, files.chain(links));
                for below in contents.folders {
                    if below.is_ignored {
                        self.later.push(below);
                    } else {
                        self.ahead.push(below);
                    }
                }
            }
            if self.names.is_cut {
                return true;
            }
            if Instant::now() >= until {
                break;
            }
        }
        self.ahead.is_empty() && self.later.is_empty()
    }
}

/// Returns whether a symlink leads to a regular file of the workspace.
fn leads_to_file(root: &Root, folder: &Folder, link: &Name) -> bool {
    let path = folder.path_of(&link.name);
    let mut place = WorkspacePath::default();
    for name in path.split(|byte| *byte == b'/') {
        place = place.join(name);
    }
    let target = root.resolve(&place, LastLink::Follow).ok();
    target
        .and_then(|target| target.stat().ok())
        .is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}

impl Names {
    fn add<'a>(&mut self, folder: &[u8], names: impl Iterator<Item = &'a Name>) {
        let mut in_folder = None;
        let in_folders = letters_in(folder);
        for Name { name, is_ignored } in names {
            let is_full = self.entries.len() >= MOST_KEPT
                || self.text.len() + folder.len() + name.len() > MOST_BYTES;
            if is_full {
                self.is_cut = true;
                return;
            }
            let folder = *in_folder.get_or_insert_with(|| {
                let place = self.put(folder);
                self.folders.push(place);
                u32::try_from(self.folders.len() - 1).unwrap_or(u32::MAX)
            });
            let (start, length) = self.put(name);
            self.entries.push(Entry {
                folder,
                start,
                length: u16::try_from(length).unwrap_or(u16::MAX),
                is_ignored: *is_ignored,
                letters: in_folders | letters_in(name),
                letters_in_name: letters_in(name),
            });
        }
    }

    /// Returns where the text was put. It is never longer than [`MOST_BYTES`], so that all fits.
    fn put(&mut self, text: &[u8]) -> (u32, u32) {
        let fit = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let start = fit(self.text.len());
        self.text.extend_from_slice(text);
        (start, fit(text.len()))
    }

    fn text(&self, start: u32, length: u32) -> &[u8] {
        let (start, length) = (start as usize, length as usize);
        self.text.get(start..start + length).unwrap_or_default()
    }

    fn name(&self, entry: &Entry) -> &[u8] {
        self.text(entry.start, entry.length.into())
    }

    fn folder(&self, entry: &Entry) -> &[u8] {
        let (start, length) = self.place_of_folder(entry);
        self.text(start, length)
    }

    fn place_of_folder(&self, entry: &Entry) -> (u32, u32) {
        let place = self.folders.get(entry.folder as usize);
        place.copied().unwrap_or_default()
    }

    fn path(&self, entry: &Entry) -> Vec<u8> {
        let mut path = Vec::new();
        write_path(self.folder(entry), self.name(entry), &mut path);
        path
    }

    /// Returns all that match with their worth, and which those are; `among` are the only ones that may.
    fn best(&self, query: &str, among: Option<&[u32]>) -> (Vec<(i32, u32)>, Vec<u32>) {
        let sought = Sought::new(query);
        let length = among.map_or(self.entries.len(), <[u32]>::len);
        let next = AtomicUsize::new(0);
        let found = Mutex::new(Vec::new());
        let work = || {
            let mut scorer = Scorer::default();
            let mut mine = Vec::new();
            loop {
                let begin = next.fetch_add(SHARE, Ordering::Relaxed);
                if begin >= length {
                    break;
                }
                for at in begin..(begin + SHARE).min(length) {
                    let index =
                        among.map_or(Some(at), |among| among.get(at).map(|index| *index as usize));
                    let entry = index.and_then(|index| Some((index, self.entries.get(index)?)));
                    let Some((index, entry)) = entry else {
                        continue;
                    };
                    if let Some(worth) = scorer.worth(self, entry, &sought) {
                        mine.push((worth, u32::try_from(index).unwrap_or(u32::MAX)));
                    }
                }
            }
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            found.append(&mut mine);
        };
        let threads =
            thread::available_parallelism().map_or(1, |threads| threads.get().min(MOST_THREADS));
        let helping = threads.min(length / SHARE).saturating_sub(1);
        thread::scope(|scope| {
            for _ in 0..helping {
                // Where there can be no more threads this one does it all.
                let helper = thread::Builder::new().stack_size(STACK);
                if helper.spawn_scoped(scope, work).is_err() {
                    break;
                }
            }
            work();
        });
        let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        let matching = found.iter().map(|(_, index)| *index).collect();
        (found, matching)
    }

    /// Tells the best of those that match.
    fn told(&self, query: &str, mut best: Vec<(i32, u32)>, limit: u32, settled: bool) -> Reply {
        let total = best.len() as u64;
        let limit = limit.min(MOST_NAMES) as usize;
        let entry = |index: u32| self.entries.get(index as usize);
        let order = |&(worth, index): &(i32, u32)| {
            let length = entry(index).map(|entry| {
                let (_, folder) = self.place_of_folder(entry);
                folder + u32::from(entry.length)
            });
            (Reverse(worth), length, index)
        };
        if limit < best.len() {
            best.select_nth_unstable_by_key(limit, order);
            best.truncate(limit);
        }
        best.sort_by_cached_key(|found @ &(_, index)| {
            let (worth, length, _) = order(found);
            (worth, length, entry(index).map(|entry| self.path(entry)))
        });
        let sought = Sought::new(query);
        let mut scorer = Scorer::default();
        let names = best.iter().filter_map(|(_, index)| {
            let entry = entry(*index)?;
            let path = self.path(entry);
            let mut place = WorkspacePath::default();
            for name in path.split(|byte| *byte == b'/') {
                place = place.join(name);
            }
            Some(FoundName {
                path: place.to_string(),
                marks: scorer.marks(self, entry, &sought),
                ignored: entry.is_ignored,
            })
        });
        Reply::Find {
            names: names.collect(),
            total,
            settled,
            truncated: self.is_cut,
        }
    }
}

/// The words of what is typed, all of which must be in a path, and their letters.
struct Sought {
    words: Vec<Word>,
    letters: u32,
}

struct Word {
    atom: Atom,
    letters: u32,
    /// Whether it is so short that nearly all names match: they are then judged by the first place where they do, and not by
    /// the best one.
    is_short: bool,
    ignores_case: bool,
}

impl Sought {
    fn new(query: &str) -> Self {
        let word = |word: &str| {
            let (case, normal) = (CaseMatching::Smart, Normalization::Smart);
            Word {
                atom: Atom::new(word, case, normal, AtomKind::Fuzzy, false),
                letters: ascii_letters_in(word),
                is_short: word.is_ascii() && word.len() <= SHORT,
                ignores_case: !word.chars().any(char::is_uppercase),
            }
        };
        Self {
            words: query.split_whitespace().map(word).collect(),
            letters: ascii_letters_in(query),
        }
    }
}

fn ascii_letters_in(text: &str) -> u32 {
    let letters = text.split(|letter: char| !letter.is_ascii_alphanumeric());
    letters.fold(0, |all, letters| all | letters_in(letters.as_bytes()))
}

/// Returns which letters and digits there are in a text, a bit for each, whatever their case. Most paths lack one of those that are
/// sought, and need no closer look. What is not ASCII may be like any letter.
fn letters_in(text: &[u8]) -> u32 {
    text.iter().fold(0, |letters, byte| {
        letters
            | match byte.to_ascii_lowercase() {
                letter @ b'a'..=b'z' => 1 << (letter - b'a'),
                // Two digits share a bit, so that all have room.
                digit @ b'0'..=b'9' => 1 << (26 + (digit - b'0') / 2),
                128.. => u32::MAX,
                _ => 0,
            }
    })
}

/// What it takes to judge names one after another.
struct Scorer {
    matcher: Matcher,
    path: Vec<u8>,
    characters: Vec<char>,
}

impl Default for Scorer {
    fn default() -> Self {
        Self {
            matcher: Matcher::new(Config::DEFAULT.match_paths()),
            path: Vec::new(),
            characters: Vec::new(),
        }
    }
}

impl Scorer {
    /// Returns how well a name matches, or `None` if it does not.
    fn worth(&mut self, names: &Names, entry: &Entry, sought: &Sought) -> Option<i32> {
        if sought.letters & !entry.letters != 0 {
            return None;
        }
        let name = names.name(entry);
        let mut worth = if entry.is_ignored { -IS_IGNORED } else { 0 };
        let mut has_path = false;
        for word in &sought.words {
            let in_name = if word.letters & !entry.letters_in_name == 0 {
                self.score(name, word)
            } else {
                None
            };
            if let Some(score) = in_name {
                worth += i32::from(score) + IN_NAME;
                continue;
            }
            if !has_path {
                let mut path = std::mem::take(&mut self.path);
                write_path(names.folder(entry), name, &mut path);
                self.path = path;
                has_path = true;
            }
            let path = std::mem::take(&mut self.path);
            let score = self.score(&path, word);
            self.path = path;
            worth += i32::from(score?);
        }
        Some(worth)
    }

    fn score(&mut self, text: &[u8], word: &Word) -> Option<u16> {
        let shown;
        let text = if let Ok(text) = std::str::from_utf8(text) {
            text
        } else {
            shown = display_name(text);
            &shown
        };
        let text = Utf32Str::new(text, &mut self.characters);
        if word.is_short {
            self.matcher.config.ignore_case = word.ignores_case;
            self.matcher.config.normalize = true;
            let needle = word.atom.needle_text();
            return self.matcher.fuzzy_match_greedy(text, needle);
        }
        word.atom.score(text, &mut self.matcher)
    }

    /// Returns where the words are in the path as it is shown, in characters.
    fn marks(&mut self, names: &Names, entry: &Entry, sought: &Sought) -> Vec<(u32, u32)> {
        let folder = display_name(names.folder(entry));
        let name = display_name(names.name(entry));
        let path = display_name(&names.path(entry));
        let before = if folder.is_empty() {
            0
        } else {
            folder.chars().count() + 1
        };
        let before = u32::try_from(before).unwrap_or(u32::MAX);
        let mut marked = Vec::new();
        for word in &sought.words {
            let mut places = Vec::new();
            let in_name = Utf32Str::new(&name, &mut self.characters);
            if word
                .atom
                .indices(in_name, &mut self.matcher, &mut places)
                .is_some()
            {
                marked.extend(places.iter().map(|place| place.saturating_add(before)));
                continue;
            }
            places.clear();
            let in_path = Utf32Str::new(&path, &mut self.characters);
            if word
                .atom
                .indices(in_path, &mut self.matcher, &mut places)
                .is_some()
            {
                marked.append(&mut places);
            }
        }
        marked.sort_unstable();
        marked.dedup();
        let mut marks: Vec<(u32, u32)> = Vec::new();
        for place in marked {
            match marks.last_mut() {
                Some((_, end)) if *end == place => *end += 1,
                _ => marks.push((place, place + 1)),
            }
        }
        marks
    }
}

fn write_path(folder: &[u8], name: &[u8], path: &mut Vec<u8>) {
    path.clear();
    path.extend_from_slice(folder);
    if !folder.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}
