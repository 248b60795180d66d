//! The test bed itself, on a real engine and a real registry of its own.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use std::time::{Duration, Instant};

use cove_testbed::{
    DiskSize, Engine, EngineFault, EngineOptions, EngineProxy, FaultyRegistry, Proxy, Registry,
    RegistryOptions, SmallDisk, Target, TestImage, skip,
};

fn engine_or_skip() -> Option<Engine> {
    if let Some(reason) = Engine::cannot_start() {
        skip(reason);
        return None;
    }
    Some(Engine::start().unwrap())
}

#[test]
fn an_engine_keeps_its_data_over_a_restart_and_a_crash() {
    let Some(engine) = engine_or_skip() else {
        return;
    };
    assert!(engine.docker(&["version"]).unwrap().contains("Server"));
    engine
        .docker(&[
            "volume",
            "create",
            "--label",
            "dev.cove.session=abc",
            "kept",
        ])
        .unwrap();

    engine.restart().unwrap();
    assert_eq!(engine.resources_of("abc").unwrap().volumes, ["kept"]);

    engine.kill().unwrap();
    assert!(!engine.answers());
    engine.start_again().unwrap();
    assert_eq!(engine.resources_of("abc").unwrap().volumes, ["kept"]);
    assert!(engine.resources_of("other").unwrap().is_empty());
}

#[test]
fn every_test_image_is_pulled_as_it_was_made() {
    let Some(engine) = engine_or_skip() else {
        return;
    };
    let registry = Registry::start_with_images(RegistryOptions::default()).unwrap();
    for image in TestImage::ALL {
        let name = registry.reference(image);
        let pulled = engine.docker(&["pull", "--quiet", &name]);
        if image == TestImage::WrongArch {
            let said = pulled.unwrap_err().to_string();
            assert!(said.contains("no matching manifest"), "{said}");
        } else {
            pulled.unwrap();
            let id = engine
                .docker(&["images", "--quiet", "--no-trunc", &name])
                .unwrap();
            assert_eq!(id, image.build().unwrap().id(), "{image:?}");
        }
        assert!(!registry.requests_for(image).is_empty(), "{image:?}");
    }
    let run = |image, command: &[&str]| {
        let name = registry.reference(image);
        engine.docker(&[&["run", "--rm", &name], command].concat())
    };
    assert_eq!(run(TestImage::NonRoot, &["id", "-u"]).unwrap(), "1234");
    assert_eq!(run(TestImage::NamedUser, &["id", "-un"]).unwrap(), "app");
    assert_eq!(run(TestImage::Exits, &[]).unwrap(), "");
    assert!(run(TestImage::BadEntrypoint, &[]).is_err());
    assert!(
        run(TestImage::FailingEntrypoint, &[])
            .unwrap_err()
            .to_string()
            .contains("refused")
    );
    let waiting = engine
        .docker(&[
            "run",
            "--detach",
            &registry.reference(TestImage::StaticOnly),
        ])
        .unwrap();
    let state = engine
        .docker(&["inspect", "--format", "{{.State.Status}}", &waiting])
        .unwrap();
    assert_eq!(state, "running");
}

#[test]
fn a_published_port_answers_on_loopback() {
    let Some(engine) = engine_or_skip() else {
        return;
    };
    let name = "cove.test/tiny:1";
    engine
        .load(&TestImage::Tiny.build().unwrap(), name)
        .unwrap();
    let serve = ["nc", "-ll", "-p", "8000", "-e", "echo", "ahoy"];
    let id = engine
        .docker(
            &[
                &["run", "--detach", "--publish", "127.0.0.1::8000", name],
                &serve[..],
            ]
            .concat(),
        )
        .unwrap();
    let address = engine.docker(&["port", &id, "8000/tcp"]).unwrap();
    let start = Instant::now();
    let mut answer = String::new();
    while answer.is_empty() && start.elapsed() < Duration::from_secs(10) {
        if let Ok(mut stream) = std::net::TcpStream::connect(&address) {
            // The container's program may not listen yet: then nothing comes and it is asked again.
            let _ = std::io::Read::read_to_string(&mut stream, &mut answer);
        }
    }
    assert_eq!(answer.trim(), "ahoy");
}

#[test]
fn a_registry_with_a_password_lets_only_its_user_in() {
    let Some(engine) = engine_or_skip() else {
        return;
    };
    let registry = Registry::start(RegistryOptions { password: true }).unwrap();
    registry.publish(TestImage::Private).unwrap();
    let name = registry.reference(TestImage::Private);
    let refused = engine.docker(&["pull", &name]).unwrap_err().to_string();
    assert!(refused.contains("no basic auth credentials"), "{refused}");

    let user = registry.credentials().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let login = [
        "login",
        registry.address(),
        "-u",
        user.username,
        "-p",
        user.password,
    ];
    for arguments in [&login[..], &["pull", &name]] {
        let output = engine
            .command()
            .env("DOCKER_CONFIG", folder.path())
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn a_registry_can_stop_and_an_image_can_appear_and_vanish() {
    let Some(engine) = engine_or_skip() else {
        return;
    };
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    let name = registry.reference(TestImage::Tiny);
    let missing = engine.docker(&["pull", &name]).unwrap_err().to_string();
    assert!(
        missing.contains("not found") || missing.contains("unknown"),
        "{missing}"
    );

    registry.publish(TestImage::Tiny).unwrap();
    engine.docker(&["pull", &name]).unwrap();
    engine.remove_image(&name).unwrap();
    assert!(!engine.has_image(&name).unwrap());

    registry.stop();
    assert!(
        engine
            .docker(&["pull", &name])
            .unwrap_err()
            .to_string()
            .contains("refused")
    );
    registry.start_again().unwrap();
    engine.docker(&["pull", &name]).unwrap();
    engine.remove_image(&name).unwrap();

    registry.withdraw(TestImage::Tiny.repository()).unwrap();
    assert!(engine.docker(&["pull", &name]).is_err());
}

#[test]
fn a_throttled_pull_takes_its_time() {
    let Some(engine) = engine_or_skip() else {
        return;
    };
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    registry.publish(TestImage::Layers).unwrap();
    let proxy = Proxy::start(registry.address()).unwrap();
    let name = format!("{}/{}", proxy.address(), TestImage::Layers.repository());
    proxy.set_rate(20 << 20);
    let start = Instant::now();
    engine.docker(&["pull", "--quiet", &name]).unwrap();
    let took = start.elapsed();
    assert!(took > Duration::from_millis(1900), "{took:?}");
}

#[test]
fn a_line_to_an_engine_carries_pulls_terminals_and_events_and_can_be_cut() {
    let Some(engine) = engine_or_skip() else {
        return;
    };
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    registry.publish(TestImage::Tiny).unwrap();
    let name = registry.reference(TestImage::Tiny);
    let line = EngineProxy::start(engine.socket()).unwrap();
    let command = || {
        let mut command = std::process::Command::new("docker");
        command.args(["--host", &line.address()]);
        command
    };
    let docker = |arguments: &[&str]| {
        let output = command().args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(said)
        }
    };
    docker(&["pull", "--quiet", &name]).unwrap();
    docker(&["run", "--detach", "--name", "one", &name]).unwrap();
    let mut shell = command()
        .args(["exec", "--interactive", "one", "cat"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let typed = vec![b'x'; 300_000];
    let mut stdin = shell.stdin.take().unwrap();
    let sent = typed.clone();
    let typing = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &sent));
    assert_eq!(shell.wait_with_output().unwrap().stdout, typed);
    typing.join().unwrap().unwrap();

    let mut events = command()
        .args([
            "events",
            "--filter",
            "container=one",
            "--filter",
            "event=die",
        ])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    while !line.requests().iter().any(|it| it.contains("/events")) {
        std::thread::yield_now();
    }
    docker(&["rm", "--force", "one"]).unwrap();
    let mut told = String::new();
    let stdout = events.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut told).unwrap();
    assert!(told.contains("container die"), "{told}");
    line.cut();
    events.wait().unwrap();

    let target = Target::request("POST", "/containers/create");
    line.strike(target, EngineFault::CutAfter);
    docker(&["create", "--name", "two", &name]).unwrap_err();
    assert!(line.calm().unwrap().contains("name=two"));
    let made = engine.docker(&["inspect", "--format", "{{.State.Status}}", "two"]);
    assert_eq!(made.unwrap(), "created");
}

#[test]
fn an_engine_does_not_trust_a_registry_of_unknown_make() {
    let Some(engine) = engine_or_skip() else {
        return;
    };
    let registry = Registry::start(RegistryOptions::default()).unwrap();
    registry.publish(TestImage::Tiny).unwrap();
    let gateway = engine.gateway().unwrap();
    let faulty = FaultyRegistry::start_with_tls(registry.address(), gateway).unwrap();
    let name = format!("{}/tiny", faulty.address());
    let said = engine.docker(&["pull", &name]).unwrap_err().to_string();
    assert!(said.contains("x509"), "{said}");
    let faulty = FaultyRegistry::start(registry.address()).unwrap();
    let name = format!("{}/tiny", faulty.address());
    engine.docker(&["pull", "--quiet", &name]).unwrap();
}

#[test]
fn an_engine_on_a_small_disk_runs_out_of_room_and_has_some_again() {
    let Some(reason) = Engine::cannot_start().or_else(SmallDisk::cannot_mount) else {
        let size = DiskSize {
            megabytes: 64,
            inodes: None,
        };
        let disk = SmallDisk::new(size).unwrap();
        let engine = Engine::start_with(EngineOptions {
            data: Some(disk.path().to_owned()),
            ..EngineOptions::default()
        });
        let engine = engine.unwrap();
        let image = TestImage::Tiny.build().unwrap();
        disk.fill(500_000).unwrap();
        let said = engine
            .load(&image, "cove.test/tiny:1")
            .unwrap_err()
            .to_string();
        assert!(said.contains("no space left on device"), "{said}");
        disk.free().unwrap();
        engine.load(&image, "cove.test/tiny:1").unwrap();
        return;
    };
    skip(reason);
}
