//! The two outputs of a container's first process, as an engine sends them over one connection: frames of eight bytes of
//! header, the stream's number and the length, and the content. Read without ever holding a frame as a whole.

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use crate::engine::ExecOutput;
use crate::error::Error;

/// Bytes of a frame's header.
const HEADER: usize = 8;
/// The number of standard error; standard input and output are below it.
const STANDARD_ERROR: u8 = 2;

/// Returns the pieces of content, each with where it was printed.
pub(super) fn told_apart(
    pieces: BoxStream<'static, Result<Bytes, Error>>,
) -> BoxStream<'static, Result<ExecOutput, Error>> {
    let start = (pieces, Frames::default());
    stream::try_unfold(start, async |(mut pieces, mut frames)| {
        loop {
            if let Some(output) = frames.next() {
                return Ok(Some((output, (pieces, frames))));
            }
            match pieces.next().await {
                Some(piece) => frames.received = piece?,
                None => return Ok(None),
            }
        }
    })
    .boxed()
}

/// Where the reading is.
#[derive(Debug, Default)]
struct Frames {
    /// What was received and not read yet.
    received: Bytes,
    /// The part of a header that has come.
    header: Vec<u8>,
    /// The frame that is being read, and how many of its bytes are to come.
    frame: Option<(u8, usize)>,
    /// Whether there are no frames: the output of a TTY is sent as it is.
    is_plain: bool,
}

impl Frames {
    /// Returns the next piece among what was received.
    fn next(&mut self) -> Option<ExecOutput> {
        while !self.received.is_empty() {
            if self.is_plain {
                return Some(ExecOutput::Out(self.received.split_off(0)));
            }
            if let Some((stream, left)) = &mut self.frame {
                if *left == 0 {
                    self.frame = None;
                    continue;
                }
                let content = self.received.split_to((*left).min(self.received.len()));
                *left -= content.len();
                return Some(if *stream == STANDARD_ERROR {
                    ExecOutput::Err(content)
                } else {
                    ExecOutput::Out(content)
                });
            }
            let missing = HEADER - self.header.len();
            let part = self.received.split_to(missing.min(self.received.len()));
            self.header.extend_from_slice(&part);
            match *self.header {
                [stream @ 0..=STANDARD_ERROR, 0, 0, 0, a, b, c, d] => {
                    let length = u32::from_be_bytes([a, b, c, d]);
                    self.frame = Some((stream, usize::try_from(length).unwrap_or(usize::MAX)));
                    self.header.clear();
                }
                ref whole if whole.len() == HEADER => {
                    self.is_plain = true;
                    return Some(ExecOutput::Out(std::mem::take(&mut self.header).into()));
                }
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::TryStreamExt;

    fn frame(stream: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        [&[stream, 0, 0, 0][..], &length, content].concat()
    }

    /// Returns what was printed where, however the bytes come.
    async fn read(sent: &[u8], at_once: usize) -> (Vec<u8>, Vec<u8>) {
        let pieces: Vec<_> = sent
            .chunks(at_once)
            .map(|piece| Ok(Bytes::copy_from_slice(piece)))
            .collect();
        let told: Vec<_> = told_apart(stream::iter(pieces).boxed())
            .try_collect()
            .await
            .unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        for piece in told {
            match piece {
                ExecOutput::Out(bytes) => out.extend(bytes),
                ExecOutput::Err(bytes) => err.extend(bytes),
            }
        }
        (out, err)
    }

    #[tokio::test]
    async fn outputs_are_told_apart_however_they_are_cut() {
        let sent = [
            frame(1, b"one\n"),
            frame(2, b"\x01\0\0\0\0\0\0\x04bad\n"),
            frame(1, b""),
            frame(1, b"two\n"),
        ]
        .concat();
        for at_once in 1..=sent.len() {
            let (out, err) = read(&sent, at_once).await;
            assert_eq!(out, b"one\ntwo\n");
            // A header that the container writes is content.
            assert_eq!(err, b"\x01\0\0\0\0\0\0\x04bad\n");
        }
    }

    #[tokio::test]
    async fn what_has_no_frames_is_told_as_it_is_and_half_a_frame_to_its_half() {
        let (out, _) = read(b"a line of a TTY\r\n", 3).await;
        assert_eq!(out, b"a line of a TTY\r\n");
        let whole = frame(2, b"half of it");
        let (_, err) = read(&whole[..HEADER + 4], 5).await;
        assert_eq!(err, b"half");
        // As long as a frame can say that it is: nothing is held for it.
        let (out, _) = read(&[&[1, 0, 0, 0, 255, 255, 255, 255][..], b"x"].concat(), 4).await;
        assert_eq!(out, b"x");
    }
}
