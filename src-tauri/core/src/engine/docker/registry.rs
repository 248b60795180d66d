//! The registry, asked for one thing that engines do not tell in time: how large an image's layers
//! are. Only small documents are fetched, with the user's own credentials, from the registry that the
//! image's name says; over plain HTTP only on this machine, as engines do it.

use std::net::IpAddr;
use std::sync::Once;
use std::time::Duration;

use docker_credential::DockerCredential;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};

use super::wording;
use crate::engine::LayerSize;

/// How long a connection may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Returns the layers of an image for a processor, named as the kernel does, in the image's order.
pub(super) async fn layer_sizes(
    image: &Reference,
    architecture: &str,
    credential: Option<DockerCredential>,
) -> Result<Vec<LayerSize>, OciDistributionError> {
    choose_cryptography();
    let registry = image.resolve_registry().to_owned();
    let architecture = architecture.to_owned();
    let client = Client::try_from(ClientConfig {
        protocol: if is_this_machine(&registry) {
            ClientProtocol::HttpsExcept(vec![registry])
        } else {
            ClientProtocol::Https
        },
        connect_timeout: Some(CONNECT_LIMIT),
        user_agent: concat!("cove/", env!("CARGO_PKG_VERSION")),
        platform_resolver: Some(Box::new(move |entries| {
            let entry = entries.iter().find(|entry| {
                entry.platform.as_ref().is_some_and(|platform| {
                    wording::kernel_architecture(&platform.architecture.to_string()) == architecture
                        && platform.os.to_string() == "linux"
                })
            });
            entry.map(|entry| entry.digest.clone())
        })),
        ..ClientConfig::default()
    })?;
    let authentication = match credential {
        Some(DockerCredential::UsernamePassword(name, password)) => {
            RegistryAuth::Basic(name, password)
        }
        // A refresh token is for an authorisation server that only the engine talks to.
        Some(DockerCredential::IdentityToken(_)) | None => RegistryAuth::Anonymous,
    };
    let (manifest, _digest) = client.pull_image_manifest(image, &authentication).await?;
    let layers = manifest.layers.into_iter();
    Ok(layers
        .map(|layer| LayerSize {
            digest: layer.digest,
            bytes: u64::try_from(layer.size).unwrap_or_default(),
        })
        .collect())
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
