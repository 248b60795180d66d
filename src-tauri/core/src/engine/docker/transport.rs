//! The way to an engine's address: a socket, a pipe, TCP, or TCP with TLS. Nothing is contacted before the first call.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bollard::errors::Error as ApiError;
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::endpoints::{Place, Tls, Way};
use super::errors::connection_problem;
use crate::engine::EngineProblem;
use crate::error::EngineReason;

/// The client's own limit on a single answer. It only ends what the run's own limit
/// does not see; a slow engine is not a broken one.
const ANSWER_LIMIT: Duration = Duration::from_secs(3_600);

/// Returns a client of the engine at a place.
///
/// # Errors
/// When the place cannot be used as it is configured, or what its encryption needs cannot be read.
pub(super) fn client_of(place: &Place) -> Result<Docker, EngineProblem> {
    let mut client = match &place.way {
        Way::Unusable(problem) => return Err(problem.clone()),
        Way::Plain => {
            Docker::connect_with_host(&place.address).map_err(|error| connection_problem(&error))?
        }
        Way::Tls(tls) => {
            let config = configuration(tls).map_err(|message| EngineProblem {
                reason: EngineReason::Tls,
                message,
            })?;
            encrypted(&place.address, config).map_err(|error| connection_problem(&error))?
        }
    };
    client.set_timeout(ANSWER_LIMIT);
    Ok(client)
}

fn encrypted(address: &str, config: ClientConfig) -> Result<Docker, ApiError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    let connector: HttpsConnector<HttpConnector> = (tcp, config).into();
    let client = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build(connector);
    let transport = move |request: BollardRequest| {
        let client = client.clone();
        async move { client.request(request).await.map_err(ApiError::from) }
    };
    let host = address.strip_prefix("tcp://").unwrap_or(address);
    Docker::connect_with_custom_transport(
        transport,
        Some(format!("https://{host}")),
        ANSWER_LIMIT.as_secs(),
        API_DEFAULT_VERSION,
    )
}

/// Makes the settings of an encrypted connection, or says what of its files is wrong.
fn configuration(tls: &Tls) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = if tls.verify {
        let roots = match &tls.authority {
            Some(path) => authorities(path)?,
            None => machine_authorities(),
        };
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| format!("no authority can vouch for the engine: {error}"))?;
        builder.with_webpki_verifier(verifier)
    } else {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
    };
    match &tls.identity {
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let private = PrivateKeyDer::from_pem_file(key).map_err(|error| {
                format!("`{}` holds no key that can be used: {error}", key.display())
            })?;
            builder
                .with_client_auth_cert(chain, private)
                .map_err(|error| {
                    format!(
                        "`{}` and `{}` do not go together: {error}",
                        certificate.display(),
                        key.display()
                    )
                })
        }
        None => Ok(builder.with_no_client_auth()),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let unreadable = |error: rustls::pki_types::pem::Error| {
        format!("`{}` cannot be read: {error}", path.display())
    };
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(unreadable)?
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    if found.is_empty() {
        return Err(format!("`{}` holds no certificate", path.display()));
    }
    Ok(found)
}

fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let (taken, _) = roots.add_parsable_certificates(certificates(path)?);
    if taken == 0 {
        return Err(format!(
            "`{}` holds no certificate that can be used",
            path.display()
        ));
    }
    Ok(roots)
}

fn machine_authorities() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// Takes every engine's word for who it is, because the user's configuration says so.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
