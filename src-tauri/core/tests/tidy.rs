//! The rules of the house that no compiler checks: what may be said where. Read from the source.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};

/// Returns the source files below a folder of the repository, with their text.
fn sources(folder: &str, extensions: &[&str]) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !["node_modules", "dist", "assets", "target"].contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if extensions.iter().any(|extension| name.ends_with(extension)) {
                let relative = path
                    .strip_prefix(&root)
                    .unwrap()
                    .to_string_lossy()
                    .replace('\\', "/");
                found.push((relative, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty(), "nothing found below {folder}");
    found
}

/// Checks that `words` are said in code only by files for which `may_say` holds.
#[track_caller]
fn check_only_place(
    folder: &str,
    extensions: &[&str],
    words: &str,
    may_say: impl Fn(&str) -> bool,
) {
    let mut is_said = false;
    for (file, text) in sources(folder, extensions) {
        let says = text
            .lines()
            .any(|line| line.contains(words) && !line.trim_start().starts_with("//"));
        is_said |= says;
        assert!(
            !says || may_say(&file),
            "{file} says `{words}`, which is not its place"
        );
    }
    assert!(
        is_said,
        "nobody says `{words}`: the rule has lost its object"
    );
}

#[test]
fn only_the_shell_says_tauri() {
    check_only_place("src-tauri", &[".rs"], concat!("tauri", "::"), |file| {
        file.starts_with("src-tauri/src/")
    });
}

#[test]
fn only_the_docker_engine_says_bollard() {
    check_only_place("src-tauri", &[".rs"], concat!("bollard", "::"), |file| {
        file.starts_with("src-tauri/core/src/engine/docker/")
    });
}

#[test]
fn only_the_engine_s_registry_says_reqwest() {
    check_only_place("src-tauri", &[".rs"], concat!("reqwest", "::"), |file| {
        file == "src-tauri/core/src/engine/docker/registry.rs"
    });
}

#[test]
fn only_the_ipc_folder_imports_tauri_packages() {
    check_only_place(
        "ui/src",
        &[".ts", ".svelte"],
        concat!("@tauri", "-apps/"),
        // Tests put an invented backend in its place.
        |file| file.starts_with("ui/src/lib/ipc/") || file.ends_with(".test.ts"),
    );
}

#[test]
fn features_of_the_window_never_import_each_other() {
    const FEATURES: [&str; 10] = [
        "session",
        "files",
        "search",
        "editor",
        "terminal",
        "settings",
        "engine",
        "figures",
        "transfers",
        "ports",
    ];
    for feature in FEATURES {
        for (file, text) in sources(&format!("ui/src/{feature}"), &[".ts", ".svelte"]) {
            for other in FEATURES.iter().filter(|other| **other != feature) {
                let import = format!("\"../{other}/");
                assert!(
                    !text.contains(&import),
                    "{file} imports from the feature `{other}`"
                );
            }
        }
    }
}

#[test]
fn no_file_is_called_by_a_name_that_says_nothing() {
    for (file, _) in sources("src-tauri", &[".rs"]) {
        let name = file.rsplit('/').next().unwrap();
        let says_nothing = ["mod.rs", "utils.rs", "common.rs", "helpers.rs"].contains(&name);
        assert!(!says_nothing, "{file}: what is it for?");
    }
}

#[test]
fn no_comment_is_a_riddle() {
    // A question that only the code answers.
    const RIDDLES: [&str; 9] = [
        "Whose.",
        "Which.",
        "Why.",
        "What.",
        "Where.",
        "When.",
        "How.",
        "Who.",
        "As it is.",
    ];
    for (file, text) in sources("src-tauri", &[".rs"]) {
        for line in text.lines() {
            let comment = line.trim_start().strip_prefix("/// ").unwrap_or_default();
            assert!(!RIDDLES.contains(&comment), "{file}: `{comment}` of what?");
        }
    }
}

/// The modules of the core from the ground up: each depends only on those above it in this list. A new module
/// takes its place here.
const FROM_THE_GROUND_UP: [&str; 34] = [
    "progress",
    "timing",
    "words",
    "error",
    "image",
    "template",
    "engine_id",
    "session",
    "settings",
    "archive",
    "layer",
    "labels",
    "remembered",
    "own_file",
    "estimate",
    "figures",
    "container_log",
    "engine",
    "assets",
    "engines",
    "event",
    "connection",
    "processes",
    "files",
    "search",
    "terminal",
    "ports",
    "crossing",
    "journal",
    "drafts",
    "home",
    "provision",
    "sessions",
    "lib",
];

#[test]
fn modules_of_the_core_depend_only_on_those_below_them() {
    let height_of = |module: &str| {
        let height = FROM_THE_GROUND_UP.iter().position(|known| *known == module);
        height.unwrap_or_else(|| panic!("`{module}` has no place in the order of the modules"))
    };
    let mut arrows = 0;
    for (file, text) in sources("src-tauri/core/src", &[".rs"]) {
        let inside = file.strip_prefix("src-tauri/core/src/").unwrap();
        let module = inside.split('/').next().unwrap().trim_end_matches(".rs");
        let height = height_of(module);
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            // Written so that each line names one module, and this test sees all.
            assert!(!line.contains("crate::{"), "{file}: one module a line");
            let names = line.split("crate::").skip(1).map(|rest| {
                let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '_');
                rest.get(..end.unwrap_or(rest.len())).unwrap()
            });
            for other in names.filter(|other| *other != module) {
                arrows += 1;
                assert!(
                    height_of(other) < height,
                    "{file}: `{module}` depends on `{other}`, which lies above it"
                );
            }
        }
    }
    assert!(
        arrows > 50,
        "only {arrows} arrows: the rule has lost its object"
    );
}

#[test]
fn every_invariant_names_a_test_that_there_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let (_, rest) = page.split_once("\n## Invariants\n").unwrap();
    let section = rest.split("\n## ").next().unwrap();
    let code: String = ["src-tauri", "ui/src"]
        .iter()
        .flat_map(|folder| sources(folder, &[".rs", ".ts"]))
        .map(|(_, text)| text)
        .collect();
    let rows: Vec<&str> = section
        .lines()
        .filter(|line| line.starts_with("| **"))
        .collect();
    assert!(rows.len() >= 10, "{} invariants", rows.len());
    for row in rows {
        let tests: Vec<&str> = row
            .rsplit('|')
            .nth(1)
            .unwrap()
            .split('`')
            .skip(1)
            .step_by(2)
            .collect();
        assert!(!tests.is_empty(), "nothing holds this: {row}");
        for test in tests {
            let exists =
                code.contains(&format!("fn {test}(")) || code.contains(&format!("\"{test}\""));
            assert!(exists, "there is no test `{test}`");
        }
    }
}

#[test]
fn what_builds_a_release_is_pinned_and_takes_no_cache() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let pin = |workflow: &str| {
        let text = fs::read_to_string(root.join(".github/workflows").join(workflow)).unwrap();
        let mut lines = text.lines().map(str::trim);
        let line = lines.find_map(|line| line.strip_prefix("RUSTUP_TOOLCHAIN: "));
        line.unwrap().to_owned()
    };
    let version = pin("bundle.yml");
    assert_eq!(
        pin("test.yml"),
        version,
        "what is released is not what was tested"
    );
    let is_hash = |text: &str, digits: usize| {
        text.len() == digits && text.chars().all(|c| c.is_ascii_hexdigit())
    };
    let (mut actions, mut containers) = (0, 0);
    for (file, text) in sources(".github/workflows", &[".yml"]) {
        for line in text.lines().map(str::trim_start) {
            let line = line.trim_start_matches("- ");
            if let Some(action) = line.strip_prefix("uses: ")
                && !action.starts_with("./")
            {
                actions += 1;
                let pin = action.split_whitespace().next().unwrap();
                let pin = pin.split_once('@').map(|(_, pin)| pin);
                assert!(pin.is_some_and(|pin| is_hash(pin, 40)), "{file}: {action}");
            }
            if let Some(image) = line.strip_prefix("container: ") {
                containers += 1;
                let (name, digest) = image.split_once("@sha256:").unwrap();
                assert!(is_hash(digest, 64), "{file}: {image}");
                assert!(name.contains(&version), "{file}: {name} is not {version}");
            }
            let is_piped = line.contains("curl") && line.contains('|');
            assert!(!is_piped, "{file} runs what it downloads: {line}");
        }
        if file.ends_with("/bundle.yml") || file.ends_with("/release.yml") {
            assert!(!text.contains("cache: "), "{file} takes what others made");
            assert!(!text.contains("-cache@"), "{file} takes what others made");
        }
    }
    assert!(
        actions > 10 && containers > 0,
        "the rule has lost its object"
    );
}
