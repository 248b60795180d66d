//! The network of a session: it has a way out, and none to another session; or it has none at all.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;

use cove_core::error::ErrorCode;
use cove_core::event::{Phase, SessionEvent};
use cove_core::labels;
use cove_core::session::{Network, SessionId, SessionState};
use cove_testbed::{Engine, EngineKind, EngineOptions, Firewall};
use serde_json::{Value, json};

use crate::support::fake_engine::{Act, FakeEngine};
use crate::support::{App, Start, check_failed, check_ready, own_engine};
use crate::terminals::Shell;

/// What a server says to whoever reaches it.
const SECRET: &str = "secret";

/// Starts an engine with a firewall; `None` where none can be, which is then noted.
fn walled(kind: EngineKind) -> Option<Arc<Engine>> {
    let cannot = match kind {
        EngineKind::Docker => Engine::cannot_start(),
        EngineKind::Podman => Engine::cannot_start_podman(),
    };
    if let Some(reason) = cannot {
        cove_testbed::skip(reason);
        return None;
    }
    let options = EngineOptions {
        kind,
        firewall: Firewall::Own,
        ..EngineOptions::default()
    };
    Some(Arc::new(Engine::start_with(options).unwrap()))
}

/// Answers whoever connects, until the test is over; returns the port.
fn serve(address: IpAddr) -> u16 {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else {
                return;
            };
            let mut asked = [0; 64];
            // Whoever goes away in between is not the one that the test is about.
            let _ = connection.read(&mut asked);
            let _ = connection.write_all(SECRET.as_bytes());
        }
    });
    port
}

impl App {
    async fn ready_with(&self, network: &str) -> SessionId {
        let id = self.create_from(&json!({ "workspace_id": "tests", "network": network }));
        check_ready(&self.heard.run(id, 1).await);
        id
    }

    /// Lets the session answer on port 8000 of all its addresses.
    fn serve_in(&self, id: SessionId) {
        self.sh(
            id,
            &format!(
"mkdir -p /tmp/served && echo {SECRET} of {id} > /tmp/served/index.html && busybox httpd -p 8000 -h /tmp/served"
            ),
        );
    }

    /// Returns whether a session reaches the server of the test at this address.
    fn reaches(&self, id: SessionId, address: &str, port: u16) -> bool {
        self.ask(id, address, port).contains(SECRET)
    }

    /// Returns whether a session reaches another, or itself, at this address.
    fn reaches_session(&self, id: SessionId, other: SessionId, address: &str) -> bool {
        self.ask(id, address, 8000)
            .contains(&format!("{SECRET} of {other}"))
    }

    fn ask(&self, id: SessionId, address: &str, port: u16) -> String {
        let script = format!(r"printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 2 {address} {port}");
        self.exec(id, "0", &["sh", "-c", &script]).1
    }

    /// Returns the names of the networks that the session's container is on, with its address on each.
    fn networks_of(&self, id: SessionId) -> Vec<(String, String)> {
        let networks = self.inspect(id)["NetworkSettings"]["Networks"].clone();
        let networks = networks.as_object().unwrap().iter();
        let address = |it: &Value| it["IPAddress"].as_str().unwrap_or_default().to_owned();
        networks
            .map(|(name, network)| (name.clone(), address(network)))
            .collect()
    }

    /// Returns the one network that the session is on, and its address.
    #[track_caller]
    fn network_of(&self, id: SessionId) -> (String, String) {
        let networks = self.networks_of(id);
        let [network] = networks.as_slice() else {
            panic!("{networks:?}");
        };
        assert!(network.0.starts_with("cove-net-"), "{network:?}");
        network.clone()
    }

    /// Returns the addresses that end with the link which the session is on: without a router, and yet ways to others.
    fn link_addresses(&self, id: SessionId) -> Vec<String> {
        let told = self.sh(id, "ip -6 addr show dev eth0 2>/dev/null || true");
        let words: Vec<_> = told.split_whitespace().map(str::to_owned).collect();
        let after = words.iter().zip(words.iter().skip(1));
        after
            .filter(|(word, _)| *word == "inet6")
            .filter_map(|(_, address)| Some(address.split_once('/')?.0.to_owned()))
            .collect()
    }
}

async fn sessions_reach_the_outside_and_not_each_other(engine: Arc<Engine>, usual: &str) {
    let outside = engine.gateway().unwrap();
    let port = serve(outside);
    let app = App::on(&engine);
    let (a, b) = (app.ready(None).await, app.ready(None).await);
    for id in [a, b] {
        app.serve_in(id);
        assert!(app.reaches_session(id, id, "127.0.0.1"), "it serves");
        assert!(
            app.reaches(id, &outside.to_string(), port),
            "there is a way out"
        );
    }
    let check_apart = |from: SessionId, to: SessionId| {
        let (_, address) = app.network_of(to);
        let name = to.resource_name();
        let short: String = to.to_string().chars().take(8).collect();
        let mut ways = vec![address, name.clone(), short];
        ways.extend(app.link_addresses(to).iter().map(|it| format!("{it}%eth0")));
        // Whatever the engine's own name server makes of the name.
        let told = app.exec(from, "0", &["nslookup", &name]).1;
        let told = told
            .split_whitespace()
            .map(|word| word.trim_end_matches(','));
        let told = told.filter(|word| word.parse::<IpAddr>().is_ok());
        ways.extend(told.map(str::to_owned));
        for way in ways {
            assert!(
                !app.reaches_session(from, to, &way),
                "{from} reaches {to} by {way}"
            );
        }
    };
    check_apart(a, b);
    check_apart(b, a);

    // The network is there for whoever starts again, and is as it was.
    app.sessions.stop(b).await.unwrap();
    app.open(b, 2).await;
    app.serve_in(b);
    check_apart(a, b);
    check_apart(b, a);
    app.sessions.rebuild(a, None).await.unwrap();
    check_ready(&app.heard.run(a, 2).await);
    app.serve_in(a);
    check_apart(a, b);
    check_apart(b, a);
    assert!(
        app.reaches(a, &outside.to_string(), port),
        "there is a way out"
    );

    // Where the engine keeps nothing apart, the same two reach each other.
    for id in [a, b] {
        let name = id.resource_name();
        engine
            .docker(&["network", "connect", usual, &name])
            .unwrap();
    }
    for (from, to) in [(a, b), (b, a)] {
        let on_usual = app.networks_of(to).into_iter().find(|it| it.0 == usual);
        assert!(
            app.reaches_session(from, to, &on_usual.unwrap().1),
            "{from} to {to}"
        );
    }

    for id in [a, b] {
        app.sessions.delete(id).await.unwrap();
        app.check_nothing_is_left(id);
    }
    assert_eq!(engine.networks().unwrap(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_reach_the_outside_and_not_each_other_on_docker() {
    let Some(engine) = walled(EngineKind::Docker) else {
        return;
    };
    sessions_reach_the_outside_and_not_each_other(engine, "bridge").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_reach_the_outside_and_not_each_other_on_podman() {
    let Some(engine) = walled(EngineKind::Podman) else {
        return;
    };
    sessions_reach_the_outside_and_not_each_other(engine, "podman").await;
}

/// Podman 4.3 forgets that networks are apart as soon as somebody has them listed by Docker's command.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_start_after_somebody_looked_at_the_networks_are_apart_too_on_podman() {
    let Some(engine) = walled(EngineKind::Podman) else {
        return;
    };
    let app = App::on(&engine);
    let (a, b) = (app.ready(None).await, app.ready(None).await);
    for id in [a, b] {
        app.sessions.stop(id).await.unwrap();
    }
    engine.docker(&["network", "ls"]).unwrap();
    for id in [a, b] {
        app.open(id, 2).await;
        app.serve_in(id);
    }
    for (from, to) in [(a, b), (b, a)] {
        let (_, address) = app.network_of(to);
        assert!(
            !app.reaches_session(from, to, &address),
            "{from} reaches {to}"
        );
    }
}

async fn a_session_without_a_network_reaches_nothing(engine: Arc<Engine>) {
    let outside = engine.gateway().unwrap();
    let port = serve(outside);
    let app = App::on(&engine);
    let other = app.ready(None).await;
    app.serve_in(other);
    assert!(app.reaches(other, &outside.to_string(), port), "it serves");
    let id = app.ready_with("none").await;
    let check = |id| {
        assert_eq!(app.inspect(id)["HostConfig"]["NetworkMode"], "none");
        assert!(!app.reaches(id, &outside.to_string(), port));
        assert!(!app.reaches_session(id, other, &app.network_of(other).1));
        assert_eq!(app.sh(id, "ls /sys/class/net"), "lo");
    };
    check(id);
    // Files and terminals have another way.
    assert!(app.session(id).await.list_dir("/workspace").await.is_ok());
    let shell = Shell::open(&app, id).await;
    shell.type_line("echo he''re").await;
    shell.until_shown("here").await;

    // Whatever becomes of the session, it has none.
    app.sessions.stop(id).await.unwrap();
    app.open(id, 2).await;
    check(id);
    app.sessions.rebuild(id, None).await.unwrap();
    check_ready(&app.heard.run(id, 3).await);
    check(id);
    let copy = app.sessions.duplicate(id, None).await.unwrap();
    app.adopt(copy);
    check_ready(&app.heard.run(copy, 1).await);
    check(copy);
    app.sessions.delete_container(copy).await.unwrap();
    let next = app.again();
    app.leave_to(&next);
    let listed = next.sessions.list().await;
    for session in listed {
        let expected = if session.session_id == other {
            Network::Own
        } else {
            Network::None
        };
        assert_eq!(session.network, expected);
    }
    next.open(copy, 1).await;
    check(copy);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_without_a_network_reaches_nothing_on_docker() {
    let Some(engine) = walled(EngineKind::Docker) else {
        return;
    };
    a_session_without_a_network_reaches_nothing(engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_without_a_network_reaches_nothing_on_podman() {
    let Some(engine) = walled(EngineKind::Podman) else {
        return;
    };
    a_session_without_a_network_reaches_nothing(engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_opens_whatever_became_of_its_network() {
    let Some(engine) = own_engine() else { return };
    let app = App::on(&engine);
    let id = app.ready(None).await;
    let (network, _) = app.network_of(id);
    assert_eq!(engine.networks().unwrap(), [network.as_str()]);
    app.sessions.stop(id).await.unwrap();
    engine.docker(&["network", "rm", &network]).unwrap();
    app.open(id, 2).await;
    let (second, _) = app.network_of(id);
    assert_ne!(second, network);

    // A container of an earlier version is on the network of all, and one of the user's is the user's business.
    app.sessions.stop(id).await.unwrap();
    let name = id.resource_name();
    engine.docker(&["network", "create", "theirs"]).unwrap();
    for (what, network) in [
        ("disconnect", second.as_str()),
        ("connect", "bridge"),
        ("connect", "theirs"),
    ] {
        engine.docker(&["network", what, network, &name]).unwrap();
    }
    engine.docker(&["network", "rm", &second]).unwrap();
    app.open(id, 3).await;
    let mut names: Vec<_> = app.networks_of(id).into_iter().map(|it| it.0).collect();
    names.sort();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(
        names[0].starts_with("cove-net-") && names[1] == "theirs",
        "{names:?}"
    );

    app.sessions.delete(id).await.unwrap();
    assert_eq!(engine.networks().unwrap(), Vec::<String>::new());
    assert!(engine.docker(&["network", "inspect", "theirs"]).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_of_others_are_neither_used_nor_removed() {
    let Some(engine) = own_engine() else { return };
    let icc = "com.docker.network.bridge.enable_icc";
    let shared = format!("{}=shared", labels::NETWORK);
    let create = |name: &str, more: &[&str]| {
        engine
            .docker(&[&["network", "create"], more, &[name]].concat())
            .unwrap();
    };
    // A name of ours without our label, our label on another name, and one of ours that somebody has opened up.
    create("cove-net-0", &["--opt", &format!("{icc}=false")]);
    create(
        "cove",
        &["--label", &shared, "--opt", &format!("{icc}=false")],
    );
    create(
        "cove-net-1",
        &["--label", &shared, "--opt", &format!("{icc}=true")],
    );
    let app = App::on(&engine);
    let id = app.ready(None).await;
    let (network, _) = app.network_of(id);
    assert!(!["cove", "cove-net-0", "cove-net-1"].contains(&network.as_str()));
    let told = engine.docker(&["network", "inspect", &network]).unwrap();
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told[0]["Labels"][labels::NETWORK], "shared");
    assert_eq!(told[0]["Options"][icc], "false");
    assert_eq!(
        (&told[0]["EnableIPv6"], &told[0]["Internal"]),
        (&json!(false), &json!(false))
    );
    app.sessions.delete(id).await.unwrap();
    for theirs in ["cove", "cove-net-0"] {
        assert!(engine.docker(&["network", "inspect", theirs]).is_ok());
    }
    assert!(engine.docker(&["network", "inspect", &network]).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_two_apps_that_come_and_go_at_once_get_networks_and_leave_none() {
    let Some(engine) = own_engine() else { return };
    let apps = [App::on(&engine), App::on(&engine)];
    for round in 0..3 {
        let made: Vec<_> = apps
            .iter()
            .flat_map(|app| [(app, app.create(None)), (app, app.create(None))])
            .collect();
        for (index, (app, id)) in made.iter().enumerate() {
            if (index + round) % 3 == 0 {
                // In whatever phase that is by now.
                app.sessions.cancel(*id).await.unwrap();
            } else {
                check_ready(&app.heard.run(*id, 1).await);
            }
            app.sessions.delete(*id).await.unwrap();
        }
        for (app, id) in made {
            app.until_nothing_is_left(id).await;
        }
        assert_eq!(engine.networks().unwrap(), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_addresses_are_taken_that_is_said_and_a_session_without_a_network_works() {
    let Some(engine) = own_engine() else { return };
    let taken = (0..100).take_while(|number| {
        let name = format!("theirs-{number}");
        engine.docker(&["network", "create", &name]).is_ok()
    });
    let taken = taken.count();
    assert!(taken < 100, "there is an end to them");
    let app = App::on(&engine);
    let (id, run) = app.create_and_wait(None).await;
    let error = check_failed(&run, ErrorCode::NetworkUnavailable, Some("no_addresses"));
    assert!(
        error.hint.contains("`docker network prune`"),
        "{}",
        error.hint
    );
    app.check_nothing_is_left(id);
    app.ready_with("none").await;
    engine.docker(&["network", "rm", "theirs-0"]).unwrap();
    app.open(id, 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_network_that_is_removed_before_the_start_is_made_again() {
    let engine = FakeEngine::new();
    let app = App::over(Arc::clone(&engine), Start::default());
    engine.next(
        "start_container",
        Act::Late(std::time::Duration::from_millis(1)),
    );
    let (seen, mut is_armed) = (Arc::clone(&engine), true);
    app.heard.on_event(move |event| {
        if let SessionEvent::Progress(event) = event
            && event.phase == Phase::StartingContainer
            && std::mem::take(&mut is_armed)
        {
            seen.remove_networks();
        }
    });
    let id = app.ready(None).await;
    assert_eq!(engine.calls("create_network"), 2);
    let network = engine.network_of(&id.resource_name()).unwrap();
    assert!(network.starts_with("cove-net-"));
    app.sessions.delete(id).await.unwrap();
    assert_eq!(engine.networks(), []);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_cannot_keep_containers_apart_has_a_network_for_each_session() {
    let engine = FakeEngine::new();
    engine.separates_nothing();
    let app = App::over(Arc::clone(&engine), Start::default());
    let (a, b) = (app.ready(None).await, app.ready(None).await);
    let network = |id: SessionId| engine.network_of(&id.resource_name()).unwrap();
    assert_ne!(network(a), network(b));
    let of = |id| {
        engine
            .networks()
            .iter()
            .filter(|it| labels::belong_to(it, id))
            .count()
    };
    assert_eq!((of(a), of(b)), (1, 1));
    app.sessions.delete(a).await.unwrap();
    assert_eq!((of(a), of(b)), (0, 1));
    app.sessions.stop(b).await.unwrap();
    app.open(b, 2).await;
    assert_eq!(
        (engine.networks().len(), of(b)),
        (1, 1),
        "the last one is gone"
    );
    app.sessions.delete(b).await.unwrap();
    assert_eq!(engine.networks(), []);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_while_the_network_is_made_leaves_none() {
    let engine = FakeEngine::new();
    let app = App::over(Arc::clone(&engine), Start::default());
    let second = std::time::Duration::from_secs(1);
    for (act, waits) in [
        (Act::Late(second / 10), second / 20),
        (Act::Late(3 * second), second),
        (Act::Lost(second), second / 2),
    ] {
        engine.next("create_network", act);
        let id = app.create(None);
        tokio::time::sleep(waits).await;
        app.sessions.cancel(id).await.unwrap();
        let status = app.sessions.status(id).await.unwrap();
        assert_eq!(status.state, SessionState::Cancelled);
        tokio::time::sleep(60 * second).await;
        assert_eq!(engine.networks(), []);
        assert_eq!(engine.holds(), (0, 0));
        app.sessions.delete(id).await.unwrap();
    }
}
