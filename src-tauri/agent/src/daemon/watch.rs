//! A watch of folders and files, by inotify: a thread of its own, which waits for changes and gathers what they are
//! changes of. Looking for a folder may take as long as its file system likes, and holds nobody up here.
//!
//! A storm costs little: changes are read a few times a second, however many there are, and what the kernel does
//! not keep until then it says to have dropped. What is gathered is no more than what is watched.
//!
//! What is watched are paths, what inotify watches are folders, whatever their names are just then. So a path is looked for again when
//! something on the way to it, as far as that is watched, comes or goes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Bound;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use crate::path::WorkspacePath;
use crate::watch::{MOST_NEWS, MOST_WATCHED, News};
use crate::workspace::{Workspace, is_temporary};

/// How long no change is read after some were.
const REST: Duration = Duration::from_millis(40);

/// How many changes are read before a rest: more than the kernel keeps unless it was told to keep more.
const AT_ONCE: usize = 32 << 10;

/// The stack of the thread.
const STACK: usize = 256 << 10;

/// Bytes of a frame of news that paths may take, so that one more path fits.
const PATHS: usize = MOST_NEWS / 2;

/// What is told of a folder.
const OF_FOLDER: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::EXCL_UNLINK)
    .union(WatchFlags::ONLYDIR);

/// The names of files that say what is ignored, also in the folders below theirs.
const RULES: [&[u8]; 2] = [b".gitignore", b".ignore"];

/// A watch. Dropped, it ends.
#[derive(Debug)]
pub(super) struct Watch {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Wakes the thread.
    awake: OwnedFd,
}

#[derive(Debug, Default)]
struct State {
    /// What is to be watched, each in place of what was before.
    asked: Vec<BTreeSet<Path>>,
    /// For each that was answered and not told, whether something of it is not watched.
    answered: Vec<bool>,
    changed: BTreeSet<Path>,
    overflowed: bool,
    is_over: bool,
}

/// The names from the root down. What is in a folder follows behind it.
type Path = Vec<Vec<u8>>;

impl Watch {
    /// Begins a watch of nothing; `wake` is called whenever there may be news, and must not wait.
    pub(super) fn begin(
        workspace: Arc<Workspace>,
        wake: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            awake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        let watcher = Watcher {
            workspace,
            inotify,
            shared: Arc::clone(&shared),
            watched: BTreeMap::new(),
            by_folder: HashMap::new(),
        };
        let thread = thread::Builder::new().stack_size(STACK);
        thread.spawn(move || watcher.run(wake))?;
        Ok(Self { shared })
    }

    /// Watches these from now on.
    pub(super) fn watch(&self, paths: &[String]) {
        let paths = paths.iter().take(MOST_WATCHED);
        let paths = paths.filter_map(|path| WorkspacePath::parse(path).ok());
        let paths = paths.map(|path| path.components().to_vec()).collect();
        self.shared.lock().asked.push(paths);
        self.shared.wake();
    }

    /// Takes the next news, if there are any.
    pub(super) fn news(&self) -> Option<News> {
        let mut state = self.shared.lock();
        if !state.answered.is_empty() {
            return Some(News::Watching {
                limited: state.answered.remove(0),
            });
        }
        let overflowed = std::mem::take(&mut state.overflowed);
        let (mut paths, mut bytes) = (Vec::new(), 0);
        while bytes < PATHS
            && let Some(path) = state.changed.pop_first()
        {
            let path = WorkspacePath::of(path).to_string();
            bytes += path.len() + path.bytes().filter(|byte| needs_escape(*byte)).count() * 5 + 3;
            paths.push(path);
        }
        (overflowed || !paths.is_empty()).then_some(News::Changed { paths, overflowed })
    }
}

/// Whether JSON writes a byte as more than itself.
fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.wake();
    }
}

impl Shared {
    /// A panic elsewhere leaves the state whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // One that is full wakes all the same.
        let _ = rustix::io::write(&self.awake, &1_u64.to_ne_bytes());
    }
}

/// The thread's own.
struct Watcher {
    workspace: Arc<Workspace>,
    inotify: OwnedFd,
    shared: Arc<Shared>,
    watched: BTreeMap<Path, Option<Seen>>,
    /// The paths that are seen in a folder, by the number that inotify gave it.
    by_folder: HashMap<i32, Vec<Path>>,
}

/// Where a path's changes are seen.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    folder: i32,
    /// The one name that counts; all do where the path is the folder's own.
    name: Option<Vec<u8>>,
}

/// What some changes come to.
#[derive(Debug, Default)]
struct Changes {
    changed: BTreeSet<Path>,
    /// What is to be looked for again, with all that is below.
    moved: BTreeSet<Path>,
    overflowed: bool,
}

impl Watcher {
    fn run(mut self, wake: impl Fn()) {
        let mut rest_until = None;
        loop {
            let limit =
                rest_until.map(|until: Instant| until.saturating_duration_since(Instant::now()));
            if limit == Some(Duration::ZERO) {
                rest_until = None;
            }
            if self.wait(limit).is_err() {
                return;
            }
            let _ = rustix::io::read(&self.shared.awake, &mut [0; 8]);
            let asked = {
                let mut state = self.shared.lock();
                if state.is_over {
                    return;
                }
                std::mem::take(&mut state.asked)
            };
            let answered: Vec<bool> = asked.iter().map(|paths| self.watch(paths)).collect();
            let mut changes = Changes::default();
            if rest_until.is_none() && self.read(&mut changes) {
                rest_until = Some(Instant::now() + REST);
            }
            self.look_again(&mut changes);
            let Changes {
                changed,
                overflowed,
                ..
            } = changes;
            let is_news = !answered.is_empty() || overflowed || !changed.is_empty();
            {
                let mut state = self.shared.lock();
                state.answered.extend(answered);
                state.changed.extend(changed);
                state.overflowed |= overflowed;
            }
            if is_news {
                wake();
            }
        }
    }

    /// Waits for changes, unless there is a rest for so long, and for what is asked.
    fn wait(&self, rest: Option<Duration>) -> rustix::io::Result<()> {
        let mut awaited = vec![PollFd::new(&self.shared.awake, PollFlags::IN)];
        if rest.is_none_or(|rest| rest.is_zero()) {
            awaited.push(PollFd::new(&self.inotify, PollFlags::IN));
        }
        let limit = rest.filter(|rest| !rest.is_zero());
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        match poll(&mut awaited, limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Watches these in place of what was watched; returns whether the system does not let some of them.
    fn watch(&mut self, paths: &BTreeSet<Path>) -> bool {
        let known = self.watched.keys();
        let dropped: Vec<Path> = known
            .filter(|path| !paths.contains(*path))
            .cloned()
            .collect();
        for path in dropped {
            if let Some(Some(seen)) = self.watched.remove(&path) {
                self.leave(&path, seen.folder);
            }
        }
        let mut is_limited = false;
        for path in paths {
            if !matches!(self.watched.get(path), Some(Some(_))) {
                is_limited |= self.look_for(path);
            }
        }
        is_limited
    }

    /// Looks where changes of a path are to be seen; returns whether the system does not let it be watched.
    fn look_for(&mut self, path: &Path) -> bool {
        let mut is_limited = false;
        let source = self.workspace.source_of(&WorkspacePath::of(path.clone()));
        let seen = source.and_then(|source| {
            // Where the folder is, whatever its name is now.
            let link = format!("/proc/self/fd/{}", source.folder.as_raw_fd());
            let folder = inotify::add_watch(&self.inotify, link, OF_FOLDER);
            is_limited = matches!(folder, Err(Errno::NOSPC));
            let name = source.name;
            folder.ok().map(|folder| Seen { folder, name })
        });
        let folder = seen.as_ref().map(|seen| seen.folder);
        if let Some(folder) = folder {
            let paths = self.by_folder.entry(folder).or_default();
            if !paths.contains(path) {
                paths.push(path.clone());
            }
        }
        if let Some(Some(before)) = self.watched.insert(path.clone(), seen)
            && folder != Some(before.folder)
        {
            self.leave(path, before.folder);
        }
        is_limited
    }

    /// A path is not seen in this folder any more.
    fn leave(&mut self, path: &Path, folder: i32) {
        if let Some(paths) = self.by_folder.get_mut(&folder) {
            paths.retain(|other| other != path);
            if paths.is_empty() {
                self.by_folder.remove(&folder);
                // It may be gone already.
                let _ = inotify::remove_watch(&self.inotify, folder);
            }
        }
    }

    /// Reads changes, unless they are too many; returns whether there were any.
    fn read(&mut self, changes: &mut Changes) -> bool {
        let mut buffer = vec![MaybeUninit::uninit(); 16 << 10];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut count = 0;
        while count < AT_ONCE
            && let Ok(event) = reader.next()
        {
            count += 1;
            let name = event.file_name().map(CStr::to_bytes);
            changes.note(
                &self.watched,
                &self.by_folder,
                (event.wd(), event.events(), name),
            );
            if event.events().contains(ReadFlags::IGNORED) {
                // The number is never used again.
                self.by_folder.remove(&event.wd());
            }
        }
        count > 0
    }

    /// Looks again for what may be elsewhere now.
    fn look_again(&mut self, changes: &mut Changes) {
        if changes.overflowed {
            let all: Vec<Path> = self.watched.keys().cloned().collect();
            changes.moved.extend(all);
        }
        for top in std::mem::take(&mut changes.moved) {
            let paths: Vec<Path> = below(&self.watched, &top).cloned().collect();
            for path in paths {
                self.look_for(&path);
                changes.changed.insert(path);
            }
        }
    }
}

impl Changes {
    /// Takes note of what one change in a folder is a change of.
    fn note(
        &mut self,
        watched: &BTreeMap<Path, Option<Seen>>,
        by_folder: &HashMap<i32, Vec<Path>>,
        (folder, events, name): (i32, ReadFlags, Option<&[u8]>),
    ) {
        self.overflowed |= events.contains(ReadFlags::QUEUE_OVERFLOW);
        let comes_or_goes = events.intersects(
            ReadFlags::CREATE | ReadFlags::DELETE | ReadFlags::MOVED_FROM | ReadFlags::MOVED_TO,
        );
        let is_gone = events.intersects(
            ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT | ReadFlags::IGNORED,
        );
        for path in by_folder.get(&folder).into_iter().flatten() {
            let one = watched.get(path).and_then(Option::as_ref);
            let one = one.and_then(|seen| seen.name.as_deref());
            match (name, one) {
                (None, _) if is_gone => drop(self.moved.insert(path.clone())),
                // Whether it may be read.
                (None, None) if events.contains(ReadFlags::ATTRIB) => {
                    self.changed.insert(path.clone());
                }
                (None, _) => {}
                (Some(name), Some(one)) if name != one => {}
                (Some(_), Some(_)) if comes_or_goes => drop(self.moved.insert(path.clone())),
                (Some(_), Some(_)) => drop(self.changed.insert(path.clone())),
                // What is being made has no name of its own yet.
                (Some(name), None) if is_temporary(name) => {}
                (Some(name), None) => {
                    if comes_or_goes || events.contains(ReadFlags::CLOSE_WRITE) {
                        self.changed.insert(path.clone());
                        if RULES.contains(&name) {
                            self.changed.extend(below(watched, path).cloned());
                        }
                    }
                    let child = || [path.as_slice(), &[name.to_vec()]].concat();
                    if comes_or_goes {
                        self.moved.extend(below(watched, &child()).next().cloned());
                    }
                }
            }
        }
    }
}

/// Returns what is watched of a path and what is in it, at any depth.
fn below<'a>(
    watched: &'a BTreeMap<Path, Option<Seen>>,
    top: &Path,
) -> impl Iterator<Item = &'a Path> {
    let from = (Bound::Included(top), Bound::Unbounded);
    let paths = watched.range::<Path, _>(from).map(|(path, _)| path);
    paths.take_while(|path| path.starts_with(top))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::mpsc;

    use tempfile::TempDir;

    use super::*;
    use crate::protocol::encode;

    /// As long as a change may take until it is told, on a machine that has much to do.
    const SOON: Duration = Duration::from_secs(10);

    struct Fixture {
        directory: TempDir,
        watch: Watch,
        awake: mpsc::Receiver<()>,
        /// What was expected to change since it settled last: the same change may be told once more.
        expected: RefCell<BTreeSet<String>>,
    }

    impl Fixture {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let workspace = Arc::new(Workspace::open(directory.path()).unwrap());
            let (sender, awake) = mpsc::channel();
            let wake = move || sender.send(()).unwrap_or_default();
            let watch = Watch::begin(workspace, wake).unwrap();
            Self {
                directory,
                watch,
                awake,
                expected: RefCell::default(),
            }
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.directory.path().join(name)
        }

        fn write(&self, name: &str) {
            fs::write(self.path(name), name).unwrap();
        }

        fn next(&self) -> News {
            let begin = Instant::now();
            loop {
                if let Some(news) = self.watch.news() {
                    return news;
                }
                let left = SOON.saturating_sub(begin.elapsed());
                self.awake.recv_timeout(left).expect("there is news");
            }
        }

        fn watch(&self, names: &[&str]) {
            let paths: Vec<String> = names.iter().map(|name| in_workspace(name)).collect();
            self.watch.watch(&paths);
            while self.next() != (News::Watching { limited: false }) {}
        }

        /// Waits until all of these have changed, and returns what else has.
        fn expect(&self, names: &[&str]) -> BTreeSet<String> {
            let mut missing: BTreeSet<String> =
                names.iter().map(|name| in_workspace(name)).collect();
            self.expected.borrow_mut().extend(missing.clone());
            let mut others = BTreeSet::new();
            while !missing.is_empty() {
                match self.next() {
                    News::Changed { paths, .. } => {
                        others.extend(paths.into_iter().filter(|path| !missing.remove(path)));
                    }
                    News::Watching { .. } => panic!("nothing was asked"),
                }
            }
            others
        }

        /// Waits until this has changed, and nothing else that was not expected before.
        fn expect_only(&self, name: &str) {
            let others = self.expect(&[name]);
            let expected = self.expected.borrow();
            assert!(others.is_subset(&expected), "{others:?}");
        }

        /// Forgets all that has happened until now.
        fn settle(&self) {
            self.watch(&["settled"]);
            self.write("settled");
            self.expect(&["settled"]);
            self.watch(&[]);
            while self.watch.news().is_some() {}
            self.expected.borrow_mut().clear();
        }
    }

    fn in_workspace(name: &str) -> String {
        format!("/workspace/{name}")
            .trim_end_matches('/')
            .to_owned()
    }

    #[test]
    fn what_comes_goes_and_is_written_is_told_of_its_folder() {
        let f = Fixture::new();
        fs::create_dir_all(f.path("a/deep")).unwrap();
        f.watch(&["", "a"]);
        f.write("new");
        f.expect_only("");
        f.write("a/new");
        f.expect_only("a");
        fs::rename(f.path("a/new"), f.path("a/other")).unwrap();
        f.expect_only("a");
        f.write("a/other");
        f.expect_only("a");
        // What is deeper is not seen; what comes after it is.
        f.settle();
        f.watch(&["", "a"]);
        f.write("a/deep/new");
        fs::remove_file(f.path("new")).unwrap();
        f.expect_only("");
        // What is told only once it is whole.
        f.write("a/.cove-0123456789abcdef.tmp");
        f.write("again");
        f.expect_only("");
    }

    #[test]
    fn a_file_is_watched_wherever_it_is_and_before_it_is() {
        let f = Fixture::new();
        fs::create_dir(f.path("a")).unwrap();
        f.watch(&["a/file", "a/none/file"]);
        f.write("a/file");
        f.expect_only("a/file");
        f.write("a/beside");
        fs::write(f.path("a/instead"), "x").unwrap();
        fs::rename(f.path("a/instead"), f.path("a/file")).unwrap();
        f.expect_only("a/file");
        fs::remove_file(f.path("a/file")).unwrap();
        f.expect_only("a/file");
        // Of a program that keeps it open.
        f.write("a/file");
        f.expect(&["a/file"]);
        let mut log = fs::File::options()
            .append(true)
            .open(f.path("a/file"))
            .unwrap();
        f.settle();
        f.watch(&["a/file"]);
        io::Write::write_all(&mut log, b"more").unwrap();
        f.expect_only("a/file");
    }

    #[test]
    fn a_folder_that_another_takes_the_place_of_is_watched_on() {
        let f = Fixture::new();
        fs::create_dir_all(f.path("a/b")).unwrap();
        f.watch(&["", "a", "a/b", "a/b/file"]);
        fs::rename(f.path("a"), f.path("old")).unwrap();
        fs::create_dir_all(f.path("a/b")).unwrap();
        f.expect(&["", "a", "a/b"]);
        f.settle();
        f.watch(&["", "a", "a/b", "a/b/file"]);
        // As a checkout does it: gone, and there again.
        fs::remove_dir_all(f.path("a")).unwrap();
        fs::create_dir_all(f.path("a/b")).unwrap();
        f.expect(&["", "a", "a/b"]);
        // The thread may be looking still: it says so again when it has looked.
        let begin = Instant::now();
        loop {
            f.write("a/b/file");
            f.write("old/b/file");
            let news = f.next();
            if matches!(&news, News::Changed { paths, .. } if paths.contains(&in_workspace("a/b/file")))
            {
                break;
            }
            assert!(begin.elapsed() < SOON, "{news:?}");
        }
    }

    #[test]
    fn a_folder_is_watched_by_all_of_its_names() {
        let f = Fixture::new();
        fs::create_dir(f.path("real")).unwrap();
        symlink("real", f.path("link")).unwrap();
        symlink("/etc", f.path("outside")).unwrap();
        f.watch(&["real", "link", "outside"]);
        f.write("real/new");
        assert_eq!(f.expect(&["real", "link"]), BTreeSet::new());
    }

    #[test]
    fn rules_change_what_is_below_them() {
        let f = Fixture::new();
        fs::create_dir_all(f.path("a/b")).unwrap();
        fs::create_dir(f.path("c")).unwrap();
        f.watch(&["", "a", "a/b", "c"]);
        f.write("a/.gitignore");
        let others = f.expect(&["a", "a/b"]);
        assert!(
            !others.contains(&in_workspace("c")) && !others.contains(&in_workspace("")),
            "{others:?}"
        );
    }

    #[test]
    fn what_is_not_wanted_any_more_is_not_told() {
        let f = Fixture::new();
        fs::create_dir(f.path("a")).unwrap();
        fs::create_dir(f.path("b")).unwrap();
        f.watch(&["a", "b"]);
        f.watch(&["b"]);
        f.write("a/new");
        f.write("b/new");
        f.expect_only("b");
    }

    #[test]
    fn a_storm_is_told_a_few_times_and_at_its_end() {
        let f = Fixture::new();
        fs::create_dir(f.path("a")).unwrap();
        f.watch(&["a"]);
        let (begin, folder) = (Instant::now(), f.path("a"));
        let storm = thread::spawn(move || {
            for number in 0..50_000 {
                let file = folder.join((number % 1_000).to_string());
                if number / 1_000 % 2 == 0 {
                    fs::write(file, "").unwrap();
                } else {
                    fs::remove_file(file).unwrap();
                }
            }
        });
        let mut told = 0_u32;
        while !storm.is_finished() {
            let _ = f.awake.recv_timeout(REST);
            told += u32::from(f.watch.news().is_some());
        }
        // Each of these is a rest, but the first and what was read before the end.
        let rests = begin.elapsed().as_millis() / REST.as_millis();
        assert!(u128::from(told) <= rests + 3, "{told} in {rests} rests");
        f.settle();
        f.watch(&["a"]);
        f.write("a/last");
        f.expect_only("a");
    }

    #[test]
    fn when_changes_were_lost_all_is_changed_and_looked_for_again() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("a")).unwrap();
        let mut watcher = Watcher {
            workspace: Arc::new(Workspace::open(directory.path()).unwrap()),
            inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap(),
            shared: Arc::new(Shared {
                state: Mutex::default(),
                awake: eventfd(0, EventfdFlags::CLOEXEC).unwrap(),
            }),
            watched: BTreeMap::new(),
            by_folder: HashMap::new(),
        };
        let a = vec![b"a".to_vec()];
        assert!(!watcher.watch(&BTreeSet::from([Vec::new(), a.clone()])));
        let before = watcher.watched[&a].clone();
        fs::rename(directory.path().join("a"), directory.path().join("b")).unwrap();
        fs::create_dir(directory.path().join("a")).unwrap();
        let mut changes = Changes::default();
        changes.note(
            &watcher.watched,
            &watcher.by_folder,
            (-1, ReadFlags::QUEUE_OVERFLOW, None),
        );
        watcher.look_again(&mut changes);
        assert!(changes.overflowed);
        assert_eq!(changes.changed, BTreeSet::from([Vec::new(), a.clone()]));
        assert_ne!(watcher.watched[&a], before);
    }

    #[test]
    fn a_system_that_lets_a_user_watch_no_more_is_told() {
        const WITHIN: &str = "COVE_TEST_FEW_WATCHES";
        if std::env::var_os(WITHIN).is_none() {
            // The limit is lowered for this process alone: it runs again as a user of its own.
            let lower = "echo 2 > /proc/sys/user/max_inotify_watches && exec \"$@\"";
            let output = std::process::Command::new("unshare")
                .args(["--user", "--map-root-user", "sh", "-c", lower, "sh"])
                .arg(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "daemon::watch::tests::a_system_that_lets_a_user_watch_no_more_is_told",
                ])
                .env(WITHIN, "yes")
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
            return;
        }
        let f = Fixture::new();
        for name in ["a", "b", "c"] {
            fs::create_dir(f.path(name)).unwrap();
        }
        let watch = |names: &[&str]| {
            let paths: Vec<String> = names.iter().map(|name| in_workspace(name)).collect();
            f.watch.watch(&paths);
            loop {
                if let News::Watching { limited } = f.next() {
                    return limited;
                }
            }
        };
        assert!(watch(&["a", "b", "c"]));
        f.write("b/new");
        f.expect_only("b");
        // What is let go makes room.
        assert!(!watch(&["b", "c"]));
        f.write("c/new");
        f.expect_only("c");
    }

    #[test]
    fn news_fit_into_their_frames_whatever_names_are_like() {
        let f = Fixture::new();
        let mut expected = BTreeSet::new();
        {
            let mut state = f.watch.shared.lock();
            for number in 0..200_u8 {
                let byte = [1, b'"', 0xff, b'a'][usize::from(number % 4)];
                let mut path = vec![vec![byte; 250]; 15];
                path.push(vec![b'0' + number / 20, b'0' + number % 20]);
                expected.insert(WorkspacePath::of(path.clone()).to_string());
                state.changed.insert(path);
            }
        }
        while let Some(news) = f.watch.news() {
            let frame = encode(&news, &[]).expect("it fits");
            assert!(frame.len() <= MOST_NEWS + 8);
            match news {
                News::Changed { paths, .. } => {
                    assert!(paths.iter().all(|path| expected.remove(path)));
                }
                News::Watching { .. } => panic!("nothing was asked"),
            }
        }
        assert_eq!(expected, BTreeSet::new());
    }
}
