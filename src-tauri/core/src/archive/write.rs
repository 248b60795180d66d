//! Writing: the blocks around the content of files, in GNU's format.

use super::{BLOCK, Extent, Kind, Member};

/// Extents that find room in a header, and in each block that follows it.
const IN_HEADER: usize = 4;
const IN_BLOCK: usize = 21;

/// How many zeros an archive ends with.
pub(crate) const END: usize = 2 * BLOCK;

/// Returns what stands before the content of a member.
pub(crate) fn head(member: &Member) -> Vec<u8> {
    let mut path = member.path.clone();
    if path.is_empty() {
        path.push(b'.');
    }
    if member.kind == Kind::Directory {
        path.push(b'/');
    }
    let mut written = Vec::new();
    if path.len() > 100 {
        long(&mut written, b'L', &path);
    }
    let (kind, target, size): (u8, &[u8], u64) = match &member.kind {
        Kind::Directory => (b'5', b"", 0),
        Kind::File {
            extents: Some(_), ..
        } => (b'S', b"", member.kind.stored()),
        Kind::File {
            size,
            extents: None,
        } => (b'0', b"", *size),
        Kind::Symlink(target) => (b'2', target, 0),
        Kind::HardLink(target) => (b'1', target, 0),
        Kind::Pipe => (b'6', b"", 0),
        Kind::Device => (b'3', b"", 0),
    };
    if target.len() > 100 {
        long(&mut written, b'K', target);
    }
    let mut block = [0; BLOCK];
    put(&mut block, 0, 100, &path);
    put_number(&mut block, 100, 8, member.mode.into());
    put_number(&mut block, 108, 8, member.uid.into());
    put_number(&mut block, 116, 8, member.gid.into());
    put_number(&mut block, 124, 12, size.into());
    put_number(&mut block, 136, 12, member.modified.seconds.into());
    put(&mut block, 156, 1, &[kind]);
    put(&mut block, 157, 100, target);
    let mut more = Vec::new();
    if let Kind::File {
        size,
        extents: Some(extents),
    } = &member.kind
    {
        let mut extents = extents.clone();
        let end = extents.last().map(|last| last.offset + last.length);
        if end != Some(*size) {
            // So that a hole at the end is not forgotten.
            extents.push(Extent {
                offset: *size,
                length: 0,
            });
        }
        let (first, rest) = extents
            .split_at_checked(IN_HEADER)
            .unwrap_or((&extents, &[]));
        put_extents(&mut block, 386, first);
        put(&mut block, 482, 1, &[u8::from(!rest.is_empty())]);
        put_number(&mut block, 483, 12, (*size).into());
        let mut chunks = rest.chunks(IN_BLOCK).peekable();
        while let Some(chunk) = chunks.next() {
            let mut block = [0; BLOCK];
            put_extents(&mut block, 0, chunk);
            put(&mut block, 504, 1, &[u8::from(chunks.peek().is_some())]);
            more.extend_from_slice(&block);
        }
    }
    finish(&mut block);
    written.extend_from_slice(&block);
    written.extend_from_slice(&more);
    written
}

/// Returns how many zeros follow so much content.
pub(crate) fn padding(stored: u64) -> usize {
    let block = BLOCK as u64;
    usize::try_from((block - stored % block) % block).unwrap_or_default()
}

fn long(written: &mut Vec<u8>, kind: u8, text: &[u8]) {
    let mut block = [0; BLOCK];
    put(&mut block, 0, 100, b"././@LongLink");
    for (at, length) in [(100, 8), (108, 8), (116, 8), (136, 12)] {
        put_number(&mut block, at, length, 0);
    }
    let length = text.len() + 1;
    put_number(&mut block, 124, 12, length as i128);
    put(&mut block, 156, 1, &[kind]);
    finish(&mut block);
    written.extend_from_slice(&block);
    written.extend_from_slice(text);
    let end = written.len() + 1;
    written.resize(end + padding(length as u64), 0);
}

fn finish(block: &mut [u8; BLOCK]) {
    put(block, 257, 8, b"ustar  \0");
    put(block, 148, 8, b"        ");
    let sum: u32 = block.iter().copied().map(u32::from).sum();
    put(block, 148, 8, format!("{sum:06o}\0 ").as_bytes());
}

fn put_extents(block: &mut [u8; BLOCK], at: usize, extents: &[Extent]) {
    for (index, extent) in extents.iter().enumerate() {
        let at = at + index * 24;
        put_number(block, at, 12, extent.offset.into());
        put_number(block, at + 12, 12, extent.length.into());
    }
}

/// Writes as much of `bytes` as there is room for.
fn put(block: &mut [u8; BLOCK], at: usize, room: usize, bytes: &[u8]) {
    let places = block.iter_mut().skip(at).take(room);
    for (place, byte) in places.zip(bytes) {
        *place = *byte;
    }
}

/// Writes octal digits, or two's complement behind a mark where they do not suffice.
fn put_number(block: &mut [u8; BLOCK], at: usize, length: usize, number: i128) {
    let digits = format!("{number:0width$o}", width = length - 1);
    if number >= 0 && digits.len() < length {
        return put(block, at, length, digits.as_bytes());
    }
    let bytes = number.to_be_bytes();
    let mut bytes = bytes
        .get(bytes.len().saturating_sub(length)..)
        .unwrap_or_default()
        .to_vec();
    if let Some(first) = bytes.first_mut() {
        *first = if number < 0 { 0xff } else { 0x80 };
    }
    put(block, at, length, &bytes);
}
