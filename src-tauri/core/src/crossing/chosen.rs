//! An archive on this machine that the user has chosen: compressed as people do, or not.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::TryStreamExt;
use futures_util::stream::{self, StreamExt};
use tokio::sync::mpsc;

use super::{Failure, Files, members};
use crate::error::Error;

/// Bytes that are read at once.
const PIECE: usize = 256 * 1024;
/// Pieces that may wait for the engine.
const QUEUE: usize = 4;

/// An archive that is being read.
pub(crate) struct Chosen {
    /// What is in it.
    pub(crate) files: Files,
    /// Its bytes on this machine.
    pub(crate) length: u64,
    /// How many of them have been read.
    pub(crate) read: Arc<AtomicU64>,
}

/// Begins to read an archive.
///
/// # Errors
/// [`Error::Validation`] for what is no file, or of a kind that is not read here. The files end with it when the
/// archive is damaged, breaks off, or is none.
pub(crate) async fn open_chosen(path: &Path) -> Result<Chosen, Error> {
    let path = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || open(&path)).await;
    let (mut reader, length, read) = opened
        .map_err(|error| Error::Internal(format!("failed to open an archive: {error}")))??;
    let (sender, queue) = mpsc::channel::<Result<Bytes, Error>>(QUEUE);
    tokio::task::spawn_blocking(move || {
        loop {
            let mut piece = vec![0; PIECE];
            let piece = match reader.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => {
                    piece.truncate(count);
                    Ok(Bytes::from(piece))
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(Error::field("archive", format!("cannot be read: {error}"))),
            };
            let is_last = piece.is_err();
            // Nobody wants more: the copying has ended.
            if sender.blocking_send(piece).is_err() || is_last {
                break;
            }
        }
    });
    let pieces = stream::unfold(queue, async |mut queue| {
        queue.recv().await.map(|piece| (piece, queue))
    });
    let files = members(pieces.boxed()).map_err(|failure| match failure {
        Failure::Stream(error) => error,
        Failure::Archive(error) => Error::field("archive", format!("cannot be used: {error}")),
    });
    Ok(Chosen {
        files: files.boxed(),
        length,
        read,
    })
}

type Opened = (Box<dyn Read + Send>, u64, Arc<AtomicU64>);

fn open(path: &Path) -> Result<Opened, Error> {
    let unreadable =
        |error: &io::Error| Error::field("archive", format!("cannot be read: {error}"));
    // A pipe would never be opened, so look first.
    let facts = std::fs::metadata(path).map_err(|error| unreadable(&error))?;
    if !facts.is_file() {
        return Err(Error::field("archive", "is not a file"));
    }
    let mut file = File::open(path).map_err(|error| unreadable(&error))?;
    let mut head = Vec::new();
    (&mut file)
        .take(8)
        .read_to_end(&mut head)
        .map_err(|error| unreadable(&error))?;
    let read = Arc::new(AtomicU64::new(head.len() as u64));
    let counting = Counting {
        file,
        read: Arc::clone(&read),
    };
    let whole = io::Cursor::new(head.clone()).chain(counting);
    let whole = BufReader::with_capacity(PIECE, whole);
    let reader: Box<dyn Read + Send> = match &*head {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        [b'B', b'Z', b'h', ..] => Box::new(bzip2::bufread::MultiBzDecoder::new(whole)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Box::new(lzma_rust2::XzReader::new(whole, true)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(whole);
            Box::new(
                decoder
                    .map_err(|error| Error::field("archive", format!("cannot be read: {error}")))?,
            )
        }
        [b'P', b'K', 3, 4, ..] => return Err(other_kind("a zip archive")),
        [b'7', b'z', 0xbc, 0xaf, ..] => return Err(other_kind("a 7z archive")),
        [b'R', b'a', b'r', b'!', ..] => return Err(other_kind("a RAR archive")),
        _ => Box::new(whole),
    };
    Ok((reader, facts.len(), read))
}

fn other_kind(kind: &str) -> Error {
    let problem = format!(
        "is {kind}, which Cove does not read: unpack it and pack it as `.tar`, `.tar.gz`, `.tar.bz2`, `.tar.xz` or `.tar.zst`"
    );
    Error::field("archive", problem)
}

/// Counts what is read of a file.
struct Counting {
    file: File,
    read: Arc<AtomicU64>,
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Event;

    async fn names(path: &Path) -> Result<Vec<String>, Error> {
        let chosen = open_chosen(path).await?;
        let events: Vec<Event> = chosen.files.try_collect().await?;
        let names = events.into_iter().filter_map(|event| match event {
            Event::Member(member) => Some(member.to_string()),
            Event::Total(_) | Event::Void | Event::Data { .. } => None,
        });
        Ok(names.filter(|name| !name.is_empty()).collect())
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn an_archive_is_read_however_it_is_compressed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), vec![b'x'; 100_000]).unwrap();
        for (option, ending) in [
            ("", "tar"),
            ("-z", "gz"),
            ("-j", "bz2"),
            ("-J", "xz"),
            ("--zstd", "zst"),
        ] {
            let path = folder.path().join(format!("files.{ending}"));
            let mut tar = std::process::Command::new("tar");
            tar.args((!option.is_empty()).then_some(option));
            tar.arg("-cf")
                .arg(&path)
                .arg("-C")
                .arg(folder.path())
                .arg("file");
            if !tar.output().unwrap().status.success() {
                // This machine has no such program.
                continue;
            }
            assert_eq!(names(&path).await.unwrap(), ["file"], "{ending}");
            // Half of it is none.
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
            let error = names(&path).await.unwrap_err();
            assert!(matches!(error, Error::Validation(_)), "{ending}: {error:?}");
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn what_is_no_archive_says_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chosen");
        for (content, words) in [
            (&b""[..], "is empty"),
            (b"this is no archive", "is not a tar archive"),
            (b"PK\x03\x04 and more", "is a zip archive"),
            (&[b'x'; 5000], "is not a tar archive"),
        ] {
            std::fs::write(&path, content).unwrap();
            let Error::Validation(fields) = names(&path).await.unwrap_err() else {
                panic!("{words}");
            };
            assert!(fields["archive"].contains(words), "{fields:?}");
        }
        std::fs::remove_file(&path).unwrap();
        let pipe = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(pipe.unwrap().success());
        for no_file in [&path, folder.path()] {
            let Error::Validation(fields) = names(no_file).await.unwrap_err() else {
                panic!("{}", no_file.display());
            };
            assert_eq!(fields["archive"], "is not a file");
        }
    }
}
