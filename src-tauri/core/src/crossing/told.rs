//! What the agent tells of files, and how it is told them. What it says is a stranger's word: names are single
//! ones, content is what was announced, and nothing is whole before its end.

use std::collections::VecDeque;

use bytes::Bytes;
use cove_agent::protocol::{Decoder, Frame, encode};
use cove_agent::tree::{self, Facts, Failed, PIECE, Piece, Total};
use cove_agent::{AGENT_PATH, path};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};

use super::{COPY_OUT, Files, STANDSTILL, stands_still};
use crate::archive::{ArchiveError, Event, Extent, Kind, Member, Modified, shown};
use crate::engine::{Engine, Exec, ExecOutput, ExecSpec, in_time};
use crate::error::Error;

/// Pieces of a tree, as the agent tells them.
pub(super) type Pieces = BoxStream<'static, Result<Frame<Piece>, Error>>;

/// Runs the agent in a container, as root.
pub(super) async fn run(
    engine: &dyn Engine,
    container: &str,
    arguments: &[&str],
) -> Result<Exec, Error> {
    let command = std::iter::once(&AGENT_PATH).chain(arguments);
    let spec = ExecSpec {
        command: command.map(|&argument| argument.to_owned()).collect(),
        user: String::new(),
        directory: "/".to_owned(),
        environment: Vec::new(),
    };
    in_time(
        "run the agent in the container",
        engine.exec(container, &spec),
    )
    .await
}

/// Lets the agent tell its files; `None` when there is none that can: the container does not run, or an agent of
/// an earlier version runs in it.
pub(super) async fn pack(
    engine: &dyn Engine,
    container: &str,
    arguments: &[&str],
) -> Option<Pieces> {
    let exec = match run(engine, container, arguments).await {
        Ok(exec) => exec,
        Err(error) => {
            log::debug!("the engine packs the files of `{container}`: {error}");
            return None;
        }
    };
    let mut pieces = pieces(exec);
    match pieces.try_next().await {
        Ok(Some(first)) => Some(stream::iter([Ok(first)]).chain(pieces).boxed()),
        Ok(None) => None,
        Err(error) => {
            log::warn!("the engine packs the files of `{container}`: {error}");
            None
        }
    }
}

/// Takes frames out of what a command prints. The command is given no input, and ends when it is closed.
fn pieces(exec: Exec) -> Pieces {
    let start = (exec, Decoder::<Piece>::new());
    stream::try_unfold(start, async |(mut exec, mut decoder)| {
        loop {
            if let Some(frame) = decoder.next_frame().map_err(|error| nonsense(&error))? {
                return Ok(Some((frame, (exec, decoder))));
            }
            let piece = tokio::time::timeout(STANDSTILL, exec.output.next()).await;
            match piece.map_err(|_elapsed| stands_still(COPY_OUT))? {
                Some(Ok(ExecOutput::Out(bytes))) => decoder.push(&bytes),
                Some(Ok(ExecOutput::Err(bytes))) => {
                    log::debug!("agent: {}", shown(&bytes));
                }
                Some(Err(error)) => return Err(error),
                None => return Ok(None),
            }
        }
    })
    .boxed()
}

/// Waits for the answer of who was told files.
pub(super) async fn answer(
    mut output: BoxStream<'static, Result<ExecOutput, Error>>,
) -> Result<Result<(), Failed>, Error> {
    let mut decoder = Decoder::<Piece>::new();
    let mut said = Vec::new();
    loop {
        match decoder.next_frame().map_err(|error| nonsense(&error))? {
            Some(Frame {
                header: Piece::End, ..
            }) => return Ok(Ok(())),
            Some(Frame {
                header: Piece::Failed(failed),
                ..
            }) => return Ok(Err(failed)),
            Some(_) => return Err(nonsense(&"it answered something else")),
            None => {}
        }
        match output.next().await {
            Some(Ok(ExecOutput::Out(bytes))) => decoder.push(&bytes),
            Some(Ok(ExecOutput::Err(bytes))) => {
                said.extend(
                    bytes
                        .into_iter()
                        .take(1000_usize.saturating_sub(said.len())),
                );
            }
            Some(Err(error)) => return Err(error),
            None => {
                let said = shown(said.trim_ascii());
                return Err(Error::FilesIncomplete(format!(
                    "the agent ended before its end: {said}"
                )));
            }
        }
    }
}

/// Returns the counts among what is told.
pub(super) fn totals(pieces: Pieces) -> BoxStream<'static, Result<Total, Error>> {
    pieces
        .try_filter_map(async |frame| {
            Ok(match frame.header {
                Piece::Total(total) => Some(total),
                _ => None,
            })
        })
        .boxed()
}

/// Follows what is told of files, to its end.
pub(super) fn events(pieces: Pieces) -> Files {
    let start = (pieces, Following::default());
    stream::try_unfold(start, async |(mut pieces, mut following)| {
        loop {
            let Some(frame) = pieces.try_next().await? else {
                return Err(Error::FilesIncomplete(
                    "the container ended while they were read".to_owned(),
                ));
            };
            match following.take(frame)? {
                Followed::Event(event) => return Ok(Some((event, (pieces, following)))),
                Followed::Nothing => {}
                Followed::End => return Ok(None),
            }
        }
    })
    .boxed()
}

/// Where in a tree the telling is.
#[derive(Debug, Default)]
struct Following {
    path: Vec<u8>,
    /// What of the file that began last is still to come.
    file: Option<VecDeque<Extent>>,
}

enum Followed {
    Event(Event),
    Nothing,
    End,
}

impl Following {
    fn take(&mut self, Frame { header, body }: Frame<Piece>) -> Result<Followed, Error> {
        let continues_file = matches!(header, Piece::Content { .. } | Piece::Whole | Piece::Void);
        let fails = matches!(header, Piece::Failed(_));
        if self.file.is_some() != continues_file && !fails {
            return Err(nonsense(&"a file ends before its end"));
        }
        let member = |path, kind, facts: &Facts| Event::Member(member_of(path, kind, facts));
        Ok(Followed::Event(match header {
            Piece::Total(total) => Event::Total(total.content),
            Piece::Root { facts } => member(Vec::new(), Kind::Directory, &facts),
            Piece::Enter { name, facts } => {
                self.path = self.place(&name)?;
                match facts {
                    Some(facts) => member(self.path.clone(), Kind::Directory, &facts),
                    None => return Ok(Followed::Nothing),
                }
            }
            Piece::Leave => {
                let end = self.path.iter().rposition(|byte| *byte == b'/');
                self.path.truncate(end.unwrap_or_default());
                return Ok(Followed::Nothing);
            }
            Piece::File {
                name,
                facts,
                size,
                extents,
            } => {
                let extents = match extents {
                    Some(extents) => Some(checked(&extents, size)?),
                    None => None,
                };
                let whole = Extent {
                    offset: 0,
                    length: size,
                };
                self.file = Some(extents.clone().unwrap_or_else(|| vec![whole]).into());
                member(self.place(&name)?, Kind::File { size, extents }, &facts)
            }
            Piece::Content { offset } => {
                let length = body.len() as u64;
                let extents = self.file.as_mut();
                let extent = extents.and_then(|extents| {
                    while extents.front().is_some_and(|extent| extent.length == 0) {
                        extents.pop_front();
                    }
                    extents.front_mut()
                });
                let extent = extent.filter(|is| is.offset == offset && length <= is.length);
                let extent = extent.ok_or_else(|| nonsense(&"content is out of its place"))?;
                extent.offset += length;
                extent.length -= length;
                let bytes = Bytes::from(body);
                Event::Data { offset, bytes }
            }
            Piece::Whole => {
                let left = self.file.take().unwrap_or_default();
                if left.iter().any(|extent| extent.length > 0) {
                    return Err(nonsense(&"a file ends before its end"));
                }
                return Ok(Followed::Nothing);
            }
            Piece::Void => {
                self.file = None;
                Event::Void
            }
            Piece::Symlink {
                name,
                facts,
                target,
            } => {
                let target =
                    path::decode(&target).ok_or_else(|| nonsense(&"a link has no text"))?;
                member(self.place(&name)?, Kind::Symlink(target), &facts)
            }
            Piece::HardLink { name, path } => {
                let names: Option<Vec<_>> = path.iter().map(|name| tree::name(name)).collect();
                let names = names.ok_or_else(|| nonsense(&"a name is none"))?;
                let target = names.join(&b'/');
                let kind = Kind::HardLink(target);
                member(self.place(&name)?, kind, &Facts::default())
            }
            Piece::Pipe { name, facts } => member(self.place(&name)?, Kind::Pipe, &facts),
            Piece::End => return Ok(Followed::End),
            Piece::Failed(Failed { message, .. }) => {
                return Err(Error::FilesIncomplete(shown(message.as_bytes())));
            }
        }))
    }

    fn place(&self, name: &str) -> Result<Vec<u8>, Error> {
        let name = tree::name(name).ok_or_else(|| nonsense(&"a name is none"))?;
        if self.path.is_empty() {
            return Ok(name);
        }
        Ok([&*self.path, b"/", &name].concat())
    }
}

/// Tells files to the agent.
#[derive(Debug, Default)]
pub(super) struct Telling {
    /// The names down to the directory that it is in.
    within: Vec<Vec<u8>>,
    has_file: bool,
}

impl Telling {
    /// Returns the frames that tell this.
    ///
    /// # Errors
    /// Says what cannot be told.
    pub(super) fn tell(&mut self, event: Event) -> Result<Vec<u8>, String> {
        let mut frames = Vec::new();
        match event {
            Event::Total(_) => {}
            Event::Void => {
                self.has_file = false;
                add(&mut frames, &Piece::Void, &[])?;
            }
            Event::Data { offset, bytes } => {
                for (index, piece) in bytes.chunks(PIECE).enumerate() {
                    let offset = offset + (index * PIECE) as u64;
                    add(&mut frames, &Piece::Content { offset }, piece)?;
                }
            }
            Event::Member(member) => {
                self.end_file(&mut frames)?;
                self.member(&mut frames, member)?;
            }
        }
        Ok(frames)
    }

    /// Returns the frames that tell that nothing is missing.
    pub(super) fn end(mut self) -> Result<Vec<u8>, String> {
        let mut frames = Vec::new();
        self.end_file(&mut frames)?;
        add(&mut frames, &Piece::End, &[])?;
        Ok(frames)
    }

    fn end_file(&mut self, frames: &mut Vec<u8>) -> Result<(), String> {
        if std::mem::take(&mut self.has_file) {
            add(frames, &Piece::Whole, &[])?;
        }
        Ok(())
    }

    fn member(&mut self, frames: &mut Vec<u8>, member: Member) -> Result<(), String> {
        let facts = facts_of(&member);
        let mut names: Vec<Vec<u8>> = Vec::new();
        if !member.path.is_empty() {
            names.extend(member.path.split(|byte| *byte == b'/').map(<[u8]>::to_vec));
        }
        let Some(last) = names.pop() else {
            self.go_to(frames, &[])?;
            return match member.kind {
                Kind::Directory => add(frames, &Piece::Root { facts }, &[]),
                _ => Err("its root is no directory".to_owned()),
            };
        };
        self.go_to(frames, &names)?;
        let name = path::encode(&last);
        let piece = match member.kind {
            Kind::Directory => {
                self.within.push(last);
                let facts = Some(facts);
                Piece::Enter { name, facts }
            }
            Kind::File { size, extents } => {
                self.has_file = true;
                let pairs = |extents: Vec<Extent>| {
                    let pairs = extents.into_iter();
                    pairs
                        .map(|Extent { offset, length }| (offset, length))
                        .collect()
                };
                let extents = extents.map(pairs);
                Piece::File {
                    name,
                    facts,
                    size,
                    extents,
                }
            }
            Kind::Symlink(target) => {
                let target = path::encode(&target);
                Piece::Symlink {
                    name,
                    facts,
                    target,
                }
            }
            Kind::HardLink(target) => {
                let path = target.split(|byte| *byte == b'/').map(path::encode);
                let path = path.collect();
                Piece::HardLink { name, path }
            }
            Kind::Pipe => Piece::Pipe { name, facts },
            Kind::Device => return Err(ArchiveError::Device(member.path).to_string()),
        };
        add(frames, &piece, &[])
    }

    /// Leaves and enters directories until it is in this one.
    fn go_to(&mut self, frames: &mut Vec<u8>, names: &[Vec<u8>]) -> Result<(), String> {
        let shared = self.within.iter().zip(names);
        let shared = shared.take_while(|(is, wanted)| is == wanted).count();
        for _ in shared..self.within.len() {
            add(frames, &Piece::Leave, &[])?;
        }
        self.within.truncate(shared);
        for name in names.iter().skip(shared) {
            let (text, facts) = (path::encode(name), None);
            add(frames, &Piece::Enter { name: text, facts }, &[])?;
            self.within.push(name.clone());
        }
        Ok(())
    }
}

fn add(frames: &mut Vec<u8>, piece: &Piece, body: &[u8]) -> Result<(), String> {
    let frame = encode(piece, body).map_err(|error| error.to_string())?;
    frames.extend_from_slice(&frame);
    Ok(())
}

fn member_of(path: Vec<u8>, kind: Kind, facts: &Facts) -> Member {
    let (seconds, nanoseconds) = facts.modified;
    Member {
        path,
        kind,
        mode: facts.mode & 0o7777,
        uid: facts.uid,
        gid: facts.gid,
        modified: Modified {
            seconds,
            nanoseconds: nanoseconds.min(999_999_999),
        },
    }
}

fn facts_of(member: &Member) -> Facts {
    Facts {
        mode: member.mode,
        uid: member.uid,
        gid: member.gid,
        modified: (member.modified.seconds, member.modified.nanoseconds),
    }
}

/// Takes extents that are in order, and within the file.
fn checked(extents: &[(u64, u64)], size: u64) -> Result<Vec<Extent>, Error> {
    let mut at = 0;
    let mut checked = Vec::with_capacity(extents.len());
    for &(offset, length) in extents {
        let end = offset.checked_add(length).filter(|end| *end <= size);
        let is_behind = offset >= at;
        at = end
            .filter(|_| is_behind)
            .ok_or_else(|| nonsense(&"a file's content is out of its place"))?;
        checked.push(Extent { offset, length });
    }
    Ok(checked)
}

fn nonsense(what: &dyn std::fmt::Display) -> Error {
    Error::FilesIncomplete(format!(
        "what the agent in the container told makes no sense: {what}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn frame(header: Piece, body: &[u8]) -> Frame<Piece> {
        let body = body.to_vec();
        Frame { header, body }
    }

    fn file(name: &str, size: u64, extents: Option<Vec<(u64, u64)>>) -> Piece {
        Piece::File {
            name: name.to_owned(),
            facts: Facts::default(),
            size,
            extents,
        }
    }

    fn follow(frames: Vec<Frame<Piece>>) -> Result<Vec<Event>, Error> {
        let pieces = stream::iter(frames.into_iter().map(Ok)).boxed();
        let events = events(pieces).try_collect();
        events.now_or_never().unwrap()
    }

    #[test]
    fn what_is_told_comes_back_when_it_is_told_again() {
        let enter = |name: &str, facts| {
            let name = name.to_owned();
            frame(Piece::Enter { name, facts }, b"")
        };
        let told = vec![
            frame(
                Piece::Root {
                    facts: Facts::default(),
                },
                b"",
            ),
            enter("a", Some(Facts::default())),
            enter("b", Some(Facts::default())),
            frame(file("f", 5, None), b""),
            frame(Piece::Content { offset: 0 }, b"hel"),
            frame(Piece::Content { offset: 3 }, b"lo"),
            frame(Piece::Whole, b""),
            frame(Piece::Leave, b""),
            frame(file("s", 1 << 40, Some(vec![(512, 2)])), b""),
            frame(Piece::Content { offset: 512 }, b"xy"),
            frame(Piece::Whole, b""),
            frame(Piece::Leave, b""),
            frame(
                Piece::HardLink {
                    name: "h".to_owned(),
                    path: vec!["a".to_owned(), "b".to_owned(), "f".to_owned()],
                },
                b"",
            ),
            frame(Piece::End, b""),
        ];
        let events = follow(told.clone()).unwrap();
        let mut telling = Telling::default();
        let mut frames = Vec::new();
        for event in events {
            frames.extend(telling.tell(event).unwrap());
        }
        frames.extend(telling.end().unwrap());
        let mut decoder = Decoder::<Piece>::new();
        decoder.push(&frames);
        let again: Vec<_> = std::iter::from_fn(|| decoder.next_frame().unwrap()).collect();
        assert_eq!(again, told);
    }

    #[test]
    fn what_breaks_off_or_makes_no_sense_is_never_whole() {
        let whole = frame(Piece::Whole, b"");
        let content = |offset, body: &[u8]| frame(Piece::Content { offset }, body);
        let end = frame(Piece::End, b"");
        let cases = [
            vec![],
            vec![frame(file("f", 0, None), b""), whole.clone()],
            vec![frame(file("f", 1, None), b""), whole.clone(), end.clone()],
            vec![frame(file("f", 1, None), b""), end.clone()],
            vec![
                frame(file("f", 1, None), b""),
                content(0, b"xy"),
                whole.clone(),
                end.clone(),
            ],
            vec![
                frame(file("f", 1, None), b""),
                content(1, b"x"),
                whole.clone(),
                end.clone(),
            ],
            vec![
                frame(file("f", 9, Some(vec![(8, 2)])), b""),
                whole.clone(),
                end.clone(),
            ],
            vec![
                frame(file("f", 9, Some(vec![(4, 2), (5, 1)])), b""),
                whole.clone(),
                end.clone(),
            ],
            vec![
                frame(file("../f", 0, None), b""),
                whole.clone(),
                end.clone(),
            ],
            vec![whole, end.clone()],
            vec![frame(Piece::Void, b""), end],
        ];
        for case in cases {
            let error = follow(case.clone()).expect_err(&format!("{case:?}"));
            assert!(matches!(error, Error::FilesIncomplete(_)), "{error:?}");
        }
    }
}
