//! `agent shell`: becomes the image's shell on the TTY that [`crate::terminal`] made, as an interactive
//! shell, and not as a login shell: `/etc/profile` sets `PATH` anew in most images, and what the image and
//! the session have set must hold. It is the shell that `docker exec -it` gives.
//!
//! It says so when the image has none, rather than letting the terminal vanish.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rustix::process::{Resource, Rlimit, geteuid, getrlimit, ioctl_tiocsctty, setrlimit, setsid};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::accounts::{self, Account};
use crate::path;

/// Where shells are, the most comfortable first.
const SHELLS: [&str; 6] = [
    "/bin/bash",
    "/usr/bin/bash",
    "/bin/ash",
    "/bin/sh",
    "/usr/bin/sh",
    "/busybox/sh",
];

/// What a shell returns when it cannot find a program.
const NO_SHELL: u8 = 127;

/// The most characters that are shown of a path.
const LONGEST_SHOWN: usize = 300;

const NO_SHELL_MESSAGE: &str = "This image has no shell, so there is no terminal here.
The files can still be viewed. For a terminal, make a session
of an image with a shell, such as the built-in one.
";

/// Becomes the shell, in which programs may have so many files open, in a folder whose path is encoded as
/// [`path::encode`] does; returns only if there is none and the user has seen that.
#[must_use]
pub fn run(open_files: Option<u64>, folder: Option<&str>) -> ExitCode {
    if let Some(current) = open_files {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let current = Some(current);
        // The daemon has raised it for itself. Where that fails there may be more of them.
        let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum });
    }
    // Makes the TTY on stdin the one that Ctrl-C and a hang-up come from. Where this is not a new
    // TTY, as under a debugger, the shell works all the same.
    let _ = setsid();
    let _ = ioctl_tiocsctty(io::stdin());
    let folder = folder.and_then(|folder| match enter(folder) {
        Ok(folder) => Some(folder),
        Err(message) => {
            // Whoever closes the terminal meanwhile does not read it.
            let _ = writeln!(io::stdout(), "{message}");
            None
        }
    });
    let account = accounts::account_of(geteuid().as_raw(), &accounts::passwd());
    for shell in candidates(env::var_os("SHELL").as_deref(), account.as_ref()) {
        let variables = variables(|name| env::var_os(name), &shell, account.as_ref());
        // It returns if the file is missing, not executable or made for another machine: try the next.
        let _ = Command::new(&shell)
            .arg0(name_of(&shell))
            .envs(variables)
            .envs(folder.iter().map(|folder| ("PWD", folder)))
            .exec();
    }
    say_until_seen(NO_SHELL_MESSAGE);
    ExitCode::from(NO_SHELL)
}

/// Goes to the folder in which the shell is to begin, and returns its path.
///
/// # Errors
/// Says why the shell begins elsewhere, and where.
fn enter(folder: &str) -> Result<PathBuf, String> {
    let bytes = path::decode(folder).unwrap_or_default();
    let wanted = PathBuf::from(OsString::from_vec(bytes));
    let entered = if wanted.is_absolute() {
        env::set_current_dir(&wanted)
    } else {
        Err(io::ErrorKind::NotFound.into())
    };
    entered.map(|()| wanted).map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::NotFound => "is not there any more",
            io::ErrorKind::NotADirectory => "is no folder any more",
            io::ErrorKind::PermissionDenied => "may not be entered",
            _ => "cannot be entered",
        };
        let begins = env::current_dir().unwrap_or_default();
        let (folder, begins) = (shown(folder), shown(&begins.to_string_lossy()));
        format!("The folder {folder} {why}. The shell begins in {begins}.")
    })
}

/// Returns a path as it may be written to a terminal.
fn shown(path: &str) -> String {
    let tame = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    path.chars().map(tame).take(LONGEST_SHOWN).collect()
}

fn candidates(shell: Option<&OsStr>, account: Option<&Account>) -> Vec<PathBuf> {
    let own = account.map(|account| OsStr::new(&account.shell));
    let mut shells: Vec<PathBuf> = Vec::new();
    for candidate in shell
        .into_iter()
        .chain(own)
        .chain(SHELLS.map(OsStr::new))
        .map(Path::new)
    {
        let turns_away = candidate
            .file_name()
            .is_some_and(|name| name == "nologin" || name == "false");
        if candidate.is_absolute() && !turns_away && !shells.iter().any(|known| known == candidate)
        {
            shells.push(candidate.to_owned());
        }
    }
    shells
}

/// Returns the variables to set in addition to what the image and the engine have set, none of which is
/// overruled.
fn variables(
    present: impl Fn(&str) -> Option<OsString>,
    shell: &Path,
    account: Option<&Account>,
) -> Vec<(&'static str, OsString)> {
    let is_missing = |name: &str| present(name).is_none_or(|value| value.is_empty());
    let mut variables: Vec<(&'static str, OsString)> = Vec::new();
    let mut offer = |name: &'static str, value: OsString| {
        if is_missing(name) {
            variables.push((name, value));
        }
    };
    offer("SHELL", shell.into());
    offer("COLORTERM", "truecolor".into());
    if is_missing("LC_ALL") && is_missing("LC_CTYPE") {
        offer("LANG", "C.UTF-8".into());
    }
    if let Some(account) = account {
        offer("USER", (&account.name).into());
        offer("LOGNAME", (&account.name).into());
    }
    // `xterm` is what engines set for any terminal: it knows fewer colours than ours.
    if present("TERM").is_none_or(|term| term.is_empty() || term == "dumb" || term == "xterm") {
        variables.push(("TERM", "xterm-256color".into()));
    }
    // `/` is what engines set for a user without a home.
    if let Some(account) = account
        && !account.home.is_empty()
        && present("HOME").is_none_or(|home| home.is_empty() || home == "/")
    {
        variables.push(("HOME", (&account.home).into()));
    }
    variables
}

/// Returns the name that a shell is called by. A leading `-` would make it a login shell.
fn name_of(shell: &Path) -> &OsStr {
    shell.file_name().unwrap_or(OsStr::from_bytes(b"sh"))
}

/// Says something and waits for a key. One that was pressed before does not count, and none is lost that comes after.
fn say_until_seen(message: &str) {
    let stdin = io::stdin();
    let before = tcgetattr(&stdin).ok();
    let mut message = message.to_owned();
    if let Some(mut raw) = before.clone() {
        raw.make_raw();
        // Without raw mode it takes the enter key, and in raw mode a line ends with both.
        if tcsetattr(&stdin, OptionalActions::Flush, &raw).is_ok() {
            message = message.replace('\n', "\r\n");
        }
    }
    // Whoever closes the terminal meanwhile does not read it.
    let _ = io::stdout().write_all(message.as_bytes());
    let _ = io::stdout().flush();
    // A key, the end and an error all mean: seen.
    let _ = stdin.lock().read(&mut [0]);
    if let Some(before) = before {
        // The terminal may be gone.
        let _ = tcsetattr(&stdin, OptionalActions::Now, &before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(home: &str, shell: &str) -> Account {
        Account {
            name: "node".into(),
            uid: 1000,
            gid: 1000,
            home: home.into(),
            shell: shell.into(),
        }
    }

    fn check_first(shell: Option<&str>, own: Option<&str>, expected: &str) {
        let account = own.map(|own| account("/", own));
        let found = candidates(shell.map(OsStr::new), account.as_ref());
        assert_eq!(
            found.first().map(PathBuf::as_path),
            Some(Path::new(expected)),
            "{shell:?} {own:?}"
        );
    }

    #[test]
    fn the_users_shell_comes_before_the_usual_ones() {
        check_first(Some("/usr/bin/fish"), Some("/bin/zsh"), "/usr/bin/fish");
        check_first(None, Some("/bin/zsh"), "/bin/zsh");
        check_first(None, None, "/bin/bash");
        check_first(Some("fish"), None, "/bin/bash");
        check_first(Some(""), Some(""), "/bin/bash");
        check_first(Some("/bin/false"), Some("/usr/sbin/nologin"), "/bin/bash");
    }

    #[test]
    fn no_shell_is_tried_twice() {
        assert_eq!(
            candidates(Some(OsStr::new("/bin/sh")), Some(&account("/", "/bin/sh"))).len(),
            SHELLS.len()
        );
    }

    fn check_variables(
        present: &[(&str, &str)],
        account: Option<&Account>,
        expected: &[(&str, &str)],
    ) {
        let present = |name: &str| {
            present
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| value.into())
        };
        let found = variables(present, Path::new("/bin/sh"), account);
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, value)| (*name, OsString::from(value)))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_environment_is_completed_and_not_overruled() {
        let node = account("/home/node", "/bin/sh");
        let own = [("SHELL", "/bin/sh"), ("COLORTERM", "truecolor")];
        let user = [("USER", "node"), ("LOGNAME", "node")];
        let lang = [("LANG", "C.UTF-8")];
        let term = [("TERM", "xterm-256color")];
        check_variables(&[], None, &[&own[..], &lang, &term].concat());
        check_variables(
            &[("TERM", "xterm"), ("HOME", "/")],
            Some(&node),
            &[&own[..], &lang, &user, &term, &[("HOME", "/home/node")]].concat(),
        );
        check_variables(
            &[("TERM", "foot"), ("LC_ALL", "C"), ("HOME", "/data")],
            Some(&node),
            &[&own[..], &user].concat(),
        );
        check_variables(
            &[
                ("SHELL", "/bin/zsh"),
                ("COLORTERM", "24bit"),
                ("LANG", "de_DE.UTF-8"),
                ("USER", "builder"),
                ("LOGNAME", "builder"),
                ("TERM", "foot"),
                ("HOME", "/data"),
                ("PATH", "/usr/local/cargo/bin:/bin"),
            ],
            Some(&node),
            &[],
        );
    }

    #[test]
    fn a_folder_that_cannot_be_entered_is_named_harmlessly() {
        let gone = enter("/nowhere/\u{1b}]0;x\u{7}").unwrap_err();
        assert!(
            gone.starts_with("The folder /nowhere/\u{fffd}]0;x\u{fffd} is not there any more. "),
            "{gone}"
        );
        for never in ["workspace", "", "\u{FDD0}zz"] {
            assert!(enter(never).is_err(), "{never}");
        }
        let folder = tempfile::NamedTempFile::new().unwrap();
        let file = enter(folder.path().to_str().unwrap()).unwrap_err();
        assert!(file.contains("is no folder any more"), "{file}");
    }

    #[test]
    fn the_shell_is_none_of_a_login() {
        assert_eq!(name_of(Path::new("/usr/bin/bash")), "bash");
    }
}
