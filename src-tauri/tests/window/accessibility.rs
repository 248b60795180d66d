//! What axe-core finds in each state of the window: nothing serious, in both themes.

use std::fs;
use std::path::Path;

use cove_testbed::{Proxy, TestImage};

use crate::app::{App, SOON, with_environment};

const AUDIT: &str = "
    const done = arguments[arguments.length - 1];
    axe.run(document, { resultTypes: ['violations'] }).then(
        ({ violations }) => done(violations
            .filter(({ impact }) => impact === 'serious' || impact === 'critical')
            .flatMap(({ id, nodes }) => nodes.map(({ target, failureSummary }) => `${id}: ${target} ${failureSummary}`))),
        (error) => done([String(error)]),
    );
";

pub(crate) fn check(app: &App, state: &str) {
    let axe = Path::new(env!("CARGO_MANIFEST_DIR")).join("ui/node_modules/axe-core/axe.min.js");
    let axe = fs::read_to_string(axe).unwrap();
    app.window
        .execute(&format!("if (!window.axe) {{ {axe} }}"), &[])
        .unwrap();
    // What is on its way in or out is half transparent.
    app.settle();
    let found = app.window.execute_async(AUDIT, &[]).unwrap();
    app.picture(&format!("state-{state}"));
    let found: Vec<String> = serde_json::from_value(found).unwrap();
    assert!(found.is_empty(), "{state}:\n{}", found.join("\n"));
}

fn check_theme(theme: &str, is_dark: bool) {
    let Some(app) = App::open_with_or_skip(|_| with_environment("GTK_THEME", theme)) else {
        return;
    };
    let dark = "return matchMedia('(prefers-color-scheme: dark)').matches";
    assert_eq!(app.window.execute(dark, &[]).unwrap(), is_dark);
    let name = |state: &str| format!("{state}-{}", if is_dark { "dark" } else { "light" });

    app.window
        .wait_for("[data-testid=first-run]", SOON)
        .unwrap();
    check(&app, &name("empty"));

    let line = Proxy::start(app.registry.address()).unwrap();
    app.forget_image(TestImage::Layers);
    app.fill_in(
        "accessible",
        Some(&format!("{}/layers:latest", line.address())),
    );
    check(&app, &name("new-session"));

    line.set_rate(8 << 20);
    app.press("[data-testid=create-session]");
    app.window
        .wait_for("[data-testid=progress-pull]", SOON)
        .unwrap();
    line.stall();
    check(&app, &name("progress"));

    line.resume();
    line.unlimited();
    app.wait_for_terminal();
    app.window
        .wait_gone("[data-testid=progress-modal]", SOON)
        .unwrap();
    check(&app, &name("ready-without-files"));
    app.type_line("echo hello > hello.txt; ls --color=always -la /");
    app.window.click("[data-testid=refresh-files]").unwrap();
    app.window
        .click("[data-testid=file-tree] [role=treeitem]")
        .unwrap();
    app.window
        .wait_for("[data-testid=viewer] .cm-content", SOON)
        .unwrap();
    check(&app, &name("ready"));

    app.press("[data-testid=open-figures]");
    app.window
        .wait_for("[data-testid=figure-cpu] path.line", SOON)
        .unwrap();
    check(&app, &name("figures"));
    app.press("[data-testid=open-log]");
    app.window
        .wait_for("[data-testid=log-dialog]", SOON)
        .unwrap();
    check(&app, &name("log"));
    app.window.driver().press(&[], "\u{E00C}").unwrap();
    app.window
        .wait_gone("[data-testid=log-dialog]", SOON)
        .unwrap();
    crate::search::show(&app);
    check(&app, &name("search"));
    crate::search::show_quick_open(&app);
    check(&app, &name("quick-open"));
    #[cfg(unix)]
    {
        app.window.driver().press(&[], "\u{E00C}").unwrap();
        crate::ports::show(&app);
        check(&app, &name("ports"));
    }
}

#[test]
fn no_state_of_the_light_window_has_a_serious_violation() {
    check_theme("Adwaita", false);
}

#[test]
fn no_state_of_the_dark_window_has_a_serious_violation() {
    check_theme("Adwaita:dark", true);
}
