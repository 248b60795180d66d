//! Certificates for an engine that is reached over TLS: an authority, and what it vouches for on both sides, in the files
//! that `docker` and `dockerd` look for.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::scratch::Scratch;

/// An authority with a certificate for an engine and one for its user, each in a folder as `ca.pem`, `cert.pem` and
/// `key.pem`.
#[derive(Debug)]
pub struct Certificates {
    scratch: Scratch,
}

impl Certificates {
    /// Makes an authority of its own and certificates for an engine with these names and addresses, and for its user.
    ///
    /// # Errors
    /// When they cannot be made or written.
    pub fn new(names: &[&str]) -> Result<Self> {
        let certificates = Self {
            scratch: Scratch::new()?,
        };
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let root = authority.self_signed(&key)?.pem();
        let issuer = Issuer::new(authority, key);
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        for (folder, names) in [("engine", names), ("user", Vec::new())] {
            let folder = certificates.scratch.path().join(folder);
            fs::create_dir_all(&folder).context("failed to make a folder for certificates")?;
            let key = KeyPair::generate()?;
            let certificate = CertificateParams::new(names)?.signed_by(&key, &issuer)?;
            for (name, content) in [
                ("ca.pem", root.clone()),
                ("cert.pem", certificate.pem()),
                ("key.pem", key.serialize_pem()),
            ] {
                fs::write(folder.join(name), content).context("failed to write a certificate")?;
            }
        }
        Ok(certificates)
    }

    /// Returns the folder that is the engine's.
    #[must_use]
    pub fn engine(&self) -> PathBuf {
        self.folder("engine")
    }

    /// Returns the folder that is the user's: what `DOCKER_CERT_PATH` names.
    #[must_use]
    pub fn user(&self) -> PathBuf {
        self.folder("user")
    }

    fn folder(&self, name: &str) -> PathBuf {
        Path::new(self.scratch.path()).join(name)
    }
}
