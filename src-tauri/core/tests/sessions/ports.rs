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
async fn forwarded(app: &App, id: SessionId, port: u16) -> u16 {
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

async fn get(port: u16, path: &str) -> std::io::Result<Vec<u8>> {
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    exchange(port, request.as_bytes()).await
}

fn is_reset(answer: &std::io::Result<Vec<u8>>) -> bool {
    let kind = answer.as_ref().err().map(std::io::Error::kind);
    kind == Some(std::io::ErrorKind::ConnectionReset)
}

/// Runs a server as the session's user, which goes on.
fn serve(app: &App, id: SessionId, command: &str) {
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
    // Where the engine gives no IPv6, there is none of this family.
    let has_address = app
        .exec(id, "0", &["grep", "-q", "lo$", "/proc/net/if_inet6"])
        .0;
    app.sh(id, "echo six > /workspace/index.html");
    let place = if has_address {
        "[::1]:18120"
    } else {
        "[::]:18120"
    };
    serve(
        &app,
        id,
        &format!("cd /workspace; exec busybox httpd -f -p '{place}'"),
    );
    let local = forwarded(&app, id, 18_120).await;
    let list = app.session(id).await.list_ports();
    let address = port_of(&list, 18_120).unwrap().address.clone();
    note(&format!("the listener of IPv6 is at {address:?}"));
    assert!(address.unwrap().contains("::"));
    assert!(get(local, "/").await.unwrap().ends_with(b"six\n"));
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
