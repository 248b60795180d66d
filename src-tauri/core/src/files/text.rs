//! What the bytes of a file are as text: UTF-8 as it is; UTF-16, Latin-1, GBK and others decoded; and
//! what is none. A wrong byte or two does not make a text into something else.

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};
use serde::Serialize;

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
pub(super) fn decode(body: &[u8], encoding: &'static Encoding, truncated: bool) -> Text {
    let body = body.strip_prefix(bom(encoding)).unwrap_or(body);
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let mut text = String::new();
    let room = decoder.max_utf8_buffer_length(body.len());
    text.reserve(room.unwrap_or(body.len().saturating_mul(3)));
    // The end of a piece may be in the middle of a character.
    let (_, _, lossy) = decoder.decode_to_string(body, &mut text, !truncated);
    let name = encoding.name().to_owned();
    Text::Decoded(text, Charset { name, lossy })
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
        let charset = Charset {
            name: name.to_owned(),
            lossy,
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
