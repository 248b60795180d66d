//! Files that are made on this machine, each of those that were asked for under its name only when all are whole.
//!
//! What tells them is a stranger: a path is made of single names in folders that were made here just before, so that
//! none leads out through a link, nothing that is there is written to, and nothing gets set-user-id. Pipes are left out.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempPath;
use uuid::Uuid;

use crate::archive::{Event, Kind, Member, Modified, shown};
use crate::error::Error;

/// The most names that are tried when others are taken.
const MOST_NAMES: u32 = 1_000;

/// Where what is downloaded goes.
#[derive(Debug, Clone)]
pub enum Destination {
    /// One file goes here, in place of what the user has agreed to lose.
    File(PathBuf),
    /// All goes into this folder, where nothing is replaced.
    Folder(PathBuf),
}

impl Destination {
    /// Returns the folder in which files are made.
    pub(crate) fn folder(&self) -> &Path {
        match self {
            Self::File(path) => path.parent().unwrap_or(Path::new(".")),
            Self::Folder(folder) => folder,
        }
    }
}

/// Whose rules names have to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum System {
    Unix,
    Windows,
}

const HERE: System = if cfg!(windows) {
    System::Windows
} else {
    System::Unix
};

/// Makes files. Dropped before its end, it removes what it made.
pub(crate) struct Placer {
    destination: Destination,
    /// The names that were asked for.
    wanted: Vec<Vec<u8>>,
    tops: Vec<Top>,
    /// The folders that it is in, from the top.
    levels: Vec<Level>,
    file: Option<Begun>,
    /// Whether the file that it is in is told again, from where it broke off.
    goes_on: bool,
}

/// Something that was asked for, under a name that shows what it is.
struct Top {
    name: Vec<u8>,
    temporary: PathBuf,
    is_placed: bool,
}

struct Level {
    name: Vec<u8>,
    path: PathBuf,
    mode: u32,
    modified: Modified,
}

struct Begun {
    file: File,
    path: Vec<u8>,
    place: PathBuf,
    at: u64,
    size: u64,
    mode: u32,
    modified: Modified,
}

impl Placer {
    pub(crate) fn new(destination: Destination, wanted: Vec<Vec<u8>>) -> Self {
        Self {
            destination,
            wanted,
            tops: Vec::new(),
            levels: Vec::new(),
            file: None,
            goes_on: false,
        }
    }

    /// Takes note that the file that it is in is told again, from where it broke off.
    pub(crate) fn go_on(&mut self) {
        self.goes_on = true;
    }

    /// Takes what is told next.
    ///
    /// # Errors
    /// [`Error::FilesIncomplete`] for what makes no sense; [`Error::Export`] for what this machine does not take.
    pub(crate) fn take(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Total(_) => Ok(()),
            Event::Member(member) => self.begin(&member),
            Event::Data { offset, bytes } => {
                let begun = self.file.as_mut().ok_or_else(nonsense)?;
                let write = |begun: &mut Begun| {
                    if begun.at != offset {
                        begun.file.seek(SeekFrom::Start(offset))?;
                    }
                    begun.file.write_all(&bytes)?;
                    begun.at = offset + bytes.len() as u64;
                    Ok(())
                };
                write(begun).map_err(|error: io::Error| self.failed(&error))
            }
            Event::Void => {
                let begun = self.file.take().ok_or_else(nonsense)?;
                drop(begun.file);
                fs::remove_file(&begun.place).map_err(|error| self.failed(&error))?;
                self.tops.retain(|top| top.temporary != begun.place);
                Ok(())
            }
        }
    }

    /// Gives everything that was asked for its name.
    ///
    /// # Errors
    /// [`Error::FileNotFound`] for what did not come; [`Error::Export`].
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        self.end_file()?;
        self.leave_to(0)?;
        let is_missing = |name: &&Vec<u8>| !self.tops.iter().any(|top| top.name == **name);
        if let Some(missing) = self.wanted.iter().find(is_missing) {
            return Err(Error::FileNotFound(shown(missing)));
        }
        for index in 0..self.tops.len() {
            let Some(top) = self.tops.get(index) else {
                break;
            };
            place(&self.destination, top).map_err(|error| self.failed(&error))?;
            if let Some(top) = self.tops.get_mut(index) {
                top.is_placed = true;
            }
        }
        Ok(())
    }

    fn begin(&mut self, member: &Member) -> Result<(), Error> {
        if std::mem::take(&mut self.goes_on)
            && let (Some(begun), Kind::File { size, .. }) = (&self.file, &member.kind)
        {
            let is_it = begun.path == member.path && begun.size == *size;
            return if is_it { Ok(()) } else { Err(nonsense()) };
        }
        self.end_file()?;
        let names: Vec<&[u8]> = member.path.split(|byte| *byte == b'/').collect();
        let Some((last, above)) = names.split_last().filter(|(last, _)| !last.is_empty()) else {
            return Err(nonsense());
        };
        let matching = self.levels.iter().zip(above);
        let common = matching
            .take_while(|(level, name)| level.name == **name)
            .count();
        self.leave_to(common)?;
        // Into nothing but what was made here just before.
        if common != above.len() {
            return Err(nonsense());
        }
        if matches!(member.kind, Kind::Pipe) {
            return self.leave_out(last);
        }
        let place = match self.levels.last() {
            Some(level) => level.path.join(self.local_name(last)?),
            None => self.top(last)?,
        };
        let made = match &member.kind {
            Kind::Directory => make_folder(&place).map(|()| {
                self.levels.push(Level {
                    name: last.to_vec(),
                    path: place,
                    mode: member.mode,
                    modified: member.modified,
                });
            }),
            Kind::File { size, .. } => {
                let file = make_file(&place);
                file.map(|file| {
                    self.file = Some(Begun {
                        file,
                        path: member.path.clone(),
                        place,
                        at: 0,
                        size: *size,
                        mode: member.mode,
                        modified: member.modified,
                    });
                })
            }
            Kind::Symlink(target) => symlink(target, &place, member.modified),
            Kind::HardLink(target) => {
                let target = self.made_file(target)?;
                fs::hard_link(target, &place)
            }
            Kind::Pipe | Kind::Device => return Err(nonsense()),
        };
        made.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => self.failed_with(format!(
                "`{}` and another name in its folder are the same on this computer",
                shown(&member.path)
            )),
            _ => self.failed_with(format!("`{}`: {error}", shown(&member.path))),
        })
    }

    /// Leaves a pipe out. One that was asked for itself cannot be had.
    fn leave_out(&self, name: &[u8]) -> Result<(), Error> {
        if self.levels.is_empty() {
            return Err(self.failed_with(format!("`{}` is a pipe, not a file", shown(name))));
        }
        Ok(())
    }

    fn top(&mut self, name: &[u8]) -> Result<PathBuf, Error> {
        if !self.wanted.iter().any(|wanted| wanted == name) {
            return Err(nonsense());
        }
        if self.tops.iter().any(|top| top.name == name) {
            return Err(nonsense());
        }
        // Before anything is made that cannot get its name.
        self.local_name(name)?;
        let temporary = format!(".cove-{}.part", Uuid::new_v4().simple());
        let temporary = self.destination.folder().join(temporary);
        self.tops.push(Top {
            name: name.to_vec(),
            temporary: temporary.clone(),
            is_placed: false,
        });
        Ok(temporary)
    }

    /// Returns where a file lies that was made before, reached through folders only.
    fn made_file(&self, path: &[u8]) -> Result<PathBuf, Error> {
        let mut names = path.split(|byte| *byte == b'/');
        let first = names.next().unwrap_or_default();
        let top = self.tops.iter().find(|top| top.name == first);
        let mut place = top.ok_or_else(nonsense)?.temporary.clone();
        for name in names {
            let is_folder = fs::symlink_metadata(&place).is_ok_and(|facts| facts.is_dir());
            if !is_folder {
                return Err(nonsense());
            }
            place.push(self.local_name(name)?);
        }
        let is_file = fs::symlink_metadata(&place).is_ok_and(|facts| facts.is_file());
        if is_file { Ok(place) } else { Err(nonsense()) }
    }

    fn end_file(&mut self) -> Result<(), Error> {
        let Some(begun) = self.file.take() else {
            return Ok(());
        };
        let end = || {
            if begun.file.metadata()?.len() != begun.size {
                begun.file.set_len(begun.size)?;
            }
            set_mode(&begun.file, begun.mode)?;
            begun.file.set_modified(time_of(begun.modified))
        };
        end().map_err(|error| self.failed(&error))
    }

    /// Leaves folders until so many are left, and gives each what is known of it.
    fn leave_to(&mut self, depth: usize) -> Result<(), Error> {
        while self.levels.len() > depth {
            let Some(level) = self.levels.pop() else {
                break;
            };
            settle(&level).map_err(|error| self.failed(&error))?;
        }
        Ok(())
    }

    fn local_name(&self, name: &[u8]) -> Result<OsString, Error> {
        local_name(HERE, name).map_err(|why| {
            self.failed_with(format!(
                "no file can be called `{}` here: {why}",
                shown(name)
            ))
        })
    }

    fn failed(&self, error: &io::Error) -> Error {
        self.failed_with(error.to_string())
    }

    fn failed_with(&self, message: String) -> Error {
        let path = match &self.destination {
            Destination::File(path) | Destination::Folder(path) => path,
        };
        Error::Export {
            path: path.display().to_string(),
            message,
        }
    }
}

impl Drop for Placer {
    fn drop(&mut self) {
        self.file = None;
        for top in self.tops.iter().filter(|top| !top.is_placed) {
            remove(&top.temporary);
        }
    }
}

fn nonsense() -> Error {
    Error::FilesIncomplete("what the agent in the container told makes no sense".to_owned())
}

/// Gives something its name; nothing is replaced that the user did not agree to lose.
fn place(destination: &Destination, top: &Top) -> io::Result<()> {
    let folder = match destination {
        Destination::File(path) => return fs::rename(&top.temporary, path),
        Destination::Folder(folder) => folder,
    };
    let name = local_name(HERE, &top.name).map_err(io::Error::other)?;
    let mut half = TempPath::try_from_path(&top.temporary)?;
    for number in 0..MOST_NAMES {
        match half.persist_noclobber(folder.join(name_like(&name, number))) {
            Ok(()) => return Ok(()),
            Err(not) => {
                half = not.path;
                if not.error.kind() != io::ErrorKind::AlreadyExists {
                    // Who made it removes it, too.
                    half.keep().map_err(|not| not.error)?;
                    return Err(not.error);
                }
            }
        }
    }
    half.keep().map_err(|not| not.error)?;
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Returns the name itself, or another like it: `a (2).txt`.
fn name_like(name: &OsStr, number: u32) -> OsString {
    if number == 0 {
        return name.to_owned();
    }
    let path = Path::new(name);
    let mut like = path.file_stem().unwrap_or(name).to_owned();
    like.push(format!(" ({})", number + 1));
    if let Some(extension) = path.extension() {
        like.push(".");
        like.push(extension);
    }
    like
}

/// Returns a name of a file in a container as one of this machine.
///
/// # Errors
/// Says why it cannot be.
fn local_name(system: System, name: &[u8]) -> Result<OsString, &'static str> {
    if matches!(name, b"" | b"." | b"..") || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
        return Err("it is no name");
    }
    match system {
        System::Unix => {}
        System::Windows => windows_takes(name)?,
    }
    #[cfg(unix)]
    return Ok(std::os::unix::ffi::OsStringExt::from_vec(name.to_vec()));
    #[cfg(not(unix))]
    return String::from_utf8(name.to_vec())
        .map(OsString::from)
        .map_err(|_| "it is not Unicode");
}

fn windows_takes(name: &[u8]) -> Result<(), &'static str> {
    const RESERVED: [&str; 4] = ["con", "prn", "aux", "nul"];
    let text = std::str::from_utf8(name).map_err(|_| "it is not Unicode")?;
    if text.ends_with(['.', ' ']) {
        return Err("it ends with a dot or a space");
    }
    if text.contains(|c: char| c < ' ' || "<>:\"\\|?*".contains(c)) {
        return Err("it has a character that Windows does not take");
    }
    let stem = text.split('.').next().unwrap_or_default().trim_end();
    let stem = stem.to_ascii_lowercase();
    let numbered = stem
        .strip_prefix("com")
        .or_else(|| stem.strip_prefix("lpt"));
    let is_port = numbered.is_some_and(|number| {
        let mut digits = number.chars();
        matches!(
            (digits.next(), digits.next()),
            (Some('1'..='9' | '¹' | '²' | '³'), None)
        )
    });
    if RESERVED.contains(&&*stem) || is_port {
        return Err("Windows keeps it for a device");
    }
    Ok(())
}

fn time_of(modified: Modified) -> SystemTime {
    let Modified {
        seconds,
        nanoseconds,
    } = modified;
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let moment = if seconds < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    let rest = Duration::from_nanos(nanoseconds.into());
    moment
        .and_then(|moment| moment.checked_add(rest))
        .unwrap_or(UNIX_EPOCH)
}

#[cfg(unix)]
fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(mode & 0o777))
}

/// Whether a file may be run is not said by the file here.
#[cfg(not(unix))]
fn set_mode(_file: &File, _mode: u32) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn settle(level: &Level) -> io::Result<()> {
    let folder = File::open(&level.path)?;
    set_mode(&folder, level.mode)?;
    folder.set_modified(time_of(level.modified))
}

/// A folder's time is the system's own there.
#[cfg(not(unix))]
fn settle(_level: &Level) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn symlink(target: &[u8], place: &Path, modified: Modified) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
    use std::os::unix::ffi::OsStrExt;

    std::os::unix::fs::symlink(OsStr::from_bytes(target), place)?;
    let time = Timespec {
        tv_sec: modified.seconds,
        tv_nsec: modified.nanoseconds.into(),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(utimensat(CWD, place, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

#[cfg(windows)]
fn symlink(target: &[u8], place: &Path, _modified: Modified) -> io::Result<()> {
    let target = std::str::from_utf8(target).map_err(io::Error::other)?;
    std::os::windows::fs::symlink_file(target.replace('/', "\\"), place)
}

/// Makes a file that nobody else may read before it is known who may.
fn make_file(place: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(place)
}

fn make_folder(place: &Path) -> io::Result<()> {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "it has a mode on Unix only"))]
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(place)
}

/// Removes what is not whole. A folder that may not be written to was made so here.
fn remove(path: &Path) {
    let removed = match fs::symlink_metadata(path) {
        Ok(facts) if facts.is_dir() => fs::remove_dir_all(path).or_else(|_| {
            make_writable(path);
            fs::remove_dir_all(path)
        }),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    };
    if let Err(error) = removed {
        log::warn!("half a download could not be removed: {error}");
    }
}

#[cfg(unix)]
fn make_writable(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        // What stays as it is, is not removed, and that is said.
        let _ = fs::set_permissions(&folder, fs::Permissions::from_mode(0o700));
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let within = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.extend(within.map(|entry| entry.path()));
    }
}

#[cfg(not(unix))]
fn make_writable(_folder: &Path) {}

#[cfg(test)]
mod tests;
