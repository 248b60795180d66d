//! The agent's command line. The app is its only user, so it is strict and short.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    use std::io::Write;
    use std::path::Path;

    use cove_agent::hand_over::Give;
    use cove_agent::{
        AGENT_DIRECTORY, VERSION, WORKSPACE, connect, daemon, init, pack, protocol, shell, unpack,
    };

    // First of all: the session's user may look into its own processes, and this is none of them.
    cove_agent::conceal();

    let arguments: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (directory, workspace) = (Path::new(AGENT_DIRECTORY), Path::new(WORKSPACE));
    match *arguments {
        [
            "init",
            "--owner",
            owner,
            "--give",
            give @ ("all" | "former"),
            "--token",
            token,
            ref home @ ..,
        ] if matches!(home, [] | ["--keep-home"]) => {
            let give = if give == "all" {
                Give::All
            } else {
                Give::Former
            };
            let owner = init::User {
                name: owner,
                keeps_home: !home.is_empty(),
            };
            init::run(owner, (give, token), directory, workspace)
        }
        // Containers that an earlier version made.
        ["init", "--owner", owner] | ["init", "--owner", owner, "--everything"] => {
            let owner = init::User {
                name: owner,
                keeps_home: false,
            };
            init::run(owner, (Give::Former, "earlier"), directory, workspace)
        }
        ["daemon", "--owner", owner] => daemon::run(owner, directory, workspace),
        ["connect"] => connect::run(directory),
        ["shell"] => shell::run(None, None),
        ["shell", "--open-files", most] => shell::run(most.parse().ok(), None),
        ["shell", "--folder", folder] => shell::run(None, Some(folder)),
        ["shell", "--open-files", most, "--folder", folder] => {
            shell::run(most.parse().ok(), Some(folder))
        }
        ["pack"] => pack::run(workspace, false),
        ["pack", "--measure"] => pack::run(workspace, true),
        ["unpack", "--owner", owner] => unpack::run(Some(owner), directory, workspace),
        ["unpack", "--keep-owners"] => unpack::run(None, directory, workspace),
        ["version"] => {
            match writeln!(
                std::io::stdout(),
                "cove-agent {VERSION}, protocol {}",
                protocol::VERSION
            ) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            }
        }
        _ => {
            // Without a stderr there is nobody to tell.
            let _ = writeln!(
                std::io::stderr(),
                "usage: agent init --owner USER --give all|former --token TOKEN [--keep-home] | daemon --owner USER | connect | shell [--open-files N] [--folder PATH] | pack [--measure] | unpack --owner USER|--keep-owners | version"
            );
            ExitCode::from(2)
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    use std::io::Write;

    // Without a stderr there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "the agent runs in Linux containers only");
    ExitCode::FAILURE
}
