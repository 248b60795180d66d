//! Cove without a window: sessions, provisioning, files and terminals.
//!
//! This crate knows no Tauri and draws nothing. The shell around it turns commands into calls on
//! [`sessions::Sessions`] and [`event::SessionEvent`]s into what the UI hears.

pub mod engine;
pub mod error;
pub mod event;
pub mod files;
pub mod image;
pub mod labels;
pub mod session;
pub mod settings;
pub mod template;
