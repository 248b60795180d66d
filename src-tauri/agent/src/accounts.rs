//! The users and groups of an image, from its `/etc/passwd` and `/etc/group`.
//!
//! Either file may be missing or damaged: a line that makes no sense is skipped. What is no regular file is
//! as good as missing, for nobody knows when a pipe or a device would end, and of a long one only the
//! beginning counts. Nothing but these files is asked, since a static binary cannot use the image's name
//! services.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;

use crate::protocol::{CallError, Failure};

/// The most bytes of a file that are read: some ten thousand lines.
const MAX_FILE: u64 = 1 << 20;

/// The highest number of a user or a group that engines take.
const HIGHEST_ID: u32 = i32::MAX.cast_unsigned();

/// A line of `/etc/passwd`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: String,
    pub(crate) shell: String,
}

/// Returns the content of `/etc/passwd`, or nothing.
pub(crate) fn passwd() -> String {
    text_of("/etc/passwd")
}

/// Returns the content of `/etc/group`, or nothing.
pub(crate) fn group() -> String {
    text_of("/etc/group")
}

/// Returns the account of a user id.
pub(crate) fn account_of(uid: u32, passwd: &str) -> Option<Account> {
    accounts(passwd).find(|account| account.uid == uid)
}

/// Returns the user and group id of an image's user as the engines understand it: `user[:group]`, each a
/// name or a number; nothing at all is root.
///
/// # Errors
/// Names the user or group that the image does not know.
pub(crate) fn resolve_owner(
    user: &str,
    passwd: &str,
    group: &str,
) -> Result<(u32, u32), CallError> {
    let (user, group_name) = user.split_once(':').unwrap_or((user, ""));
    let user = if user.is_empty() { "0" } else { user };
    let account = accounts(passwd)
        .find(|account| account.name == user)
        .or_else(|| account_of(user.parse().ok()?, passwd));
    let uid = match &account {
        Some(account) => account.uid,
        None => user
            .parse()
            .ok()
            .filter(|uid| *uid <= HIGHEST_ID)
            .ok_or_else(|| CallError {
                failure: Failure::NoUser {
                    user: user.to_owned(),
                },
                message: format!("the image has no user `{user}`"),
            })?,
    };
    let gid = match (group_name, account) {
        ("", account) => account.map_or(0, |account| account.gid),
        (name, _) => groups(group)
            .find_map(|(group, gid)| (group == name).then_some(gid))
            .or_else(|| name.parse().ok().filter(|gid| *gid <= HIGHEST_ID))
            .ok_or_else(|| CallError {
                failure: Failure::NoGroup {
                    group: name.to_owned(),
                },
                message: format!("the image has no group `{name}`"),
            })?,
    };
    Ok((uid, gid))
}

fn text_of(path: &str) -> String {
    // A pipe would hold up whoever opens it, and its opening may already do something in a device.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let opened = File::options().read(true).custom_flags(flags).open(path);
    let Ok(file) = opened else {
        return String::new();
    };
    if !file.metadata().is_ok_and(|found| found.is_file()) {
        return String::new();
    }
    let mut bytes = Vec::new();
    // What was read before an error counts.
    let _ = file.take(MAX_FILE).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let _password = fields.next()?;
        let uid = fields.next()?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let _description = fields.next()?;
        let home = fields.next()?.to_owned();
        let shell = fields.next().unwrap_or_default().to_owned();
        Some(Account {
            name,
            uid,
            gid,
            home,
            shell,
        })
    })
}

fn groups(group: &str) -> impl Iterator<Item = (&str, u32)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let _password = fields.next()?;
        Some((name, fields.next()?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nnot a line\nnode:x:1000:1001::/home/node:/bin/sh\n77:x:5:6::/:\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:node\n";

    fn check(user: &str, expected: Result<(u32, u32), Failure>) {
        assert_eq!(
            resolve_owner(user, PASSWD, GROUP),
            expected.map_err(|failure| {
                let (what, name) = match &failure {
                    Failure::NoUser { user } => ("user", user),
                    Failure::NoGroup { group } => ("group", group),
                    other => panic!("{other:?}"),
                };
                let message = format!("the image has no {what} `{name}`");
                CallError { failure, message }
            }),
            "{user:?}"
        );
    }

    #[test]
    fn an_owner_is_understood_as_the_engine_does() {
        check("", Ok((0, 0)));
        check("0", Ok((0, 0)));
        check("root", Ok((0, 0)));
        check("node", Ok((1000, 1001)));
        check("node:staff", Ok((1000, 50)));
        check("node:7", Ok((1000, 7)));
        check(":staff", Ok((0, 50)));
        check("1000", Ok((1000, 1001)));
        check("1000:1000", Ok((1000, 1000)));
        check("4242", Ok((4242, 0)));
        check("77", Ok((5, 6)));
        let no_user = |user: &str| {
            let user = user.to_owned();
            Err(Failure::NoUser { user })
        };
        let no_group = |group: &str| {
            let group = group.to_owned();
            Err(Failure::NoGroup { group })
        };
        check("2147483647", Ok((2_147_483_647, 0)));
        check("nobody", no_user("nobody"));
        check("-1", no_user("-1"));
        check("2147483648", no_user("2147483648"));
        check("node:wheel", no_group("wheel"));
        check("4242:wheel", no_group("wheel"));
        check("node:2147483648", no_group("2147483648"));
    }

    #[test]
    fn only_a_regular_file_is_read_and_only_its_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        std::os::unix::fs::symlink("/dev/zero", path("zero")).unwrap();
        std::fs::write(path("long"), "a".repeat(3 << 20)).unwrap();
        std::os::unix::fs::symlink("long", path("link")).unwrap();
        for (name, expected) in [
            ("pipe", 0),
            ("zero", 0),
            ("none", 0),
            ("", 0),
            ("link", 1 << 20),
        ] {
            assert_eq!(text_of(&path(name)).len(), expected, "{name}");
        }
    }

    #[test]
    fn an_image_without_account_files_has_root_and_numbers() {
        assert_eq!(resolve_owner("", "", ""), Ok((0, 0)));
        assert_eq!(resolve_owner("1000", "", ""), Ok((1000, 0)));
        assert_eq!(resolve_owner("1000:5", "", ""), Ok((1000, 5)));
        assert!(resolve_owner("node", "", "").is_err());
    }
}
