//! The registry, asked for one thing that engines do not tell in time: how large an image's layers
//! are. Only small documents are fetched, with the user's own credentials, from the registry that the
//! image's name says; over plain HTTP only on this machine, as engines do it. What a registry answers is a stranger's:
//! it is read to a bound.

use std::net::IpAddr;
use std::sync::Once;
use std::time::Duration;

use oci_spec::distribution::Reference;
use reqwest::header::{ACCEPT, WWW_AUTHENTICATE};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use serde_json::Value;

use super::wording;
use crate::engine::{Credential, LAYER_LIMIT, LayerSize};

/// How long a connection may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Bytes of an answer. Engines take no manifest that is larger.
const BODY_LIMIT: usize = 4 << 20;
/// As many redirections are followed.
const REDIRECTIONS: usize = 5;
/// The kinds of manifest that are understood.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

/// A registry, and the way into one of its repositories.
struct Repository<'a> {
    client: Client,
    /// The address of its manifests, which ends with a slash.
    manifests: Url,
    name: &'a str,
    credential: Option<&'a Credential>,
}

/// How a registry wants to be asked.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    /// With name and password.
    Basic,
    /// With a token of an authorisation server.
    Bearer {
        /// Its address.
        realm: String,
        /// What the server knows the registry by.
        service: Option<String>,
        /// What is asked for.
        scope: Option<String>,
    },
}

/// Returns the layers of an image for a processor, named as the kernel does, in the image's order; or what stands in
/// the way.
pub(super) async fn layer_sizes(
    image: &Reference,
    architecture: &str,
    credential: Option<&Credential>,
) -> Result<Vec<LayerSize>, String> {
    choose_cryptography();
    let registry = image.resolve_registry();
    let scheme = if is_this_machine(registry) {
        "http"
    } else {
        "https"
    };
    let name = image.repository();
    let manifests = format!("{scheme}://{registry}/v2/{name}/manifests/");
    let repository = Repository {
        client: Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            .user_agent(concat!("cove/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::limited(REDIRECTIONS))
            .build()
            .map_err(|error| chain(&error))?,
        manifests: manifests
            .parse()
            .map_err(|error| format!("`{manifests}` is no address: {error}"))?,
        name,
        credential,
    };
    let tag = image.digest().or(image.tag()).unwrap_or("latest");
    let mut manifest = repository.manifest(tag).await?;
    if let Some(entries) = manifest.get("manifests").and_then(Value::as_array) {
        let digest = entry_for(entries, architecture)
            .ok_or("the registry lists no image for this processor")?;
        manifest = repository.manifest(&digest).await?;
    }
    layers_of(&manifest)
}

impl Repository<'_> {
    /// Asks for a manifest, as a stranger first.
    async fn manifest(&self, tag: &str) -> Result<Value, String> {
        let url = self
            .manifests
            .join(tag)
            .map_err(|error| format!("`{tag}` is no part of an address: {error}"))?;
        let ask = || self.client.get(url.clone()).header(ACCEPT, MANIFESTS);
        let mut answer = send(ask()).await?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            let challenges = answer.headers().get_all(WWW_AUTHENTICATE);
            let mut challenges = challenges.iter().filter_map(|value| value.to_str().ok());
            let challenge = challenges
                .find_map(challenge)
                .ok_or("the registry wants credentials, and does not say how")?;
            answer = send(self.admitted(ask(), challenge).await?).await?;
        }
        if !answer.status().is_success() {
            return Err(format!(
                "the registry answered HTTP {}",
                answer.status().as_u16()
            ));
        }
        document(answer).await
    }

    async fn admitted(
        &self,
        request: RequestBuilder,
        challenge: Challenge,
    ) -> Result<RequestBuilder, String> {
        match challenge {
            Challenge::Basic => Ok(self.with_password(request)),
            Challenge::Bearer {
                realm,
                service,
                scope,
            } => {
                if let Some(Credential::RegistryToken { token, .. }) = self.credential {
                    return Ok(request.bearer_auth(token));
                }
                let mut url: Url = realm
                    .parse()
                    .map_err(|error| format!("`{realm}` is no address: {error}"))?;
                let is_safe = url.scheme() == "https"
                    || url.scheme() == "http" && url.host_str().is_some_and(is_this_machine);
                if !is_safe {
                    return Err(format!("`{realm}` would get the password unencrypted"));
                }
                let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.name));
                url.query_pairs_mut()
                    .extend_pairs(service.map(|service| ("service", service)))
                    .append_pair("scope", &scope);
                let answer = send(self.with_password(self.client.get(url))).await?;
                if !answer.status().is_success() {
                    let status = answer.status().as_u16();
                    return Err(format!("the authorisation server answered HTTP {status}"));
                }
                let answer = document(answer).await?;
                let token = ["token", "access_token"]
                    .into_iter()
                    .find_map(|key| answer.get(key)?.as_str())
                    .ok_or("the authorisation server gave no token")?;
                Ok(request.bearer_auth(token))
            }
        }
    }

    fn with_password(&self, request: RequestBuilder) -> RequestBuilder {
        match self.credential {
            Some(Credential::Password {
                username, password, ..
            }) => request.basic_auth(username, Some(password)),
            // A refresh token is for an authorisation server that only the engine talks to.
            Some(Credential::IdentityToken { .. } | Credential::RegistryToken { .. }) | None => {
                request
            }
        }
    }
}

async fn send(request: RequestBuilder) -> Result<Response, String> {
    request.send().await.map_err(|error| chain(&error))
}

/// Reads an answer to its bound.
async fn document(mut answer: Response) -> Result<Value, String> {
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(|error| chain(&error))? {
        if body.len() + piece.len() > BODY_LIMIT {
            return Err("the registry answered more than 4 MiB".to_owned());
        }
        body.extend_from_slice(&piece);
    }
    serde_json::from_slice(&body).map_err(|error| format!("the registry answered no JSON: {error}"))
}

/// Returns the digest of the image for a processor.
fn entry_for(entries: &[Value], architecture: &str) -> Option<String> {
    let entry = entries.iter().find(|entry| {
        let of = |key: &str| {
            entry
                .pointer(&format!("/platform/{key}"))
                .and_then(Value::as_str)
        };
        of("os") == Some("linux")
            && of("architecture")
                .is_some_and(|name| wording::kernel_architecture(name) == architecture)
    })?;
    Some(entry.get("digest")?.as_str()?.to_owned())
}

fn layers_of(manifest: &Value) -> Result<Vec<LayerSize>, String> {
    let layers = manifest.get("layers").and_then(Value::as_array);
    let layers = layers.ok_or("the registry answered no manifest of an image")?;
    if layers.len() > LAYER_LIMIT {
        return Err(format!("the registry lists {} layers", layers.len()));
    }
    let layers = layers.iter().map(|layer| {
        Some(LayerSize {
            digest: layer.get("digest")?.as_str()?.to_owned(),
            bytes: layer.get("size")?.as_u64()?,
        })
    });
    let layers: Option<_> = layers.collect();
    layers.ok_or_else(|| "the registry lists a layer without digest or size".to_owned())
}

/// Reads `Bearer realm="…",service="…"` or `Basic realm="…"`.
fn challenge(header: &str) -> Option<Challenge> {
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service, mut scope) = (None, None, None);
    let mut rest = rest.trim_start();
    while let Some((key, value)) = rest.split_once('=') {
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => value.split_at(value.find(',').unwrap_or(value.len())),
        };
        match key.trim().to_ascii_lowercase().as_str() {
            "realm" => realm = Some(value.to_owned()),
            "service" => service = Some(value.to_owned()),
            "scope" => scope = Some(value.to_owned()),
            _ => {}
        }
        rest = after.trim_start_matches([',', ' ']);
    }
    Some(Challenge::Bearer {
        realm: realm?,
        service,
        scope,
    })
}

/// Writes an error with its causes.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Returns whether a registry's host, with or without a port, is this machine.
fn is_this_machine(registry: &str) -> bool {
    let host = registry
        .rsplit_once(':')
        .filter(|(_, port)| port.chars().all(|digit| digit.is_ascii_digit()))
        .map_or(registry, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn choose_cryptography() {
    static CHOSEN: Once = Once::new();
    CHOSEN.call_once(|| {
        // Somebody else in this process may have chosen already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    /// Answers requests in turn, one a connection, as long as somebody reads; returns the registry's host.
    fn answering(answers: Vec<(&'static str, Vec<u8>)>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for (head, body) in answers {
                let (mut client, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n") {
                    client.read_exact(&mut byte).unwrap();
                    request.extend_from_slice(&byte);
                }
                let head = format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n");
                // Whoever has read enough goes away.
                let _ = client
                    .write_all(head.as_bytes())
                    .and_then(|()| client.write_all(&body));
            }
        });
        host
    }

    async fn ask(answers: Vec<(&'static str, Vec<u8>)>) -> Result<Vec<LayerSize>, String> {
        let image: Reference = format!("{}/x:1", answering(answers)).parse().unwrap();
        layer_sizes(&image, "x86_64", None).await
    }

    fn layers(count: usize) -> Vec<u8> {
        let layer = serde_json::json!({"digest": "sha256:00", "size": 7});
        let manifest = serde_json::json!({"schemaVersion": 2, "layers": vec![layer; count]});
        serde_json::to_vec(&manifest).unwrap()
    }

    #[tokio::test]
    async fn what_a_registry_answers_is_read_to_a_bound() {
        assert_eq!(ask(vec![("200 OK", layers(3))]).await.unwrap().len(), 3);
        for (body, problem) in [
            (
                vec![b' '; 64 << 20],
                "the registry answered more than 4 MiB",
            ),
            (layers(20_000), "the registry lists 20000 layers"),
            (
                b"<html>".to_vec(),
                "the registry answered no JSON: expected value at line 1 column 1",
            ),
            (
                b"{}".to_vec(),
                "the registry answered no manifest of an image",
            ),
        ] {
            let answer = ask(vec![("200 OK", body)]).await;
            assert_eq!(answer.unwrap_err(), problem);
        }
        let odd = ask(vec![(
            "401 Unauthorized\r\nWWW-Authenticate: Negotiate",
            Vec::new(),
        )]);
        assert_eq!(
            odd.await.unwrap_err(),
            "the registry wants credentials, and does not say how"
        );
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            Some(Challenge::Bearer {
                realm: realm.to_owned(),
                service: service.map(str::to_owned),
                scope: scope.map(str::to_owned),
            })
        };
        for (header, expected) in [
            ("Basic realm=\"cove\"", Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            (
                "Bearer realm=\"https://auth.test/token\",service=\"r.test\",scope=\"repository:a/b:pull,push\"",
                bearer(
                    "https://auth.test/token",
                    Some("r.test"),
                    Some("repository:a/b:pull,push"),
                ),
            ),
            (
                "bearer Realm=https://a.test , service=x",
                bearer("https://a.test ", Some("x"), None),
            ),
            ("Bearer service=\"x\"", None),
            ("Bearer realm=\"open", None),
            ("Negotiate", None),
            ("", None),
        ] {
            assert_eq!(challenge(header), expected, "{header}");
        }
    }

    #[test]
    fn only_this_machine_is_asked_without_encryption() {
        for here in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.1.2.3",
            "[::1]:5000",
        ] {
            assert!(is_this_machine(here), "{here}");
        }
        for there in [
            "docker.io",
            "10.0.0.1:5000",
            "localhost.example.com",
            "127.0.0.1.nip.io:80",
        ] {
            assert!(!is_this_machine(there), "{there}");
        }
    }
}
