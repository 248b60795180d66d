//! What a container writes, on its way to a window that must not freeze: counts are held to what a
//! screen can show, titles and control strings to a length, marks on one character to a number, and
//! the whole is cut into pieces that are quickly drawn.
//!
//! All else passes unchanged, byte for byte, also what is no valid UTF-8 and sequences that nobody
//! knows. The states are those of the window's terminal (xterm.js), which follows
//! <https://vt100.net/emu/dec_ansi_parser> and reads C1 controls as UTF-8: where the two differed, what is
//! a harmless string here could be a sequence there. It knows nothing of what is on the screen.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher as _};

use unicode_width::UnicodeWidthChar as _;

/// The largest count of lines, columns or repetitions that gets through: more than any screen has.
const LARGEST_COUNT: u32 = 1_000;
/// The most bytes of a control sequence; the longest that make sense set 32 colours.
const LONGEST_SEQUENCE: usize = 1_024;
/// The most characters of a title.
const LONGEST_TITLE: usize = 200;
/// The most bytes of any other control string; a link's address has at most 2,083.
const LONGEST_STRING: usize = 4_096;
/// The most marks on one character: that of Unicode's stream-safe format (UAX #15).
const MOST_MARKS: u32 = 30;
/// The most bytes of a control string that has something to copy (OSC 52): some 96 kB of text, in base64.
const LONGEST_COPY: usize = 128 << 10;
/// The most bytes of a link's text, which may be as many lines: the window follows each line of a link.
const LONGEST_LINK: usize = 1_000;
/// The work that a piece may be, in the work of a plain character: some 10 ms.
const PIECE: u32 = 100_000;
/// How many characters that were not shown before a piece may have: some 20 ms.
pub(super) const NEW_CHARACTERS: u32 = 50;
/// How many characters with marks are known to have been shown.
const KNOWN_WITH_MARKS: usize = 20_000;
/// How many characters there are, with or without a meaning.
const CHARACTERS: usize = char::MAX as usize + 1;

/// Ends a link.
const END_OF_LINK: &[u8] = b"\x1b]8;;\x07";

const BEL: char = '\x07';
const CAN: char = '\x18';
const SUB: char = '\x1a';
const ESC: char = '\x1b';
/// Stands where a title was cut.
const ELLIPSIS: char = '…';

/// Filters the output of one terminal.
#[derive(Debug, Default)]
pub(super) struct OutputFilter {
    state: State,
    /// A sequence that is not complete; it passes as a whole or not at all.
    sequence: Vec<u8>,
    /// The beginning of a character.
    partial: Vec<u8>,
    /// Marks since the last character that has a place of its own.
    marks: u32,
    /// That character, if it has marks or is not plain itself.
    unplain: Option<Unplain>,
    /// The last plain character.
    plain: u8,
    /// Characters without marks that were shown: a bit for each, once there is one.
    known: Vec<u64>,
    /// Characters with marks that were shown.
    known_with_marks: HashSet<u64>,
    /// How many bytes of text a link has that is open.
    link: Option<usize>,
    left_out: u64,
}

/// A character that the window may have to measure before it draws it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Unplain {
    Alone(char),
    /// With its marks, as a hash.
    WithMarks(u64),
}

/// Output that may be shown at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) bytes: Vec<u8>,
    /// How many characters in it were not shown before: the window measures each as it draws it.
    pub(super) new: u32,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Ground,
    Escape,
    EscapeIntermediate,
    Sequence(Part),
    /// A sequence that is too long to be one; left out to its end.
    LongSequence,
    Osc(Osc),
    Dcs {
        part: Part,
        length: usize,
    },
    /// A string that the window's terminal does not look at.
    Ignored,
    /// A string that is too long; left out to its end.
    LongString {
        ends_at_bell: bool,
    },
}

/// How far a sequence has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Entry,
    Parameters,
    Intermediates,
    /// It makes no sense and has no effect.
    Senseless,
    /// Of a device control string: its content.
    Content,
}

/// How far an operating system command has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Osc {
    /// Its number so far, and how many bytes that took.
    Number {
        number: u32,
        length: usize,
    },
    Title {
        characters: usize,
    },
    /// A link, begun or ended: its parameters up to a semicolon, and its address.
    Link {
        length: usize,
        semicolons: u32,
        has_address: bool,
    },
    Other {
        number: u32,
        length: usize,
    },
}

/// What is being put together.
struct Pieces {
    done: Vec<Piece>,
    current: Vec<u8>,
    work: u32,
    new: u32,
}

impl OutputFilter {
    /// Takes bytes as they come and returns what may be shown, in pieces to be shown one by one.
    /// What is not complete is kept for the next call.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> Vec<Piece> {
        let mut pieces = Pieces::new(bytes.len());
        if self.partial.is_empty() {
            self.take(bytes, &mut pieces);
        } else {
            let mut whole = std::mem::take(&mut self.partial);
            whole.extend_from_slice(bytes);
            self.take(&whole, &mut pieces);
        }
        self.settle(&mut pieces);
        pieces.finish()
    }

    /// Takes note that another window shows the output from now on, which has shown nothing before.
    pub(super) fn forget_shown(&mut self) {
        self.known.clear();
        self.known_with_marks.clear();
    }

    /// Returns how many bytes were left out so far.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out
    }

    fn take(&mut self, bytes: &[u8], pieces: &mut Pieces) {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.state == State::Ground {
                let plain = rest.iter().take_while(|byte| is_plain(**byte)).count();
                if let Some((run, behind)) = rest.split_at_checked(plain).filter(|_| plain > 0) {
                    self.settle(pieces);
                    self.marks = 0;
                    self.plain = run.last().copied().unwrap_or_default();
                    self.add_text(run, pieces);
                    rest = behind;
                    continue;
                }
            }
            match decode(rest) {
                Decoded::Character(character, length) => {
                    let (bytes, behind) = rest.split_at(length);
                    self.character(character, bytes, pieces);
                    rest = behind;
                }
                Decoded::Invalid(length) => {
                    let (bytes, behind) = rest.split_at(length);
                    self.invalid(bytes, pieces);
                    rest = behind;
                }
                Decoded::Incomplete => {
                    self.partial = rest.to_vec();
                    return;
                }
            }
        }
    }

    /// Bytes that are no character are skipped by the window's terminal wherever they stand.
    fn invalid(&mut self, bytes: &[u8], pieces: &mut Pieces) {
        match self.state {
            State::Escape | State::Sequence(_) => self.sequence.extend_from_slice(bytes),
            State::LongSequence | State::LongString { .. } => self.leave_out(bytes.len()),
            State::Ground
            | State::EscapeIntermediate
            | State::Osc(_)
            | State::Dcs { .. }
            | State::Ignored => pieces.add(bytes, 1),
        }
        self.limit_sequence();
    }

    fn character(&mut self, character: char, bytes: &[u8], pieces: &mut Pieces) {
        if matches!(character, ESC | CAN | SUB | '\u{80}'..='\u{9f}') {
            return self.interrupt(character, bytes, pieces);
        }
        match self.state {
            State::Ground => self.show(character, bytes, pieces),
            State::Escape => self.escape(character, bytes, pieces),
            State::EscapeIntermediate => {
                let work = if character == '8' { 500 } else { 20 };
                pieces.add(bytes, work);
                if !matches!(character, '\0'..='\x2f' | '\x7f') {
                    self.state = State::Ground;
                }
            }
            State::Sequence(part) => self.sequence(part, character, bytes, pieces),
            State::LongSequence => {
                self.leave_out(bytes.len());
                if !matches!(character, '\0'..='\x3f' | '\x7f') {
                    self.state = State::Ground;
                }
            }
            State::Osc(osc) => self.osc(osc, character, bytes, pieces),
            State::Dcs { part, length } => self.dcs(part, length, character, bytes, pieces),
            State::Ignored => {
                pieces.add(bytes, 1);
                if !character.is_ascii() {
                    self.state = State::Ground;
                }
            }
            State::LongString { ends_at_bell } => {
                self.leave_out(bytes.len());
                if ends_at_bell && character == BEL {
                    self.state = State::Ground;
                }
            }
        }
    }

    /// Adds plain text, and ends a link whose text is too long to be one.
    fn add_text(&mut self, run: &[u8], pieces: &mut Pieces) {
        let room = self
            .link
            .map_or(run.len(), |length| LONGEST_LINK.saturating_sub(length));
        let (linked, behind) = run.split_at_checked(room).unwrap_or((run, &[]));
        pieces.add_plain(linked);
        self.extend_link(linked.len());
        if !behind.is_empty() {
            self.end_link(pieces);
            pieces.add_plain(behind);
        }
    }

    fn extend_link(&mut self, bytes: usize) {
        self.link = self.link.map(|length| length.saturating_add(bytes));
    }

    fn end_link(&mut self, pieces: &mut Pieces) {
        self.link = None;
        pieces.add(END_OF_LINK, 50);
    }

    /// Takes a control that ends whatever was begun, and may begin something.
    fn interrupt(&mut self, control: char, bytes: &[u8], pieces: &mut Pieces) {
        if let State::Osc(osc) = self.state
            && !matches!(control, CAN | SUB)
        {
            self.take_link(osc);
        }
        let unfinished = std::mem::take(&mut self.sequence);
        pieces.add(&unfinished, 20);
        self.state = match control {
            ESC => {
                self.sequence.extend_from_slice(bytes);
                State::Escape
            }
            '\u{9b}' => {
                self.sequence.extend_from_slice(bytes);
                State::Sequence(Part::Entry)
            }
            '\u{9d}' => State::Osc(Osc::START),
            '\u{90}' => State::DCS_START,
            '\u{98}' | '\u{9e}' | '\u{9f}' => State::Ignored,
            _ => State::Ground,
        };
        if self.sequence.is_empty() {
            pieces.add(bytes, 30);
        }
    }

    fn show(&mut self, character: char, bytes: &[u8], pieces: &mut Pieces) {
        if self.link.is_some_and(|length| length >= LONGEST_LINK) {
            self.end_link(pieces);
        }
        self.extend_link(bytes.len());
        // Behind a control a mark joins nothing, but not every control is one to the window's terminal.
        if is_mark(character) {
            self.marks = self.marks.saturating_add(1);
            if self.marks > MOST_MARKS {
                return self.leave_out(bytes.len());
            }
            let before = self.unplain.unwrap_or(Unplain::Alone(self.plain.into()));
            self.unplain = Some(Unplain::WithMarks(hash_of((before, character))));
            return pieces.add(bytes, 20);
        }
        self.settle(pieces);
        if !character.is_control() {
            self.marks = 0;
            self.unplain = Some(Unplain::Alone(character));
        }
        let work = match character {
            '\n' | '\x0b' | '\x0c' => 100,
            '\0'..='\x7f' => 10,
            _ => 3,
        };
        pieces.add(bytes, work);
    }

    /// Counts a character that is complete, with its marks, if it was not shown before.
    fn settle(&mut self, pieces: &mut Pieces) {
        let Some(character) = self.unplain.take() else {
            return;
        };
        if self.is_new(character) {
            pieces.add_new();
        }
    }

    /// Notes that a character is shown, and returns whether it was not shown before, as far as is known.
    fn is_new(&mut self, character: Unplain) -> bool {
        match character {
            Unplain::Alone(character) => {
                self.known.resize(CHARACTERS / 64, 0);
                let (index, bit) = (character as usize / 64, 1 << (character as usize % 64));
                let before = self.known.get_mut(index).map(|bits| {
                    let before = *bits;
                    *bits |= bit;
                    before
                });
                before.is_some_and(|before| before & bit == 0)
            }
            Unplain::WithMarks(hash) => {
                if self.known_with_marks.len() >= KNOWN_WITH_MARKS {
                    self.known_with_marks.clear();
                }
                self.known_with_marks.insert(hash)
            }
        }
    }

    fn escape(&mut self, character: char, bytes: &[u8], pieces: &mut Pieces) {
        self.sequence.extend_from_slice(bytes);
        let (next, work) = match character {
            '[' => {
                self.state = State::Sequence(Part::Entry);
                return;
            }
            '\0'..='\x1f' | '\x7f' => return self.limit_sequence(),
            '\x20'..='\x2f' => (State::EscapeIntermediate, 20),
            ']' => (State::Osc(Osc::START), 30),
            'P' => (State::DCS_START, 30),
            'X' | '^' | '_' => (State::Ignored, 20),
            // Everything is made anew.
            'c' => (State::Ground, 5_000),
            _ => (State::Ground, 40),
        };
        self.state = next;
        self.pass_sequence(work, pieces);
    }

    fn sequence(&mut self, part: Part, character: char, bytes: &[u8], pieces: &mut Pieces) {
        self.sequence.extend_from_slice(bytes);
        let next = match character {
            '\0'..='\x1f' | '\x7f' => part,
            '\x20'..='\x3f' => part.next(character),
            '\x40'..='\x7e' => {
                self.state = State::Ground;
                let work = if part == Part::Senseless {
                    20
                } else {
                    hold_to_screen(&mut self.sequence)
                };
                return self.pass_sequence(work, pieces);
            }
            _ if part == Part::Senseless => part,
            _ => {
                self.state = State::Ground;
                return self.pass_sequence(20, pieces);
            }
        };
        self.state = State::Sequence(next);
        self.limit_sequence();
    }

    fn osc(&mut self, osc: Osc, character: char, bytes: &[u8], pieces: &mut Pieces) {
        if character == BEL {
            self.state = State::Ground;
            self.take_link(osc);
            return pieces.add(bytes, 20);
        }
        let next = osc.next(character, bytes.len());
        self.state = State::Osc(next);
        match next {
            Osc::Title { characters } if characters > LONGEST_TITLE => {
                if characters == LONGEST_TITLE + 1 {
                    pieces.add_character(ELLIPSIS);
                }
                self.leave_out(bytes.len());
            }
            Osc::Other { number: 52, length } if length <= LONGEST_COPY => pieces.add(bytes, 1),
            Osc::Number { length, .. } | Osc::Link { length, .. } | Osc::Other { length, .. }
                if length > LONGEST_STRING =>
            {
                self.cut_string(true, bytes, pieces);
            }
            Osc::Title { .. } | Osc::Number { .. } => pieces.add(bytes, 1),
            Osc::Link { .. } => pieces.add(bytes, 20),
            Osc::Other { number, .. } => pieces.add(bytes, work_of_osc(number)),
        }
    }

    /// Notes that a link was begun or ended, if that is what this command was.
    fn take_link(&mut self, osc: Osc) {
        if let Osc::Link { has_address, .. } = osc {
            self.link = has_address.then_some(0);
        }
    }

    fn dcs(
        &mut self,
        part: Part,
        length: usize,
        character: char,
        bytes: &[u8],
        pieces: &mut Pieces,
    ) {
        let length = length + bytes.len();
        if length > LONGEST_STRING {
            return self.cut_string(false, bytes, pieces);
        }
        pieces.add(bytes, 1);
        let part = match (part, character) {
            (Part::Content | Part::Senseless, _) | (_, '\0'..='\x1f' | '\x7f') => part,
            (_, '\x20'..='\x3f') => part.next(character),
            (_, '\x40'..='\x7e') => Part::Content,
            (_, _) => {
                self.state = State::Ground;
                return;
            }
        };
        self.state = State::Dcs { part, length };
    }

    /// Takes a string back that has begun: what was shown of it has no effect, and the rest is left out.
    fn cut_string(&mut self, ends_at_bell: bool, bytes: &[u8], pieces: &mut Pieces) {
        pieces.add_character(CAN);
        self.leave_out(bytes.len());
        self.state = State::LongString { ends_at_bell };
    }

    fn pass_sequence(&mut self, work: u32, pieces: &mut Pieces) {
        pieces.add(&self.sequence, work);
        self.sequence.clear();
    }

    fn limit_sequence(&mut self) {
        if self.sequence.len() > LONGEST_SEQUENCE {
            self.leave_out(self.sequence.len());
            self.sequence.clear();
            self.state = State::LongSequence;
        }
    }

    fn leave_out(&mut self, bytes: usize) {
        self.left_out = self.left_out.saturating_add(bytes as u64);
    }
}

impl State {
    const DCS_START: Self = Self::Dcs {
        part: Part::Entry,
        length: 0,
    };
}

impl Part {
    /// Returns where a byte between a space and `?` leads.
    fn next(self, character: char) -> Self {
        match (self, character) {
            (Self::Entry, '<'..='?') | (Self::Entry | Self::Parameters, '0'..=';') => {
                Self::Parameters
            }
            (Self::Entry | Self::Parameters | Self::Intermediates, '\x20'..='\x2f') => {
                Self::Intermediates
            }
            (Self::Content, _) => Self::Content,
            (_, _) => Self::Senseless,
        }
    }
}

impl Osc {
    const START: Self = Self::Number {
        number: 0,
        length: 0,
    };

    fn next(self, character: char, bytes: usize) -> Self {
        match self {
            Self::Number { number, length } => {
                let length = length + bytes;
                match (character, character.to_digit(10)) {
                    (';', _) if number <= 2 => Self::Title { characters: 0 },
                    (';', _) if number == 8 => Self::Link {
                        length,
                        semicolons: 0,
                        has_address: false,
                    },
                    (_, Some(digit)) => Self::Number {
                        number: number.saturating_mul(10).saturating_add(digit),
                        length,
                    },
                    ('\0'..='\x1f', None) => Self::Number { number, length },
                    (_, None) => Self::Other { number, length },
                }
            }
            Self::Title { characters } => Self::Title {
                characters: characters.saturating_add(1),
            },
            Self::Link {
                length,
                semicolons,
                has_address,
            } => Self::Link {
                length: length + bytes,
                semicolons: semicolons.saturating_add(u32::from(character == ';')),
                has_address: has_address || semicolons > 0 && !character.is_ascii_control(),
            },
            Self::Other { number, length } => Self::Other {
                number,
                length: length + bytes,
            },
        }
    }
}

impl Pieces {
    fn new(expected: usize) -> Self {
        Self {
            done: Vec::new(),
            current: Vec::with_capacity(expected),
            work: 0,
            new: 0,
        }
    }

    fn add(&mut self, bytes: &[u8], work: u32) {
        self.current.extend_from_slice(bytes);
        self.work = self.work.saturating_add(work);
        if self.work >= PIECE {
            self.end_piece();
        }
    }

    fn end_piece(&mut self) {
        self.done.push(Piece {
            bytes: std::mem::take(&mut self.current),
            new: std::mem::take(&mut self.new),
        });
        self.work = 0;
    }

    /// Adds a character that was not shown before, whose bytes are added already.
    fn add_new(&mut self) {
        self.new += 1;
        if self.new >= NEW_CHARACTERS {
            self.end_piece();
        }
    }

    fn add_plain(&mut self, run: &[u8]) {
        for part in run.chunks(PIECE as usize) {
            self.add(part, u32::try_from(part.len()).unwrap_or(PIECE));
        }
    }

    fn add_character(&mut self, character: char) {
        self.add(character.encode_utf8(&mut [0; 4]).as_bytes(), 1);
    }

    fn finish(mut self) -> Vec<Piece> {
        if !self.current.is_empty() || self.new > 0 {
            self.end_piece();
        }
        self.done
    }
}

enum Decoded {
    Character(char, usize),
    Invalid(usize),
    Incomplete,
}

/// Returns the first character of `bytes`, which are not empty.
fn decode(bytes: &[u8]) -> Decoded {
    if let Some(byte) = bytes.first().filter(|byte| byte.is_ascii()) {
        return Decoded::Character(char::from(*byte), 1);
    }
    let head = bytes.get(..4).unwrap_or(bytes);
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) => match (error.valid_up_to(), error.error_len()) {
            (0, None) => return Decoded::Incomplete,
            (0, Some(length)) => return Decoded::Invalid(length),
            (valid, _) => {
                std::str::from_utf8(head.get(..valid).unwrap_or_default()).unwrap_or_default()
            }
        },
    };
    match valid.chars().next() {
        Some(character) => Decoded::Character(character, character.len_utf8()),
        None => Decoded::Invalid(1),
    }
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7e)
}

/// Returns whether the window puts a character into the place of the one before it. More than it does
/// today: a terminal that knows of newer characters does no harm either.
fn is_mark(character: char) -> bool {
    match character {
        '\0'..='\u{ff}' => false,
        // Those that the window has no width for, although newer tables have.
        '\u{600}'..='\u{603}'
        | '\u{6dd}'..='\u{6de}'
        | '\u{70f}'
        | '\u{93c}'..='\u{94d}'
        | '\u{9c1}'..='\u{9cd}'
        | '\u{a41}'..='\u{a4d}'
        | '\u{ac1}'..='\u{acd}'
        | '\u{b3c}'..='\u{b56}'
        | '\u{bc0}'
        | '\u{c3e}'..='\u{c56}'
        | '\u{cbc}'..='\u{ccd}'
        | '\u{d41}'..='\u{d4d}'
        | '\u{1160}'..='\u{11ff}'
        | '\u{17b4}'..='\u{17d3}'
        | '\u{1b34}'..='\u{1b42}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{302a}'..='\u{302f}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{feff}'
        | '\u{1d165}'..='\u{1d182}' => true,
        _ => character.width() == Some(0),
    }
}

fn hash_of(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Returns the work of a byte of an operating system command: colours are set again one by one.
fn work_of_osc(number: u32) -> u32 {
    match number {
        4 | 10..=19 | 104 | 110..=119 => 500,
        _ => 1,
    }
}

/// Holds the counts of a sequence to what a screen can show, and returns how much work it is.
fn hold_to_screen(sequence: &mut Vec<u8>) -> u32 {
    let begin = sequence.iter().position(|byte| matches!(byte, b'[' | 0x9b));
    let body = begin
        .and_then(|at| sequence.get(at + 1..))
        .unwrap_or_default();
    let is_private = matches!(
        body.iter().find(|byte| !is_control(**byte)),
        Some(b'<'..=b'?')
    );
    let is_quoted = body.contains(&b'\'');
    // Of columns, on every line of the screen.
    let is_sideways = is_quoted || body.contains(&b' ');
    let end = body.last().copied().unwrap_or_default();
    let counts = match end {
        b'@'..=b'I'
        | b'L'
        | b'M'
        | b'P'
        | b'S'
        | b'T'
        | b'X'
        | b'Z'
        | b'`'
        | b'a'
        | b'b'
        | b'd'
        | b'e'
        | b'f'
        | b'r' => !is_private,
        b'}' | b'~' => is_quoted,
        _ => false,
    };
    let (mut first, mut largest, mut number) = (None, 0, 0_u32);
    for byte in body {
        match byte {
            b'0'..=b'9' => {
                number = number
                    .saturating_mul(10)
                    .saturating_add(u32::from(byte - b'0'));
                largest = largest.max(number);
            }
            b';' | b':' => {
                first.get_or_insert(number);
                number = 0;
            }
            _ => {}
        }
    }
    let count = first.unwrap_or(number).clamp(1, LARGEST_COUNT);
    if counts && largest > LARGEST_COUNT {
        *sequence = rewritten(sequence);
    }
    let length = u32::try_from(sequence.len()).unwrap_or(u32::MAX);
    length
        + match end {
            b'S' | b'T' | b'L' | b'M' => 100 * count,
            b'b' => 20 + 2 * count,
            b'I' | b'Z' => 20 + count,
            b'J' => 500,
            b'@' | b'A' | b'}' | b'~' if is_sideways => 500,
            // Another screen, among others.
            b'h' | b'l' => 1_000,
            b'@' | b'P' | b'X' | b'c' | b'n' | b'p' | b't' => 100,
            _ => 20,
        }
}

/// Returns a sequence with every number in it held to [`LARGEST_COUNT`].
fn rewritten(sequence: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(sequence.len());
    let mut number: Option<u32> = None;
    for byte in sequence {
        match byte {
            b'0'..=b'9' => {
                let digit = u32::from(byte - b'0');
                number = Some(number.unwrap_or(0).saturating_mul(10).saturating_add(digit));
            }
            byte if is_control(*byte) => out.push(*byte),
            byte => {
                if let Some(number) = number.take() {
                    out.extend_from_slice(number.min(LARGEST_COUNT).to_string().as_bytes());
                }
                out.push(*byte);
            }
        }
    }
    out
}

fn is_control(byte: u8) -> bool {
    matches!(byte, 0..=0x1f | 0x7f..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::select;

    fn filtered(bytes: &[u8]) -> Vec<u8> {
        whole(OutputFilter::default().pass(bytes))
    }

    fn whole(pieces: Vec<Piece>) -> Vec<u8> {
        pieces.into_iter().flat_map(|piece| piece.bytes).collect()
    }

    #[track_caller]
    fn check(input: &str, expected: &str) {
        let shown = filtered(input.as_bytes());
        assert_eq!(String::from_utf8_lossy(&shown), expected, "{input:?}");
    }

    #[track_caller]
    fn check_unchanged(input: &str) {
        check(input, input);
    }

    #[test]
    fn what_programs_write_passes_unchanged() {
        for ordinary in [
            "plain text, caf\u{e9}, 日本, 👩‍💻, 🇩🇪\r\n",
            "\x1b[1;38;5;39mbold\x1b[0m \x1b[38:2::255:128:0mtrue colour\x1b[m",
            "\x1b[?1049h\x1b[22;0;0t\x1b[1;24r\x1b[?2004h\x1b[?1006;1003h\x1b[>4;2m\x1b[?2026h",
            "\x1b[999;999H\x1b[6n\x1b[1000B\x1b[80b\x1b[24S",
            "\x1b]0;user@host: ~\x07\x1b]2;title\x1b\\",
            "\x1b]8;id=1;https://example.org/a?b=c\x1b\\link\x1b]8;;\x1b\\",
            "\x1b]7;file://host/workspace\x1b\\\x1b]133;A\x1b\\\x1b]133;D;0\x07",
            "\x1bP$q\"p\x1b\\\x1bP+q544e\x1b\\\x1b_Gf=24;AAAA\x1b\\\x1b^x\x1b\\",
            "\u{9b}31mred\u{9b}m \u{9d}2;title\u{9c}",
            "\x1b(0lqqk\x1b(B\x1b7\x1b8\x1b=\x1b>\x1bM\x1bc\x1b#8",
            "e\u{301}\u{323} ส้้ नमस्ते שָׁלוֹם",
            "\0\x07\x08\t\x7f\x0e\x0f",
            "\x1b[\x1b[31m\x1b[3\x181m \x1b[é\x1b[?1<m\x1b[12\r\n;3H",
        ] {
            check_unchanged(ordinary);
        }
    }

    #[test]
    fn bytes_that_are_no_text_pass_unchanged() {
        let bytes: Vec<u8> = (0..=255_u8).rev().filter(|byte| *byte != 0x1b).collect();
        assert_eq!(
            filtered(&[&bytes[..], b"."].concat()),
            [&bytes[..], b"."].concat()
        );
    }

    #[test]
    fn a_count_is_held_to_what_a_screen_can_show() {
        check("\x1b[999999999S|", "\x1b[1000S|");
        check("\x1b[999999999L|", "\x1b[1000L|");
        check("x\x1b[2147483647b|", "x\x1b[1000b|");
        check("\x1b[00000000000000000000099999T|", "\x1b[1000T|");
        check(
            "\x1b[5;999999999H\x1b[99999:2;7r",
            "\x1b[5;1000H\x1b[1000:2;7r",
        );
        check("\x1b[999999 @\x1b[999999'}", "\x1b[1000 @\x1b[1000'}");
        check("\u{9b}999999999S", "\u{9b}1000S");
        check("\x1b\n[99\n99\x7f9S|", "\x1b\n[\n\x7f1000S|");
        // Numbers that are no counts are left alone.
        check_unchanged("\x1b[?99999h\x1b[38;2;99999;1;1m\x1b[8;99999;99999t");
    }

    #[test]
    fn a_sequence_without_an_end_is_left_out() {
        let endless = format!("a\x1b[{}S{}", "0".repeat(2_000), "b");
        check(&endless, "ab");
        check(
            &format!("a\x1b[{}\x1b[31mb", ";".repeat(5_000)),
            "a\x1b[31mb",
        );
        check(&format!("a\x1b{}[9b", "\0".repeat(5_000)), "a9b");
    }

    #[test]
    fn a_long_title_is_cut_and_says_so() {
        let title = "T".repeat(100_000);
        let cut = format!("{}…", "T".repeat(LONGEST_TITLE));
        for (begin, end) in [
            ("\x1b]0;", "\x07"),
            ("\x1b]2;", "\x1b\\"),
            ("\u{9d}0002;", "\u{9c}"),
        ] {
            check(
                &format!("{begin}{title}{end}$ "),
                &format!("{begin}{cut}{end}$ "),
            );
        }
    }

    #[test]
    fn what_is_to_be_copied_comes_whole_or_has_no_effect() {
        let copy = |length: usize| format!("a\x1b]52;c;{}\x07b", "q".repeat(length));
        let most = LONGEST_COPY - "52;c;".len();
        check(&copy(most), &copy(most));
        let shown = String::from_utf8(filtered(copy(most + 1).as_bytes())).unwrap();
        let (_, behind) = shown.split_once(CAN).unwrap();
        assert_eq!(behind, "b");
    }

    #[test]
    fn a_long_string_has_no_effect() {
        let long = "q".repeat(200_000);
        for (begin, end) in [
            ("\x1b]8;;http://", "\x07"),
            ("\x1b]53;c;", "\x1b\\"),
            ("\x1b]", "\x07"),
            ("\x1bP", "\x1b\\"),
            ("\u{90}1;2", "\u{9c}"),
        ] {
            let shown = filtered(format!("a{begin}{long}{end}b").as_bytes());
            let shown = String::from_utf8(shown).unwrap();
            assert!(
                shown.len() < LONGEST_STRING + 20,
                "{begin:?}: {}",
                shown.len()
            );
            let (_, behind) = shown.split_once(CAN).unwrap();
            assert!(["b", "\x1b\\b", "\u{9c}b"].contains(&behind), "{behind:?}");
        }
    }

    #[test]
    fn marks_on_one_character_are_held_to_a_number() {
        for mark in [
            '\u{301}',
            '\u{200d}',
            '\u{fe0f}',
            '\u{1160}',
            '\u{e0041}',
            '\u{e0100}',
            '\u{202e}',
        ] {
            let many = mark.to_string().repeat(100_000);
            let few = mark.to_string().repeat(MOST_MARKS as usize);
            check(&format!("a{many}b{mark}"), &format!("a{few}b{mark}"));
            // What the window's terminal does not take for the end of a character is none here either.
            check(&format!("a{many}\x7f{many}b"), &format!("a{few}\x7fb"));
            check(
                &format!("a{many}\x1bX\u{9c}{many}b"),
                &format!("a{few}\x1bX\u{9c}b"),
            );
        }
    }

    /// Every character that the window's terminal joins to the one before it, by its own tables.
    #[test]
    fn every_mark_that_the_window_knows_is_counted() {
        let tables = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../ui/node_modules/@xterm/xterm/src/common/input/UnicodeV6.ts"
        );
        let Ok(source) = std::fs::read_to_string(tables) else {
            return cove_testbed::skip("the window's packages are not installed");
        };
        let numbers: Vec<u32> = source
            .lines()
            .skip_while(|line| !line.starts_with("const BMP_COMBINING"))
            .take_while(|line| !line.contains("lookup table"))
            .flat_map(|line| line.split("0x").skip(1))
            .map(|word| {
                word.chars()
                    .take_while(char::is_ascii_hexdigit)
                    .collect::<String>()
            })
            .map(|digits| u32::from_str_radix(&digits, 16).unwrap())
            .collect();
        assert!(
            numbers.len() > 200 && numbers.len().is_multiple_of(2),
            "{}",
            numbers.len()
        );
        let missed: Vec<char> = numbers
            .chunks(2)
            .flat_map(|range| range[0]..=range[1])
            .filter_map(char::from_u32)
            .filter(|character| !is_mark(*character))
            .collect();
        assert!(missed.is_empty(), "{missed:?}");
    }

    #[test]
    fn what_is_much_work_comes_in_small_pieces() {
        let plain = OutputFilter::default().pass(&vec![b'x'; 64 * 1024]);
        assert_eq!(plain.len(), 1, "plain text is one piece");
        for (sequence, most) in [
            ("\x1b[40S", 30),
            ("\x1b[999999L", 2),
            ("x\x1b[999b", 60),
            ("\x1bc", 30),
            ("\x1b[2J", 300),
            ("\x1b#8", 300),
            ("\x1b[?1049h", 200),
            ("\x1b]11;#000001\x07", 30),
            ("\n", 1_000),
        ] {
            let pieces = OutputFilter::default().pass(sequence.repeat(10_000).as_bytes());
            let largest =
                pieces.iter().map(|piece| piece.bytes.len()).max().unwrap() / sequence.len();
            assert!(largest <= most, "{sequence:?}: {largest} in one piece");
        }
    }

    #[test]
    fn characters_that_were_not_shown_before_are_counted() {
        let new = |filter: &mut OutputFilter, text: &str| -> u32 {
            let pieces = filter.pass(text.as_bytes());
            pieces.iter().map(|piece| piece.new).sum()
        };
        let mut filter = OutputFilter::default();
        for text in [
            "日",
            "a\u{301}",
            "b\u{301}",
            "e\u{301}\u{323}.",
            "\u{1f680}\u{fe0f}",
        ] {
            assert_eq!(new(&mut filter, text), 1, "{text}");
            assert_eq!(new(&mut filter, text), 0, "{text}");
        }
        assert_eq!(new(&mut filter, "plain text\r\n\x1b[1m\t"), 0);
        let many: String = ('\u{4e00}'..'\u{9fff}').collect();
        let pieces = OutputFilter::default().pass(many.as_bytes());
        assert!(pieces.iter().all(|piece| piece.new <= NEW_CHARACTERS));
        assert_eq!(pieces.iter().map(|piece| piece.new).sum::<u32>(), 0x51ff);
    }

    #[test]
    fn a_link_whose_text_is_too_long_is_ended() {
        let text = "x".repeat(LONGEST_LINK);
        for begin in [
            "\x1b]8;;http://a.test\x07",
            "\x1b]8;id=1;;\x1b\\",
            "\u{9d}8;a;b\u{9c}",
        ] {
            check(
                &format!("{begin}{text}y"),
                &format!("{begin}{text}\x1b]8;;\x07y"),
            );
            check(
                &format!("{begin}{}", "é\r\n".repeat(LONGEST_LINK)),
                &format!(
                    "{begin}{}\x1b]8;;\x07{}",
                    "é\r\n".repeat(LONGEST_LINK / 4),
                    "é\r\n".repeat(LONGEST_LINK - LONGEST_LINK / 4)
                ),
            );
            check_unchanged(&format!("{begin}{text}\x1b]8;;\x07{text}"));
            // A command that is broken off ends none.
            check(
                &format!("{begin}\x1b]8;;\x18{text}y"),
                &format!("{begin}\x1b]8;;\x18{text}\x1b]8;;\x07y"),
            );
        }
        check_unchanged(&format!("\x1b]8;id=1;\x07{text}{text}"));
    }

    #[test]
    fn what_was_left_out_is_counted() {
        let mut filter = OutputFilter::default();
        filter.pass(format!("a{}", "\u{301}".repeat(100)).as_bytes());
        assert_eq!(filter.left_out(), 140);
    }

    /// Bits of output that make trouble together.
    fn bits() -> impl Strategy<Value = Vec<u8>> {
        let bit = prop_oneof![
            select(vec![
                "\x1b", "\x1b[", "\x1b]", "\x1bP", "\x1bX", "\x1b_", "\x1b\\", "\x1b#", "\x1bc",
                "\u{9b}", "\u{9d}", "\u{90}", "\u{9c}", "\u{98}", "\u{85}", "\x07", "\x18", "\x1a",
                "\x7f", "\0", "\n", "0;", "2;", "8;;", "?", ">", ";", ":", "'", " ", "$", "99999",
                "1", "0", "S", "L", "b", "m", "H", "h", "q", "é", "日", "\u{301}", "\u{200d}",
                "\u{feff}", "text",
            ])
            .prop_map(|bit| bit.as_bytes().to_vec()),
            prop::collection::vec(any::<u8>(), 1..4),
        ];
        prop::collection::vec(bit, 0..60).prop_map(|bits| bits.concat())
    }

    proptest! {
        #[test]
        fn however_the_output_is_cut_on_the_way_the_window_gets_the_same(
            bytes in bits(),
            cuts in prop::collection::vec(1_usize..20, 0..30),
        ) {
            let mut filter = OutputFilter::default();
            let mut shown = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts {
                let (piece, behind) = rest.split_at(cut.min(rest.len()));
                shown.extend(whole(filter.pass(piece)));
                rest = behind;
            }
            shown.extend(whole(filter.pass(rest)));
            prop_assert_eq!(shown, filtered(&bytes));
        }

        #[test]
        fn what_has_passed_passes_again_unchanged(bytes in bits()) {
            let shown = filtered(&bytes);
            // What is not complete has not passed.
            let again = filtered(&[&shown[..], b"\x18."].concat());
            prop_assert_eq!(again, [&shown[..], b"\x18."].concat());
        }

        #[test]
        fn small_numbers_and_short_strings_pass_unchanged(bytes in bits()) {
            let small: Vec<u8> = bytes.into_iter().map(|byte| if byte == b'9' { b';' } else { byte }).collect();
            let whole = [&small[..], b"\x18."].concat();
            prop_assert_eq!(filtered(&whole), whole);
        }

        #[test]
        fn no_large_count_gets_through(bytes in bits()) {
            let shown = filtered(&bytes);
            let text: Vec<char> = String::from_utf8_lossy(&shown).chars().filter(|c| *c != '\u{fffd}').collect();
            for (at, character) in text.iter().enumerate() {
                let body = match character {
                    '\u{9b}' => at + 1,
                    '\x1b' => match text[at + 1..].iter().position(|c| !c.is_ascii_control()) {
                        Some(next) if text[at + 1 + next] == '[' => at + next + 2,
                        _ => continue,
                    },
                    _ => continue,
                };
                let body: Vec<char> = text[body..].iter().copied().filter(|c| !matches!(c, '\0'..='\x17' | '\x19' | '\x1c'..='\x1f' | '\x7f')).collect();
                let length = body.iter().take_while(|c| matches!(c, '0'..=';')).count();
                if matches!(body.get(length), Some('S' | 'L' | 'b' | 'H')) {
                    let numbers: String = body[..length].iter().collect();
                    for number in numbers.split([';', ':']).filter(|number| !number.is_empty()) {
                        prop_assert!(number.parse::<u64>().unwrap() <= u64::from(LARGEST_COUNT), "{:?}", shown);
                    }
                }
            }
        }
    }
}
