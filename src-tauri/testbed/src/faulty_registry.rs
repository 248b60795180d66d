//! A registry that misbehaves as real ones and the networks before them do, in front of one that does not.
//!
//! It speaks HTTP/1.1, one request a connection; over TLS it shows a certificate that nobody has reason to trust.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context as _, Result};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Smaller bodies are manifests and image configurations, and go through where a layer is meant.
const SMALLEST_LAYER: usize = 16 * 1024;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistryFault {
    /// The registry answers with this status and an error in its own words.
    Status(u16),
    /// The same with a `Retry-After` of this many seconds.
    RetryAfter(u16, u32),
    /// Somebody in between answers with this status and a page for people.
    Page(u16),
    /// The connection is reset in the middle of a layer.
    Reset,
    /// One bit of a layer is another.
    Corrupt,
    /// A layer's second half never comes; the connection stays.
    Stall,
    /// Each answer leads to the same again.
    RedirectLoop,
}

/// Which requests it meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Whether the registry is one.
    Version,
    /// For a tag's manifest.
    Manifest,
    /// For a layer.
    Layer,
}

/// A misbehaving registry; it ends with its guard.
#[derive(Debug)]
pub struct FaultyRegistry {
    address: SocketAddr,
    line: Arc<Line>,
}

#[derive(Debug)]
struct Line {
    address: SocketAddr,
    target: String,
    tls: Option<Arc<ServerConfig>>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    plan: Option<Plan>,
    has_ended: bool,
}

#[derive(Debug, Clone, Copy)]
struct Plan {
    asked: Asked,
    fault: RegistryFault,
    /// How often; for ever when absent.
    times: Option<usize>,
}

impl FaultyRegistry {
    /// Opens it in front of the registry at `target` (host and port), on a loopback port of its own.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(target: &str) -> Result<Self> {
        Self::listen(target, IpAddr::from([127, 0, 0, 1]), None)
    }

    /// Opens it with TLS on this address of the machine. An engine takes less than TLS only from loopback addresses.
    ///
    /// # Errors
    /// When no port can be had there, or no certificate be made.
    pub fn start_with_tls(target: &str, address: IpAddr) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed([address.to_string()])
            .context("failed to make a certificate")?;
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("failed to set up TLS")?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], PrivateKeyDer::from(key))
            .context("failed to set up TLS")?;
        Self::listen(target, address, Some(Arc::new(config)))
    }

    fn listen(target: &str, address: IpAddr, tls: Option<Arc<ServerConfig>>) -> Result<Self> {
        let failed = "failed to open the registry's port";
        let listener = TcpListener::bind((address, 0)).context(failed)?;
        let address = listener.local_addr().context(failed)?;
        let line = Arc::new(Line {
            address,
            target: target.to_owned(),
            tls,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let accepting = Arc::clone(&line);
        thread::spawn(move || accepting.accept(&listener));
        Ok(Self { address, line })
    }

    /// Returns host and port.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Misbehaves from now on.
    pub fn fail(&self, asked: Asked, fault: RegistryFault) {
        self.line.state().plan = Some(Plan {
            asked,
            fault,
            times: None,
        });
    }

    /// Misbehaves this often.
    pub fn fail_times(&self, asked: Asked, fault: RegistryFault, times: usize) {
        self.line.state().plan = Some(Plan {
            asked,
            fault,
            times: Some(times),
        });
    }

    /// Behaves from now on; what stalls ends.
    pub fn recover(&self) {
        self.line.state().plan = None;
        self.line.changed.notify_all();
    }
}

impl Drop for FaultyRegistry {
    fn drop(&mut self) {
        self.line.state().has_ended = true;
        self.line.changed.notify_all();
        // Its accept returns and sees the end.
        let _ = TcpStream::connect(self.address);
    }
}

impl Line {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        while let Ok((client, _)) = listener.accept() {
            if self.state().has_ended {
                return;
            }
            let line = Arc::clone(self);
            thread::spawn(move || {
                // A client that does not trust us, or goes away, is what the tests make.
                let _ = line.connect(client);
            });
        }
    }

    fn connect(&self, client: TcpStream) -> io::Result<()> {
        let raw = client.try_clone()?;
        match &self.tls {
            None => self.serve(client, &raw)?,
            Some(config) => {
                let session =
                    ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
                self.serve(StreamOwned::new(session, client), &raw)?;
            }
        }
        // A peer that has gone needs no goodbye.
        let _ = raw.shutdown(Shutdown::Both);
        Ok(())
    }

    fn serve(&self, mut client: impl Read + Write, raw: &TcpStream) -> io::Result<()> {
        let head = read_head(&mut client)?;
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let asked = if path.contains("/blobs/") {
            Asked::Layer
        } else if path.contains("/manifests/") {
            Asked::Manifest
        } else {
            Asked::Version
        };
        if asked != Asked::Layer
            && let Some(fault) = self.fault(asked)
            && let Some(answer) = self.instead(fault, &path)
        {
            return client.write_all(answer.as_bytes());
        }
        let (head, mut body) = self.fetch(&head)?;
        // An image's configuration is a blob as well.
        let is_layer = asked == Asked::Layer && body.len() >= SMALLEST_LAYER;
        let Some(fault) = is_layer.then(|| self.fault(asked)).flatten() else {
            client.write_all(&head)?;
            client.write_all(&body)?;
            return client.flush();
        };
        if let Some(answer) = self.instead(fault, &path) {
            return client.write_all(answer.as_bytes());
        }
        client.write_all(&head)?;
        let middle = body.len() / 2;
        if fault == RegistryFault::Corrupt {
            // In the checksum at the very end nobody might look.
            if let Some(byte) = body.get_mut(middle) {
                *byte ^= 1;
            }
            client.write_all(&body)?;
            return client.flush();
        }
        client.write_all(body.get(..middle).unwrap_or_default())?;
        client.flush()?;
        if fault == RegistryFault::Stall {
            let mut state = self.state();
            while !state.has_ended && state.plan.is_some() {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
        // A close that does not linger is a reset.
        #[cfg(unix)]
        rustix::net::sockopt::set_socket_linger(raw, Some(std::time::Duration::ZERO))?;
        Err(io::ErrorKind::ConnectionReset.into())
    }

    /// Returns what is answered instead of what was asked for, if the fault is of that kind.
    fn instead(&self, fault: RegistryFault, path: &str) -> Option<String> {
        Some(match fault {
            RegistryFault::Status(status) => refusal(status, ""),
            RegistryFault::RetryAfter(status, seconds) => {
                refusal(status, &format!("Retry-After: {seconds}\r\n"))
            }
            RegistryFault::Page(status) => {
                let body = "<html><body>This is not the page that you are looking for.</body>";
                answer(status, "Content-Type: text/html\r\n", body)
            }
            RegistryFault::RedirectLoop => {
                let scheme = if self.tls.is_some() { "https" } else { "http" };
                let field = format!("Location: {scheme}://{}{path}\r\n", self.address);
                answer(307, &field, "")
            }
            RegistryFault::Reset | RegistryFault::Corrupt | RegistryFault::Stall => return None,
        })
    }

    /// Returns what is planned for a request, and counts it.
    fn fault(&self, asked: Asked) -> Option<RegistryFault> {
        let mut state = self.state();
        let plan = state.plan.as_mut().filter(|plan| plan.asked == asked)?;
        if let Some(times) = &mut plan.times {
            *times = times.checked_sub(1)?;
        }
        Some(plan.fault)
    }

    /// Asks the registry behind, and returns head and body of its answer.
    fn fetch(&self, request: &str) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let mut target = TcpStream::connect(&self.target)?;
        let mut asked = String::new();
        for line in request
            .lines()
            .take_while(|line| !line.is_empty())
            .filter(|line| !line.to_lowercase().starts_with("connection:"))
        {
            asked.push_str(line);
            asked.push_str("\r\n");
        }
        asked.push_str("Connection: close\r\n\r\n");
        target.write_all(asked.as_bytes())?;
        let mut bytes = Vec::new();
        target.read_to_end(&mut bytes)?;
        let end = bytes
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let body = bytes.split_off(end + 4);
        Ok((bytes, body))
    }
}

fn read_head(from: &mut impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        from.read_exact(&mut byte)?;
        head.extend_from_slice(&byte);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Words a refusal as registries do.
fn refusal(status: u16, fields: &str) -> String {
    let (code, message) = match status {
        401 => ("UNAUTHORIZED", "authentication required"),
        403 => ("DENIED", "requested access to the resource is denied"),
        404 => ("MANIFEST_UNKNOWN", "manifest unknown"),
        429 => ("TOOMANYREQUESTS", "You have reached your pull rate limit."),
        _ => ("UNKNOWN", "unknown error"),
    };
    let challenge = if status == 401 {
        "WWW-Authenticate: Basic realm=\"cove\"\r\n"
    } else {
        ""
    };
    let body = format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#);
    let fields = format!(
        "Content-Type: application/json\r\nDocker-Distribution-Api-Version: registry/2.0\r\n{challenge}{fields}"
    );
    answer(status, &fields, &body)
}

fn answer(status: u16, fields: &str, body: &str) -> String {
    let reason = match status {
        307 => "Temporary Redirect",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Other",
    };
    format!(
        "HTTP/1.1 {status} {reason}\r\n{fields}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
