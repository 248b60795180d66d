//! What is in files is found, line by line; what is outside, no text or not wanted is not.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::search::{
    FoundLine, MOST_LINES, MOST_MATCHES, MOST_ON_LINE, Query, Searched, split_globs,
};

fn text(text: &str) -> Query {
    Query {
        text: text.to_owned(),
        ..Query::default()
    }
}

impl Fixture {
    fn add(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.disk.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn search(&self, query: &Query) -> (BTreeMap<String, Vec<FoundLine>>, Searched) {
        let mut found = BTreeMap::<_, Vec<_>>::new();
        let searched = self.workspace.search(query, MOST_MATCHES, |batch| {
            for file in batch {
                found.entry(file.path).or_default().extend(file.lines);
            }
            ControlFlow::Continue(())
        });
        (found, searched.unwrap())
    }

    /// Checks what is found, as `path:line:column:text` with the marks in brackets.
    #[track_caller]
    fn check(&self, query: &Query, expected: &[&str]) {
        let (found, searched) = self.search(query);
        let shown: Vec<_> = found
            .iter()
            .flat_map(|(path, lines)| lines.iter().map(move |line| shown(path, line)))
            .collect();
        assert_eq!(shown, expected, "{query:?}");
        assert!(!searched.truncated);
    }

    fn only_line(&self, query: &Query) -> FoundLine {
        let (found, _) = self.search(query);
        assert_eq!(found.len(), 1, "{query:?}");
        let lines = found.into_values().next().unwrap();
        assert_eq!(lines.len(), 1);
        lines.into_iter().next().unwrap()
    }
}

fn shown(path: &str, line: &FoundLine) -> String {
    let units: Vec<u16> = line.text.encode_utf16().collect();
    let mut text = Vec::new();
    let mut at = 0;
    for &(start, end) in &line.marks {
        let (start, end) = (start as usize, end as usize);
        text.extend_from_slice(&units[at..start]);
        text.push(u16::from(b'['));
        text.extend_from_slice(&units[start..end]);
        text.push(u16::from(b']'));
        at = end;
    }
    text.extend_from_slice(&units[at..]);
    let cut = |is_cut| if is_cut { "…" } else { "" };
    format!(
        "{}:{}:{}:{}{}{}",
        path.strip_prefix("/workspace/").unwrap(),
        line.number,
        line.column,
        cut(line.cut_before),
        String::from_utf16(&text).unwrap(),
        cut(line.cut_after),
    )
}

#[test]
fn lines_are_found_with_their_numbers_and_marks() {
    let fixture = fixture();
    fixture.add("a.txt", "one\r\n\ttwo two\r\nthree\r\n\r\nTwo");
    fixture.add("sub/b", "no\nthe two");
    fixture.check(
        &text("two"),
        &[
            "a.txt:2:1:[two] [two]",
            "a.txt:5:0:[Two]",
            "sub/b:2:4:the [two]",
        ],
    );
    let regex = Query {
        regex: true,
        case: true,
        ..text(r"^\s*t\w+")
    };
    fixture.check(
        &regex,
        &[
            "a.txt:2:0:[\ttwo] two",
            "a.txt:3:0:[three]",
            "sub/b:2:0:[the] two",
        ],
    );
    let word = Query {
        word: true,
        ..text("tw")
    };
    fixture.check(&word, &[]);
}

#[test]
fn columns_and_marks_are_in_the_units_of_the_window() {
    let fixture = fixture();
    fixture.add("a", "  𝒳é𝒴x z");
    let line = fixture.only_line(&text("x"));
    assert_eq!((line.column, line.length), (7, 1));
    assert_eq!((&*line.text, &*line.marks), ("𝒳é𝒴x z", &[(5, 6)][..]));
    let line = fixture.only_line(&text("𝒴X"));
    assert_eq!((line.column, line.length), (5, 3));
}

#[test]
fn what_git_ignores_is_left_out_unless_it_is_wanted() {
    let fixture = fixture();
    fixture.add(".gitignore", "/build\n*.log\n!keep.log\n");
    fixture.add("sub/.gitignore", "keep.log\n");
    fixture.add("sub/.ignore", "!special.log\n");
    fixture.add(".git/info/exclude", "private\n");
    fixture.add(".git/config", "word");
    fixture.add(".cove-trash/0123456789abcdef/0", "word");
    fixture.add("sub/.cove-0123456789abcdef01234567.tmp", "word");
    for path in [
        "build/a",
        "sub/build/a",
        "a.log",
        "keep.log",
        "sub/keep.log",
        "sub/special.log",
        "private/a",
        ".hidden/a",
    ] {
        fixture.add(path, "word");
    }
    // A repository in another does not care for the rules of that one.
    fixture.add("inner/.git/config", "word");
    fixture.add("inner/b.log", "word");
    fixture.check(
        &text("word"),
        &[
            ".hidden/a:1:0:[word]",
            "inner/b.log:1:0:[word]",
            "keep.log:1:0:[word]",
            "sub/build/a:1:0:[word]",
            "sub/special.log:1:0:[word]",
        ],
    );
    let all = Query {
        ignored: true,
        ..text("word")
    };
    assert_eq!(fixture.search(&all).0.len(), 9);
}

#[test]
fn rules_hold_where_there_is_no_repository_too() {
    let fixture = fixture();
    fixture.add("a/.gitignore", "x\n");
    fixture.add("a/x/file", "word");
    fixture.add("a/y", "word");
    fixture.check(&text("word"), &["a/y:1:0:[word]"]);
}

#[test]
fn globs_choose_what_is_searched() {
    let fixture = fixture();
    for path in ["a.rs", "src/b.rs", "src/c.ts", "src/gen/d.rs"] {
        fixture.add(path, "word");
    }
    let query = Query {
        include: split_globs("src, *.md"),
        exclude: split_globs("*.ts, gen"),
        ..text("word")
    };
    fixture.check(&query, &["src/b.rs:1:0:[word]"]);
}

#[test]
fn nothing_outside_is_read_and_nothing_that_waits_is_opened() {
    let fixture = fixture();
    let link = |target: &Path, name: &str| symlink(target, fixture.disk.join(name)).unwrap();
    link(&fixture.outside, "dir_out");
    link(&fixture.outside.join("secret"), "file_out");
    link(Path::new("."), "loop");
    link(Path::new("/proc/self/root"), "magic");
    fs::create_dir(fixture.disk.join("deep")).unwrap();
    link(Path::new("../.."), "deep/up");
    // A pipe would hold whoever opens it for reading and waits.
    mkfifoat(CWD, fixture.disk.join("pipe"), Mode::from_raw_mode(0o600)).unwrap();
    fixture.add("file", "secret");
    // Rules are read from files alone.
    mkfifoat(
        CWD,
        fixture.disk.join("deep/.gitignore"),
        Mode::from_raw_mode(0o600),
    )
    .unwrap();
    link(&fixture.outside.join("secret"), ".ignore");
    let (found, searched) = fixture.search(&text("secret"));
    assert_eq!(found.keys().collect::<Vec<_>>(), ["/workspace/file"]);
    assert_eq!((searched.files, searched.unread), (1, 0));
}

#[test]
fn what_is_swapped_for_a_link_while_it_is_searched_leads_nowhere() {
    let fixture = fixture();
    let (inside, link) = (fixture.disk.join("inside"), fixture.disk.join("link"));
    fs::create_dir(&inside).unwrap();
    fs::write(inside.join("secret"), "nothing").unwrap();
    symlink(&fixture.outside, &link).unwrap();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            while !is_over.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(CWD, &inside, CWD, &link, flags).unwrap();
            }
        });
        for _ in 0..300 {
            let (found, _) = fixture.search(&text("secret"));
            assert!(found.is_empty(), "{found:?}");
        }
        is_over.store(true, Ordering::Relaxed);
        swapper.join().unwrap();
    });
}

#[test]
fn what_is_no_text_is_left_out_and_utf_16_is_text() {
    let fixture = fixture();
    fixture.add("zero", b"word\0word");
    let mut late = b"word\n".to_vec();
    late.resize(600 << 10, b'x');
    late.extend_from_slice(b"\nword\0\nword");
    fixture.add("late", late);
    let utf_16 = |unit: fn(u16) -> [u8; 2]| {
        let text = "\u{feff}ä\r\nein word";
        text.encode_utf16().flat_map(unit).collect::<Vec<_>>()
    };
    fixture.add("little", utf_16(u16::to_le_bytes));
    fixture.add("big", utf_16(u16::to_be_bytes));
    fixture.add("marked", "\u{feff}word");
    fixture.add("latin", b"gr\xfcn word \xff");
    fixture.check(
        &text("word"),
        &[
            "big:2:4:ein [word]",
            "late:1:0:[word]",
            "late:3:0:[word]",
            "latin:1:5:gr\u{fffd}n [word] \u{fffd}",
            "little:2:4:ein [word]",
            "marked:1:0:[word]",
        ],
    );
    let start = Query {
        regex: true,
        ..text("^word$")
    };
    assert_eq!(fixture.search(&start).0.len(), 2);
}

#[test]
fn a_long_line_is_cut_around_its_first_match() {
    let fixture = fixture();
    let long = format!("{}needle{}", "é".repeat(500_000), "ü".repeat(500_000));
    fixture.add("long", format!("first\n{long}\nneedle"));
    let (found, searched) = fixture.search(&text("needle"));
    let lines = &found["/workspace/long"];
    assert_eq!((lines[0].number, lines[0].column), (2, 500_000));
    assert!(lines[0].cut_before && lines[0].cut_after);
    assert!(lines[0].text.len() <= 512, "{}", lines[0].text.len());
    let (start, end) = lines[0].marks[0];
    let units: Vec<_> = lines[0].text.encode_utf16().collect();
    let marked = &units[start as usize..end as usize];
    assert_eq!(String::from_utf16(marked).unwrap(), "needle");
    assert!(!lines[0].text.contains('\u{fffd}'), "{}", lines[0].text);
    assert_eq!((lines[1].number, lines[1].column), (3, 0));
    assert!(!searched.truncated);
}

#[test]
fn lines_are_counted_however_they_lie_to_what_is_read_at_once() {
    let fixture = fixture();
    // Longer than what is read at once, than that twice, and than one piece.
    for length in [255 << 10, 256 << 10, 600 << 10, 5 << 20] {
        let line = "x".repeat(length);
        fixture.add("file", format!("{line}\n\n{line}word\nend word"));
        let (found, _) = fixture.search(&text("word"));
        let lines = &found["/workspace/file"];
        let places: Vec<_> = lines
            .iter()
            .map(|line| (line.number, line.column))
            .collect();
        let column = u32::try_from(length).unwrap();
        assert_eq!(places, [(3, column), (4, 4)], "{length}");
    }
}

#[test]
fn there_is_a_limit_to_what_is_told_and_that_it_was_reached_is_told() {
    let fixture = fixture();
    fixture.add("line", "a".repeat(MOST_ON_LINE + 1));
    let (found, searched) = fixture.search(&text("a"));
    assert_eq!(found["/workspace/line"][0].matches as usize, MOST_ON_LINE);
    assert!(searched.truncated);
    fixture.add("line", "a".repeat(MOST_ON_LINE));
    assert!(!fixture.search(&text("a")).1.truncated);

    fixture.add("lines", "b\n".repeat(MOST_LINES + 1));
    let (found, searched) = fixture.search(&text("b"));
    assert_eq!(found["/workspace/lines"].len(), MOST_LINES);
    assert!(searched.truncated);

    for file in 0..10 {
        fixture.add(&format!("many/{file}"), "c\nc\nc\n");
    }
    let mut matches = 0;
    let searched = fixture.workspace.search(&text("c"), 7, |batch| {
        let lines = batch.iter().flat_map(|file| &file.lines);
        matches += lines.map(|line| line.matches).sum::<u32>();
        ControlFlow::Continue(())
    });
    assert_eq!(matches, 7);
    assert!(searched.unwrap().truncated);
}

#[test]
fn a_search_that_is_not_wanted_any_more_ends_early() {
    let fixture = fixture();
    for file in 0..2_000 {
        fixture.add(&format!("{}/{file}", file % 50), "word ".repeat(2_000));
    }
    let told = AtomicUsize::new(0);
    let searched = fixture.workspace.search(&text("word"), MOST_MATCHES, |_| {
        told.fetch_add(1, Ordering::Relaxed);
        ControlFlow::Break(())
    });
    let searched = searched.unwrap();
    assert!(searched.files < 2_000, "{searched:?}");
    assert!(told.load(Ordering::Relaxed) > 0);
}

#[test]
fn one_who_wants_no_more_is_asked_also_while_nothing_is_found() {
    let fixture = fixture();
    let line = "x".repeat(1 << 20) + "\n";
    fixture.add("big", line.repeat(300));
    let searched = fixture
        .workspace
        .search(&text("word"), MOST_MATCHES, |batch| {
            assert!(batch.is_empty());
            ControlFlow::Break(())
        });
    assert_eq!(searched.unwrap().files, 0, "it was searched to its end");
}

#[test]
fn what_cannot_be_read_is_counted_and_the_rest_is_searched() {
    let fixture = fixture();
    fixture.add("a", "word");
    fixture.add("b/c", "word");
    let closed = Query {
        regex: true,
        ..text("wo(")
    };
    let error = fixture
        .workspace
        .search(&closed, 1, |_| ControlFlow::Continue(()))
        .unwrap_err();
    assert_eq!(error.failure, Failure::Invalid);
    assert!(error.message.starts_with("is not a regular expression"));
    // Deeper than a path is long: passed over, and whoever builds it has no way to stop the search.
    let mut deep = rustix::fs::openat(CWD, &fixture.disk, OFlags::PATH, Mode::empty()).unwrap();
    let name = "d".repeat(200);
    for _ in 0..40 {
        rustix::fs::mkdirat(&deep, &*name, Mode::from_raw_mode(0o700)).unwrap();
        deep = openat(&deep, &*name, OFlags::PATH, Mode::empty()).unwrap();
    }
    let (found, _) = fixture.search(&text("word"));
    assert_eq!(found.len(), 2);
}
