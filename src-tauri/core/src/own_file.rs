//! The app's own files. A power cut may have cut one short, or somebody may have written something else:
//! what does not hold what it should is set aside under another name, so that nothing overwrites it.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

/// Returns what a file of at most this many bytes holds. `None` when there is no such file, and when it
/// cannot be understood: then it is set aside. Blocks.
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

fn read_at_most(path: &Path, most_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    if fs::metadata(path)?.len() > most_bytes {
        return Ok(None);
    }
    fs::read(path).map(Some)
}

fn set_aside(path: &Path, problem: &str) {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    let outcome = match fs::rename(path, &aside) {
        Ok(()) => "was set aside".to_owned(),
        Err(error) => format!("could not be set aside: {error}"),
    };
    log::warn!("{} is damaged ({problem}) and {outcome}", path.display());
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
}
