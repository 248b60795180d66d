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
fn only_the_engine_s_registry_says_oci_client() {
    check_only_place("src-tauri", &[".rs"], concat!("oci_client", "::"), |file| {
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
    const FEATURES: [&str; 6] = [
        "session", "files", "editor", "terminal", "settings", "engine",
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
