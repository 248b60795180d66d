//! What belongs to others: containers, volumes, networks and images whose names and labels look like ours.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use cove_testbed::Engine;
use serde_json::{Value, json};

const SESSION: &str = "1b671a64-40d5-491e-99b0-da01ff1f3341";

/// What others have on an engine, and how it was.
pub(crate) struct Bystanders {
    engine: Arc<Engine>,
    containers: Vec<String>,
    volumes: Vec<String>,
    networks: Vec<String>,
    images: Vec<String>,
    before: BTreeMap<String, Value>,
}

impl Bystanders {
    pub(crate) fn place(engine: &Arc<Engine>, image: &str, running: bool) -> Self {
        let docker = |arguments: &[&str]| engine.docker(arguments).unwrap();
        let ours = format!("cove-{SESSION}");
        let other = ["--label", "dev.cove.other=1"];
        docker(&["volume", "create", "cove-data"]);
        let networks = ["cove", "cove-net-theirs", &ours];
        for network in networks {
            docker(&["network", "create", other[0], other[1], network]);
        }
        let networks = networks.map(str::to_owned).to_vec();
        // The very name that a session would have, without the label that makes it ours.
        docker(&["volume", "create", &ours]);
        docker(&["volume", "create", other[0], other[1], "cove-labelled"]);
        docker(&[
            "create",
            "--name",
            "cove-data",
            "--volume",
            "cove-data:/workspace",
            image,
        ]);
        docker(&[
            "create",
            "--name",
            &ours,
            "--volume",
            &format!("{ours}:/workspace"),
            image,
        ]);
        docker(&[
            "create",
            "--name",
            "dev.cove.session",
            other[0],
            other[1],
            image,
        ]);
        let mut containers = vec![
            "cove-data".to_owned(),
            ours.clone(),
            "dev.cove.session".to_owned(),
        ];
        if running {
            docker(&[
                "run",
                "--detach",
                "--name",
                "cove-running",
                "--volume",
                "cove-labelled:/workspace",
                image,
            ]);
            docker(&[
                "exec",
                "cove-running",
                "sh",
                "-c",
                "echo theirs > /workspace/file; echo more > /tmp/file",
            ]);
            containers.push("cove-running".to_owned());
        }
        docker(&["tag", image, "cove-base:latest"]);
        docker(&["tag", image, "cove.test/agent:1"]);
        let mut this = Self {
            engine: Arc::clone(engine),
            containers,
            volumes: vec!["cove-data".to_owned(), ours, "cove-labelled".to_owned()],
            networks,
            images: vec![
                "cove-base:latest".to_owned(),
                "cove.test/agent:1".to_owned(),
                image.to_owned(),
            ],
            before: BTreeMap::new(),
        };
        for (index, volume) in this
            .inspect(&["volume", "inspect"], &this.volumes)
            .iter()
            .enumerate()
        {
            let folder = Path::new(volume["Mountpoint"].as_str().unwrap());
            fs::create_dir_all(folder.join("deep/er")).unwrap();
            fs::write(folder.join("deep/er/file"), format!("theirs {index}")).unwrap();
            fs::write(folder.join("empty"), "").unwrap();
        }
        this.before = this.look();
        this
    }

    /// Counts what is not as it was.
    pub(crate) fn touched(&self) -> usize {
        let now = self.look();
        self.before
            .iter()
            .filter(|(name, state)| now.get(*name) != Some(state))
            .count()
    }

    /// Returns how each of them is: the engine's books, and every file of the volumes.
    fn look(&self) -> BTreeMap<String, Value> {
        let mut found = BTreeMap::new();
        for it in self.inspect(&["container", "inspect"], &self.containers) {
            let state = json!({
                "id": it["Id"], "status": it["State"]["Status"], "started": it["State"]["StartedAt"],
                "restarts": it["RestartCount"], "labels": it["Config"]["Labels"], "mounts": it["Mounts"],
            });
            found.insert(format!("container {}", it["Name"]), state);
        }
        for it in self.inspect(&["volume", "inspect"], &self.volumes) {
            let folder = Path::new(it["Mountpoint"].as_str().unwrap()).to_owned();
            let mut files = BTreeMap::new();
            read(&folder, &folder, &mut files);
            let state = json!({ "made": it["CreatedAt"], "labels": it["Labels"], "files": files });
            found.insert(format!("volume {}", it["Name"]), state);
        }
        for it in self.inspect(&["network", "inspect"], &self.networks) {
            let state =
                json!({ "id": it["Id"], "labels": it["Labels"], "users": it["Containers"] });
            found.insert(format!("network {}", it["Name"]), state);
        }
        for (name, it) in self
            .images
            .iter()
            .zip(self.inspect(&["image", "inspect"], &self.images))
        {
            found.insert(
                format!("image {name}"),
                json!({ "id": it["Id"], "tags": it["RepoTags"] }),
            );
        }
        found
    }

    /// Returns what the engine says of all of these that it has.
    fn inspect(&self, command: &[&str], names: &[String]) -> Vec<Value> {
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        // One that is missing makes the command fail, and the others are told all the same.
        let told = self.engine.run(&[command, &names].concat()).unwrap();
        serde_json::from_slice(&told.stdout).unwrap()
    }
}

fn read(root: &Path, folder: &Path, into: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        if path.is_dir() {
            read(root, &path, into);
        } else {
            let bytes = fs::read(&path).unwrap();
            into.insert(name, String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}
