//! Ports of a session on a real engine: seen, forwarded, and carried whole or broken off.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cove_core::error::ErrorCode;
use cove_core::session::{Port, PortList, SessionId};
use cove_core::settings::Settings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::{App, eventually, note};
use crate::terminals::Shell;

const LONG_ENOUGH: Duration = Duration::from_secs(60);
const SIZE: usize = 200_000_000;

/// Waits until the ports of a session satisfy the look.
async fn until<T>(app: &App, id: SessionId, look: impl Fn(&PortList) -> Option<T>) -> T {
    let mut told = app.heard.ports.subscribe();
    let waiting = async {
        loop {
            told.borrow_and_update();
            if let Some(found) = look(&app.session(id).await.list_ports()) {
                return found;
            }
            told.changed().await.unwrap();
        }
    };
    if let Ok(found) = timeout(LONG_ENOUGH, waiting).await {
        return found;
    }
    panic!("{:?}", app.session(id).await.list_ports());
}

fn port_of(list: &PortList, port: u16) -> Option<&Port> {
    list.ports.iter().find(|known| known.port == port)
}

/// Waits until a port is forwarded, and returns where.
pub(crate) async fn forwarded(app: &App, id: SessionId, port: u16) -> u16 {
    until(app, id, |list| {
        let local = port_of(list, port)?.local.as_ref()?;
        assert_eq!(local.host, "127.0.0.1");
        Some(local.port)
    })
    .await
}

async fn connect(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).await.unwrap()
}

/// Kills the agent's end of the pipe in the session's container.
fn kill_pipe(app: &App, id: SessionId) {
    let script = "for p in /proc/[0-9]*; do case \"$(busybox tr '\\0' ' ' < $p/cmdline)\" in \
        '/.cove/agent connect'*) kill -KILL ${p#/proc/} && echo killed;; esac; done 2> /dev/null";
    assert_eq!(app.sh(id, script), "killed");
}

/// Writes and reads to the end of both halves.
async fn exchange(port: u16, question: &[u8]) -> std::io::Result<Vec<u8>> {
    // One that is broken off at once may be so before it is known to be connected.
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(question).await?;
    let mut answer = Vec::new();
    timeout(LONG_ENOUGH, stream.read_to_end(&mut answer))
        .await
        .unwrap()?;
    Ok(answer)
}

pub(crate) async fn get(port: u16, path: &str) -> std::io::Result<Vec<u8>> {
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    exchange(port, request.as_bytes()).await
}

fn is_reset(answer: &std::io::Result<Vec<u8>>) -> bool {
    let kind = answer.as_ref().err().map(std::io::Error::kind);
    kind == Some(std::io::ErrorKind::ConnectionReset)
}

/// Runs a server as the session's user, which goes on.
pub(crate) fn serve(app: &App, id: SessionId, command: &str) {
    let user = app.sh(id, "stat -c %u:%g /workspace");
    let script = format!("({command}) > /dev/null 2>&1 &");
    let (done, text) = app.exec(id, &user, &["sh", "-c", &script]);
    assert!(done, "{command}: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_seen_and_forwarded_and_gone_when_it_ends() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    let shell = Shell::open(&app, id).await;
    shell
        .type_line("cd /workspace; echo hello > index.html; busybox httpd -f -p 127.0.0.1:18080 &")
        .await;
    let local = forwarded(&app, id, 18_080).await;
    let list = app.session(id).await.list_ports();
    let port = port_of(&list, 18_080).unwrap();
    assert_eq!(
        (port.address.as_deref(), port.process.as_deref()),
        (Some("127.0.0.1"), Some("busybox"))
    );
    let answer = String::from_utf8(get(local, "/").await.unwrap()).unwrap();
    assert!(
        answer.starts_with("HTTP/1.") && answer.ends_with("hello\n"),
        "{answer}"
    );
    shell.type_line("kill %1").await;
    until(&app, id, |list| {
        port_of(list, 18_080).is_none().then_some(())
    })
    .await;
    eventually("the end of the listener", || {
        std::net::TcpStream::connect(("127.0.0.1", local)).err()
    })
    .await;
    // Started anew, it is where it was.
    shell
        .type_line("busybox httpd -f -p 127.0.0.1:18080 &")
        .await;
    assert_eq!(forwarded(&app, id, 18_080).await, local);
    app.sessions.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_half_ends_on_its_own_and_what_is_refused_is_refused() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    // It answers when it has read all: what is asked, is asked by the end of a half.
    serve(&app, id, "busybox nc -l -p 18090 -e sh -c 'cat | wc -c'");
    let local = forwarded(&app, id, 18_090).await;
    let mut stream = connect(local).await;
    let question = vec![b'q'; 3_000_000];
    stream.write_all(&question).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    timeout(LONG_ENOUGH, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(answer.trim(), "3000000");

    // By hand, whether or not anybody listens; nobody does.
    let list = app.session(id).await.forward_port(18_091, None).unwrap();
    let port = port_of(&list, 18_091).unwrap();
    assert_eq!((&port.address, &port.process), (&None, &None));
    let local = port.local.as_ref().unwrap().port;
    let begin = Instant::now();
    let refused = get(local, "/").await;
    assert!(is_reset(&refused), "{refused:?}");
    assert!(
        begin.elapsed() < Duration::from_secs(1),
        "{:?}",
        begin.elapsed()
    );
    app.sessions.shutdown().await;
}

/// Runs a script of the session's shell for each connection to a port, which is its standard input and output.
async fn serve_with(app: &App, id: SessionId, port: u16, script: &str) -> u16 {
    let path = format!("/tmp/serve-{port}");
    app.sh(
        id,
        &format!("cat > {path} << 'END'\n{script}\nEND\nchmod 755 {path}"),
    );
    serve(
        app,
        id,
        &format!("exec busybox nc -ll -p {port} -e bash {path}"),
    );
    forwarded(app, id, port).await
}

/// Reads until this has come, and returns all that has.
async fn read_until(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut came = Vec::new();
    while !came.ends_with(end) {
        let byte = timeout(LONG_ENOUGH, stream.read_u8()).await;
        let byte = byte.unwrap_or_else(|_| panic!("only {:?}", String::from_utf8_lossy(&came)));
        came.push(byte.unwrap());
    }
    came
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_kept_alive_answers_again_and_again() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    // It counts the requests of one connection.
    let server = r"n=0; while read -r line; do [ ${#line} = 1 ] || continue; n=$((n + 1)); \
        printf 'HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 8\r\n\r\nanswer %d' $n; done";
    let local = serve_with(&app, id, 18_170, server).await;
    let mut stream = connect(local).await;
    for number in 1..=5 {
        let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let answer = read_until(&mut stream, format!("answer {number}").as_bytes()).await;
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
    // Two at once are answered in order.
    let twice = b"GET / HTTP/1.1\r\n\r\n".repeat(2);
    stream.write_all(&twice).await.unwrap();
    let answers = read_until(&mut stream, b"answer 7").await;
    assert!(answers.windows(8).any(|part| part == b"answer 6"));
    app.sessions.shutdown().await;
}

/// Answers the handshake of a WebSocket, says hello by itself, and sends each text back, until it is closed.
const WEB_SOCKET: &str = r#"
while read -r line; do
    line=${line%$'\r'}
    case $line in Sec-WebSocket-Key:*) key=${line#*: };; '') break;; esac
done
accept=$(printf %s "${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11" | sha1sum | cut -c 1-40 | xxd -r -p | base64)
printf 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
printf 'Sec-WebSocket-Accept: %s\r\n\r\n\x81\x05hello' "$accept"
take() { dd bs=1 count=$1 2> /dev/null | xxd -p -c 256; }
while head=$(take 2); [ ${#head} = 4 ]; do
    length=$((0x${head:2:2} & 127))
    mask=$(take 4)
    data=$(take $length)
    text=
    for ((at = 0; at < length; at++)); do
        byte=$((0x${data:at * 2:2} ^ 0x${mask:at % 4 * 2:2}))
        text+=$(printf '\\x%02x' $byte)
    done
    case $head in 88*) printf '\x88\x00'; exit;; esac
    printf "\x81\\x$(printf %02x $length)$text"
done"#;

/// Returns a frame as a client sends it.
fn frame(opcode: u8, text: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let masked = text
        .iter()
        .zip(mask.iter().cycle())
        .map(|(byte, mask)| byte ^ mask);
    let head = [0x80 | opcode, 0x80 | u8::try_from(text.len()).unwrap()];
    head.into_iter().chain(mask).chain(masked).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_socket_talks_both_ways() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    let local = serve_with(&app, id, 18_171, WEB_SOCKET).await;
    let mut stream = connect(local).await;
    let request = "GET /chat HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, b"\r\n\r\n").await;
    let answer = String::from_utf8(answer).unwrap();
    // The example of RFC 6455.
    assert!(
        answer.starts_with("HTTP/1.1 101 ")
            && answer.contains("Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        "{answer}"
    );
    // The program speaks first.
    read_until(&mut stream, b"\x81\x05hello").await;
    for text in ["one", "a longer text that goes there and back", "\u{1f980}"] {
        stream.write_all(&frame(1, text.as_bytes())).await.unwrap();
        let mut expected = vec![0x81, u8::try_from(text.len()).unwrap()];
        expected.extend(text.as_bytes());
        assert_eq!(read_until(&mut stream, &expected).await, expected);
    }
    stream.write_all(&frame(8, b"")).await.unwrap();
    let mut rest = Vec::new();
    let ended = timeout(LONG_ENOUGH, stream.read_to_end(&mut rest)).await;
    ended.unwrap().unwrap();
    assert_eq!(rest, b"\x88\x00");
    app.sessions.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_server_arrive_one_by_one() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    // The next one is told only when somebody lets it go on: what is gathered never comes.
    let server = r"while read -r line; do [ ${#line} != 1 ] || break; done
        printf 'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n'
        for n in 1 2 3 4 5; do printf 'data: %d\n\n' $n; until [ -e /tmp/go-$n ]; do sleep 0.05; done; done";
    let local = serve_with(&app, id, 18_172, server).await;
    let mut stream = connect(local).await;
    stream
        .write_all(b"GET /events HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    read_until(&mut stream, b"\r\n\r\n").await;
    for number in 1..=5 {
        let event = format!("data: {number}\n\n");
        let came = read_until(&mut stream, event.as_bytes()).await;
        assert_eq!(String::from_utf8_lossy(&came), event);
        app.sh(id, &format!("touch /tmp/go-{number}"));
    }
    let mut rest = Vec::new();
    let ended = timeout(LONG_ENOUGH, stream.read_to_end(&mut rest)).await;
    ended.unwrap().unwrap();
    assert_eq!(rest, b"");
    app.sessions.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_user_says_holds_and_a_number_that_is_taken_is_an_error() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    serve(&app, id, "cd /workspace; exec busybox httpd -f -p 18100");
    let automatic = forwarded(&app, id, 18_100).await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let wanted = free.local_addr().unwrap().port();
    drop(free);
    let holder = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let held = holder.local_addr().unwrap().port();
    for (port, local, field) in [
        (0, None, "port"),
        (18_100, Some(0), "local_port"),
        (18_100, Some(held), "local_port"),
    ] {
        let report = app
            .session(id)
            .await
            .forward_port(port, local)
            .unwrap_err()
            .report();
        assert_eq!(report.error, ErrorCode::ValidationError);
        assert!(report.details["fields"][field].is_string(), "{report:?}");
    }
    // What was there before is there still.
    get(automatic, "/").await.unwrap();
    let list = app.session(id).await.forward_port(18_100, Some(wanted));
    let list = list.unwrap();
    assert_eq!(
        port_of(&list, 18_100).unwrap().local.as_ref().unwrap().port,
        wanted
    );
    get(wanted, "/").await.unwrap();

    let list = app.connected(id).await.unforward_port(18_100).await;
    assert_eq!(port_of(&list, 18_100).unwrap().local, None);
    // Looked at anew, and not forwarded.
    serve(&app, id, "cd /workspace; exec busybox httpd -f -p 18101");
    forwarded(&app, id, 18_101).await;
    let list = app.session(id).await.list_ports();
    assert_eq!(port_of(&list, 18_100).unwrap().local, None);

    // Set to be so no longer, only what was asked for by hand stays.
    app.session(id).await.forward_port(18_100, None).unwrap();
    let settings = Settings {
        forward_ports: false,
        ..Settings::default()
    };
    app.sessions.set_settings(settings).unwrap();
    until(&app, id, |list| {
        port_of(list, 18_101)?.local.is_none().then_some(())
    })
    .await;
    let list = app.session(id).await.list_ports();
    assert!(port_of(&list, 18_100).unwrap().local.is_some());
    app.sessions.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sessions_on_the_same_port_do_not_collide_and_root_s_is_not_forwarded_unasked() {
    let Some(app) = App::shared() else { return };
    let (one, two) = (app.ready(None).await, app.ready(None).await);
    for (id, name) in [(one, "one"), (two, "two")] {
        app.sh(id, &format!("echo {name} > /workspace/index.html"));
        serve(&app, id, "cd /workspace; exec busybox httpd -f -p 18110");
    }
    let (first, second) = (
        forwarded(&app, one, 18_110).await,
        forwarded(&app, two, 18_110).await,
    );
    assert_ne!(first, second);
    assert!(get(first, "/").await.unwrap().ends_with(b"one\n"));
    assert!(get(second, "/").await.unwrap().ends_with(b"two\n"));
    app.sh(
        two,
        "(cd /workspace; exec busybox httpd -f -p 18111) > /dev/null 2>&1 &",
    );
    let port = until(&app, two, |list| port_of(list, 18_111).cloned()).await;
    assert_eq!((port.process, port.local), (None, None));
    let list = app.session(two).await.forward_port(18_111, None).unwrap();
    let local = port_of(&list, 18_111).unwrap().local.as_ref().unwrap().port;
    assert!(get(local, "/").await.unwrap().ends_with(b"two\n"));
    app.sessions.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_of_ipv6_alone_is_reached() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    // The engine gives a session no IPv6; it has some where the engine's owner wants it so.
    let image = app.inspect(id)["Image"].as_str().unwrap().to_owned();
    let network = format!("container:{}", id.resource_name());
    let enable = "net.ipv6.conf.lo.disable_ipv6=0";
    let helper = ["run", "--rm", "--network", &network, "--sysctl", enable];
    let command = [&helper[..], &["--entrypoint", "true", &image]].concat();
    app.engine().docker(&command).unwrap();
    app.sh(id, "echo six > /workspace/index.html");
    for (place, port) in [("::1", 18_120), ("::", 18_121)] {
        let server = format!("cd /workspace; exec busybox httpd -f -p '[{place}]:{port}'");
        serve(&app, id, &server);
        let local = forwarded(&app, id, port).await;
        let list = app.session(id).await.list_ports();
        let address = port_of(&list, port).unwrap().address.clone();
        assert_eq!(address.as_deref(), Some(place));
        assert!(get(local, "/").await.unwrap().ends_with(b"six\n"));
    }
    app.sessions.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_download_is_whole_while_a_keystroke_echoes_and_fifty_connect_at_once() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    app.sh(
        id,
        &format!("head -c {SIZE} /dev/urandom > /workspace/long"),
    );
    let sum = app.sh(id, "sha256sum /workspace/long | cut -c 1-64");
    app.sh(id, "echo short > /workspace/short");
    serve(&app, id, "cd /workspace; exec busybox httpd -f -p 18130");
    let local = forwarded(&app, id, 18_130).await;
    let shell = Shell::open(&app, id).await;
    shell.type_line("echo a$((1+1))b; cat").await;
    shell.until_shown("a2b").await;

    let begin = Instant::now();
    let download = tokio::spawn(async move { get(local, "/long").await.unwrap() });
    let mut echoes = Vec::new();
    for number in 0.. {
        if download.is_finished() {
            break;
        }
        let begin = Instant::now();
        let text = format!("key{number}.");
        shell.terminal.write(text.as_bytes()).await.unwrap();
        shell.until_shown(&text).await;
        echoes.push(begin.elapsed());
    }
    let taken = begin.elapsed();
    let answer = download.await.unwrap();
    let content = &answer[answer.len() - SIZE..];
    std::fs::write(
        std::env::temp_dir().join(format!("cove-long-{id}")),
        content,
    )
    .unwrap();
    let file = std::env::temp_dir().join(format!("cove-long-{id}"));
    let output = Command::new("sha256sum").arg(&file).output().unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout)[..64], sum);
    echoes.sort();
    let (median, worst) = (echoes[echoes.len() / 2], echoes[echoes.len() - 1]);
    note(&format!(
        "{SIZE} bytes in {taken:?} beside {} keystrokes: median {median:?}, worst {worst:?}",
        echoes.len()
    ));
    assert!(
        echoes.len() >= 3 && median < Duration::from_millis(100),
        "{echoes:?}"
    );

    let mut all = JoinSet::new();
    for _ in 0..50 {
        all.spawn(async move { get(local, "/short").await });
    }
    while let Some(answer) = all.join_next().await {
        assert!(answer.unwrap().unwrap().ends_with(b"short\n"));
    }
    app.sessions.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_ends_what_it_carried_and_ports_work_again() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    app.sh(id, "echo again > /workspace/index.html");
    serve(&app, id, "cd /workspace; exec busybox httpd -f -p 18140");
    serve(&app, id, "busybox nc -l -p 18141 -e cat");
    let local = forwarded(&app, id, 18_140).await;
    let echo = forwarded(&app, id, 18_141).await;
    app.connected(id).await.unforward_port(18_140).await;
    let list = app.session(id).await.forward_port(18_140, Some(local));
    list.unwrap();
    let mut open = connect(echo).await;
    open.write_all(b"x").await.unwrap();
    assert_eq!(open.read_u8().await.unwrap(), b'x');
    kill_pipe(&app, id);
    let broken = timeout(LONG_ENOUGH, open.read_u8()).await.unwrap();
    assert_eq!(
        broken.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionReset
    );
    // It waits for the next connection to the agent by itself.
    assert!(get(local, "/").await.unwrap().ends_with(b"again\n"));
    // And ports are heard of again.
    serve(&app, id, "cd /workspace; exec busybox httpd -f -p 18142");
    forwarded(&app, id, 18_142).await;
    app.sessions.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_end_with_their_session_and_wait_while_it_is_paused() {
    let Some(app) = App::shared() else { return };
    crate::following::follow(&app).await;
    let (stopped, deleted) = (app.ready(None).await, app.ready(None).await);
    let mut places = BTreeSet::new();
    for id in [stopped, deleted] {
        app.sh(id, "echo there > /workspace/index.html");
        serve(&app, id, "cd /workspace; exec busybox httpd -f -p 18150");
        places.insert(forwarded(&app, id, 18_150).await);
    }
    assert_eq!(places.len(), 2);

    let local = forwarded(&app, stopped, 18_150).await;
    app.engine()
        .docker(&["pause", &stopped.resource_name()])
        .unwrap();
    let is_paused = crate::following::is(cove_core::session::SessionState::Paused, true);
    crate::following::until_shown(&app, stopped, is_paused).await;
    let refused = app.sessions.ready(stopped).await.err().unwrap();
    assert_eq!(refused.code(), ErrorCode::SessionNotReady);
    let waiting = tokio::spawn(get_owned(local));
    app.engine()
        .docker(&["unpause", &stopped.resource_name()])
        .unwrap();
    assert!(waiting.await.unwrap().unwrap().ends_with(b"there\n"));

    app.sessions.stop(stopped).await.unwrap();
    app.sessions.delete(deleted).await.unwrap();
    for place in places {
        eventually("the end of the listener", || {
            std::net::TcpStream::connect(("127.0.0.1", place)).err()
        })
        .await;
    }
    let refused = app.sessions.ready(stopped).await.err();
    assert_eq!(refused.unwrap().code(), ErrorCode::SessionNotReady);
    app.sessions.shutdown().await;
}

async fn get_owned(port: u16) -> std::io::Result<Vec<u8>> {
    get(port, "/").await
}

/// How much slower and later it is than a port that the engine publishes: figures for the log, and a bound that tells a
/// defect from a slow machine.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_not_much_slower_than_a_published_port() {
    let Some(app) = App::shared() else { return };
    let app = Arc::new(app);
    let id = app.ready(None).await;
    let image = app.inspect(id)["Config"]["Image"]
        .as_str()
        .unwrap()
        .to_owned();
    let fill = format!("head -c {SIZE} /dev/zero > /tmp/long; echo short > /tmp/short; cd /tmp");
    let name = format!("published-{id}");
    let publish = [
        "run",
        "--detach",
        "--name",
        &name,
        "--user",
        "0",
        "-p",
        "127.0.0.1::80",
    ];
    let script = format!("{fill}; exec busybox httpd -f -p 80");
    let command = ["--entrypoint", "sh", &image, "-c", &script];
    app.engine()
        .docker(&[&publish[..], &command].concat())
        .unwrap();
    let published = app.engine().docker(&["port", &name, "80/tcp"]).unwrap();
    let published: u16 = published
        .trim()
        .rsplit(':')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    app.sh(id, &fill);
    serve(&app, id, "cd /tmp; exec busybox httpd -f -p 18160");
    let forwarded = forwarded(&app, id, 18_160).await;
    // Until the other has made its file.
    while !matches!(get(published, "/short").await, Ok(answer) if answer.ends_with(b"short\n")) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut rates = [Vec::new(), Vec::new()];
    let mut delays = [Vec::new(), Vec::new()];
    for _ in 0..3 {
        for (place, port) in [published, forwarded].into_iter().enumerate() {
            let begin = Instant::now();
            let answer = get(port, "/long").await.unwrap();
            assert!(answer.len() > SIZE);
            rates[place].push(u128::try_from(SIZE).unwrap() / begin.elapsed().as_micros());
            for _ in 0..50 {
                let begin = Instant::now();
                get(port, "/short").await.unwrap();
                delays[place].push(begin.elapsed());
            }
        }
    }
    let _ = app.engine().docker(&["rm", "--force", &name]);
    for place in [0, 1] {
        rates[place].sort_unstable();
        delays[place].sort_unstable();
    }
    let (rate, delay) = (
        rates.map(|of| of[of.len() / 2]),
        delays.map(|of| of[of.len() / 2]),
    );
    note(&format!(
        "published {} MB/s, {:?} to connect, ask and end; forwarded {} MB/s, {:?}",
        rate[0], delay[0], rate[1], delay[1]
    ));
    assert!(rate[1] * 20 > rate[0], "{rate:?}");
    assert!(delay[1] < delay[0] + Duration::from_millis(50), "{delay:?}");
    app.sessions.shutdown().await;
}
