//! The files that the app keeps for itself, when they are damaged or cannot be written: the app works all the same.

use std::fs;
use std::path::{Path, PathBuf};

use cove_testbed::{DiskSize, SmallDisk, WindowOptions, skip};
use serde_json::json;

use crate::app::App;

/// Returns where the app keeps its files in this home.
fn folder(home: &Path) -> PathBuf {
    home.join(".local/share/dev.cove.desktop")
}

fn open(home: &Path) -> Option<App> {
    App::open_with_or_skip(|_| WindowOptions {
        home: Some(home.to_owned()),
        ..WindowOptions::default()
    })
}

#[test]
fn damaged_files_are_set_aside_and_the_app_works() {
    let home = tempfile::tempdir().unwrap();
    let folder = folder(home.path());
    fs::create_dir_all(folder.join("journal")).unwrap();
    let record = "journal/11111111-1111-4111-8111-111111111111.json";
    for (name, bytes) in [
        ("history.json", &br#"{"history": {"lines": ["#[..]),
        ("names.json", &[0, 159, 146, 150]),
        (record, br#"{"version": 99}"#),
    ] {
        fs::write(folder.join(name), bytes).unwrap();
    }
    let huge = fs::File::create(folder.join("settings.json")).unwrap();
    huge.set_len(100_000_000).unwrap();

    let Some(app) = open(home.path()) else { return };
    for name in ["settings.json", "history.json", "names.json", record] {
        let aside = folder.join(format!("{name}.damaged"));
        assert!(aside.exists(), "{name} was not set aside");
    }
    let answer = app.invoke("read_settings", &json!({}));
    assert_eq!(answer["settings"]["time_limit_s"], 300, "{answer}");
    let id = app.create("anew", None);
    app.expect_ready(&id);
    app.wait_for_terminal();
}

#[test]
fn a_pipe_and_an_endless_file_among_the_own_ones_do_not_stop_the_start() {
    let home = tempfile::tempdir().unwrap();
    let folder = folder(home.path());
    fs::create_dir_all(folder.join("journal")).unwrap();
    fs::create_dir_all(folder.join("logs")).unwrap();
    let record = "journal/11111111-1111-4111-8111-111111111111.json";
    for name in ["settings.json", record, "journal/lock", "logs/Cove.log"] {
        let made = std::process::Command::new("mkfifo")
            .arg(folder.join(name))
            .status();
        assert!(made.unwrap().success());
    }
    for name in ["history.json", "names.json"] {
        std::os::unix::fs::symlink("/dev/zero", folder.join(name)).unwrap();
    }

    let Some(app) = open(home.path()) else { return };
    let answer = app.invoke("read_settings", &json!({}));
    assert_eq!(answer["settings"]["time_limit_s"], 300, "{answer}");
    for name in [
        "settings.json",
        "history.json",
        "names.json",
        "logs/Cove.log",
        record,
        "journal/lock",
    ] {
        let aside = folder.join(format!("{name}.damaged"));
        assert!(
            fs::symlink_metadata(aside).is_ok(),
            "{name} was not set aside"
        );
    }
    let log = fs::metadata(folder.join("logs/Cove.log")).unwrap();
    assert!(log.is_file(), "there is no log");
}

#[test]
fn an_app_that_cannot_write_its_files_says_so_where_it_matters_and_works() {
    if let Some(reason) = SmallDisk::cannot_mount() {
        return skip(reason);
    }
    let disk = SmallDisk::new(DiskSize {
        megabytes: 8,
        inodes: None,
    })
    .unwrap();
    disk.make_read_only().unwrap();
    let home = tempfile::tempdir().unwrap();
    let folder = folder(home.path());
    fs::create_dir_all(folder.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(disk.path(), &folder).unwrap();

    let Some(app) = open(home.path()) else { return };
    let id = app.create("unwritten", None);
    app.expect_ready(&id);
    app.wait_for_terminal();
    let mut settings = app.invoke("read_settings", &json!({}))["settings"].take();
    settings["time_limit_s"] = json!(60);
    let refused = app.invoke("write_settings", &json!({ "settings": settings }));
    assert_eq!(refused["ok"], false, "{refused}");
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("Read-only file system"), "{refused}");
}
