//! The user's own credentials for registries, as `docker login` and `podman login` keep them: lent for one pull and never
//! kept. A helper that keeps them is asked once, for a limited time, and ends with the question.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bollard::auth::DockerCredentials;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use super::client_config::{self, ClientConfig};
use crate::engine::{Credential, Lent, Waits};
use crate::error::EngineCommand;
use crate::words;

/// How long a credential helper may take before the pull goes on without it. It may have to ask the user.
const HELPER_LIMIT: Duration = Duration::from_secs(30);
/// More than this of a helper's answer is no credential.
const ANSWER_LIMIT: u64 = 64 * 1024;

/// Where credentials are looked for.
pub(super) struct Lender<'a> {
    /// The variables of the environment.
    environment: &'a (dyn Fn(&str) -> Option<String> + Sync),
    home: Option<PathBuf>,
    /// Where helpers are looked for beside the `PATH`: an app that was not started from a shell may have a short one.
    folders: Vec<PathBuf>,
    limit: Duration,
}

impl Lender<'static> {
    /// Returns the lender of this user's credentials.
    pub(super) fn new() -> Self {
        let home = client_config::home();
        let mut folders: Vec<PathBuf> = Vec::new();
        if cfg!(unix) {
            folders.extend(["/usr/local/bin", "/opt/homebrew/bin"].map(PathBuf::from));
            folders.extend(home.as_ref().map(|home| home.join(".docker/bin")));
        }
        Self {
            environment: &client_config::variable,
            home,
            folders,
            limit: HELPER_LIMIT,
        }
    }
}

impl Lender<'_> {
    /// Returns the user's credential for a registry, or why there may be one that cannot be had. `waits` hears the
    /// program that is waited for.
    pub(super) async fn lend(
        &self,
        registry: &str,
        command: EngineCommand,
        waits: Waits<'_>,
    ) -> Lent {
        let server = client_config::server_of(registry);
        let mut lent = Lent::default();
        let mut asked: Vec<String> = Vec::new();
        for path in self.files(command) {
            let config = match read(path.clone()).await {
                Ok(config) => config,
                Err(problem) => {
                    lent.problem.get_or_insert(problem);
                    continue;
                }
            };
            if let Some(helper) = config.helper_for(registry) {
                let program = format!("docker-credential-{helper}");
                if asked.contains(&program) {
                    continue;
                }
                waits(&program);
                let answer = self.ask(&program, server).await;
                asked.push(program);
                match answer {
                    Ok(Some(credential)) => {
                        lent.credential = Some(credential);
                        return lent;
                    }
                    Ok(None) => continue,
                    // What the file itself holds is then good enough for `docker`, too.
                    Err(problem) => {
                        lent.problem.get_or_insert(problem);
                    }
                }
            }
            match config.credential_for(registry) {
                Ok(Some(credential)) => {
                    lent.credential = Some(credential);
                    return lent;
                }
                Ok(None) => {}
                Err(problem) => {
                    lent.problem
                        .get_or_insert(format!("`{}` holds {problem}", path.display()));
                }
            }
        }
        lent
    }

    /// Returns the files that credentials may be in, those of the engine's own command first.
    fn files(&self, command: EngineCommand) -> Vec<PathBuf> {
        let home = self.home.as_deref();
        let docker =
            client_config::folder(self.environment, home).map(|folder| folder.join("config.json"));
        let podman = if let Some(path) = (self.environment)("REGISTRY_AUTH_FILE") {
            vec![PathBuf::from(path)]
        } else {
            let runtime = (self.environment)("XDG_RUNTIME_DIR").map(PathBuf::from);
            let config = (self.environment)("XDG_CONFIG_HOME")
                .map(PathBuf::from)
                .or_else(|| home.map(|home| home.join(".config")));
            let folders = runtime.into_iter().chain(config);
            folders
                .map(|folder| folder.join("containers/auth.json"))
                .collect()
        };
        match command {
            EngineCommand::Docker => docker.into_iter().chain(podman).collect(),
            EngineCommand::Podman => podman.into_iter().chain(docker).collect(),
        }
    }

    /// Asks a helper for a credential; `None` when it has none.
    async fn ask(&self, program: &str, server: &str) -> Result<Option<Credential>, String> {
        if program.contains(['/', '\\']) {
            return Err(format!("`{program}` is no name of a credential helper"));
        }
        let mut helper = self.start(program)?;
        match tokio::time::timeout(self.limit, helper.answer(server)).await {
            Ok(Ok((status, said, complaint))) => {
                helper.has_ended = true;
                understand(program, server, status, &said, &complaint)
            }
            Ok(Err(error)) => Err(format!("`{program}` cannot be asked: {error}")),
            Err(_elapsed) => Err(format!(
                "`{program}` did not answer within {} s and was ended",
                self.limit.as_secs()
            )),
        }
    }

    fn start(&self, program: &str) -> Result<Helper, String> {
        let elsewhere = self.folders.iter().map(|folder| folder.join(program));
        for path in [PathBuf::from(program)].into_iter().chain(elsewhere) {
            match Helper::start(&path) {
                Ok(helper) => return Ok(helper),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(format!("`{program}` cannot be run: {error}")),
            }
        }
        Err(format!(
            "the credential helper `{program}`, which the configuration names, is not installed"
        ))
    }
}

async fn read(path: PathBuf) -> Result<ClientConfig, String> {
    // A file of the user's may lie on a slow disk.
    match tokio::task::spawn_blocking(move || ClientConfig::read_file(&path)).await {
        Ok(read) => read.map_err(|unreadable| unreadable.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// A credential helper that runs. Dropping it before it has ended ends it and all that it has started.
struct Helper {
    child: Child,
    has_ended: bool,
    #[cfg(unix)]
    group: Option<rustix::process::Pid>,
}

impl Helper {
    fn start(path: &Path) -> io::Result<Self> {
        let mut command = Command::new(path);
        command
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        #[cfg(unix)]
        command.process_group(0);
        let child = command.spawn()?;
        Ok(Self {
            #[cfg(unix)]
            group: child
                .id()
                .and_then(|id| i32::try_from(id).ok())
                .and_then(rustix::process::Pid::from_raw),
            child,
            has_ended: false,
        })
    }

    /// Returns how it ended, what it said and what it complained of.
    async fn answer(&mut self, server: &str) -> io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
        let (input, said, complaint) = (
            self.child.stdin.take(),
            self.child.stdout.take(),
            self.child.stderr.take(),
        );
        let tell = async {
            if let Some(mut input) = input {
                // One that does not listen may know all the same.
                let _ = input.write_all(server.as_bytes()).await;
            }
        };
        let ((), said, complaint) = tokio::join!(tell, whole(said), whole(complaint));
        Ok((self.child.wait().await?, said?, complaint?))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Some(group) = self.group.filter(|_| !self.has_ended) {
            // All of them may have ended meanwhile.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

async fn whole(output: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(output) = output {
        output
            .take(ANSWER_LIMIT + 1)
            .read_to_end(&mut bytes)
            .await?;
    }
    if bytes.len() as u64 > ANSWER_LIMIT {
        return Err(io::Error::other("it says more than a credential"));
    }
    Ok(bytes)
}

fn understand(
    program: &str,
    server: &str,
    status: ExitStatus,
    said: &[u8],
    complaint: &[u8],
) -> Result<Option<Credential>, String> {
    if !status.success() {
        let said = String::from_utf8_lossy(said);
        if said.contains("credentials not found") {
            return Ok(None);
        }
        let complaint = String::from_utf8_lossy(complaint);
        let words = [said.trim(), complaint.trim()]
            .into_iter()
            .find(|words| !words.is_empty())
            .unwrap_or("it said nothing");
        return Err(format!("`{program}` failed: {}", words::tamed(words)));
    }
    // What it said may hold the secret, so that nothing of it is told.
    let Ok(Value::Object(answer)) = serde_json::from_slice(said) else {
        return Err(format!(
            "`{program}` answered something that is no credential"
        ));
    };
    let (username, secret) = (
        client_config::text(&answer, "Username"),
        client_config::text(&answer, "Secret"),
    );
    Ok(match (username, secret) {
        (Some("<token>"), Some(token)) => Some(Credential::IdentityToken {
            server: server.to_owned(),
            token: token.to_owned(),
        }),
        (Some(username), Some(password)) => Some(Credential::Password {
            server: server.to_owned(),
            username: username.to_owned(),
            password: password.to_owned(),
        }),
        _ => None,
    })
}

/// Returns a credential as the engine wants it.
pub(super) fn for_engine(credential: &Credential) -> DockerCredentials {
    match credential.clone() {
        Credential::Password {
            server,
            username,
            password,
        } => DockerCredentials {
            username: Some(username),
            password: Some(password),
            serveraddress: Some(server),
            ..DockerCredentials::default()
        },
        Credential::IdentityToken { server, token } => DockerCredentials {
            identitytoken: Some(token),
            serveraddress: Some(server),
            ..DockerCredentials::default()
        },
        Credential::RegistryToken { server, token } => DockerCredentials {
            registrytoken: Some(token),
            serveraddress: Some(server),
            ..DockerCredentials::default()
        },
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use parking_lot::Mutex;

    use super::*;

    struct Home {
        folder: tempfile::TempDir,
    }

    impl Home {
        fn new(config: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("config.json"), config).unwrap();
            Self { folder }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn helper(&self, name: &str, script: &str) {
            let path = self.path(&format!("docker-credential-{name}"));
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }

        /// Returns what is lent for a registry, and the programs that were waited for.
        async fn lend(&self, registry: &str, limit: Duration) -> (Lent, Vec<String>) {
            let config = self.folder.path().display().to_string();
            let environment = |name: &str| (name == "DOCKER_CONFIG").then(|| config.clone());
            let lender = Lender {
                environment: &environment,
                home: None,
                folders: vec![self.folder.path().to_owned()],
                limit,
            };
            let waited = Mutex::new(Vec::new());
            let waits = |program: &str| waited.lock().push(program.to_owned());
            let lent = lender.lend(registry, EngineCommand::Docker, &waits).await;
            (lent, waited.into_inner())
        }
    }

    fn password(server: &str, username: &str, password: &str) -> Credential {
        Credential::Password {
            server: server.to_owned(),
            username: username.to_owned(),
            password: password.to_owned(),
        }
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_helper_is_asked_once_by_name_and_gets_the_server() {
        let home = Home::new(r#"{"credsStore":"one","credHelpers":{"r.test:5000":"two"}}"#);
        let log = home.path("log").display().to_string();
        let answer = |secret: &str| {
            format!(
                r#"server=$(cat); echo "$1 $server" >> {log}; echo '{{"ServerURL":"x","Username":"anna","Secret":"{secret}"}}'"#
            )
        };
        home.helper("one", &answer("first"));
        home.helper("two", &answer("second"));
        let (lent, waited) = home.lend("docker.io", LONG).await;
        let server = "https://index.docker.io/v1/";
        assert_eq!(lent.credential, Some(password(server, "anna", "first")));
        assert_eq!(
            (lent.problem, waited),
            (None, vec!["docker-credential-one".to_owned()])
        );
        let (lent, waited) = home.lend("r.test:5000", LONG).await;
        assert_eq!(
            lent.credential,
            Some(password("r.test:5000", "anna", "second"))
        );
        assert_eq!(waited, ["docker-credential-two"]);
        let log = std::fs::read_to_string(home.path("log")).unwrap();
        assert_eq!(log, format!("get {server}\nget r.test:5000\n"));
    }

    #[tokio::test]
    async fn a_helper_that_is_missing_fails_or_talks_nonsense_is_named() {
        for (script, expected) in [
            (
                None,
                "the credential helper `docker-credential-x`, which the configuration names, is not installed",
            ),
            (
                Some("echo boom >&2; exit 3"),
                "`docker-credential-x` failed: boom",
            ),
            (
                Some("exit 1"),
                "`docker-credential-x` failed: it said nothing",
            ),
            (
                Some("echo secret-words"),
                "`docker-credential-x` answered something that is no credential",
            ),
            (
                Some("yes"),
                "`docker-credential-x` cannot be asked: it says more than a credential",
            ),
        ] {
            let home =
                Home::new(r#"{"credsStore":"x","auths":{"r.test":{"auth":"YW5uYTpwdw=="}}}"#);
            if let Some(script) = script {
                home.helper("x", script);
            }
            let (lent, _) = home.lend("r.test", LONG).await;
            assert_eq!(lent.problem.as_deref(), Some(expected));
            // The file's own entry is what `docker` then goes by.
            assert_eq!(lent.credential, Some(password("r.test", "anna", "pw")));
        }
        let home = Home::new(r#"{"credsStore":"x","auths":{"r.test":{}}}"#);
        home.helper(
            "x",
            "echo 'credentials not found in native keychain'; exit 1",
        );
        let (lent, _) = home.lend("r.test", LONG).await;
        assert_eq!((lent.credential, lent.problem), (None, None));
    }

    #[tokio::test]
    async fn a_helper_that_hangs_is_given_up_and_its_processes_are_ended() {
        let home = Home::new(r#"{"credsStore":"slow"}"#);
        let marks = ["self", "child"].map(|name| home.path(name).display().to_string());
        let [own, child] = &marks;
        home.helper(
            "slow",
            &format!("echo $$ > {own}; sleep 1000 & echo $! > {child}; wait"),
        );
        let (lent, _) = home.lend("r.test", Duration::from_secs(2)).await;
        assert_eq!(
            lent.problem.as_deref(),
            Some("`docker-credential-slow` did not answer within 2 s and was ended")
        );
        for mark in marks {
            let id = std::fs::read_to_string(&mark).unwrap();
            let process = PathBuf::from("/proc").join(id.trim());
            // The kernel may take a moment, and whoever inherits it too.
            let begin = std::time::Instant::now();
            while is_running(&process) && begin.elapsed() < Duration::from_secs(5) {
                tokio::task::yield_now().await;
            }
            assert!(!is_running(&process), "{mark} still runs");
        }
    }

    fn is_running(process: &Path) -> bool {
        std::fs::read_to_string(process.join("stat")).is_ok_and(|stat| !stat.contains(") Z "))
    }

    #[tokio::test]
    async fn one_bad_entry_costs_only_itself_and_an_unreadable_file_is_told() {
        let home = Home::new(
            r#"{"auths":{"other":null,"odd":{"auth":"%%"},"r.test":{"auth":"YW5uYTpwdw=="},"num":5}}"#,
        );
        let (lent, _) = home.lend("r.test", LONG).await;
        assert_eq!(lent.credential, Some(password("r.test", "anna", "pw")));
        let (lent, _) = home.lend("odd", LONG).await;
        let problem = lent.problem.unwrap();
        assert!(
            problem.contains("config.json") && problem.contains("`odd`"),
            "{problem}"
        );
        let (lent, _) = Home::new("{").lend("r.test", LONG).await;
        let problem = lent.problem.unwrap();
        assert!(problem.contains("cannot be read: "), "{problem}");
    }
}
