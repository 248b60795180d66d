//! Which TCP ports somebody listens on in the container, read from `/proc`: IPv4 and IPv6, with the program where this
//! process may know it.
//!
//! It reads and says nothing else: who wants to know, and how often, is [`crate::daemon`]'s business. The kernel tells
//! nobody that a socket begins to listen. So a look is cheap: the programs are looked for only when there is a socket
//! that was not there before.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::protocol::{ListeningPort, MOST_PORTS};

/// The most bytes that are read of a table: some fifty thousand sockets.
const MOST_BYTES: u64 = 8 << 20;
/// The most open files that are looked at for sockets.
const MOST_FILES: usize = 100_000;
/// The most bytes that are read of a process's command line.
const COMMAND: u64 = 4 << 10;
/// The most bytes of a program's name.
const LONGEST_NAME: usize = 128;
/// What the kernel calls a socket that listens.
const LISTEN: &str = "0A";
/// Where Docker answers for names in a container. No program of the container listens there.
const DOCKER_NAMES: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));

/// What was seen at the last look.
#[derive(Debug, Default)]
pub(crate) struct Looker {
    /// By a socket's inode, the program that holds it.
    programs: BTreeMap<u64, Option<String>>,
}

/// A socket that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Socket {
    address: IpAddr,
    port: u16,
    inode: u64,
}

impl Looker {
    /// Returns the sockets that listen, by port and address, at most [`MOST_PORTS`], and whether there are more. Where
    /// `/proc` shows nothing, there are none.
    pub(crate) fn look(&mut self) -> (Vec<ListeningPort>, bool) {
        let mut sockets = Vec::new();
        for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
            if let Ok(table) = File::open(table) {
                sockets.extend(listening(table));
            }
        }
        self.programs
            .retain(|inode, _| sockets.iter().any(|socket| socket.inode == *inode));
        let is_new = |socket: &&Socket| !self.programs.contains_key(&socket.inode);
        let new = sockets.iter().filter(is_new).map(|socket| socket.inode);
        let new: BTreeMap<u64, Option<String>> = new.map(|inode| (inode, None)).collect();
        if !new.is_empty() {
            self.programs.extend(find_programs(new, Path::new("/proc")));
        }
        let ports = sockets.into_iter().map(|socket| ListeningPort {
            port: socket.port,
            address: socket.address,
            process: self.programs.get(&socket.inode).cloned().flatten(),
        });
        let is_of_container =
            |port: &ListeningPort| port.address != DOCKER_NAMES || port.process.is_some();
        let mut ports: Vec<_> = ports.filter(is_of_container).collect();
        ports.sort_by_key(|port| (port.port, port.address));
        ports.dedup_by_key(|port| (port.port, port.address));
        let is_truncated = ports.len() > MOST_PORTS;
        ports.truncate(MOST_PORTS);
        (ports, is_truncated)
    }
}

/// Returns the sockets of a table that listen. What makes no sense is left out.
fn listening(table: impl Read) -> Vec<Socket> {
    let mut lines = BufReader::with_capacity(16 << 10, table.take(MOST_BYTES));
    let (mut found, mut line) = (Vec::new(), Vec::new());
    // One more than is told says that there are more.
    while found.len() <= MOST_PORTS {
        line.clear();
        match lines.read_until(b'\n', &mut line) {
            Ok(1..) => found.extend(str::from_utf8(&line).ok().and_then(socket)),
            Ok(0) | Err(_) => break,
        }
    }
    found
}

/// Reads a line of a table: its number, the own address, the other, the state, and the inode as the tenth field.
fn socket(line: &str) -> Option<Socket> {
    let mut fields = line.split_ascii_whitespace();
    let (own, state) = (fields.nth(1)?, fields.nth(1)?);
    if state != LISTEN {
        return None;
    }
    let (address, port) = own.split_once(':')?;
    Some(Socket {
        address: address_of(address)?,
        port: u16::from_str_radix(port, 16)
            .ok()
            .filter(|port| *port > 0)?,
        inode: fields.nth(5)?.parse().ok()?,
    })
}

/// Reads an address, which the kernel writes as numbers of four bytes each in the machine's own order.
fn address_of(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = text.get(8 * at..8 * (at + 1))?;
        let is_number = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_number.then(|| u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes))?
    };
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let [one, two, three, four] = [word(0)?, word(1)?, word(2)?, word(3)?];
            let mut bytes = [0; 16];
            for (place, byte) in bytes.iter_mut().zip([one, two, three, four].concat()) {
                *place = byte;
            }
            // One of IPv4 on a socket of IPv6 is reached as what it is.
            Some(IpAddr::from(Ipv6Addr::from(bytes)).to_canonical())
        }
        _ => None,
    }
}

/// Finds the programs that hold these sockets. What another user runs may not be known.
fn find_programs(
    mut sockets: BTreeMap<u64, Option<String>>,
    processes: &Path,
) -> BTreeMap<u64, Option<String>> {
    let (mut missing, mut looked) = (sockets.len(), 0);
    let mut pids: Vec<u32> = fs::read_dir(processes)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    // Of several that hold a socket, the oldest has made it.
    pids.sort_unstable();
    for pid in pids {
        let process = processes.join(pid.to_string());
        let files = fs::read_dir(process.join("fd")).into_iter().flatten();
        for file in files.flatten() {
            if missing == 0 || looked >= MOST_FILES {
                return sockets;
            }
            looked += 1;
            let target = fs::read_link(file.path()).ok();
            if let Some(program @ None) = target
                .and_then(inode_of)
                .and_then(|inode| sockets.get_mut(&inode))
            {
                *program = Some(name_of(&process));
                missing -= 1;
            }
        }
    }
    sockets
}

/// Reads the inode of a socket from where an open file leads.
fn inode_of(target: PathBuf) -> Option<u64> {
    let target = target.into_os_string().into_string().ok()?;
    let inode = target.strip_prefix("socket:[")?.strip_suffix(']')?;
    inode.parse().ok()
}

/// Returns what a process calls itself: the name of its command, or of its main thread where that is none.
fn name_of(process: &Path) -> String {
    let mut command = Vec::new();
    // One that has just ended has no name.
    let read = File::open(process.join("cmdline"))
        .and_then(|file| file.take(COMMAND).read_to_end(&mut command));
    let name = read.ok().and_then(|_| command_name(&command));
    name.or_else(|| Some(fs::read(process.join("comm")).ok()?.trim_ascii().to_vec()))
        .map(|name| String::from_utf8_lossy(&name).into_owned())
        .unwrap_or_default()
}

/// Returns the name of the command in a command line: `nginx` of `nginx: master process`, `node` of `/usr/bin/node`.
fn command_name(line: &[u8]) -> Option<Vec<u8>> {
    let command = line.split(|byte| *byte == 0).next()?;
    let title = command.split(|byte| *byte == b':').next()?;
    let name = Path::new(OsStr::from_bytes(title)).file_name()?.as_bytes();
    let name = name.get(..name.len().min(LONGEST_NAME))?;
    (!name.trim_ascii().is_empty()).then(|| name.to_vec())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::fs::symlink;

    use super::*;

    const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    /// Returns a line as the kernel writes it.
    fn line(own: &str, state: &str, inode: u64) -> String {
        format!(
            "   0: {own} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  1000        0 {inode} 1 0000000000000000 100 0 0 10 0\n"
        )
    }

    #[track_caller]
    fn check(table: &str, expected: &[(&str, u16, u64)]) {
        let found: Vec<_> = listening(table.as_bytes())
            .into_iter()
            .map(|socket| (socket.address.to_string(), socket.port, socket.inode))
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(address, port, inode)| ((*address).to_owned(), *port, *inode))
            .collect();
        assert_eq!(found, expected, "{table}");
    }

    /// Writes an address as this machine's kernel does.
    fn kernel(address: &str) -> String {
        let bytes = match address.parse().unwrap() {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let words = bytes.chunks(4).map(|word| word.try_into().unwrap());
        let words = words.map(|word| format!("{:08X}", u32::from_ne_bytes(word)));
        words.collect::<Vec<_>>().concat()
    }

    #[test]
    fn what_listens_is_read_and_what_is_connected_is_not() {
        let local = |address: &str| format!("{}:1F90", kernel(address));
        let mut table = HEAD.to_owned();
        table += &line(&local("127.0.0.1"), "0A", 7);
        table += &line(&local("127.0.0.1"), "01", 8);
        table += &line(&local("0.0.0.0"), "0A", 9);
        check(&table, &[("127.0.0.1", 8080, 7), ("0.0.0.0", 8080, 9)]);
        let mut table = HEAD.to_owned();
        for (inode, address) in ["::", "::1", "fe80::1:2", "::ffff:10.0.0.3"]
            .iter()
            .enumerate()
        {
            table += &line(&local(address), "0A", inode as u64);
        }
        check(
            &table,
            &[
                ("::", 8080, 0),
                ("::1", 8080, 1),
                ("fe80::1:2", 8080, 2),
                ("10.0.0.3", 8080, 3),
            ],
        );
    }

    #[test]
    fn what_makes_no_sense_is_left_out_and_what_follows_is_read() {
        let good = line("0100007F:0050", "0A", 5);
        let expected = [(
            IpAddr::from(0x0100_007F_u32.to_ne_bytes()).to_string(),
            80,
            5,
        )];
        let expected: Vec<_> = expected
            .iter()
            .map(|(address, port, inode)| (&**address, *port, *inode))
            .collect();
        for bad in [
            "\n",
            "0: 0100007F\n",
            "0: 0100007F:0050 x 0A\n",
            &line("0100007F:0000", "0A", 1),
            &line("0100007F:10050", "0A", 1),
            &line("+100007F:0050", "0A", 1),
            &line("0100007:0050", "0A", 1),
            &line("\u{e9}\u{e9}\u{e9}\u{e9}:0050", "0A", 1),
            &line("0100007F:0050", "0A", 1).replace(" 1 ", " -1 "),
            &format!("{}\n", "0A ".repeat(100_000)),
        ] {
            check(&format!("{bad}{good}"), &expected);
        }
        let mut bytes = b"\xff\xfe 0A\n".to_vec();
        bytes.extend(good.as_bytes());
        assert_eq!(listening(&*bytes).len(), 1);
    }

    #[test]
    fn neither_a_table_nor_a_line_without_end_fills_the_memory() {
        assert_eq!(listening(std::io::repeat(b'x')), []);
        let endless = line("0100007F:0050", "0A", 5).repeat(2 * MOST_PORTS);
        assert_eq!(listening(endless.as_bytes()).len(), MOST_PORTS + 1);
    }

    #[test]
    fn a_program_is_known_by_its_command_and_its_title_says_no_more() {
        for (line, name) in [
            ("/usr/bin/python3\0-m\0http.server\0", Some("python3")),
            ("node\0server.js\0", Some("node")),
            (
                "nginx: master process nginx -g daemon off;\0",
                Some("nginx"),
            ),
            ("/opt/My App/bin/server\0", Some("server")),
            ("", None),
            ("\0", None),
            ("/\0", None),
            (":\0", None),
        ] {
            let found = command_name(line.as_bytes());
            assert_eq!(found.as_deref(), name.map(str::as_bytes), "{line:?}");
        }
        let long = "x".repeat(4_000);
        assert_eq!(
            command_name(long.as_bytes()).unwrap().len(),
            LONGEST_NAME,
            "no longer than it may be"
        );
    }

    #[test]
    fn the_oldest_process_that_holds_a_socket_names_it() {
        let root = tempfile::tempdir().unwrap();
        let put = |pid: &str, command: &str, files: &[&str]| {
            let process = root.path().join(pid);
            fs::create_dir_all(process.join("fd")).unwrap();
            fs::write(process.join("cmdline"), command).unwrap();
            fs::write(process.join("comm"), format!("{pid}-comm\n")).unwrap();
            for (number, target) in files.iter().enumerate() {
                symlink(target, process.join("fd").join(number.to_string())).unwrap();
            }
        };
        put("100", "child\0", &["socket:[5]"]);
        put(
            "20",
            "parent\0",
            &["/dev/null", "socket:[5]", "socket:[99]"],
        );
        put("30", "", &["socket:[6]", "socket:[x]"]);
        put("self", "not-a-process\0", &["socket:[7]"]);
        let wanted = BTreeMap::from([(5, None), (6, None), (7, None)]);
        let found = find_programs(wanted, root.path());
        assert_eq!(
            found,
            BTreeMap::from([
                (5, Some("parent".to_owned())),
                (6, Some("30-comm".to_owned())),
                (7, None)
            ])
        );
    }

    #[test]
    fn a_real_socket_is_seen_with_its_program_and_gone_when_it_is_closed() {
        let mut looker = Looker::default();
        for address in ["127.0.0.1", "::1", "0.0.0.0"] {
            // A machine without IPv6 has no such socket.
            let Ok(listener) = TcpListener::bind((address, 0)) else {
                continue;
            };
            let place = listener.local_addr().unwrap();
            let mut seen = || {
                let (ports, _) = looker.look();
                ports
                    .into_iter()
                    .find(|port| port.port == place.port() && port.address == place.ip())
            };
            let program = seen().unwrap().process.unwrap();
            assert!(program.starts_with("cove_agent"), "{program}");
            drop(listener);
            assert_eq!(seen(), None);
        }
    }
}
