//! Docker's API, spoken by Docker, Podman and their relatives. `bollard::` is said in this folder and
//! nowhere else.
//!
//! Where engines listen is `endpoints`, after the user's own `client_config`; the way to one is `transport` and
//! `connection`, what is asked of it `calls`, what it answers `answers`, what it measures and tells of itself `measured`. What engines and registries put in words is
//! understood in `wording`.

mod answers;
mod calls;
mod client_config;
mod connection;
mod credentials;
mod endpoints;
mod errors;
mod frames;
mod measured;
#[cfg(test)]
mod recorded;
mod registry;
#[cfg(test)]
mod side_by_side;
mod transport;
mod wording;

pub use self::connection::{DockerEngine, DockerPlaces};
