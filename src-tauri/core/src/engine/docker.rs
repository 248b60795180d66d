//! Docker's API, spoken by Docker, Podman and their relatives. `bollard::` is said in this folder and
//! nowhere else.
//!
//! Where engines listen is `endpoints`, the way to one `connection`, what is asked of it `calls`. What
//! engines and registries put in words is understood in `wording`.

mod calls;
mod connection;
mod credentials;
mod endpoints;
mod errors;
#[cfg(test)]
mod recorded;
mod registry;
mod wording;

pub use self::connection::DockerEngine;
