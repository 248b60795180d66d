//! The keys that have no letter, as `WebDriver` writes them: <https://www.w3.org/TR/webdriver2/#keyboard-actions>.

pub(crate) const TAB: char = '\u{E004}';
pub(crate) const ENTER: char = '\u{E007}';
pub(crate) const SHIFT: char = '\u{E008}';
pub(crate) const CONTROL: char = '\u{E009}';
pub(crate) const ALT: char = '\u{E00A}';
pub(crate) const ESCAPE: char = '\u{E00C}';
pub(crate) const END: char = '\u{E010}';
pub(crate) const HOME: char = '\u{E011}';
pub(crate) const LEFT: char = '\u{E012}';
pub(crate) const UP: char = '\u{E013}';
pub(crate) const RIGHT: char = '\u{E014}';
pub(crate) const DOWN: char = '\u{E015}';
pub(crate) const DELETE: char = '\u{E017}';
pub(crate) const F2: char = '\u{E032}';
pub(crate) const F4: char = '\u{E034}';
pub(crate) const F6: char = '\u{E036}';
pub(crate) const F10: char = '\u{E03A}';
