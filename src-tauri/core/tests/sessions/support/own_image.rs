//! Images of a test's own, made here and loaded into the engine: each has one property that matters to
//! one test alone.

use std::fs;
use std::path::Path;
use std::process::Command;

use cove_testbed::{Busybox, Image, ImageConfig, Tree};

use super::App;

/// Returns a configuration with an environment and a user.
pub(crate) fn config(user: &str, environment: &[&str]) -> ImageConfig {
    ImageConfig {
        user: user.to_owned(),
        env: environment.iter().map(|&line| line.to_owned()).collect(),
        cmd: vec!["sleep".to_owned(), "1000000".to_owned()],
        history: "cove test image".to_owned(),
        ..ImageConfig::default()
    }
}

/// Makes an image of busybox and what is added to it, loads it, and returns its reference.
pub(crate) fn load(
    app: &App,
    name: &str,
    config: &ImageConfig,
    add: impl FnOnce(&mut Tree),
) -> String {
    let mut tree = Tree::default();
    Busybox::installed().unwrap().add_to(&mut tree);
    tree.folder("tmp", 0o1777, 0);
    add(&mut tree);
    let image = Image::new(config, vec![tree.into_layer().unwrap()]).unwrap();
    let reference = format!("tests.invalid/{name}:1");
    app.engine().load(&image, &reference).unwrap();
    reference
}

/// Adds a program of this machine with the libraries that it needs; `false` when it is not here.
pub(crate) fn add_program(tree: &mut Tree, path: &str) -> bool {
    let Ok(program) = fs::read(path) else {
        return false;
    };
    tree.file(path.trim_start_matches('/'), 0o755, 0, program);
    let listed = Command::new("ldd").arg(path).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for library in listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        let content = fs::read(Path::new(library)).unwrap();
        tree.file(library.trim_start_matches('/'), 0o755, 0, content);
    }
    true
}
