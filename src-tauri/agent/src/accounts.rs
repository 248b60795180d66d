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
use rustix::process::{Gid, Uid, getgid, getgroups};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};

use crate::protocol::{CallError, Failure};

/// The most bytes of a file that are read: some ten thousand lines.
const MAX_FILE: u64 = 1 << 20;

/// The highest number of a user or a group that engines take.
const HIGHEST_ID: u32 = i32::MAX.cast_unsigned();

/// Who owns nothing, in every image.
const NOBODY: u32 = 65_534;

/// The most groups of a user that count: the kernel takes as many.
const MOST_GROUPS: usize = 65_536;

/// A line of `/etc/passwd`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: String,
    pub(crate) shell: String,
}

/// As whom an image's programs run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The groups that the user is in, where the image names no group itself.
    pub(crate) groups: Vec<u32>,
    account: Option<Account>,
}

impl Owner {
    /// Returns the image's user, as the engine writes it, or nobody where the image does not have that: its container never
    /// gets ready, and somebody has to say why.
    pub(crate) fn of(user: &str) -> Self {
        let (passwd, group) = (passwd(), group());
        match resolve_owner(user, &passwd, &group) {
            Ok((uid, gid)) => Self {
                uid,
                gid,
                groups: groups_of(user, uid, &passwd, &group),
                account: account_of(uid, &passwd),
            },
            Err(_) => Self {
                uid: NOBODY,
                gid: NOBODY,
                groups: Vec::new(),
                account: None,
            },
        }
    }

    /// Returns the user's home, as engines set it.
    pub(crate) fn home(&self) -> &str {
        let home = self.account.as_ref().map(|account| account.home.as_str());
        home.filter(|home| !home.is_empty()).unwrap_or("/")
    }

    /// Makes this process, which has one thread and is root as the engine started it, run as this user, for good.
    ///
    /// # Errors
    /// It stays as it is, or is half of each: it must not go on.
    pub(crate) fn become_it(&self) -> rustix::io::Result<()> {
        let mut groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        // Docker puts everybody into their own group once more, Podman nobody.
        if getgroups()?.contains(&getgid()) {
            groups.push(Gid::from_raw(self.gid));
        }
        set_thread_groups(&groups)?;
        set_thread_gid(Gid::from_raw(self.gid))?;
        set_thread_uid(Uid::from_raw(self.uid))
    }
}

/// Returns the groups that a user of an image is in, as engines see it: those that name its account, unless the image names
/// a group itself.
fn groups_of(user: &str, uid: u32, passwd: &str, group: &str) -> Vec<u32> {
    let (name, named_group) = user.split_once(':').unwrap_or((user, ""));
    let by_name = accounts(passwd).find(|account| account.name == name);
    let Some(account) = by_name.or_else(|| account_of(uid, passwd)) else {
        return Vec::new();
    };
    if !named_group.is_empty() {
        return Vec::new();
    }
    let has_it = |line: &str| {
        let mut fields = line.split(':');
        let gid = fields.nth(2)?.parse().ok()?;
        let mut members = fields.next()?.split(',');
        members.any(|member| member == account.name).then_some(gid)
    };
    group.lines().filter_map(has_it).take(MOST_GROUPS).collect()
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
    fn a_user_is_in_the_groups_that_name_it_unless_the_image_names_one() {
        let group =
            "root:x:0:\nstaff:x:50:node\ndocker:x:999:a,node\nother:x:7:nodes\nbad:x:y:node\n";
        let check = |user: &str, uid: u32, expected: &[u32]| {
            assert_eq!(groups_of(user, uid, PASSWD, group), expected, "{user:?}");
        };
        check("node", 1000, &[50, 999]);
        check("1000", 1000, &[50, 999]);
        check("node:staff", 1000, &[]);
        check("root", 0, &[]);
        check("4242", 4242, &[]);
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
