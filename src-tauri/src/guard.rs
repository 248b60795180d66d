//! Keeps the window on the app's own page: what a page could be led to, it does not reach.

use tauri::plugin::{Builder, TauriPlugin};
use tauri::{Url, Wry};

/// Refuses every navigation that leads elsewhere. Web pages are opened in the user's browser, by the opener.
pub(crate) fn plugin() -> TauriPlugin<Wry> {
    Builder::new("guard")
        .on_navigation(|_, url| {
            let own = is_own(url, tauri::is_dev());
            if !own {
                log::warn!(
                    "the window was kept from another page, of the kind `{}`",
                    url.scheme()
                );
            }
            own
        })
        .build()
}

/// Returns whether an address is the app's own page: with a development server, that server's too.
fn is_own(url: &Url, dev: bool) -> bool {
    match (url.scheme(), url.host_str()) {
        ("tauri", Some("localhost")) | ("http" | "https", Some("tauri.localhost")) => true,
        ("http", Some("127.0.0.1")) => dev && url.port() == Some(1420),
        _ => url.as_str() == "about:blank",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_shows_the_apps_own_page_and_no_other() {
        let check = |address: &str, dev, own| {
            assert_eq!(is_own(&address.parse().unwrap(), dev), own, "{address}");
        };
        for address in [
            "tauri://localhost/",
            "http://tauri.localhost/x",
            "https://tauri.localhost/",
            "about:blank",
        ] {
            check(address, false, true);
        }
        for address in [
            "https://example.org/",
            "http://tauri.localhost.example.org/",
            "http://user@example.org/tauri.localhost",
            "file:///etc/passwd",
            "data:text/html,x",
            "javascript:alert(1)",
            "tauri://elsewhere/",
            "http://127.0.0.1:1420/",
            "about:srcdoc",
        ] {
            check(address, false, false);
        }
        check("http://127.0.0.1:1420/", true, true);
        check("http://127.0.0.1:1421/", true, false);
    }
}
