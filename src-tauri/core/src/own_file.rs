//! The app's own files. A power cut may have cut one short, or somebody may have written something else:
//! what does not hold what it should is set aside under another name, so that nothing overwrites it. A file
//! is written as a whole or not at all.
//!
//! Whoever can write into the app's folder could also put a pipe there, or a link to a device that never
//! ends. Only regular files are read, of a size that is known to be reasonable before the first byte is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::Path;

use tempfile::NamedTempFile;

/// Returns what a file of at most this many bytes holds. `None` when there is no such file, and when it
/// cannot be understood: then it is set aside. Blocks on the disk, and on nothing else.
pub fn read<T>(
    path: &Path,
    most_bytes: u64,
    understand: impl FnOnce(&[u8]) -> Result<T, String>,
) -> Option<T> {
    let understood = match read_at_most(path, most_bytes) {
        Ok(Some(bytes)) => understand(&bytes),
        Ok(None) => Err(format!("more than {most_bytes} bytes are too many")),
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => Err(error.to_string()),
    };
    understood.map_err(|problem| set_aside(path, &problem)).ok()
}

/// Returns the content of a regular file; `None` when it is larger than `most_bytes`.
///
/// # Errors
/// When it cannot be read, and when it is no regular file.
pub fn read_at_most(path: &Path, most_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let mut options = OpenOptions::new();
    let file = without_waiting(options.read(true)).open(path)?;
    let facts = file.metadata()?;
    if !facts.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    if facts.len() > most_bytes {
        return Ok(None);
    }
    // It may grow while it is read.
    let mut bytes = Vec::new();
    file.take(most_bytes.saturating_add(1))
        .read_to_end(&mut bytes)?;
    let fits = u64::try_from(bytes.len()).is_ok_and(|length| length <= most_bytes);
    Ok(fits.then_some(bytes))
}

/// Puts a file in place of the old one, as a whole: a temporary file is written, flushed to the disk and
/// renamed. Its folder is made if need be. Blocks on the disk.
///
/// # Errors
/// When that fails; the old file is still there then.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let Some(folder) = path.parent() else {
        return Err(io::Error::other("a file needs a folder"));
    };
    fs::create_dir_all(folder)?;
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync_folder(folder);
    Ok(())
}

/// Opens a file that only serves to be locked; it is made if need be, and what is no file is set aside.
///
/// # Errors
/// When it cannot be opened.
pub fn open_lock(path: &Path) -> io::Result<File> {
    if fs::metadata(path).is_ok_and(|facts| !facts.is_file()) {
        set_aside(path, "it is no regular file");
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    let file = without_waiting(&mut options).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("it is no regular file"))
    }
}

/// Moves something out of the way that is not what it should be, and logs why.
pub fn set_aside(path: &Path, problem: &str) {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    let outcome = match fs::rename(path, &aside) {
        Ok(()) => "was set aside".to_owned(),
        Err(error) => format!("could not be set aside: {error}"),
    };
    log::warn!("{} is damaged ({problem}) and {outcome}", path.display());
}

/// Makes a rename or removal last through a power cut. Not every system lets a folder be opened, and
/// those that do not keep such changes in order by themselves.
pub fn sync_folder(folder: &Path) {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    if let Err(error) = synced {
        log::debug!("{} was not flushed: {error}", folder.display());
    }
}

/// Lets an opening return at once also where a pipe has nobody at its other end.
#[cfg(unix)]
fn without_waiting(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt as _;

    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    options.custom_flags(flags.bits().cast_signed())
}

#[cfg(not(unix))]
fn without_waiting(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_set_aside_and_not_lost() {
        let folder = tempfile::tempdir().unwrap();
        let (path, aside) = (
            folder.path().join("a.json"),
            folder.path().join("a.json.damaged"),
        );
        let understand = |bytes: &[u8]| match bytes {
            b"good" => Ok(1),
            _ => Err("it is not good".to_owned()),
        };
        assert_eq!(read(&path, 4, understand), None);
        assert!(!aside.exists(), "one that is not there is no problem");
        for (bytes, is_good) in [(&b"good"[..], true), (b"goo", false), (b"good!", false)] {
            fs::write(&path, bytes).unwrap();
            assert_eq!(read(&path, 4, understand).is_some(), is_good);
            assert_eq!(path.exists(), is_good);
            if !is_good {
                assert_eq!(fs::read(&aside).unwrap(), bytes, "what was there is kept");
            }
        }
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_or_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/a.json");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        let files = fs::read_dir(folder.path().join("new")).unwrap().count();
        assert_eq!(files, 1, "no temporary file is left");

        // A folder in the place of the file stands for any failure of the last step.
        let taken = folder.path().join("taken");
        fs::create_dir(&taken).unwrap();
        fs::write(taken.join("content"), "kept").unwrap();
        replace(&taken, b"three").unwrap_err();
        assert_eq!(fs::read(taken.join("content")).unwrap(), b"kept");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    /// Runs something that must not wait for anybody.
    #[cfg(unix)]
    #[track_caller]
    fn at_once<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || done.send(work()));
        let limit = std::time::Duration::from_secs(10);
        heard.recv_timeout(limit).expect("it waits")
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_a_device_and_an_endless_file_are_set_aside_without_waiting_or_reading() {
        use std::os::unix::fs::symlink;

        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let made = std::process::Command::new("mkfifo")
            .arg(path("pipe"))
            .status();
        assert!(made.unwrap().success());
        symlink("/dev/zero", path("zero")).unwrap();
        symlink("/dev/tty", path("terminal")).unwrap();
        fs::create_dir(path("folder")).unwrap();
        let sparse = File::create(path("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();

        for name in ["pipe", "zero", "terminal", "folder", "sparse"] {
            let file = path(name);
            let content = at_once(move || read(&file, 100, |bytes| Ok(bytes.len())));
            assert_eq!(content, None, "{name}");
            assert!(!path(name).exists(), "{name} was left where it was");
            let aside = path(&format!("{name}.damaged"));
            assert!(fs::symlink_metadata(aside).is_ok(), "{name} is gone");
        }
        for name in ["pipe.damaged", "zero.damaged", "folder.damaged"] {
            let file = path(name);
            let lock = at_once(move || open_lock(&file)).unwrap();
            assert!(lock.metadata().unwrap().is_file(), "{name}");
        }
    }
}
