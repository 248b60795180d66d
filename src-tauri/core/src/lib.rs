//! Cove without a window: sessions, provisioning, files and terminals.
//!
//! This crate knows no Tauri and draws nothing. The shell around it turns commands into calls on
//! [`sessions::Sessions`] and [`event::SessionEvent`]s into what the UI hears.

mod archive;
pub mod assets;
mod connection;
pub mod container_log;
mod crossing;
pub mod drafts;
pub mod engine;
mod engine_id;
mod engines;
pub mod error;
pub mod estimate;
pub mod event;
pub mod figures;
pub mod files;
pub mod home;
pub mod image;
pub mod journal;
pub mod labels;
pub mod layer;
pub mod own_file;
pub mod ports;
pub mod processes;
pub mod progress;
mod provision;
pub mod remembered;
pub mod search;
pub mod session;
pub mod sessions;
pub mod settings;
pub mod template;
pub mod terminal;
pub mod timing;
mod words;
