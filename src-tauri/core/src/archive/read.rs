//! Reading: a machine that is fed pieces and gives events.

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};

use super::{ArchiveError, BLOCK, Event, Extent, Kind, Member, Modified};

/// The most bytes of a long name, or of what POSIX's format says ahead of a member.
const EXTENSION_LIMIT: u64 = 4 << 20;
/// The most extents of a sparse file.
const EXTENT_LIMIT: usize = 1 << 20;
const NO_MAP: &str = "the map of a sparse file makes no sense";

/// Reads an archive that is fed to it in pieces.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    buffer: BytesMut,
    state: State,
    /// What was said ahead of the next member.
    ahead: Ahead,
    /// What holds for all members that say nothing else.
    global: Records,
    /// The path of the last member, as the archive writes it.
    last: Option<Vec<u8>>,
    has_bytes: bool,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Header,
    /// A long name, or records.
    Extension {
        kind: u8,
        length: usize,
        padded: usize,
    },
    Sparse(Sparse),
    Content {
        extents: VecDeque<Extent>,
        padding: u64,
    },
    Skip {
        left: u64,
    },
    /// One block of zeros was there: the first half of the end mark.
    HalfEnd,
    End,
    Broken(ArchiveError),
}

/// A sparse file whose map is not whole yet.
#[derive(Debug)]
struct Sparse {
    member: Box<Member>,
    /// Bytes with the holes.
    real: u64,
    /// Bytes that follow.
    stored: u64,
    map: Map,
}

#[derive(Debug)]
enum Map {
    /// In blocks behind the header, in GNU's old way.
    Blocks(Vec<Extent>),
    /// In lines at the beginning of the content.
    Lines(Numbers),
}

/// What came of a look at what is there.
enum Step {
    Event(Event),
    /// More must be pushed first.
    Wait,
    /// There may be more to see.
    On,
}

/// What comes ahead of a member about it.
#[derive(Debug, Default)]
struct Ahead {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Records,
}

type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// The numbers of a map, one a line.
#[derive(Debug, Default)]
struct Numbers {
    expected: Option<usize>,
    digits: Vec<u8>,
    found: Vec<u64>,
}

impl Reader {
    /// Adds bytes that came in. What is behind the end of the archive is dropped.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.has_bytes |= !bytes.is_empty();
        if !matches!(self.state, State::End | State::Broken(_)) {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Returns what comes next, or `None` until more is pushed.
    ///
    /// # Errors
    /// [`ArchiveError`], from then on every time.
    pub(crate) fn next(&mut self) -> Result<Option<Event>, ArchiveError> {
        let next = self.step_until_event();
        if let Err(error) = &next {
            self.state = State::Broken(error.clone());
        }
        next
    }

    /// Returns whether the archive has come to its end; what follows is none of it.
    pub(crate) fn is_at_end(&self) -> bool {
        matches!(self.state, State::End)
    }

    /// Says that there is no more to push.
    ///
    /// # Errors
    /// [`ArchiveError`] unless the archive has come to its end mark.
    pub(crate) fn finish(&self) -> Result<(), ArchiveError> {
        match &self.state {
            // One block of zeros at the very end is what some programs write.
            State::End | State::HalfEnd => Ok(()),
            State::Broken(error) => Err(error.clone()),
            State::Header if !self.has_bytes => Err(ArchiveError::Empty),
            State::Header if self.last.is_none() => Err(ArchiveError::NotAnArchive),
            State::Header => Err(ArchiveError::Cut(self.last.clone())),
            State::Extension { .. } | State::Skip { .. } => {
                Err(ArchiveError::Cut(self.last.clone()))
            }
            State::Sparse(_) | State::Content { .. } => Err(ArchiveError::CutWithin(
                self.last.clone().unwrap_or_default(),
            )),
        }
    }

    fn step_until_event(&mut self) -> Result<Option<Event>, ArchiveError> {
        loop {
            match self.step()? {
                Step::Event(event) => return Ok(Some(event)),
                Step::Wait => return Ok(None),
                Step::On => {}
            }
        }
    }

    fn step(&mut self) -> Result<Step, ArchiveError> {
        match std::mem::take(&mut self.state) {
            State::Header => {
                let Some(block) = self.block() else {
                    return Ok(Step::Wait);
                };
                if block.iter().all(|byte| *byte == 0) {
                    self.state = State::HalfEnd;
                    return Ok(Step::On);
                }
                let member = self.header(&block)?;
                Ok(member.map_or(Step::On, |member| Step::Event(Event::Member(member))))
            }
            State::HalfEnd => {
                let Some(block) = self.block() else {
                    return Ok(self.wait(State::HalfEnd));
                };
                if block.iter().any(|byte| *byte != 0) {
                    return Err(self.damaged("there is something behind half of its end mark"));
                }
                self.state = State::End;
                self.buffer.clear();
                Ok(Step::Wait)
            }
            State::Extension {
                kind,
                length,
                padded,
            } => {
                if self.buffer.len() < padded {
                    return Ok(self.wait(State::Extension {
                        kind,
                        length,
                        padded,
                    }));
                }
                let mut content = self.buffer.split_to(padded);
                content.truncate(length);
                self.extension(kind, &content)?;
                Ok(Step::On)
            }
            State::Sparse(sparse) => self.sparse(sparse),
            State::Content { extents, padding } => Ok(self.content(extents, padding)),
            State::Skip { left } => {
                let there = self.buffer.len();
                let count = usize::try_from(left).unwrap_or(there).min(there);
                self.buffer.advance(count);
                let left = left - count as u64;
                if left > 0 {
                    return Ok(self.wait(State::Skip { left }));
                }
                Ok(Step::On)
            }
            State::End => Ok(self.wait(State::End)),
            State::Broken(error) => Err(error),
        }
    }

    fn wait(&mut self, state: State) -> Step {
        self.state = state;
        Step::Wait
    }

    fn content(&mut self, mut extents: VecDeque<Extent>, padding: u64) -> Step {
        let Some(extent) = extents.front_mut() else {
            self.state = State::Skip { left: padding };
            return Step::On;
        };
        let there = self.buffer.len();
        let count = usize::try_from(extent.length).unwrap_or(there).min(there);
        let Extent { offset, length } = *extent;
        extent.offset += count as u64;
        extent.length -= count as u64;
        if extent.length == 0 {
            extents.pop_front();
        }
        self.state = State::Content { extents, padding };
        if count > 0 {
            let bytes = self.buffer.split_to(count).freeze();
            Step::Event(Event::Data { offset, bytes })
        } else if length > 0 {
            Step::Wait
        } else {
            Step::On
        }
    }

    /// Reads on in the map of a sparse file.
    fn sparse(&mut self, mut sparse: Sparse) -> Result<Step, ArchiveError> {
        let room = match &sparse.map {
            Map::Blocks(_) => u64::MAX,
            Map::Lines(_) => sparse.stored,
        };
        let rest = room
            .checked_sub(BLOCK as u64)
            .ok_or_else(|| self.damaged("the map of a sparse file does not end"))?;
        let Some(block) = self.block() else {
            return Ok(self.wait(State::Sparse(sparse)));
        };
        let extents = match &mut sparse.map {
            Map::Blocks(extents) => {
                self.old_extents(&block, 0, 21, extents)?;
                let goes_on = block.get(504).is_some_and(|byte| *byte != 0);
                (!goes_on).then(|| std::mem::take(extents))
            }
            Map::Lines(numbers) => {
                sparse.stored = rest;
                numbers
                    .take(&block)
                    .ok_or_else(|| self.damaged(NO_MAP))?
                    .then(|| pairs(&numbers.found))
            }
        };
        let Some(extents) = extents else {
            self.state = State::Sparse(sparse);
            return Ok(Step::On);
        };
        let Sparse {
            member,
            real,
            stored,
            ..
        } = sparse;
        let member = self.begin(*member, real, stored, Some(extents))?;
        Ok(Step::Event(Event::Member(member)))
    }

    fn block(&mut self) -> Option<BytesMut> {
        (self.buffer.len() >= BLOCK).then(|| self.buffer.split_to(BLOCK))
    }

    fn damaged(&self, what: &'static str) -> ArchiveError {
        ArchiveError::Damaged(self.last.clone(), what)
    }

    /// Reads a header. A member without content, or with content that follows, comes back; everything else
    /// changes the state.
    fn header(&mut self, block: &[u8]) -> Result<Option<Member>, ArchiveError> {
        if !has_right_sum(block) {
            return Err(match self.last {
                None => ArchiveError::NotAnArchive,
                Some(_) => self.damaged("what follows is no header"),
            });
        }
        let kind = block.get(156).copied().unwrap_or_default();
        let size = self.number(block, 124, 12)?;
        match kind {
            b'L' | b'K' | b'x' | b'X' | b'g' => {
                let too_long = || self.damaged("a name is too long");
                if size > EXTENSION_LIMIT {
                    return Err(too_long());
                }
                let length = usize::try_from(size).map_err(|_| too_long())?;
                let padded = length.next_multiple_of(BLOCK);
                if self.last.is_none() {
                    self.last = Some(Vec::new());
                }
                self.state = State::Extension {
                    kind,
                    length,
                    padded,
                };
                return Ok(None);
            }
            // The name of a volume, which is no file.
            b'V' => {
                self.state = State::Skip { left: padded(size) };
                return Ok(None);
            }
            _ => {}
        }
        let ahead = std::mem::take(&mut self.ahead);
        let global = std::mem::take(&mut self.global);
        let said = Said {
            ahead: &ahead,
            global: &global,
        };
        let event = self.member(block, kind, size, &said);
        self.global = global;
        event
    }

    fn member(
        &mut self,
        block: &[u8],
        kind: u8,
        size: u64,
        said: &Said<'_>,
    ) -> Result<Option<Member>, ArchiveError> {
        let raw = said
            .text("GNU.sparse.name")
            .or_else(|| said.text("path"))
            .or(said.ahead.path.as_deref())
            .map_or_else(|| path_in(block), <[u8]>::to_vec);
        self.last = Some(raw.clone());
        let size = said.number("size").unwrap_or(size);
        let target = || {
            said.text("linkpath")
                .or(said.ahead.link.as_deref())
                .unwrap_or_else(|| text_in(block, 157, 100))
        };
        let mut is_sparse = false;
        let kind = match kind {
            b'5' | b'D' => Kind::Directory,
            // Before there were kinds, a slash at the end was a directory.
            b'0' | 0 if raw.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' => Kind::File {
                size,
                extents: None,
            },
            b'S' => {
                is_sparse = true;
                Kind::File {
                    size,
                    extents: None,
                }
            }
            b'1' => Kind::HardLink(clean(target())?),
            b'2' => Kind::Symlink(target().to_vec()),
            b'3' | b'4' => Kind::Device,
            b'6' => Kind::Pipe,
            other => return Err(ArchiveError::UnknownKind(raw, other)),
        };
        let whole = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let number = |name, at, length| match said.number(name) {
            Some(value) => Ok(value),
            None => self.number(block, at, length),
        };
        let member = Member {
            path: clean(&raw)?,
            mode: whole(self.number(block, 100, 8)? & 0o7777),
            uid: whole(number("uid", 108, 8)?),
            gid: whole(number("gid", 116, 8)?),
            modified: match said.text("mtime").and_then(moment) {
                Some(modified) => modified,
                None => Modified {
                    seconds: signed_number(block.get(136..148).unwrap_or_default())
                        .ok_or_else(|| self.damaged("a time is not a number"))?,
                    nanoseconds: 0,
                },
            },
            kind,
        };
        if is_sparse {
            let real = self.number(block, 483, 12)?;
            let mut extents = Vec::new();
            self.old_extents(block, 386, 4, &mut extents)?;
            if block.get(482).is_some_and(|byte| *byte != 0) {
                self.state = State::Sparse(Sparse {
                    member: Box::new(member),
                    real,
                    stored: size,
                    map: Map::Blocks(extents),
                });
                return Ok(None);
            }
            return self.begin(member, real, size, Some(extents)).map(Some);
        }
        if !matches!(member.kind, Kind::File { .. }) {
            // A directory may say how large its list of names is, and have that list.
            let left = if block.get(156) == Some(&b'D') {
                padded(size)
            } else {
                0
            };
            self.state = State::Skip { left };
            return Ok(Some(member));
        }
        let real = said
            .number("GNU.sparse.realsize")
            .or_else(|| said.number("GNU.sparse.size"));
        if said.text("GNU.sparse.major") == Some(b"1") {
            let real = real.ok_or_else(|| self.damaged("a sparse file does not say its size"))?;
            self.state = State::Sparse(Sparse {
                member: Box::new(member),
                real,
                stored: size,
                map: Map::Lines(Numbers::default()),
            });
            return Ok(None);
        }
        let extents = match real {
            Some(_) => Some(said.extents().ok_or_else(|| self.damaged(NO_MAP))?),
            None => None,
        };
        self.begin(member, real.unwrap_or(size), size, extents)
            .map(Some)
    }

    /// Begins the content of a file of `real` bytes, of which `stored` follow.
    fn begin(
        &mut self,
        mut member: Member,
        real: u64,
        stored: u64,
        extents: Option<Vec<Extent>>,
    ) -> Result<Member, ArchiveError> {
        let mut end = 0;
        let mut sum: u64 = 0;
        for extent in extents.iter().flatten() {
            let is_behind = extent.offset >= end;
            end = extent.offset.saturating_add(extent.length);
            sum = sum.saturating_add(extent.length);
            if !is_behind || end > real {
                return Err(self.damaged(NO_MAP));
            }
        }
        if extents.is_some() && sum != stored {
            return Err(self.damaged(NO_MAP));
        }
        let whole = Extent {
            offset: 0,
            length: stored,
        };
        self.state = State::Content {
            extents: extents.clone().unwrap_or_else(|| vec![whole]).into(),
            padding: padded(stored) - stored,
        };
        let extents = extents.map(|extents| {
            let with_content = extents.into_iter().filter(|extent| extent.length > 0);
            with_content.collect()
        });
        member.kind = Kind::File {
            size: real,
            extents,
        };
        Ok(member)
    }

    fn extension(&mut self, kind: u8, content: &[u8]) -> Result<(), ArchiveError> {
        let text = || until_nul(content).to_vec();
        match kind {
            b'L' => self.ahead.path = Some(text()),
            b'K' => self.ahead.link = Some(text()),
            _ => {
                let records =
                    records(content).ok_or_else(|| self.damaged("a record makes no sense"))?;
                if kind == b'g' {
                    self.global = records;
                } else {
                    self.ahead.records = records;
                }
            }
        }
        Ok(())
    }

    fn old_extents(
        &self,
        block: &[u8],
        at: usize,
        count: usize,
        extents: &mut Vec<Extent>,
    ) -> Result<(), ArchiveError> {
        for index in 0..count {
            let at = at + index * 24;
            let is_unused = |at| block.get(at).is_none_or(|byte| *byte == 0);
            if is_unused(at) && is_unused(at + 12) {
                break;
            }
            extents.push(Extent {
                offset: self.number(block, at, 12)?,
                length: self.number(block, at + 12, 12)?,
            });
        }
        if extents.len() > EXTENT_LIMIT {
            return Err(self.damaged("a sparse file is in too many pieces"));
        }
        Ok(())
    }

    fn number(&self, block: &[u8], at: usize, length: usize) -> Result<u64, ArchiveError> {
        let field = block.get(at..at + length).unwrap_or_default();
        signed_number(field)
            .and_then(|number| u64::try_from(number).ok())
            .ok_or_else(|| self.damaged("a number in a header is none"))
    }
}

/// What is said of a member beside its header.
struct Said<'a> {
    ahead: &'a Ahead,
    global: &'a Records,
}

impl Said<'_> {
    fn text(&self, name: &str) -> Option<&[u8]> {
        let find = |records: &'_ Records| {
            let found = records
                .iter()
                .rposition(|(key, _)| key == name.as_bytes())?;
            Some(found)
        };
        if let Some(found) = find(&self.ahead.records) {
            let value = self.ahead.records.get(found).map(|(_, value)| &**value);
            // An empty value takes back what was said for all.
            return value.filter(|value| !value.is_empty());
        }
        let found = find(self.global)?;
        self.global.get(found).map(|(_, value)| &**value)
    }

    fn number(&self, name: &str) -> Option<u64> {
        decimal(self.text(name)?)
    }

    /// Returns the map of a sparse file that stands in its records, in either of two ways.
    fn extents(&self) -> Option<Vec<Extent>> {
        if let Some(map) = self.text("GNU.sparse.map") {
            let numbers = map.split(|byte| *byte == b',').map(decimal);
            return Some(pairs(&numbers.collect::<Option<Vec<_>>>()?));
        }
        let mut extents = Vec::new();
        let mut offset = None;
        for (key, value) in &self.ahead.records {
            match &**key {
                b"GNU.sparse.offset" => offset = Some(decimal(value)?),
                b"GNU.sparse.numbytes" => extents.push(Extent {
                    offset: offset.take()?,
                    length: decimal(value)?,
                }),
                _ => {}
            }
        }
        Some(extents)
    }
}

impl Numbers {
    /// Takes a block, and returns whether all numbers are there.
    fn take(&mut self, block: &[u8]) -> Option<bool> {
        for byte in block {
            if *byte != b'\n' {
                self.digits.push(*byte);
                if self.digits.len() > 20 {
                    return None;
                }
                continue;
            }
            let number = decimal(&self.digits)?;
            self.digits.clear();
            match self.expected {
                None => {
                    let count = usize::try_from(number).ok()?;
                    if count > EXTENT_LIMIT {
                        return None;
                    }
                    self.expected = Some(2 * count);
                }
                Some(_) => self.found.push(number),
            }
            if self.expected == Some(self.found.len()) {
                return Some(true);
            }
        }
        Some(false)
    }
}

fn pairs(numbers: &[u64]) -> Vec<Extent> {
    let pairs = numbers.chunks_exact(2).filter_map(|pair| match pair {
        [offset, length] => Some(Extent {
            offset: *offset,
            length: *length,
        }),
        _ => None,
    });
    pairs.collect()
}

fn padded(size: u64) -> u64 {
    size.checked_next_multiple_of(BLOCK as u64).unwrap_or(size)
}

/// Takes a path apart and puts it together again without what means nothing. Like every tar, it reads an absolute
/// path as one from the root of the tree.
fn clean(path: &[u8]) -> Result<Vec<u8>, ArchiveError> {
    let mut cleaned = Vec::with_capacity(path.len());
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => return Err(ArchiveError::Outside(path.to_vec())),
            name if name.contains(&0) => return Err(ArchiveError::Outside(path.to_vec())),
            name => {
                if !cleaned.is_empty() {
                    cleaned.push(b'/');
                }
                cleaned.extend_from_slice(name);
            }
        }
    }
    Ok(cleaned)
}

/// Returns the sum of a header's bytes, with its own field as spaces, compared with what it says. Some old programs
/// added the bytes as signed.
fn has_right_sum(block: &[u8]) -> bool {
    let Some(said) = signed_number(block.get(148..156).unwrap_or_default()) else {
        return false;
    };
    let bytes = || {
        let bytes = block.iter().enumerate();
        bytes.map(|(at, byte)| {
            if (148..156).contains(&at) {
                b' '
            } else {
                *byte
            }
        })
    };
    let unsigned: i64 = bytes().map(i64::from).sum();
    let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
    said == unsigned || said == signed
}

fn path_in(block: &[u8]) -> Vec<u8> {
    let name = text_in(block, 0, 100);
    // GNU's format has times where ustar has the beginning of a long path.
    let is_ustar = block.get(257..263) == Some(b"ustar\0");
    let prefix = if is_ustar {
        text_in(block, 345, 155)
    } else {
        b""
    };
    if prefix.is_empty() {
        name.to_vec()
    } else {
        [prefix, b"/", name].concat()
    }
}

fn text_in(block: &[u8], at: usize, length: usize) -> &[u8] {
    until_nul(block.get(at..at + length).unwrap_or_default())
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| *byte == 0);
    end.and_then(|end| bytes.get(..end)).unwrap_or(bytes)
}

/// Reads a number of a header: octal digits, or for what has no room in them two's complement behind a mark.
fn signed_number(field: &[u8]) -> Option<i64> {
    if let first @ (0x80 | 0xff) = field.first()? {
        let start = if *first == 0xff { -1_i64 } else { 0 };
        return field.iter().skip(1).try_fold(start, |number, byte| {
            number.checked_mul(256)?.checked_add(i64::from(*byte))
        });
    }
    let digits = field.iter().copied();
    let mut digits = digits
        .skip_while(|byte| *byte == b' ')
        .take_while(|byte| *byte != b' ' && *byte != 0);
    digits.try_fold(0_i64, |number, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8)?;
        number.checked_mul(8)?.checked_add(i64::from(digit))
    })
}

fn decimal(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| text.parse().ok()).flatten()
}

/// Reads a time: `-12.5` is half a second before twelve seconds before 1970.
fn moment(text: &[u8]) -> Option<Modified> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some(Modified {
            seconds: seconds.checked_sub(1)?,
            nanoseconds: 1_000_000_000 - nanoseconds,
        });
    }
    Some(Modified {
        seconds,
        nanoseconds,
    })
}

/// Reads records, each as `LENGTH KEY=VALUE\n`.
fn records(mut content: &[u8]) -> Option<Records> {
    let mut records = Vec::new();
    while !content.is_empty() {
        let space = content.iter().position(|byte| *byte == b' ')?;
        let length = usize::try_from(decimal(content.get(..space)?)?).ok()?;
        let record = content.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        records.push((
            record.get(..equals)?.to_vec(),
            record.get(equals + 1..)?.to_vec(),
        ));
        content = content.get(length..)?;
    }
    Some(records)
}
