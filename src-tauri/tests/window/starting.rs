//! Starting the app where something is missing that a window needs.

use std::process::Command;

use cove_testbed::{BINARY, skip};

#[test]
fn without_a_display_one_sentence_says_so_and_nothing_panics() {
    let Some(binary) = std::env::var_os(BINARY) else {
        return skip("no app: run by `cargo xtask test`");
    };
    let home = tempfile::tempdir().unwrap();
    for (display, said) in [
        (None, "neither DISPLAY nor WAYLAND_DISPLAY is set"),
        (Some(":4711"), "DISPLAY=:4711 cannot be opened"),
    ] {
        let mut app = Command::new(&binary);
        app.env("HOME", home.path());
        for name in ["DISPLAY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR"] {
            app.env_remove(name);
        }
        app.envs(display.map(|display| ("DISPLAY", display)));
        let output = app.output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert_eq!(
            errors,
            format!("Cove needs a graphical display: {said}. Start it from a desktop session.\n")
        );
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "");
    }
}
