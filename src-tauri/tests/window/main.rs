//! The app in its real window, on a real engine and registry; `cargo xtask test` hands both over.
