//! Set-up before the real work: toolchains are checked, system packages installed where that can be done, and npm's
//! packages put in place. A second run finds everything there and takes a moment.

use std::collections::HashSet;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::system::{DOCKER_COMMAND, Need, Package, System, Tool, packages};
use crate::workspace::{Workspace, output_of, run, say, shown};

const RUST: &str = env!("CARGO_PKG_RUST_VERSION");
const NODE: &str = "20.19";

/// Sees to everything that these needs take.
pub(crate) fn set_up(workspace: &Workspace, needs: &[Need]) -> Result<()> {
    say("set-up");
    let system = System::here();
    check_tool(system, Tool::Rust, "rustc", RUST)?;
    check_tool(system, Tool::Node, "node", NODE)?;
    if output_of(workspace.npm().arg("--version")).is_none() {
        bail!(
            "npm is missing. Install it by:\n\n    {}",
            system.toolchain_command(Tool::Node)
        );
    }
    install_packages(system, needs)?;
    install_npm_packages(workspace)
}

/// Sees to the cargo commands that the tests take.
pub(crate) fn set_up_test_tools(workspace: &Workspace) -> Result<()> {
    for (command, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if output_of(workspace.cargo().args([command, "--version"])).is_none() {
            run(Command::new("rustup").args(["component", "add", component]))?;
        }
    }
    if output_of(workspace.cargo().args(["nextest", "--version"])).is_none() {
        say("installing cargo-nextest");
        run(workspace
            .cargo()
            .args(["install", "cargo-nextest", "--locked"]))?;
    }
    Ok(())
}

fn check_tool(system: System, tool: Tool, program: &str, wanted: &str) -> Result<()> {
    let found = output_of(Command::new(program).arg("--version"));
    let advice = || format!("Install it by:\n\n    {}", system.toolchain_command(tool));
    let Some(found) = found else {
        bail!("`{program}` is missing. {}", advice());
    };
    if !is_at_least(&found, wanted) {
        bail!(
            "`{program}` is too old: {wanted} or newer is needed, this is {found}. {}",
            advice()
        );
    }
    Ok(())
}

/// Returns whether what a program says of its version, `rustc 1.95.0 (…)` or `v20.20.0`, is the wanted one or newer.
fn is_at_least(said: &str, wanted: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        text.split('.')
            .map(|part| {
                part.chars()
                    .take_while(char::is_ascii_digit)
                    .collect::<String>()
            })
            .map_while(|digits| digits.parse().ok())
            .collect()
    };
    let found = said
        .split_whitespace()
        .map(|word| numbers(word.trim_start_matches('v')))
        .find(|numbers| numbers.len() > 1);
    found.is_some_and(|found| found >= numbers(wanted))
}

fn install_packages(system: System, needs: &[Need]) -> Result<()> {
    match system {
        System::Debian => install_debian_packages(needs),
        System::Fedora | System::Arch | System::OtherLinux => {
            let missing: Vec<Need> = needs
                .iter()
                .copied()
                .filter(|need| is_missing(*need))
                .collect();
            // Without an engine or a virtual display much can be done still; the test command names what it skips.
            for need in missing.iter().filter(|need| **need != Need::Build) {
                println!(
                    "note: not installed: {}",
                    system.commands(&[*need]).join("; ")
                );
            }
            if missing.contains(&Need::Build) {
                bail!(
                    "packages are missing. Install them by:\n\n    {}",
                    system.commands(&[Need::Build]).join("\n    ")
                );
            }
            Ok(())
        }
        System::MacOs => {
            if output_of(Command::new("xcode-select").arg("--print-path")).is_none() {
                bail!(
                    "the developer tools are missing. Install them by:\n\n    {}",
                    system.commands(&[Need::Build]).join("\n    ")
                );
            }
            Ok(())
        }
        // Rust checks for its linker itself, and WebView2 is part of Windows.
        System::Windows => Ok(()),
    }
}

fn is_missing(need: Need) -> bool {
    let libraries = ["webkit2gtk-4.1", "gtk+-3.0", "librsvg-2.0", "openssl"];
    match need {
        Need::Build => {
            output_of(Command::new("pkg-config").arg("--exists").args(libraries)).is_none()
                || !is_on_path("cc")
        }
        Need::Window | Need::Engine => packages(need)
            .iter()
            .filter_map(|package| package.or_program)
            .any(|program| !is_on_path(program)),
    }
}

fn install_debian_packages(needs: &[Need]) -> Result<()> {
    let wanted: Vec<Package> = needs
        .iter()
        .flat_map(|need| packages(*need))
        .copied()
        .collect();
    let missing = missing_packages(&wanted, &installed_packages(&wanted), is_on_path);
    if !missing.is_empty() {
        say(&format!("installing packages: {}", missing.join(" ")));
        apt_get(&["update", "--quiet=2"], &missing)?;
        apt_get(
            &["install", "--yes", "--quiet=2", "--no-install-recommends"],
            &missing,
        )?;
    }
    // Known only after the update above, and on newer systems only.
    let command = DOCKER_COMMAND.name;
    if needs.contains(&Need::Engine) && !is_on_path("docker") {
        apt_get(
            &["install", "--yes", "--quiet=2", "--no-install-recommends"],
            &[command],
        )?;
    }
    Ok(())
}

fn apt_get(arguments: &[&str], packages: &[&str]) -> Result<()> {
    let is_root = output_of(Command::new("id").arg("--user")).is_some_and(|user| user == "0");
    let mut command = if is_root {
        Command::new("apt-get")
    } else {
        let mut command = Command::new("sudo");
        command.arg("apt-get");
        command
    };
    command
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive");
    if arguments.first() == Some(&"install") {
        command.args(packages);
    }
    if !is_root && !is_on_path("sudo") {
        bail!(
            "packages are missing. Install them as root by:\n\n    apt-get update\n    apt-get install --no-install-recommends {}",
            packages.join(" ")
        );
    }
    run(&mut command)
        .with_context(|| format!("failed to install packages by `{}`", shown(&command)))
}

fn installed_packages(packages: &[Package]) -> HashSet<String> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${Package} ${db:Status-Status}\n"]);
    query.args(packages.iter().map(|package| package.name));
    // The query fails when one package is unknown, and tells of the others all the same.
    let output = query
        .output()
        .map(|output| output.stdout)
        .unwrap_or_default();
    String::from_utf8_lossy(&output)
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .map(str::to_owned)
        .collect()
}

fn missing_packages(
    wanted: &[Package],
    installed: &HashSet<String>,
    is_on_path: impl Fn(&str) -> bool,
) -> Vec<&'static str> {
    wanted
        .iter()
        .filter(|package| !installed.contains(package.name))
        .filter(|package| !package.or_program.is_some_and(&is_on_path))
        .map(|package| package.name)
        .collect()
}

/// Returns whether a program is found; root's own folders count too, for `dockerd` is there.
pub(crate) fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder| folder.join(program).is_file())
}

/// Puts npm's packages in place when the lock file is not the one they were installed by.
fn install_npm_packages(workspace: &Workspace) -> Result<()> {
    let lock = workspace.ui().join("package-lock.json");
    let lock = fs::read(&lock).with_context(|| format!("failed to read `{}`", lock.display()))?;
    let stamp = workspace
        .ui()
        .join("node_modules/.cove-installed-lock.json");
    if fs::read(&stamp).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    say("npm ci");
    run(workspace.npm().args(["ci", "--no-audit", "--no-fund"]))?;
    fs::write(&stamp, lock).with_context(|| format!("failed to write `{}`", stamp.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(is_at_least("rustc 1.95.0 (59807616e 2026-04-14)", "1.90"));
        assert!(is_at_least(
            "rustc 1.90.0-nightly (59807616e 2026-04-14)",
            "1.90"
        ));
        assert!(!is_at_least("rustc 1.9.0 (59807616e 2026-04-14)", "1.90"));
        assert!(is_at_least("v20.20.0", "20.19"));
        assert!(is_at_least("v22.1.0", "20.19"));
        assert!(!is_at_least("v18.19.1", "20.19"));
        assert!(!is_at_least("no version", "1.0"));
    }

    #[test]
    fn only_what_is_neither_installed_nor_there_otherwise_is_missing() {
        let wanted = packages(Need::Engine);
        let installed = HashSet::from(["iptables".to_owned()]);
        let missing = missing_packages(wanted, &installed, |program| program == "dockerd");
        assert_eq!(
            missing,
            [
                "docker-registry",
                "iproute2",
                "util-linux",
                "podman",
                "netavark",
                "crun"
            ]
        );
    }
}
