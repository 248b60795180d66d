//! Without a network.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use cove_testbed::TestImage;

use crate::app::{App, Shell};

/// Stands where a registry was, serves nothing, and counts who asks.
fn stand_in() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&asked);
    thread::spawn(move || {
        for _closed_at_once in listener.incoming().flatten() {
            counting.fetch_add(1, Ordering::SeqCst);
        }
    });
    (address, asked)
}

#[test]
fn what_is_on_the_engine_becomes_ready_without_asking_any_registry() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    let (address, asked) = stand_in();
    let image = format!("{address}/tiny:latest");
    app.engine
        .load(&TestImage::Tiny.build().unwrap(), &image)
        .unwrap();
    let before = app.registry.requests().len();

    let id = app.create("offline", Some(&image));
    app.expect_ready(&id);
    assert_eq!(Shell::open(&app, &id).run("echo alive"), "alive\n");
    assert_eq!(
        asked.load(Ordering::SeqCst),
        0,
        "the image's registry was asked"
    );
    assert_eq!(
        app.registry.requests().len(),
        before,
        "another registry was asked"
    );

    // The stand-in does count: an image that is not there has to be asked for.
    let missing = app.create_by_command(Some(&format!("{address}/elsewhere:latest")));
    assert_eq!(
        app.end_of(&missing, 0).payload["error"]["error"],
        "IMAGE_UNAVAILABLE"
    );
    assert!(asked.load(Ordering::SeqCst) > 0);
    drop(app.engine.remove_image(&image));
}

#[test]
fn the_built_in_image_becomes_ready_on_an_engine_that_has_never_seen_it() {
    let Some(app) = App::open_or_skip() else {
        return;
    };
    app.forget_built_in_image();
    let before = app.registry.requests().len();
    let id = app.create("built-in", None);
    app.expect_ready(&id);
    app.wait_for_terminal();
    assert_eq!(
        Shell::open(&app, &id).run("id -un; pwd"),
        "dev\n/workspace\n"
    );
    assert_eq!(
        app.registry.requests().len(),
        before,
        "a registry was asked"
    );
}
