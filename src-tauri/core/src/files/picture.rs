//! The kind and the size of a picture, read from its header. A few kilobytes can be a picture of
//! gigabytes once they are drawn, so that what draws it must know first.

use imagesize::ImageType;
use serde::Serialize;

/// The most pixels of a picture that a window may draw: 256 MB of them.
const DRAWABLE: u64 = 64_000_000;
/// The most pictures that an icon is read for.
const ICON_PICTURES: usize = 64;

/// What the header of a picture says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct Picture {
    /// Its media type, for example `image/png`.
    pub media_type: &'static str,
    /// Pixels from left to right.
    pub width: u64,
    /// Pixels from top to bottom.
    pub height: u64,
    /// Whether it is small enough to be drawn.
    pub drawable: bool,
}

/// Returns what `body` says of itself if it is a picture that web views draw.
pub(super) fn picture(body: &[u8]) -> Option<Picture> {
    let kind = imagesize::image_type(body).ok()?;
    let (media_type, (width, height)) = match kind {
        ImageType::Png => ("image/png", declared(body)?),
        ImageType::Jpeg => ("image/jpeg", declared(body)?),
        ImageType::Webp => ("image/webp", declared(body)?),
        ImageType::Gif => ("image/gif", largest(declared(body)?, gif_frames(body))),
        ImageType::Ico => (
            "image/x-icon",
            largest(declared(body)?, icon_pictures(body)),
        ),
        _ => return None,
    };
    Some(Picture {
        media_type,
        width,
        height,
        drawable: width.saturating_mul(height) <= DRAWABLE,
    })
}

type Size = (u64, u64);

fn declared(body: &[u8]) -> Option<Size> {
    let size = imagesize::blob_size(body).ok()?;
    Some((size.width as u64, size.height as u64))
}

/// Returns a size in which all fit: parts of a picture can be larger than it says it is.
fn largest(declared: Size, parts: impl Iterator<Item = Size>) -> Size {
    parts.fold(declared, |(width, height), part| {
        (width.max(part.0), height.max(part.1))
    })
}

/// Returns the sizes of the frames of a GIF, with their offsets.
fn gif_frames(body: &[u8]) -> impl Iterator<Item = Size> {
    let mut at = Some(13 + colours(body.get(10).copied()));
    std::iter::from_fn(move || {
        loop {
            let begin = at?;
            match body.get(begin)? {
                b'!' => at = behind_blocks(body, begin + 2),
                b',' => {
                    let part =
                        |offset| u64::from(little_16(body, begin + offset).unwrap_or_default());
                    let size = (part(1) + part(5), part(3) + part(7));
                    let table = colours(body.get(begin + 9).copied());
                    at = behind_blocks(body, begin + 11 + table);
                    return Some(size);
                }
                _ => return None,
            }
        }
    })
}

/// Returns the bytes of the table of colours that these flags announce.
fn colours(flags: Option<u8>) -> usize {
    match flags {
        Some(flags) if flags & 0x80 != 0 => 3 << ((flags & 7) + 1),
        _ => 0,
    }
}

fn behind_blocks(body: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let length = usize::from(*body.get(at)?);
        at += 1 + length;
        if length == 0 {
            return Some(at);
        }
    }
}

/// Returns the sizes that the pictures in an icon give themselves, whatever its directory says.
fn icon_pictures(body: &[u8]) -> impl Iterator<Item = Size> {
    let count = usize::from(little_16(body, 4).unwrap_or_default()).min(ICON_PICTURES);
    (0..count).filter_map(|index| {
        let begin = usize::try_from(little_32(body, 6 + 16 * index + 12)?).ok()?;
        let picture = body.get(begin..)?;
        if picture.starts_with(b"\x89PNG") {
            declared(picture)
        } else {
            let side = |offset| {
                Some(u64::from(
                    little_32(picture, offset)?.cast_signed().unsigned_abs(),
                ))
            };
            // The height counts the mask too.
            Some((side(4)?, side(8)? / 2))
        }
    })
}

fn little_16(body: &[u8], at: usize) -> Option<u16> {
    let bytes = body.get(at..)?.first_chunk()?;
    Some(u16::from_le_bytes(*bytes))
}

fn little_32(body: &[u8], at: usize) -> Option<u32> {
    let bytes = body.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn png(side: u32) -> Vec<u8> {
        let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        bytes.extend(side.to_be_bytes());
        bytes.extend(side.to_be_bytes());
        bytes.extend([1, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes
    }

    fn gif(screen: u16, frame: u16) -> Vec<u8> {
        let mut bytes = b"GIF89a".to_vec();
        bytes.extend([screen.to_le_bytes(), screen.to_le_bytes()].concat());
        bytes.extend([0x80, 0, 0]);
        bytes.extend([0; 6]);
        bytes.extend([b'!', 0xf9, 4, 0, 0, 0, 0, 0]);
        bytes.extend([b',', 0, 0, 0, 0]);
        bytes.extend([frame.to_le_bytes(), frame.to_le_bytes()].concat());
        bytes.extend([0, 2, 1, 0, 0, b';']);
        bytes
    }

    fn icon(picture: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 1, 0, 1, 0, 32, 32, 0, 0, 1, 0, 32, 0];
        bytes.extend(u32::try_from(picture.len()).unwrap().to_le_bytes());
        bytes.extend(22_u32.to_le_bytes());
        bytes.extend(picture);
        bytes
    }

    #[track_caller]
    fn check(body: &[u8], media_type: &'static str, side: u64, drawable: bool) {
        let expected = Picture {
            media_type,
            width: side,
            height: side,
            drawable,
        };
        assert_eq!(picture(body), Some(expected));
    }

    #[test]
    fn a_picture_is_drawn_only_up_to_a_size() {
        check(&png(8_000), "image/png", 8_000, true);
        check(&png(8_001), "image/png", 8_001, false);
        check(&png(23_000), "image/png", 23_000, false);
        check(&gif(100, 100), "image/gif", 100, true);
        check(&gif(65_535, 1), "image/gif", 65_535, false);
    }

    #[test]
    fn a_part_that_is_larger_than_the_whole_counts() {
        check(&gif(1, 65_000), "image/gif", 65_000, false);
        check(&icon(&png(32)), "image/x-icon", 32, true);
        check(&icon(&png(23_000)), "image/x-icon", 23_000, false);
        let bitmap = [40_u32, 20_000, 40_000, 1].map(u32::to_le_bytes).concat();
        check(&icon(&bitmap), "image/x-icon", 20_000, false);
    }

    #[test]
    fn what_says_nothing_of_its_size_is_no_picture() {
        for bytes in [
            &b""[..],
            b"text",
            b"\x89PNG\r\n\x1a\n",
            b"GIF89a",
            b"\xff\xd8\xff",
            b"RIFF\0\0\0\0WEBPVP8 ",
        ] {
            assert_eq!(picture(bytes), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_header_holds_it_is_read(bytes in prop::collection::vec(any::<u8>(), 0..200), begin in 0..5_usize) {
            let begins = [&b"GIF89a"[..], b"\0\0\x01\0", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP"];
            let body = [begins[begin], &bytes[..]].concat();
            if let Some(found) = picture(&body) {
                prop_assert_eq!(found.drawable, found.width * found.height <= DRAWABLE);
            }
        }
    }
}
