//! What comes from others: crates are judged by cargo-deny and `deny.toml`, npm's packages here, by the lock file.
//!
//! Databases of known faults are on the network only; the workflow asks them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::summary::Tally;
use crate::workspace::{Workspace, cache, output_of, run, say};

/// The pinned cargo-deny, for pip.
const PINNED: &str = ".ci/cargo-deny.txt";

const REGISTRY: &str = "https://registry.npmjs.org/";

/// Licences of what is built into the window, or only used to build and test it.
const LICENSES: [&str; 13] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 OR MIT",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BlueOak-1.0.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT OR Apache-2.0",
    "MIT-0",
    "MPL-2.0",
    "OFL-1.1",
];

/// Packages whose own description names no licence, and whose licence file does: MIT.
const LICENSE_READ: [&str; 2] = ["runed", "svelte-toolbelt"];

/// Checks all that comes from others, as far as that takes no network.
pub(crate) fn check(workspace: &Workspace) -> Tally {
    say("crates of others");
    let mut tally = match cargo_deny(workspace) {
        Some(program) => {
            let mut deny = Command::new(program);
            deny.current_dir(workspace.root());
            deny.args(["--log-level", "error", "check", "--hide-inclusion-graph"]);
            deny.args(["licenses", "bans", "sources"]);
            Tally::check("crates of others", run(&mut deny))
        }
        None => Tally::skip(format!(
            "crates of others: there is no cargo-deny; `pip install --requirement {PINNED}` or `cargo install \
             cargo-deny --locked` gets one"
        )),
    };
    say("npm packages of others");
    let outcome = fs::read_to_string(workspace.ui().join("package-lock.json"))
        .context("failed to read `package-lock.json`")
        .and_then(|lock| check_npm_lock(&lock));
    tally.add(Tally::check("npm packages of others", outcome));
    tally
}

/// Returns the program: the user's own, or the pinned one, which is fetched once. Compiling it would take longer
/// than all other set-up.
fn cargo_deny(workspace: &Workspace) -> Option<PathBuf> {
    let answers = |program: &PathBuf| output_of(Command::new(program).arg("--version")).is_some();
    let name = format!("cargo-deny{}", std::env::consts::EXE_SUFFIX);
    let folder = cache().join("cargo-deny");
    let fetched = folder.join("bin").join(&name);
    if let Some(found) = [PathBuf::from(&name), fetched.clone()]
        .into_iter()
        .find(answers)
    {
        return Some(found);
    }
    ["pip3", "pip"].into_iter().find_map(|pip| {
        let mut install = Command::new(pip);
        install.current_dir(workspace.root());
        install.args([
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
        ]);
        install.args([
            "--only-binary",
            ":all:",
            "--require-hashes",
            "--requirement",
            PINNED,
        ]);
        install.arg("--target").arg(&folder);
        output_of(&mut install)?;
        answers(&fetched).then(|| fetched.clone())
    })
}

/// Checks a lock file of npm: every package comes from the registry, is fixed by a checksum, has a licence that goes
/// with ours, and runs nothing when it is installed.
fn check_npm_lock(lock: &str) -> Result<()> {
    let lock: Value = serde_json::from_str(lock).context("`package-lock.json` is no JSON")?;
    let packages = lock.get("packages").and_then(Value::as_object);
    let packages = packages.context("`package-lock.json` has no packages")?;
    let problems: Vec<String> = packages
        .iter()
        .filter(|(place, _)| !place.is_empty())
        .filter_map(|(place, package)| Some(format!("`{place}` {}", problem(place, package)?)))
        .collect();
    if packages.len() < 2 {
        bail!("`package-lock.json` lists no packages");
    }
    if !problems.is_empty() {
        bail!("{}", problems.join(", "));
    }
    Ok(())
}

fn problem(place: &str, package: &Value) -> Option<String> {
    let text = |field: &str| package.get(field).and_then(Value::as_str);
    let is = |field: &str| package.get(field).and_then(Value::as_bool) == Some(true);
    let name = place.rsplit("node_modules/").next().unwrap_or(place);
    if is("link") || is("inBundle") {
        return Some("does not come from the registry".to_owned());
    }
    if let Some(address) = text("resolved").filter(|address| !address.starts_with(REGISTRY)) {
        return Some(format!("comes from `{address}`"));
    }
    if !text("integrity").is_some_and(|integrity| integrity.starts_with("sha512-")) {
        return Some("has no checksum".to_owned());
    }
    if is("hasInstallScript") {
        return Some("runs a program when it is installed".to_owned());
    }
    match text("license") {
        Some(license) if LICENSES.contains(&license) => None,
        None if LICENSE_READ.contains(&name) => None,
        Some(license) => Some(format!("has the licence `{license}`")),
        None => Some("names no licence".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(change: &Value, expected: Option<&str>) {
        let mut package =
            json!({ "version": "1.0.0", "integrity": "sha512-AA==", "license": "MIT" });
        for (field, value) in change.as_object().unwrap() {
            package[field] = value.clone();
        }
        let lock = json!({ "packages": { "": {}, "node_modules/a/node_modules/left": package } });
        let said = check_npm_lock(&lock.to_string())
            .err()
            .map(|error| error.to_string());
        let expected = expected.map(|what| format!("`node_modules/a/node_modules/left` {what}"));
        assert_eq!(said, expected, "{lock}");
    }

    #[test]
    fn a_package_is_fixed_by_a_checksum_comes_from_the_registry_and_has_a_fitting_licence() {
        check(&json!({}), None);
        let address = "https://registry.npmjs.org/left/-/left-1.0.0.tgz";
        check(&json!({ "resolved": address }), None);
        check(
            &json!({ "resolved": "git+ssh://git@example.com/left.git#1234" }),
            Some("comes from `git+ssh://git@example.com/left.git#1234`"),
        );
        check(
            &json!({ "link": true }),
            Some("does not come from the registry"),
        );
        for integrity in [json!(null), json!("sha1-AA==")] {
            check(&json!({ "integrity": integrity }), Some("has no checksum"));
        }
        check(
            &json!({ "hasInstallScript": true }),
            Some("runs a program when it is installed"),
        );
        check(
            &json!({ "license": "AGPL-3.0" }),
            Some("has the licence `AGPL-3.0`"),
        );
        check(&json!({ "license": null }), Some("names no licence"));
        assert!(check_npm_lock("{}").is_err(), "a check of nothing is none");
        assert!(check_npm_lock(r#"{"packages":{"":{}}}"#).is_err());
    }
}
