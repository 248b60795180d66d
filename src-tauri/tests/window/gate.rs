//! A way to the engine that holds back the requests a test names, so that a phase lasts as long as the test needs.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use cove_testbed::{Engine, Scratch};

pub(crate) struct Gate {
    host: String,
    barrier: Arc<Barrier>,
    _scratch: Scratch,
}

#[derive(Default)]
struct Barrier {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The method and a part of the path of the requests that are held back.
    held: Option<(&'static str, &'static str)>,
    waiting: usize,
}

impl Gate {
    /// Opens a way to this engine; it lets everything through at first.
    pub(crate) fn start(engine: &Engine) -> Self {
        let scratch = Scratch::new().unwrap();
        let path = scratch.path().join("gate.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let barrier = Arc::new(Barrier::default());
        let (accepting, target) = (Arc::clone(&barrier), engine.socket().to_owned());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (barrier, target) = (Arc::clone(&accepting), target.clone());
                thread::spawn(move || barrier.serve(client, &target));
            }
        });
        Self {
            host: format!("unix://{}", path.display()),
            barrier,
            _scratch: scratch,
        }
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Holds back every request of this method whose path has this part.
    pub(crate) fn hold(&self, method: &'static str, part: &'static str) {
        self.barrier.state.lock().unwrap().held = Some((method, part));
    }

    /// Returns whether a request is being held back.
    pub(crate) fn holds_one(&self) -> bool {
        self.barrier.state.lock().unwrap().waiting > 0
    }

    /// Lets everything through.
    pub(crate) fn release(&self) {
        self.barrier.state.lock().unwrap().held = None;
        self.barrier.changed.notify_all();
    }
}

impl Barrier {
    fn serve(self: Arc<Self>, client: UnixStream, target: &PathBuf) {
        let Ok(server) = UnixStream::connect(Path::new(target)) else {
            return;
        };
        let (from_client, to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || forward(from_client, to_server, |bytes| self.pass(bytes)));
        forward(server, client, |_| {});
    }

    /// Returns when these bytes may go on. A request begins a piece: the app asks one thing at a time on a connection.
    fn pass(&self, bytes: &[u8]) {
        let line = bytes
            .split(|byte| *byte == b'\r')
            .next()
            .unwrap_or_default();
        let line = String::from_utf8_lossy(line).into_owned();
        let is_held = |state: &State| {
            state
                .held
                .is_some_and(|(method, part)| line.starts_with(method) && line.contains(part))
        };
        let mut state = self.state.lock().unwrap();
        if is_held(&state) {
            state.waiting += 1;
            let mut state = self
                .changed
                .wait_while(state, |state| is_held(state))
                .unwrap();
            state.waiting -= 1;
        }
    }
}

fn forward(mut from: UnixStream, mut to: UnixStream, pass: impl Fn(&[u8])) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        pass(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // Either side may have closed first.
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}
