//! The `docker` command's own configuration: the folder that it is in, and what of `config.json` Cove goes by.
//!
//! It is read entry by entry, so that one that makes no sense costs only itself, and a file that cannot be read at
//! all is told with its path. Nothing is written, and no program is run here.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use crate::engine::Credential;

/// A configuration of more bytes than this is none.
const SIZE_LIMIT: u64 = 4 << 20;
/// The proxies that a container hears of, as the configuration and as programs call them. Programs disagree about
/// capitals, so each is told in both.
const PROXIES: [(&str, &str); 5] = [
    ("httpProxy", "HTTP_PROXY"),
    ("httpsProxy", "HTTPS_PROXY"),
    ("noProxy", "NO_PROXY"),
    ("ftpProxy", "FTP_PROXY"),
    ("allProxy", "ALL_PROXY"),
];

/// The names of Docker Hub; helpers know it by the first.
const HUB: [&str; 4] = [
    "https://index.docker.io/v1/",
    "index.docker.io",
    "docker.io",
    "registry-1.docker.io",
];

/// What a `config.json` says.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ClientConfig {
    content: Map<String, Value>,
}

/// A configuration that is there and cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unreadable {
    path: PathBuf,
    problem: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` cannot be read: {}",
            self.path.display(),
            self.problem
        )
    }
}

/// Returns the value of a variable of the environment. An empty one is none, as `docker` has it.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Returns the user's home.
pub(super) fn home() -> Option<PathBuf> {
    std::env::home_dir().filter(|home| !home.as_os_str().is_empty())
}

/// Returns the folder of the configuration.
pub(super) fn folder(
    environment: &dyn Fn(&str) -> Option<String>,
    home: Option<&Path>,
) -> Option<PathBuf> {
    environment("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| home.map(|home| home.join(".docker")))
}

/// Returns the name of a registry under which its credentials are kept.
pub(super) fn server_of(registry: &str) -> &str {
    names_of(registry).first().copied().unwrap_or(registry)
}

fn names_of(registry: &str) -> Vec<&str> {
    if registry == "docker.io" {
        HUB.to_vec()
    } else {
        vec![registry]
    }
}

/// Returns what `docker run` adds to the environment of a container on the engine at this address: proxies.
pub(super) fn proxies_for(address: &str) -> Vec<String> {
    let Some(folder) = folder(&variable, home().as_deref()) else {
        return Vec::new();
    };
    match ClientConfig::read(&folder) {
        Ok(config) => config.proxies(address),
        Err(unreadable) => {
            log::warn!("no proxies are known for containers: {unreadable}");
            Vec::new()
        }
    }
}

impl ClientConfig {
    /// Reads the configuration of a folder. One that is missing or empty says nothing.
    pub(super) fn read(folder: &Path) -> Result<Self, Unreadable> {
        Self::read_file(&folder.join("config.json"))
    }

    /// Reads a configuration from its file.
    pub(super) fn read_file(path: &Path) -> Result<Self, Unreadable> {
        let unreadable = |problem: String| Unreadable {
            path: path.to_owned(),
            problem,
        };
        let bytes = match bytes_of(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(unreadable(error.to_string())),
        };
        if bytes.starts_with(b"\xef\xbb\xbf") {
            let problem = "it begins with a byte order mark, which `docker` does not read either; save it as UTF-8 without one";
            return Err(unreadable(problem.to_owned()));
        }
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        // What follows the first value is not looked at, as `docker` does not.
        match serde_json::Deserializer::from_slice(&bytes)
            .into_iter::<Value>()
            .next()
        {
            Some(Ok(Value::Object(content))) => Ok(Self { content }),
            Some(Ok(Value::Null)) | None => Ok(Self::default()),
            Some(Ok(_)) => Err(unreadable("it is not a JSON object".to_owned())),
            Some(Err(error)) => Err(unreadable(error.to_string())),
        }
    }

    /// Returns the context that was chosen by `docker context use`.
    pub(super) fn current_context(&self) -> Option<String> {
        text(&self.content, "currentContext").map(str::to_owned)
    }

    /// Returns the name of the helper that keeps the credentials for a registry, `osxkeychain`.
    pub(super) fn helper_for(&self, registry: &str) -> Option<&str> {
        let helpers = object(&self.content, "credHelpers");
        let mut own = names_of(registry)
            .into_iter()
            .filter_map(|name| text(helpers?, name));
        own.next().or_else(|| text(&self.content, "credsStore"))
    }

    /// Returns the credential that the file itself holds for a registry.
    ///
    /// # Errors
    /// When there is an entry for it that is no credential.
    pub(super) fn credential_for(&self, registry: &str) -> Result<Option<Credential>, String> {
        let Some(entries) = object(&self.content, "auths") else {
            return Ok(None);
        };
        let names = names_of(registry);
        let exact = names.iter().filter_map(|name| entries.get_key_value(*name));
        let alike = entries
            .iter()
            .filter(|(key, _)| names.contains(&host_of(key)));
        let mut problem = None;
        for (key, entry) in exact.chain(alike) {
            match credential_of(entry, server_of(registry)) {
                Ok(Some(credential)) => return Ok(Some(credential)),
                Ok(None) => {}
                Err(what) => {
                    problem.get_or_insert_with(|| format!("an entry `{key}` whose {what}"));
                }
            }
        }
        problem.map_or(Ok(None), Err)
    }

    /// Returns what `docker run` adds to the environment of a container on the engine at this address, as
    /// `NAME=value`.
    pub(super) fn proxies(&self, address: &str) -> Vec<String> {
        let Some(all) = object(&self.content, "proxies") else {
            return Vec::new();
        };
        let of = |key: &str| all.get(key).and_then(Value::as_object);
        let Some(chosen) = of(address).or_else(|| of("default")) else {
            return Vec::new();
        };
        let mut environment = BTreeMap::new();
        for (key, name) in PROXIES {
            if let Some(value) = text(chosen, key) {
                environment.insert(name.to_owned(), value);
                environment.insert(name.to_lowercase(), value);
            }
        }
        environment
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }
}

/// Returns the host and port of a key of `auths`, which may be an address of any scheme, with a path.
fn host_of(key: &str) -> &str {
    let address = key.split_once("://").map_or(key, |(_, address)| address);
    let host = address.split_once('/').map_or(address, |(host, _)| host);
    host.rsplit_once('@').map_or(host, |(_, host)| host)
}

fn credential_of(entry: &Value, server: &str) -> Result<Option<Credential>, &'static str> {
    let Some(entry) = entry.as_object() else {
        return Ok(None);
    };
    let server = server.to_owned();
    if let Some(token) = text(entry, "identitytoken") {
        let token = token.to_owned();
        return Ok(Some(Credential::IdentityToken { server, token }));
    }
    let (username, password) = match text(entry, "auth") {
        Some(auth) => decode_auth(auth)?,
        None => match (text(entry, "username"), text(entry, "password")) {
            (Some(username), Some(password)) => (username.to_owned(), password.to_owned()),
            _ => {
                return Ok(
                    text(entry, "registrytoken").map(|token| Credential::RegistryToken {
                        server,
                        token: token.to_owned(),
                    }),
                );
            }
        },
    };
    Ok(Some(Credential::Password {
        server,
        username,
        password,
    }))
}

/// Reads `name:password` out of base64, with or without its padding.
fn decode_auth(auth: &str) -> Result<(String, String), &'static str> {
    const WRONG: &str = "`auth` cannot be read";
    let lenient = GeneralPurposeConfig::new()
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent);
    let base64 = GeneralPurpose::new(&base64::alphabet::STANDARD, lenient);
    let bytes = base64.decode(auth).map_err(|_| WRONG)?;
    let decoded = String::from_utf8(bytes).map_err(|_| WRONG)?;
    let (username, password) = decoded.split_once(':').ok_or(WRONG)?;
    if username.is_empty() {
        return Err(WRONG);
    }
    let password = password.trim_matches('\0');
    Ok((username.to_owned(), password.to_owned()))
}

fn bytes_of(path: &Path) -> std::io::Result<Vec<u8>> {
    // A pipe would be waited for without end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(SIZE_LIMIT + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SIZE_LIMIT {
        return Err(std::io::Error::other("it is larger than 4 MiB"));
    }
    Ok(bytes)
}

/// Returns the member of this name. Capitals do not matter, as in every JSON that Go reads; the exact name comes first.
fn member<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object.get(name).or_else(|| {
        let mut members = object.iter();
        members
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    })
}

fn object<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Map<String, Value>> {
    member(object, name)?.as_object()
}

/// Returns a text that is not empty: Go does not tell an empty one from one that is missing.
pub(super) fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    member(object, name)?
        .as_str()
        .filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8]) -> Result<ClientConfig, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), bytes).unwrap();
        let read = ClientConfig::read(folder.path());
        read.map_err(|problem| {
            let problem = problem.to_string();
            assert!(
                problem.contains("config.json` cannot be read: "),
                "{problem}"
            );
            problem
        })
    }

    #[test]
    fn a_configuration_that_cannot_be_read_is_told_with_its_path_and_why() {
        for (bytes, why) in [
            (&b"{\"auths\":{}"[..], "line 1 column"),
            (b"\xef\xbb\xbf{}", "byte order mark"),
            (b"[]", "not a JSON object"),
            (b"\xff\xfe", "line 1 column"),
        ] {
            let problem = check(bytes).unwrap_err();
            assert!(problem.contains(why), "{problem}");
        }
        for says_nothing in [&b""[..], b" \n", b"{}", b"null", b"{} trailing"] {
            assert_eq!(check(says_nothing), Ok(ClientConfig::default()));
        }
        let folder = tempfile::tempdir().unwrap();
        let missing = ClientConfig::read(folder.path());
        assert_eq!(missing, Ok(ClientConfig::default()));
    }

    #[test]
    fn an_empty_variable_is_no_configuration_folder() {
        let home = Path::new("/home/anna");
        let chosen = |_: &str| Some("/etc/docker-client".to_owned());
        assert_eq!(
            folder(&chosen, Some(home)),
            Some(PathBuf::from("/etc/docker-client"))
        );
        assert_eq!(
            folder(&|_: &str| None, Some(home)),
            Some(PathBuf::from("/home/anna/.docker"))
        );
        assert_eq!(folder(&|_: &str| None, None), None);
    }

    #[test]
    fn proxies_are_those_of_the_engine_or_the_default_in_both_spellings() {
        let config = check(
            br#"{"proxies":{
                "default":{"httpProxy":"http://p:1","noProxy":"","allProxy":5},
                "tcp://far:2375":{"httpsProxy":"http://q:2","noProxy":"*.far","ftpProxy":"f","allProxy":"a","HTTPPROXY":"h"},
                "tcp://none:1":{},
                "tcp://odd:1":null}}"#,
        )
        .unwrap();
        let usual = ["HTTP_PROXY=http://p:1", "http_proxy=http://p:1"];
        assert_eq!(config.proxies("unix:///var/run/docker.sock"), usual);
        assert_eq!(config.proxies("tcp://odd:1"), usual);
        assert_eq!(config.proxies("tcp://none:1"), [""; 0]);
        assert_eq!(
            config.proxies("tcp://far:2375"),
            [
                "ALL_PROXY=a",
                "FTP_PROXY=f",
                "HTTPS_PROXY=http://q:2",
                "HTTP_PROXY=h",
                "NO_PROXY=*.far",
                "all_proxy=a",
                "ftp_proxy=f",
                "http_proxy=h",
                "https_proxy=http://q:2",
                "no_proxy=*.far",
            ]
        );
    }
}
