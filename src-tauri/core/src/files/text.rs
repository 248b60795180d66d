//! What the bytes of a file are as text: UTF-8 as it is; UTF-16, Latin-1, GBK and others decoded; and
//! what is none. A wrong byte or two does not make a text into something else.

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{EncoderResult, Encoding, UTF_8, UTF_16BE, UTF_16LE};
use serde::{Deserialize, Serialize};

/// Of a text at most every so-manieth byte is a control character that texts do not have.
const BYTES_PER_CONTROL: usize = 100;

/// The encoding of a file that is not plain UTF-8, as it was found or chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct Charset {
    /// Its name in the Encoding Standard, for example `windows-1252`.
    pub name: String,
    /// Whether some bytes make no sense in it, and show as U+FFFD.
    pub lossy: bool,
    /// Whether the file begins with a byte order mark, which is not part of the content.
    pub marked: bool,
    /// Whether the content, written in it again, is byte for byte the file. Only then may it be edited.
    pub exact: bool,
}

/// The encoding that a text is written in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS), ts(export))]
pub struct WrittenCharset {
    /// Its name in the Encoding Standard.
    pub name: String,
    /// Whether a byte order mark comes first.
    pub marked: bool,
}

/// What the bytes of a file are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Text {
    /// UTF-8.
    Plain(String),
    /// Another encoding, or UTF-8 with wrong bytes.
    Decoded(String, Charset),
    /// No text; the bytes as they came.
    Binary(Vec<u8>),
}

/// Returns the encoding of this name or alias, in any case.
pub(super) fn charset(label: &str) -> Option<&'static Encoding> {
    Encoding::for_label_no_replacement(label.as_bytes())
}

/// Returns the text that `body` is in a chosen encoding.
pub(super) fn decode(file: &[u8], encoding: &'static Encoding, truncated: bool) -> Text {
    let mark = bom(encoding);
    let marked = !mark.is_empty() && file.starts_with(mark);
    let body = file.strip_prefix(mark).unwrap_or(file);
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let mut text = String::new();
    let room = decoder.max_utf8_buffer_length(body.len());
    text.reserve(room.unwrap_or(body.len().saturating_mul(3)));
    // The end of a piece may be in the middle of a character.
    let (_, _, lossy) = decoder.decode_to_string(body, &mut text, !truncated);
    let exact = !truncated
        && !lossy
        && encode(&text, encoding, marked).is_ok_and(|written| written == file);
    let charset = Charset {
        name: encoding.name().to_owned(),
        lossy,
        marked,
        exact,
    };
    Text::Decoded(text, charset)
}

/// Returns the bytes of a text in an encoding.
///
/// # Errors
/// The first character that the encoding does not have.
pub(super) fn encode(
    text: &str,
    encoding: &'static Encoding,
    marked: bool,
) -> Result<Vec<u8>, char> {
    let mut bytes = Vec::new();
    if marked {
        bytes.extend_from_slice(bom(encoding));
    }
    if encoding == UTF_8 {
        bytes.extend_from_slice(text.as_bytes());
    } else if encoding == UTF_16LE {
        bytes.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
    } else if encoding == UTF_16BE {
        bytes.extend(text.encode_utf16().flat_map(u16::to_be_bytes));
    } else {
        let mut encoder = encoding.new_encoder();
        let mut rest = text;
        loop {
            let room = encoder.max_buffer_length_from_utf8_without_replacement(rest.len());
            bytes.reserve(room.unwrap_or(rest.len().saturating_mul(4)));
            let (result, read) =
                encoder.encode_from_utf8_to_vec_without_replacement(rest, &mut bytes, true);
            match result {
                EncoderResult::InputEmpty => break,
                EncoderResult::OutputFull => rest = rest.get(read..).unwrap_or_default(),
                EncoderResult::Unmappable(character) => return Err(character),
            }
        }
    }
    Ok(bytes)
}

/// Returns what `body` is, by what it looks like. With `truncated` it is the beginning of a file, and
/// may end within a character.
pub(super) fn recognise(mut body: Vec<u8>, truncated: bool) -> Text {
    if truncated
        && let Err(error) = std::str::from_utf8(&body)
        && error.error_len().is_none()
    {
        body.truncate(error.valid_up_to());
    }
    if let Some((encoding, _)) = Encoding::for_bom(&body).filter(|(encoding, _)| *encoding != UTF_8)
    {
        return decode(&body, encoding, truncated);
    }
    if let Some(encoding) = utf_16_without_mark(&body) {
        return decode(&body, encoding, truncated);
    }
    if controls_in(&body) > body.len() / BYTES_PER_CONTROL {
        return Text::Binary(body);
    }
    match String::from_utf8(body) {
        Ok(text) => Text::Plain(text),
        Err(error) => {
            let body = error.into_bytes();
            decode(&body, guess(&body), truncated)
        }
    }
}

/// Returns the encoding of a text that is not UTF-8, or not quite.
fn guess(body: &[u8]) -> &'static Encoding {
    let (mut characters, mut wrong) = (0_usize, 0_usize);
    for chunk in body.utf8_chunks() {
        characters += chunk
            .valid()
            .chars()
            .filter(|character| !character.is_ascii())
            .count();
        wrong += usize::from(!chunk.invalid().is_empty());
    }
    // What is UTF-8 by chance has few such characters: most pairs of high bytes are none.
    if characters > wrong {
        return UTF_8;
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    detector.feed(body, true);
    detector.guess(None, Utf8Detection::Deny)
}

/// Returns which UTF-16 a text is in that does not say so; nearly all characters of most are ASCII.
fn utf_16_without_mark(body: &[u8]) -> Option<&'static Encoding> {
    let is_usual = |byte: u8| matches!(byte, b' '..=b'~' | b'\t' | b'\n' | b'\r');
    let count = |zero_first: bool| {
        let pairs = body.chunks_exact(2);
        pairs
            .filter(|pair| match pair {
                [first, second] if zero_first => *first == 0 && is_usual(*second),
                [first, second] => *second == 0 && is_usual(*first),
                _ => false,
            })
            .count()
    };
    // Seven in ten characters.
    let enough = (body.len() / 2 * 7).div_ceil(10).max(2);
    if count(false) >= enough {
        Some(UTF_16LE)
    } else if count(true) >= enough {
        Some(UTF_16BE)
    } else {
        None
    }
}

fn controls_in(body: &[u8]) -> usize {
    body.iter()
        .filter(|byte| matches!(byte, 0..=0x07 | 0x0e..=0x1a | 0x1c..=0x1f | 0x7f))
        .count()
}

fn bom(encoding: &'static Encoding) -> &'static [u8] {
    if encoding == UTF_8 {
        b"\xef\xbb\xbf"
    } else if encoding == UTF_16LE {
        b"\xff\xfe"
    } else if encoding == UTF_16BE {
        b"\xfe\xff"
    } else {
        b""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &[u8], name: &str, lossy: bool, text: &str) {
        let marks: [&[u8]; 3] = [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"];
        let charset = Charset {
            name: name.to_owned(),
            lossy,
            marked: marks.iter().any(|mark| body.starts_with(mark)),
            exact: !lossy,
        };
        assert_eq!(
            recognise(body.to_vec(), false),
            Text::Decoded(text.to_owned(), charset)
        );
    }

    fn utf_16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn utf_8_stands_as_it_is() {
        for text in ["", "plain", "1 € 日本\r\n\t\u{1b}[31m", "\u{feff}marked"] {
            let expected = Text::Plain(text.to_owned());
            assert_eq!(recognise(text.as_bytes().to_vec(), false), expected);
        }
    }

    #[test]
    fn a_text_cut_within_a_character_is_still_a_text() {
        let euro = "1 €".as_bytes();
        let cut = recognise(euro[..4].to_vec(), true);
        assert_eq!(cut, Text::Plain("1 ".to_owned()));
        let marked = [b"\xff\xfe".to_vec(), utf_16("ab", u16::to_le_bytes)].concat();
        let Text::Decoded(text, charset) = recognise(marked[..5].to_vec(), true) else {
            panic!("no text");
        };
        assert_eq!((text.as_str(), charset.lossy), ("a", false));
    }

    #[test]
    fn other_encodings_are_recognised() {
        let notepad = "Grüße aus Köln\r\n";
        let marked = [b"\xff\xfe".to_vec(), utf_16(notepad, u16::to_le_bytes)].concat();
        check(&marked, "UTF-16LE", false, notepad);
        let marked = [b"\xfe\xff".to_vec(), utf_16(notepad, u16::to_be_bytes)].concat();
        check(&marked, "UTF-16BE", false, notepad);
        check(
            &utf_16(notepad, u16::to_le_bytes),
            "UTF-16LE",
            false,
            notepad,
        );
        check(
            &utf_16(notepad, u16::to_be_bytes),
            "UTF-16BE",
            false,
            notepad,
        );
        for (name, text) in [
            ("windows-1252", "Die Größe der Straße ändert sich häufig.\n"),
            (
                "GBK",
                "这是一个用于测试编码识别的中文文本文件，内容足够长。\n",
            ),
            (
                "Shift_JIS",
                "これは文字コードの判定を試すための日本語の文章です。\n",
            ),
            (
                "windows-1251",
                "Это русский текст для проверки определения кодировки.\n",
            ),
        ] {
            let (bytes, _, _) = charset(name).unwrap().encode(text);
            check(&bytes, name, false, text);
        }
    }

    #[test]
    fn one_wrong_byte_does_not_hide_a_text() {
        let log = "2026-01-01 all is well\n".repeat(5_000);
        let mut bytes = log.clone().into_bytes();
        bytes[50_000] = 0xff;
        let Text::Decoded(text, _) = recognise(bytes.clone(), false) else {
            panic!("no text");
        };
        assert_eq!(text.lines().count(), 5_000);
        // Where the others are UTF-8, so is this one.
        let log = "2026-01-01 alles läuft schön\n".repeat(50);
        let mut bytes = log.into_bytes();
        bytes[5] = 0xff;
        let Text::Decoded(text, charset) = recognise(bytes, false) else {
            panic!("no text");
        };
        assert_eq!((charset.name.as_str(), charset.lossy), ("UTF-8", true));
        assert!(text.starts_with("2026-\u{fffd}1"), "{text:.20}");
        // Nor does a zero.
        let mut bytes = "all is well\n".repeat(100).into_bytes();
        bytes[5] = 0;
        assert!(matches!(recognise(bytes, false), Text::Plain(_)));
    }

    #[test]
    fn what_is_no_text_stays_as_it_is() {
        let program: Vec<u8> = (0..=255).cycle().take(4_096).collect();
        for bytes in [
            &b"\0\xff\0\xff"[..],
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01",
            b"\x7fELF\x02\x01\x01\0\0\0\0\0",
            &vec![0; 2 << 20],
            &program,
        ] {
            assert_eq!(
                recognise(bytes.to_vec(), true),
                Text::Binary(bytes.to_vec())
            );
        }
    }

    /// Reads bytes in an encoding, puts a character in the middle of the text and returns what would be written.
    #[track_caller]
    fn edited(body: &[u8], label: &str, character: char) -> Result<Vec<u8>, char> {
        let encoding = charset(label).unwrap();
        let Text::Decoded(mut text, found) = decode(body, encoding, false) else {
            panic!("no text");
        };
        assert!(found.exact, "{label}: {found:?}");
        assert_eq!(encode(&text, encoding, found.marked).unwrap(), body);
        let middle = text.chars().count() / 2;
        let at = text.char_indices().nth(middle).map_or(0, |(at, _)| at);
        text.insert(at, character);
        encode(&text, encoding, found.marked)
    }

    #[test]
    fn a_text_that_is_edited_differs_there_only_in_every_encoding() {
        let text = "один два 1 2\r\nтри\n";
        let marked = [b"\xff\xfe".to_vec(), utf_16(text, u16::to_le_bytes)].concat();
        for (body, label, added) in [
            (marked, "UTF-16LE", 2),
            (utf_16(text, u16::to_le_bytes), "UTF-16LE", 2),
            (utf_16(text, u16::to_be_bytes), "UTF-16BE", 2),
            (format!("\u{feff}{text}").into_bytes(), "UTF-8", 1),
            (
                charset("KOI8-R").unwrap().encode(text).0.into_owned(),
                "KOI8-R",
                1,
            ),
            (
                charset("gb18030").unwrap().encode(text).0.into_owned(),
                "gb18030",
                1,
            ),
            ((0..=255).collect(), "windows-1252", 1),
        ] {
            let written = edited(&body, label, 'x').unwrap();
            assert_eq!(written.len(), body.len() + added, "{label}");
            let same = body
                .iter()
                .zip(&written)
                .take_while(|(a, b)| a == b)
                .count();
            let tail = body.len() - same;
            assert_eq!(
                body[same..],
                written[written.len() - tail..],
                "{label} after {same}"
            );
        }
        assert_eq!(edited(b"plain", "windows-1252", '日'), Err('日'));
    }

    #[test]
    fn what_would_be_written_in_another_way_is_not_exact() {
        // Two ways to write one character, of which the encoder knows one.
        for (body, label) in [(&b"\xfa\x54"[..], "Shift_JIS"), (b"\xff", "UTF-8")] {
            let Text::Decoded(_, found) = decode(body, charset(label).unwrap(), false) else {
                panic!("no text");
            };
            assert!(!found.exact, "{label}: {found:?}");
        }
        let cut = decode(b"a\0b", charset("UTF-16LE").unwrap(), true);
        assert!(matches!(
            cut,
            Text::Decoded(_, Charset { exact: false, .. })
        ));
    }

    #[test]
    fn a_chosen_encoding_is_used_whatever_the_bytes_are() {
        let chosen = decode(b"\xa4\xa2", charset("EUC-JP").unwrap(), false);
        assert!(
            matches!(chosen, Text::Decoded(text, Charset { lossy: false, .. }) if text == "あ")
        );
        let chosen = decode(b"\xff", charset("gbk").unwrap(), false);
        assert!(matches!(
            chosen,
            Text::Decoded(_, Charset { lossy: true, .. })
        ));
        for label in ["", "nonsense", "replacement", "iso-2022-kr"] {
            assert_eq!(charset(label), None, "{label}");
        }
    }
}
