//! Going through the workspace to find, to search and to list: one folder after another, with what `.gitignore` and `.ignore` say.
//!
//! A folder is opened by its names from the root down, none of which may be a symlink: whatever is swapped in meanwhile,
//! the walk does not leave the workspace. Nothing is kept open between folders. `.git` and the trash are passed over, and so is
//! what lies deeper than a path in Linux is long.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, openat, statat};
use rustix::io::Errno;

use super::{is_temporary, kind_of, names_in};
use crate::path::WorkspacePath;
use crate::protocol::EntryKind;
use crate::resolve::{LastLink, Root};
use crate::tree::TRASH;

/// The most bytes of a path below the workspace: that of a path in Linux.
const LONGEST_PATH: usize = 4_096;
/// The most bytes that are read of a file with rules, and the most lines.
const LARGEST_RULES: u64 = 256 << 10;
/// See [`LARGEST_RULES`].
const MOST_RULES: usize = 4_000;

/// A folder that is to be gone through.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    /// Below the workspace, without a slash at either end.
    pub(super) path: Vec<u8>,
    /// Those that hold for what is in it, other than its own.
    rules: Option<Arc<Rules>>,
    pub(super) is_ignored: bool,
}

/// What is in a folder and may be of interest.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) directory: OwnedFd,
    pub(super) folders: Vec<Folder>,
    pub(super) files: Vec<Name>,
    /// Symlinks, wherever they lead.
    pub(super) links: Vec<Name>,
    /// What is not whole yet, or never came to be.
    pub(super) halves: Vec<Vec<u8>>,
}

/// One name in a folder.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) name: Vec<u8>,
    pub(super) is_ignored: bool,
}

/// What a folder's files say is to be ignored.
#[derive(Debug)]
struct Rules {
    above: Option<Arc<Self>>,
    /// Bytes of the folder's path, with the slash.
    prefix: usize,
    /// `.ignore` goes before `.gitignore`, wherever the two are.
    own: Gitignore,
    git: Gitignore,
    /// `.git/info/exclude`.
    exclude: Gitignore,
    /// What the folders above say to Git does not hold in a repository.
    is_repository: bool,
}

impl Folder {
    pub(super) fn root() -> Self {
        Self {
            path: Vec::new(),
            rules: None,
            is_ignored: false,
        }
    }

    /// Reads what is in the folder. With `heeds_rules` it is said what of it is ignored.
    pub(super) fn read(&self, root: &Root, heeds_rules: bool) -> rustix::io::Result<Contents> {
        let directory = self.open(root)?;
        let names = names_in(&directory)?;
        // In what is ignored all is.
        let rules = if heeds_rules && !self.is_ignored {
            let has = |sought: &str, kind| {
                let is_it =
                    |(is, name): &(EntryKind, Vec<u8>)| *is == kind && name == sought.as_bytes();
                names.iter().any(is_it)
            };
            self.rules_with_own(&directory, has)
        } else {
            None
        };
        let mut contents = Contents {
            directory,
            folders: Vec::new(),
            files: Vec::new(),
            links: Vec::new(),
            halves: Vec::new(),
        };
        for (kind, name) in names {
            let is_passed_over =
                name == b".git" || (self.path.is_empty() && name == TRASH.as_bytes());
            if is_passed_over || self.path.len() + 1 + name.len() > LONGEST_PATH {
                continue;
            }
            if is_temporary(&name) {
                contents.halves.push(name);
                continue;
            }
            let is_folder = kind == EntryKind::Dir;
            let is_ignored = self.is_ignored
                || rules
                    .as_deref()
                    .is_some_and(|rules| rules.ignore(&self.path_of(&name), is_folder));
            match kind {
                EntryKind::Dir => contents.folders.push(Self {
                    path: self.path_of(&name),
                    rules: if is_ignored { None } else { rules.clone() },
                    is_ignored,
                }),
                EntryKind::File => contents.files.push(Name { name, is_ignored }),
                EntryKind::Symlink => contents.links.push(Name { name, is_ignored }),
                EntryKind::Other => {}
            }
        }
        Ok(contents)
    }

    /// Returns the path of a name in the folder.
    pub(super) fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut path = Vec::with_capacity(self.path.len() + 1 + name.len());
        path.extend_from_slice(&self.path);
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }

    fn open(&self, root: &Root) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = root
            .resolve(&WorkspacePath::default(), LastLink::Keep)
            .map_err(|_| Errno::NOENT)?;
        let mut names = self.path.split(|byte| *byte == b'/').peekable();
        let mut here = place.directory;
        while let Some(name) = names.next() {
            let is_last = names.peek().is_none();
            let access = if is_last {
                OFlags::RDONLY
            } else {
                OFlags::PATH
            };
            let name = if name.is_empty() { b"." } else { name };
            here = openat(&here, name, access | flags, Mode::empty())?;
        }
        Ok(here)
    }

    /// Returns the rules that hold in the folder, which may say whether it `has` something of a name and kind.
    fn rules_with_own(
        &self,
        directory: &OwnedFd,
        has: impl Fn(&str, EntryKind) -> bool,
    ) -> Option<Arc<Rules>> {
        let read = |name| {
            if has(name, EntryKind::File) {
                open_file(directory, name.as_bytes()).map_or_else(|_| Gitignore::empty(), rules_in)
            } else {
                Gitignore::empty()
            }
        };
        let (own, git) = (read(".ignore"), read(".gitignore"));
        let is_repository = has(".git", EntryKind::Dir) || has(".git", EntryKind::File);
        let exclude = exclude_file(directory).map_or_else(|_| Gitignore::empty(), rules_in);
        if own.is_empty() && git.is_empty() && exclude.is_empty() && !is_repository {
            return self.rules.clone();
        }
        Some(Arc::new(Rules {
            above: self.rules.clone(),
            prefix: self.path_of(b"").len(),
            own,
            git,
            exclude,
            is_repository,
        }))
    }

    /// Returns whether something in the folder is ignored by the rules that are known.
    fn ignores(&self, name: &[u8], is_folder: bool) -> bool {
        let by_rule = |rules: &Arc<Rules>| rules.ignore(&self.path_of(name), is_folder);
        self.is_ignored || self.rules.as_ref().is_some_and(by_rule)
    }
}

/// What of a folder's entries is ignored.
#[derive(Debug)]
pub(super) struct Ignored {
    folder: Folder,
}

impl Ignored {
    /// Reads the rules of a folder and of those above it. In one that is reached by a symlink nothing is ignored: Git does not
    /// look there.
    pub(super) fn at(root: &Root, path: &WorkspacePath) -> Self {
        let nothing = Self {
            folder: Folder::root(),
        };
        let mut folder = Folder::root();
        let mut names = path.components().iter();
        loop {
            let Ok(directory) = folder.open(root) else {
                return nothing;
            };
            let has = |name: &str, kind| {
                let stat = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW);
                stat.is_ok_and(|stat| kind_of(FileType::from_raw_mode(stat.st_mode)) == kind)
            };
            folder.rules = folder.rules_with_own(&directory, has);
            let Some(name) = names.next() else {
                return Self { folder };
            };
            folder.is_ignored = folder.ignores(name, true);
            folder.path = folder.path_of(name);
        }
    }

    /// Returns whether an entry is ignored.
    pub(super) fn names(&self, name: &[u8], is_folder: bool) -> bool {
        self.folder.ignores(name, is_folder)
    }
}

impl Rules {
    /// Returns whether a path is ignored. The rule nearest to it decides.
    fn ignore(&self, path: &[u8], is_folder: bool) -> bool {
        let decided = |rules: &Gitignore, level: &Self| {
            let below = path.get(level.prefix..).unwrap_or_default();
            let found = rules.matched(Path::new(OsStr::from_bytes(below)), is_folder);
            (!found.is_none()).then(|| found.is_ignore())
        };
        let own = self.levels().find_map(|level| decided(&level.own, level));
        let git = || {
            let mut is_within = true;
            let levels = self.levels().take_while(move |level| {
                let is_counted = is_within;
                is_within = is_counted && !level.is_repository;
                is_counted
            });
            let found = levels.clone().find_map(|level| decided(&level.git, level));
            found.or_else(|| {
                levels
                    .clone()
                    .find_map(|level| decided(&level.exclude, level))
            })
        };
        own.or_else(git).unwrap_or(false)
    }

    /// The folders with rules, from the nearest up.
    fn levels(&self) -> impl Iterator<Item = &Self> + Clone {
        std::iter::successors(Some(self), |level| level.above.as_deref())
    }
}

/// Opens a regular file by its name in a directory, and nothing else: a pipe does not block, a symlink is refused.
pub(super) fn open_file(directory: &OwnedFd, name: &[u8]) -> rustix::io::Result<File> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = openat(directory, name, flags, Mode::empty())?;
    // Something else may have taken its place since its name was read.
    match FileType::from_raw_mode(fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(file.into()),
        _ => Err(Errno::INVAL),
    }
}

fn exclude_file(directory: &OwnedFd) -> rustix::io::Result<File> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let git = openat(directory, ".git", flags, Mode::empty())?;
    let info = openat(&git, "info", flags, Mode::empty())?;
    open_file(&info, b"exclude")
}

/// Returns the rules in a file. A line that makes no sense is left out, as Git does.
fn rules_in(file: File) -> Gitignore {
    let mut text = Vec::new();
    // What could be read of it holds.
    let _ = file.take(LARGEST_RULES).read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut rules = GitignoreBuilder::new("");
    for line in text.lines().take(MOST_RULES) {
        let _ = rules.add_line(None, line);
    }
    rules.build().unwrap_or_else(|_| Gitignore::empty())
}
