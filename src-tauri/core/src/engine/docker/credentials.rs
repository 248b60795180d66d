//! The user's own credentials for registries, lent to the engine for a pull and never kept.

use std::time::Duration;

use bollard::auth::DockerCredentials;
use docker_credential::DockerCredential;

/// How long a credential helper may take before the pull goes on without credentials.
const CREDENTIALS_LIMIT: Duration = Duration::from_secs(10);

/// Returns the user's own credential for a registry with the server that it is for, as `docker login`
/// and `podman login` keep them; none when there is none or its helper fails, and then the registry's
/// answer tells.
pub(super) async fn credential_for(registry: String) -> Option<(String, DockerCredential)> {
    let lookup = tokio::task::spawn_blocking(move || {
        let server = if registry == "docker.io" {
            "https://index.docker.io/v1/".to_owned()
        } else {
            registry
        };
        let credential = docker_credential::get_credential(&server)
            .or_else(|_| docker_credential::get_podman_credential(&server))
            .ok()?;
        Some((server, credential))
    });
    if let Ok(Ok(credential)) = tokio::time::timeout(CREDENTIALS_LIMIT, lookup).await {
        credential
    } else {
        log::warn!("credentials could not be looked up; going on without");
        None
    }
}

/// Returns a credential as the engine wants it.
pub(super) fn credentials(server: String, credential: DockerCredential) -> DockerCredentials {
    match credential {
        DockerCredential::UsernamePassword(username, password) => DockerCredentials {
            username: Some(username),
            password: Some(password),
            serveraddress: Some(server),
            ..DockerCredentials::default()
        },
        DockerCredential::IdentityToken(token) => DockerCredentials {
            identitytoken: Some(token),
            serveraddress: Some(server),
            ..DockerCredentials::default()
        },
    }
}
