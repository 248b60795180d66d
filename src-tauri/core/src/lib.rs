//! Cove without a window.
