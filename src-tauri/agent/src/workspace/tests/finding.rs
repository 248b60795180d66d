//! Files are found by their names, and no name from outside is.

use std::time::Duration;

use super::*;
use crate::protocol::Reply;
use crate::search::FoundName;
use crate::workspace::Wanted;

#[derive(Debug, PartialEq, Eq)]
struct Found {
    entries: Vec<FoundName>,
    total: u64,
    settled: bool,
    cut: bool,
}

const ALL: Wanted = Wanted {
    limit: 100,
    fresh: true,
    patience: Duration::from_secs(60),
};

impl Fixture {
    fn put(&self, path: &str, content: &str) {
        let path = self.disk.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn find(&self, query: &str, wanted: Wanted) -> Found {
        match self.workspace.find(query, wanted) {
            Reply::Find {
                names: entries,
                total,
                settled,
                truncated: cut,
            } => Found {
                entries,
                total,
                settled,
                cut,
            },
            other => panic!("{other:?}"),
        }
    }

    fn found(&self, query: &str) -> Found {
        let found = self.find(query, ALL);
        assert!(found.settled && !found.cut);
        found
    }

    #[track_caller]
    fn check_found(&self, query: &str, expected: &[&str]) {
        let found = self.found(query);
        assert_eq!(shown(&found), expected, "{query}");
        assert_eq!(found.total, expected.len() as u64, "{query}");
    }
}

/// Paths below the workspace; what is ignored has a mark before it.
fn shown(found: &Found) -> Vec<String> {
    let shown = found.entries.iter().map(|FoundName { path, ignored, .. }| {
        let path = path.strip_prefix("/workspace/").unwrap();
        format!("{}{path}", if *ignored { "~" } else { "" })
    });
    shown.collect()
}

#[test]
fn the_name_counts_more_than_its_folders_and_all_words_must_be_there() {
    let fixture = fixture();
    for path in [
        "src/main.rs",
        "domain/remains.txt",
        "main/other.rs",
        "docs/manual.md",
        "README.md",
    ] {
        fixture.put(path, "");
    }
    fixture.check_found(
        "main",
        &["src/main.rs", "domain/remains.txt", "main/other.rs"],
    );
    fixture.check_found("main .rs", &["src/main.rs", "main/other.rs"]);
    fixture.check_found("smr", &["src/main.rs"]);
    fixture.check_found("readme", &["README.md"]);
    // Capitals are meant where they are typed.
    fixture.check_found("Readme", &[]);
    fixture.check_found("zzz", &[]);
    assert_eq!(fixture.found("").entries[0].path, "/workspace/README.md");
    assert_eq!(fixture.found("  ").total, 5);
}

#[test]
fn what_was_typed_is_marked_where_it_is_shown() {
    let fixture = fixture();
    fixture.put("grün/über.txt", "");
    let found = fixture.found("ber");
    assert_eq!(found.entries[0].marks, [(6, 9)]);
    // Without its dots it is the same letter.
    assert_eq!(fixture.found("gr ub").entries[0].marks, [(0, 2), (5, 7)]);
    assert_eq!(fixture.found("gr be").entries[0].marks, [(0, 2), (6, 8)]);
}

#[test]
fn what_is_ignored_comes_last_and_git_and_the_trash_do_not_come_at_all() {
    let fixture = fixture();
    fixture.put(".gitignore", "target/\n.env\n");
    fixture.put("deep/.gitignore", "!.env\n*.log\n");
    for path in [
        ".env",
        "deep/.env",
        "deep/env.log",
        "target/env.txt",
        "src/env.rs",
        ".git/env",
        ".cove-trash/0123456789abcdef/env",
        "deep/.cove-trash/env",
        // In half.
        "deep/.cove-0123456789abcdef01234567.tmp/env",
    ] {
        fixture.put(path, "");
    }
    let found = fixture.found("env");
    let shown = shown(&found);
    let (kept, ignored) = shown.split_at(3);
    assert_eq!(kept, ["src/env.rs", "deep/.cove-trash/env", "deep/.env"]);
    assert_eq!(ignored, ["~deep/env.log", "~target/env.txt", "~.env"]);
}

#[test]
fn links_to_files_inside_are_found_and_none_is_followed_to_a_folder() {
    let fixture = fixture();
    fixture.put("a/secret", "");
    symlink("a/secret", fixture.disk.join("secret_inside")).unwrap();
    symlink(
        fixture.outside.join("secret"),
        fixture.disk.join("secret_out"),
    )
    .unwrap();
    symlink(&fixture.outside, fixture.disk.join("secret_dir")).unwrap();
    symlink("..", fixture.disk.join("a/secret_up")).unwrap();
    symlink(".", fixture.disk.join("secret_loop")).unwrap();
    mkfifoat(
        CWD,
        fixture.disk.join("secret_pipe"),
        Mode::from_raw_mode(0o600),
    )
    .unwrap();
    fixture.check_found("secret", &["a/secret", "secret_inside"]);
}

#[test]
fn names_of_any_bytes_are_found_and_lead_back_to_their_files() {
    let fixture = fixture();
    let name = OsStr::from_bytes(b"caf\xe9 \n\xff.txt");
    fs::write(fixture.disk.join(name), "here").unwrap();
    let found = fixture.found("cafe txt");
    assert_eq!(found.total, 0, "the byte is no e");
    let found = fixture.found("caf txt");
    assert_eq!(fixture.read(&found.entries[0].path), Ok(b"here".to_vec()));
    assert_eq!(found.entries[0].marks, [(0, 3), (8, 11)]);
}

#[test]
fn the_first_letter_is_answered_before_all_names_are_read() {
    let fixture = fixture();
    for folder in 0..50 {
        fixture.put(&format!("{folder}/file"), "");
    }
    let hasty = |fresh| Wanted {
        fresh,
        patience: Duration::ZERO,
        ..ALL
    };
    let mut found = fixture.find("file", hasty(true));
    assert!(!found.settled && found.total < 50, "{found:?}");
    let mut questions = 1;
    while !found.settled {
        found = fixture.find("file", hasty(false));
        questions += 1;
    }
    assert_eq!((found.total, questions), (50, 51));
}

#[test]
fn names_are_kept_for_a_moment_and_read_anew_when_that_is_asked() {
    let fixture = fixture();
    fixture.put("one", "");
    assert_eq!(fixture.found("").total, 1);
    fixture.put("two", "");
    let kept = Wanted {
        fresh: false,
        ..ALL
    };
    assert_eq!(fixture.find("", kept).total, 1);
    assert_eq!(fixture.find("", ALL).total, 2);
}

#[test]
fn what_is_typed_behind_finds_the_same_as_when_it_is_typed_at_once() {
    let fixture = fixture();
    for number in 0..300 {
        fixture.put(&format!("{}/n{number}.rs", number % 7), "");
    }
    let kept = Wanted {
        fresh: false,
        ..ALL
    };
    fixture.found("");
    for query in ["n", "n1", "n1 ", "n1 r", "n1 5", "1/n", "1/n1"] {
        for end in 1..=query.len() {
            fixture.find(&query[..end], kept);
        }
        let step_by_step = fixture.find(query, kept);
        assert_eq!(step_by_step, fixture.found(query), "{query}");
        assert!(step_by_step.total > 0);
    }
}

#[test]
fn many_names_are_looked_at_by_several_threads_with_one_result() {
    let fixture = fixture();
    // More than one thread takes.
    for folder in 0..20 {
        fs::create_dir(fixture.disk.join(folder.to_string())).unwrap();
        for file in 0..2_500 {
            fs::File::create(fixture.disk.join(format!("{folder}/{file}.txt"))).unwrap();
        }
    }
    let found = fixture.found("txt");
    assert_eq!((found.total, found.entries.len()), (50_000, 100));
    assert_eq!(shown(&fixture.found("19/2499"))[0], "19/2499.txt");
}
