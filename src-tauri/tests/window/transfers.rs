//! Uploads and downloads, as one uses them. What one would choose in the system's dialogs is in a file that the app reads
//! instead: a virtual display has no desktop to show them.

use std::fs;
use std::path::{Path, PathBuf};

use cove_testbed::WindowOptions;
use serde_json::{Value, json};

use crate::accessibility::check;
use crate::app::{App, SOON, Shell, with_environment};

/// A window in a theme, a folder of this machine, and what is chosen in dialogs.
pub(crate) struct Machine {
    pub(crate) app: App,
    folder: tempfile::TempDir,
}

impl Machine {
    pub(crate) fn open_or_skip(theme: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let chosen = folder.path().join("chosen");
        let app = App::open_with_or_skip(|_| {
            let mut options: WindowOptions = with_environment("GTK_THEME", theme);
            let chosen = chosen.display().to_string();
            options
                .environment
                .insert("COVE_TEST_CHOSEN".to_owned(), chosen);
            options
        })?;
        Some(Self { app, folder })
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Chooses an entry of the menu of uploads and downloads, and in its dialog these paths.
    pub(crate) fn choose(&self, action: &str, paths: &[&Path]) {
        let lines: Vec<_> = paths
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        fs::write(self.at("chosen"), lines.join("\n")).unwrap();
        self.app.press(
            "[data-testid=workbench]:not([hidden]) .files [aria-label='Upload and download']",
        );
        let action = format!("[role=menu] [data-action={action}]");
        self.app.window.wait_for(&action, SOON).unwrap();
        self.app.press(&action);
        self.app.window.wait_gone("[role=menu]", SOON).unwrap();
    }

    pub(crate) fn wait(&self, what: &str, script: &str, arguments: &[Value]) {
        let mut last = Value::Null;
        let outcome = self.app.window.wait(what, SOON, |window| {
            last = window.execute(script, arguments)?;
            Ok((last == true).then_some(()))
        });
        outcome.unwrap_or_else(|error| panic!("{error:#}: {last}"));
    }

    /// Waits until the tree shows these names and no transfer is under way.
    pub(crate) fn wait_for_names(&self, names: &[&str]) {
        let script = "
            const rows = [...document.querySelectorAll('[data-testid=file-tree] [role=treeitem] .name')];
            const names = rows.map((name) => name.textContent).sort();
            const idle = document.querySelector('[data-testid=transfer]') === null;
            return idle && JSON.stringify(names) === JSON.stringify(arguments[0]) ? true : names;
        ";
        self.wait("the names in the tree", script, &[json!(names)]);
    }

    /// Selects an entry by a press on its row.
    pub(crate) fn select(&self, name: &str) {
        self.app
            .window
            .click("[data-testid=refresh-files]")
            .unwrap();
        self.app.wait_and_press_file(name);
    }
}

#[test]
fn what_is_uploaded_is_in_the_tree_and_asks_before_it_takes_a_name() {
    let Some(machine) = Machine::open_or_skip("Adwaita") else {
        return;
    };
    let app = &machine.app;
    let id = app.ready_session("upload");
    let (notes, site) = (machine.at("notes.txt"), machine.at("site"));
    fs::write(&notes, "from this machine\n").unwrap();
    fs::create_dir_all(site.join("css")).unwrap();
    fs::write(site.join("css/main.css"), "body {}\n").unwrap();
    machine.choose("upload-files", &[&notes]);
    machine.wait_for_names(&["notes.txt"]);
    machine.choose("upload-folder", &[&site]);
    machine.wait_for_names(&["notes.txt", "site"]);

    fs::write(&notes, "newer\n").unwrap();
    machine.choose("upload-files", &[&notes, &site]);
    let question = "[data-testid=name-taken-dialog]";
    app.window.wait_for(question, SOON).unwrap();
    check(app, "name-taken-light");
    app.press(&format!("{question} [data-choice=keep_both]"));
    app.window.wait_gone(question, SOON).unwrap();
    machine.wait_for_names(&["notes copy.txt", "notes.txt", "site", "site copy"]);
    let shell = Shell::open(app, &id);
    let content = shell.run("cat notes.txt 'notes copy.txt' 'site copy/css/main.css'");
    for line in ["from this machine", "newer", "body {}"] {
        assert!(content.contains(line), "{content}");
    }
    // Who thinks better of it in the dialog has done nothing.
    machine.choose("upload-files", &[]);
    machine.choose("upload-files", &[&notes]);
    app.window.wait_for(question, SOON).unwrap();
    app.press(&format!("{question} [aria-label=Close]"));
    app.window.wait_gone(question, SOON).unwrap();
    machine.wait_for_names(&["notes copy.txt", "notes.txt", "site", "site copy"]);
}

#[test]
fn a_download_shows_how_far_it_is_can_be_cancelled_and_says_what_failed() {
    let Some(machine) = Machine::open_or_skip("Adwaita:dark") else {
        return;
    };
    let app = &machine.app;
    let id = app.ready_session("download");
    let shell = Shell::open(app, &id);
    shell.run("head -c 1500000000 /dev/zero > disk.img; mkdir locked; echo in > locked/in; chmod 0 locked/in");
    let there = machine.at("there");
    fs::create_dir(&there).unwrap();
    let names = || -> Vec<String> {
        let entries = fs::read_dir(&there).unwrap().flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    };
    machine.select("disk.img");
    machine.choose("download", &[&there.join("mine.img")]);
    let speed = "
        const line = document.querySelector('[data-testid=transfer-line]')?.textContent ?? null;
        return line !== null && line.includes('/s') && line.includes('left') ? true : line;
    ";
    machine.wait("how far it is", speed, &[]);
    app.picture("download");
    // The bar moves on, so that nothing here comes to rest before the end.
    let cancel = "document.querySelector('[data-testid=cancel-transfer]').click()";
    app.window.execute(cancel, &[]).unwrap();
    app.window
        .wait_gone("[data-testid=transfer]", SOON)
        .unwrap();
    assert_eq!(names(), Vec::<String>::new());

    machine.select("locked");
    machine.choose("download", &[&there]);
    let error = "[data-testid=transfer-error]";
    app.window.wait_for(error, SOON).unwrap();
    let said = app.window.text(error).unwrap();
    assert!(said.contains("locked/in"), "{said}");
    check(app, "download-failed-dark");
    assert_eq!(names(), Vec::<String>::new());
    shell.run("chmod 600 locked/in");
    app.press("[data-testid=retry-transfer]");
    app.window
        .wait_gone("[data-testid=transfer]", SOON)
        .unwrap();
    assert_eq!(names(), ["locked"]);
    assert_eq!(fs::read_to_string(there.join("locked/in")).unwrap(), "in\n");
}
