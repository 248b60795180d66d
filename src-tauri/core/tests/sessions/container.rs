//! What a session is on the engine: its container, its volume, and how it is fenced in.

use std::sync::Arc;

use cove_core::error::Error;
use cove_core::event::SessionEvent;
use cove_core::session::SessionId;
use cove_core::settings::Settings;
use serde_json::{Value, json};

use crate::support::{App, Start, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_fenced_in_and_labelled() {
    let Some(engine) = cove_testbed::Engine::from_env_or_skip() else {
        return;
    };
    let settings = Settings {
        cpu_limit: Some(0.5),
        memory_limit_mb: Some(64),
        pids_limit: 100,
        ..Settings::default()
    };
    let app = App::with(
        &Arc::new(engine),
        Start {
            settings,
            ..Start::default()
        },
    );
    let id = app.create_from(&json!({
        "workspace_id": "shop",
        "project_name": "Web API",
        "description": "two\nlines",
    }));
    crate::support::check_ready(&app.heard.run(id, 1).await);
    let name = id.resource_name();
    let found = app.inspect(id);

    assert_eq!(found["Name"], format!("/{name}"));
    assert_eq!(found["Path"], "/.cove/agent");
    let config = &found["Config"];
    assert_eq!(config["WorkingDir"], "/workspace");
    assert_eq!(config["User"], "0:0");
    assert_eq!(config["Hostname"], "web-api");
    let host = &found["HostConfig"];
    assert_eq!(host["SecurityOpt"], json!(["no-new-privileges"]));
    assert_eq!(host["PidsLimit"], 100);
    assert_eq!(host["NanoCpus"], 500_000_000);
    assert_eq!(host["Memory"], 64 << 20);
    assert_eq!(host["Privileged"], false);
    assert_eq!(host["CapAdd"], Value::Null);
    assert_eq!(found["NetworkSettings"]["Ports"], json!({}));
    assert!(
        host["PortBindings"]
            .as_object()
            .is_none_or(serde_json::Map::is_empty)
    );
    let network = host["NetworkMode"].as_str().unwrap();
    assert!(network.starts_with("cove-net-"), "{network}");
    assert_eq!(host["PublishAllPorts"], false);
    assert_eq!(host["PidMode"], "");
    let log = json!({ "Type": "json-file", "Config": { "max-size": "1m", "max-file": "2" } });
    assert_eq!(host["LogConfig"], log);
    let mounts = found["Mounts"].as_array().unwrap();
    let mounts: Vec<_> = mounts
        .iter()
        .map(|it| (&it["Type"], &it["Name"], &it["Destination"]))
        .collect();
    assert_eq!(
        mounts,
        [(&json!("volume"), &json!(name), &json!("/workspace"))]
    );

    let volume = app.engine().docker(&["volume", "inspect", &name]).unwrap();
    let volume = serde_json::from_str::<Value>(&volume).unwrap()[0]["Labels"].clone();
    let created = volume["dev.cove.created"].as_str().unwrap();
    assert!(
        created.starts_with("20") && created.ends_with('Z'),
        "{created}"
    );
    let expected = json!({
        "dev.cove.session": id.to_string(),
        "dev.cove.workspace": "shop",
        "dev.cove.project": "Web API",
        "dev.cove.description": "two\nlines",
        "dev.cove.template": "",
        "dev.cove.image": cove_core::image::ImageReference::built_in().to_string(),
        "dev.cove.version": env!("CARGO_PKG_VERSION"),
        "dev.cove.created": created,
        "dev.cove.privilege-gain": "",
        "dev.cove.network": "own",
    });
    assert_eq!(volume, expected);
    let mut labels = config["Labels"].clone();
    // The built-in image has labels of its own, which a container inherits.
    let own = labels.as_object_mut().unwrap();
    own.retain(|label, _| label.starts_with("dev.cove.") && expected.get(label).is_some());
    assert_eq!(labels, expected);
    check_inside(&app, id);
}

/// The fence as it is seen from inside: the limits are the kernel's, not only the engine's books.
fn check_inside(app: &App, id: SessionId) {
    let read = |one: &str, two: &str| app.sh(id, &format!("cat {one} 2>/dev/null || cat {two}"));
    let cgroup = "/sys/fs/cgroup";
    let memory = read(
        &format!("{cgroup}/memory/memory.limit_in_bytes"),
        &format!("{cgroup}/memory.max"),
    );
    assert_eq!(memory, (64 << 20).to_string());
    let pids = read(
        &format!("{cgroup}/pids/pids.max"),
        &format!("{cgroup}/pids.max"),
    );
    assert_eq!(pids, "100");
    let cpu = read(
        &format!("{cgroup}/cpu/cpu.cfs_quota_us"),
        &format!("{cgroup}/cpu.max"),
    );
    assert_eq!(cpu.split(' ').next(), Some("50000"));
    assert!(
        app.sh(id, "cat /proc/self/status")
            .contains("NoNewPrivs:\t1")
    );
    let (socket, _) = app.exec(
        id,
        "0",
        &["sh", "-c", "ls /var/run/docker.sock /run/docker.sock"],
    );
    assert!(!socket, "the engine's socket is inside");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_limits_a_container_leaves_the_machine_some_memory_and_swaps_nothing() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    let host = &app.inspect(id)["HostConfig"];
    let bounds = app.sessions.engine_bounds().await.unwrap();
    let memory = json!(bounds.default_memory_mb.unwrap() << 20);
    assert!(bounds.default_memory_mb < bounds.memory_mb);
    assert_eq!((&host["NanoCpus"], &host["Memory"]), (&json!(0), &memory));
    // An engine that cannot limit swap says so, and is not asked to.
    let info = app.engine().docker(&["info", "--format", "{{.SwapLimit}}"]);
    if info.unwrap() == "true" {
        assert_eq!(host["MemorySwap"], memory);
    }
    assert_eq!(host["PidsLimit"], 4096);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_beyond_the_engine_s_are_refused_when_set_and_lowered_when_they_were() {
    let Some(app) = App::shared() else { return };
    let most = app.sessions.engine_bounds().await.unwrap();
    let most = most.processors.unwrap();
    let settings = Settings {
        cpu_limit: Some(200.0),
        ..Settings::default()
    };
    let Err(Error::Validation(fields)) = app.sessions.change_settings(settings).await else {
        panic!("accepted");
    };
    assert!(
        fields["cpu_limit"].contains(&format!("at most {most}")),
        "{fields:?}"
    );

    // Set while another engine was there, for instance.
    app.sessions.set_settings(settings).unwrap();
    let (id, run) = app.create_and_wait(None).await;
    crate::support::check_ready(&run);
    assert_eq!(
        app.inspect(id)["HostConfig"]["NanoCpus"],
        most * 1_000_000_000
    );
    let says = |event: &SessionEvent| matches!(event, SessionEvent::Progress(event) if event.message.contains("all that the engine has"));
    assert!(run.iter().any(|moment| says(&moment.event)), "{run:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_is_process_1_and_reaps_orphans() {
    let Some(app) = App::shared() else { return };
    let id = app.ready(None).await;
    assert!(
        app.sh(id, "tr '\\0' ' ' < /proc/1/cmdline")
            .starts_with("/.cove/agent init")
    );
    app.sh(id, "for _ in 1 2 3 4 5; do (sleep 0.2 &) ; done");
    eventually("the end of all orphans", || {
        // Beside process 1 there are the server and the shell that looks.
        let states = app.sh(id, "cat /proc/[0-9]*/stat 2>/dev/null");
        let gone = !states.contains("(sleep)");
        gone.then(|| assert!(!states.contains(") Z "), "{states}"))
    })
    .await;
}
