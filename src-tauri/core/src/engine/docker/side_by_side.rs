//! The user's configuration as Cove reads it beside what the `docker` command makes of it, on a real engine.

#![cfg(unix)]

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use base64::Engine as _;

use cove_testbed::{Certificates, Engine, EngineOptions, Registry, TestImage};

use super::client_config::ClientConfig;
use super::connection::{connect_to, probe};
use super::endpoints;
use crate::engine::Credential;
use crate::error::EngineReason;

/// Variables of the environment.
type Variables<'a> = &'a [(&'a str, &'a str)];

/// Returns whether `docker` reaches an engine with these variables.
fn docker_reaches(variables: Variables<'_>, home: &Path) -> bool {
    let mut command = Command::new("docker");
    command
        .args(["version", "--format", "{{.Server.Version}}"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .envs(variables.iter().copied())
        .stdin(Stdio::null());
    command.output().unwrap().status.success()
}

/// Returns why Cove does not reach the engine that the same variables name.
async fn cove_reaches(variables: Variables<'_>, home: &Path) -> Result<(), EngineReason> {
    let environment = |name: &str| {
        let mut known = variables.iter().filter(|(known, _)| *known == name);
        known
            .next()
            .map(|(_, value)| (*value).to_owned())
            .filter(|value| !value.is_empty())
    };
    let first = endpoints::from(&environment, Some(home)).swap_remove(0);
    let outcome = probe(&first).await;
    outcome.map(drop).map_err(|problem| problem.reason)
}

async fn check(variables: Variables<'_>, home: &Path, expected: Result<(), EngineReason>) {
    let reached = cove_reaches(variables, home).await;
    assert_eq!(reached, expected, "{variables:?}");
    assert_eq!(
        docker_reaches(variables, home),
        expected.is_ok(),
        "docker with {variables:?}"
    );
}

/// Carries a TCP port of this machine to a socket for as long as the test runs, and returns the port.
fn port_to(socket: PathBuf) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let engine = UnixStream::connect(&socket).unwrap();
            carry(client, engine);
        }
    });
    port
}

fn carry(client: TcpStream, engine: UnixStream) {
    let (mut from, mut to) = (client.try_clone().unwrap(), engine.try_clone().unwrap());
    thread::spawn(move || io::copy(&mut from, &mut to));
    let (mut from, mut to) = (engine, client);
    thread::spawn(move || io::copy(&mut from, &mut to));
}

fn write(path: &Path, content: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

#[tokio::test]
async fn an_engine_is_reached_where_docker_reaches_it_and_nowhere_else() {
    let Some(engine) = Engine::from_env_or_skip() else {
        return;
    };
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let port = port_to(engine.socket().to_owned());
    let socket = engine.host().to_owned();
    let path = engine.socket().display().to_string();
    let bad = Err(EngineReason::BadAddress);
    for (host, expected) in [
        (socket.clone(), Ok(())),
        (format!("  {socket}\n"), Ok(())),
        (format!("tcp://127.0.0.1:{port}"), Ok(())),
        (format!("127.0.0.1:{port}"), Ok(())),
        (format!("localhost:{port}"), Ok(())),
        (format!(":{port}"), Ok(())),
        (format!("tcp://127.0.0.1:{port}/"), Ok(())),
        (path.clone(), bad),
        (format!("unix:{path}"), bad),
        (format!("http://127.0.0.1:{port}"), bad),
        (format!("foo://127.0.0.1:{port}"), bad),
        ("tcp://127.0.0.1:port".to_owned(), bad),
        (
            "tcp://127.0.0.1:1".to_owned(),
            Err(EngineReason::Unreachable),
        ),
        (
            "tcp://no-such-host.invalid:1".to_owned(),
            Err(EngineReason::Unreachable),
        ),
        (
            "unix:///nowhere/docker.sock".to_owned(),
            Err(EngineReason::Unreachable),
        ),
        (
            "ssh://nobody@127.0.0.1:1".to_owned(),
            Err(EngineReason::UnsupportedAddress),
        ),
    ] {
        check(&[("DOCKER_HOST", &host)], home, expected).await;
    }

    let config = home.join(".docker");
    let context = |name: &str, host: &str| {
        // `docker` looks a context up by the digest of its name, and makes it so itself.
        let made = Command::new("docker")
            .args(["context", "create", name, "--docker"])
            .arg(format!("host={host}"))
            .env("HOME", home)
            .output();
        assert!(made.unwrap().status.success());
    };
    context("here", &socket);
    context("far", &format!("tcp://127.0.0.1:{port}"));
    for (name, expected) in [
        ("here", Ok(())),
        ("far", Ok(())),
        ("nope", Err(EngineReason::NoContext)),
    ] {
        check(&[("DOCKER_CONTEXT", name)], home, expected).await;
        let current = format!(r#"{{"currentContext":"{name}"}}"#);
        write(&config.join("config.json"), &current);
        check(&[("DOCKER_CONFIG", "")], home, expected).await;
        check(
            &[("DOCKER_HOST", &socket), ("DOCKER_CONTEXT", name)],
            home,
            Ok(()),
        )
        .await;
    }
}

#[tokio::test]
async fn an_engine_over_tls_is_reached_with_what_docker_reaches_it_and_named_when_not() {
    if let Some(reason) = Engine::cannot_start() {
        cove_testbed::skip(reason);
        return;
    }
    let certificates = Certificates::new(&["localhost", "127.0.0.1"]).unwrap();
    let strangers = Certificates::new(&["localhost", "127.0.0.1"]).unwrap();
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .unwrap()
        .port();
    let own = certificates.engine();
    let arguments = [
        "--tlsverify".to_owned(),
        format!("--tlscacert={}", own.join("ca.pem").display()),
        format!("--tlscert={}", own.join("cert.pem").display()),
        format!("--tlskey={}", own.join("key.pem").display()),
        format!("--host=tcp://127.0.0.1:{port}"),
        format!("--host=tcp://127.0.0.2:{port}"),
    ];
    let engine = Engine::start_with(EngineOptions {
        arguments: arguments.map(|it| &*it.leak()).to_vec(),
        ..EngineOptions::default()
    })
    .unwrap();

    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let host = format!("tcp://127.0.0.1:{port}");
    let host = ("DOCKER_HOST", host.as_str());
    let elsewhere = format!("tcp://127.0.0.2:{port}");
    let user = certificates.user().display().to_string();
    let path = ("DOCKER_CERT_PATH", user.as_str());
    let stranger = strangers.user().display().to_string();
    let authority_alone = home.join("authority");
    write(
        &authority_alone.join("ca.pem"),
        &std::fs::read_to_string(certificates.user().join("ca.pem")).unwrap(),
    );
    let nameless = authority_alone.display().to_string();
    let verify = ("DOCKER_TLS_VERIFY", "1");
    let refused = Err(EngineReason::Tls);
    check(&[host, path, verify], home, Ok(())).await;
    check(&[host, path, ("DOCKER_TLS", "1")], home, Ok(())).await;
    check(&[host, path], home, refused).await;
    check(&[host, verify], home, refused).await;
    check(
        &[host, verify, ("DOCKER_CERT_PATH", &stranger)],
        home,
        refused,
    )
    .await;
    check(
        &[host, verify, ("DOCKER_CERT_PATH", &nameless)],
        home,
        refused,
    )
    .await;
    check(&[("DOCKER_HOST", &elsewhere), path, verify], home, refused).await;
    check(
        &[("DOCKER_HOST", &elsewhere), path, ("DOCKER_TLS", "1")],
        home,
        Ok(()),
    )
    .await;

    check_contexts(home, host.1, &elsewhere, &user, &stranger).await;

    // What is attached to goes both ways over the same connection.
    engine
        .load(&TestImage::Tiny.build().unwrap(), "tiny:1")
        .unwrap();
    let container = engine
        .docker(&[
            "run",
            "--detach",
            "--interactive",
            "--entrypoint",
            "/bin/cat",
            "tiny:1",
        ])
        .unwrap();
    let place = endpoints::from(
        &|name| (name == "DOCKER_CONTEXT").then(|| "known".to_owned()),
        Some(home),
    )
    .swap_remove(0);
    let (engine, _) = connect_to(&place).await.unwrap();
    let said = echo(&engine.client(), &container).await;
    assert_eq!(said, b"ahoy");
}

/// Holds contexts with TLS material, and without, against `docker`.
async fn check_contexts(home: &Path, host: &str, elsewhere: &str, user: &str, stranger: &str) {
    let refused = Err(EngineReason::Tls);
    let context = |name: &str, settings: &str| {
        let made = Command::new("docker")
            .args(["context", "create", name, "--docker", settings])
            .env("HOME", home)
            .output();
        assert!(made.unwrap().status.success());
    };
    let files =
        |folder: &str| format!("ca={folder}/ca.pem,cert={folder}/cert.pem,key={folder}/key.pem");
    context("known", &format!("host={host},{}", files(user)));
    context("stranger", &format!("host={host},{}", files(stranger)));
    context("plain", &format!("host={host}"));
    context(
        "careless",
        &format!("host={elsewhere},{},skip-tls-verify=true", files(user)),
    );
    for (name, expected) in [
        ("known", Ok(())),
        ("stranger", refused),
        ("plain", refused),
        ("careless", Ok(())),
    ] {
        check(&[("DOCKER_CONTEXT", name)], home, expected).await;
    }
}

/// Has `cat` in a container say what it is told.
async fn echo(client: &bollard::Docker, container: &str) -> Vec<u8> {
    use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
    use futures_util::StreamExt as _;
    use tokio::io::AsyncWriteExt as _;

    let options = CreateExecOptions {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        cmd: Some(vec!["/bin/cat".to_owned()]),
        ..CreateExecOptions::default()
    };
    let exec = client.create_exec(container, options).await.unwrap();
    let started = client
        .start_exec(&exec.id, None::<StartExecOptions>)
        .await
        .unwrap();
    let StartExecResults::Attached {
        mut output,
        mut input,
    } = started
    else {
        panic!("the engine did not attach to the command")
    };
    input.write_all(b"ahoy").await.unwrap();
    input.flush().await.unwrap();
    let mut said = Vec::new();
    while said.len() < 4 {
        said.extend(output.next().await.unwrap().unwrap().into_bytes());
    }
    said
}

#[test]
fn containers_get_the_proxies_that_docker_run_gives_them() {
    let Some(engine) = Engine::from_env_or_skip() else {
        return;
    };
    engine
        .load(&TestImage::Tiny.build().unwrap(), "cove-proxies:1")
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let whole = r#"{"httpProxy":"http://p:1","httpsProxy":"http://p:2","noProxy":"a,*.b","ftpProxy":"f:3","allProxy":"s:4"}"#;
    for content in [
        format!(r#"{{"proxies":{{"default":{whole}}}}}"#),
        format!(
            r#"{{"proxies":{{"default":{{"httpProxy":"http://no"}},"{}":{whole}}}}}"#,
            engine.host()
        ),
        r#"{"proxies":{"default":{"httpProxy":"http://p:1","noProxy":""}}}"#.to_owned(),
        r#"{"proxies":{"tcp://other:1":{"httpProxy":"http://p:1"}}}"#.to_owned(),
        "{}".to_owned(),
    ] {
        write(&folder.path().join("config.json"), &content);
        let docker = |arguments: &[&str]| {
            let output = engine
                .command()
                .env("DOCKER_CONFIG", folder.path())
                .args(arguments)
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        let container = docker(&["create", "cove-proxies:1", "/bin/true"]);
        let environment = docker(&["inspect", "--format", "{{json .Config.Env}}", &container]);
        docker(&["rm", &container]);
        let given: Vec<String> = serde_json::from_str(&environment).unwrap();
        let mut given: Vec<_> = given
            .into_iter()
            .filter(|it| it.to_lowercase().contains("_proxy="))
            .collect();
        given.sort();
        let read = ClientConfig::read(folder.path()).unwrap();
        assert_eq!(read.proxies(engine.host()), given, "{content}");
    }
}

#[test]
fn credentials_are_found_wherever_docker_finds_them() {
    let (Some(engine), Some(registry)) = (Engine::from_env_or_skip(), Registry::private_from_env())
    else {
        return;
    };
    let host = registry.address();
    let user = registry.credentials().unwrap();
    let image = registry.reference(TestImage::Private);
    let folder = tempfile::tempdir().unwrap();
    let auth = base64::engine::general_purpose::STANDARD
        .encode(format!("{}:{}", user.username, user.password));
    let unpadded = auth.trim_end_matches('=').to_owned();
    let entry = |key: &str| format!(r#"{{"auths":{{"{key}":{{"auth":"{auth}"}}}}}}"#);
    let (name, word) = (user.username, user.password);
    // What `docker` makes of each, and what Cove does: an entry that makes no sense costs only itself.
    // There `docker` gives up on the entries that it has not read yet, in an order that differs from time to time.
    for (content, docker_finds, cove_finds) in [
        (entry(host), Some(true), true),
        (entry(&format!("{host}/")), Some(true), true),
        (entry(&format!("{host}/v2/")), Some(true), true),
        (entry(&format!("{host}/trial")), Some(true), true),
        (entry(&format!("http://{host}")), Some(true), true),
        (entry(&format!("https://{host}/v1/")), Some(true), true),
        (entry(&format!("ftp://{host}")), Some(true), true),
        (entry("127.0.0.1"), Some(false), false),
        (entry("other.test"), Some(false), false),
        (
            format!(r#"{{"auths":{{"other":null,"{host}":{{"auth":"{auth}"}}}}}}"#),
            Some(true),
            true,
        ),
        (
            format!(r#"{{"auths":{{"{host}":{{"username":"{name}","password":"{word}"}}}}}}"#),
            Some(true),
            true,
        ),
        (
            format!(r#"{{"Auths":{{"{host}":{{"Auth":"{auth}"}}}}}}"#),
            Some(true),
            true,
        ),
        (
            format!(r#"{{"auths":{{"odd":{{"auth":"%"}},"{host}":{{"auth":"{auth}"}}}}}}"#),
            None,
            true,
        ),
        (
            format!(r#"{{"auths":{{"{host}":{{"auth":"{unpadded}"}}}}}}"#),
            Some(unpadded == auth),
            true,
        ),
        (String::new(), Some(false), false),
        ("{}".to_owned(), Some(false), false),
    ] {
        write(&folder.path().join("config.json"), &content);
        let pulled = engine
            .command()
            .env("DOCKER_CONFIG", folder.path())
            .args(["pull", "--quiet", &image])
            .output()
            .unwrap();
        if let Some(finds) = docker_finds {
            assert_eq!(pulled.status.success(), finds, "docker with {content}");
        }
        let read = ClientConfig::read(folder.path()).unwrap();
        let found = read.credential_for(host).unwrap_or_default();
        let expected = cove_finds.then(|| Credential::Password {
            server: host.to_owned(),
            username: name.to_owned(),
            password: word.to_owned(),
        });
        assert_eq!(found, expected, "{content}");
    }
}
