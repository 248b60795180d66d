//! A small synchronous WebDriver client: what the window tests need and no more. Every request has a time limit.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use base64::Engine as _;
use serde_json::{Value, json};

/// The key under which the protocol hands out elements.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A WebDriver session; it is ended with its guard.
#[derive(Debug)]
pub struct WebDriver {
    agent: ureq::Agent,
    session: String,
}

/// An element of the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element(String);

impl WebDriver {
    /// Opens a session on the driver at this address, `127.0.0.1:4444`.
    ///
    /// # Errors
    /// When the driver does not answer in time or refuses.
    pub fn open(address: &str, capabilities: &Value, limit: Duration) -> Result<Self> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(limit))
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .into();
        let base = format!("http://{address}/session");
        let request = json!({"capabilities": {"alwaysMatch": capabilities}});
        let answer = send(
            agent
                .post(&base)
                .content_type("application/json")
                .send(request.to_string()),
        )
        .context("failed to open the app's window")?;
        let id = answer
            .get("sessionId")
            .and_then(Value::as_str)
            .context("failed to open the app's window: no session in the answer")?;
        Ok(Self {
            session: format!("{base}/{id}"),
            agent,
        })
    }

    /// Finds the first element, or `None`.
    ///
    /// # Errors
    /// When the driver does not answer.
    pub fn try_find(&self, selector: &str) -> Result<Option<Element>> {
        Ok(self.find_all(selector)?.into_iter().next())
    }

    /// Finds all elements.
    ///
    /// # Errors
    /// When the driver does not answer.
    pub fn find_all(&self, selector: &str) -> Result<Vec<Element>> {
        let found = self.post(
            "elements",
            &json!({"using": "css selector", "value": selector}),
        )?;
        let found = found.as_array().cloned().unwrap_or_default();
        Ok(found
            .iter()
            .filter_map(|element| element.get(ELEMENT).and_then(Value::as_str))
            .map(|id| Element(id.to_owned()))
            .collect())
    }

    /// Clicks as a user would: the element must be visible and not covered.
    ///
    /// # Errors
    /// When it is not, or the driver does not answer.
    pub fn click(&self, element: &Element) -> Result<()> {
        self.post(&format!("element/{}/click", element.0), &json!({}))
            .map(drop)
    }

    /// Focuses the element and types into it.
    ///
    /// # Errors
    /// When it takes no keys, or the driver does not answer.
    pub fn keys(&self, element: &Element, text: &str) -> Result<()> {
        self.post(
            &format!("element/{}/value", element.0),
            &json!({"text": text}),
        )
        .map(drop)
    }

    /// Presses and releases keys wherever the focus is; `held` are held down meanwhile.
    ///
    /// Keys without a character have their WebDriver code point, Enter `\u{E007}`, Control `\u{E009}`.
    ///
    /// # Errors
    /// When the driver does not answer.
    pub fn press(&self, held: &[char], keys: &str) -> Result<()> {
        let key = |kind: &str, key: char| json!({"type": kind, "value": key.to_string()});
        let mut actions: Vec<Value> = held.iter().map(|&held| key("keyDown", held)).collect();
        actions.extend(
            keys.chars()
                .flat_map(|pressed| [key("keyDown", pressed), key("keyUp", pressed)]),
        );
        actions.extend(held.iter().rev().map(|&held| key("keyUp", held)));
        self.post(
            "actions",
            &json!({"actions": [{"type": "key", "id": "keys", "actions": actions}]}),
        )
        .map(drop)
    }

    /// Presses and releases a button of the mouse, `0` for the main one and `2` for that of the menu, at a point of the
    /// page in CSS pixels; `held` are keys that are held down meanwhile.
    ///
    /// # Errors
    /// When the driver does not answer.
    pub fn press_at(&self, held: &[char], button: u8, at: (f64, f64)) -> Result<()> {
        self.point(
            held,
            &[
                go_to(at),
                json!({"type": "pointerDown", "button": button}),
                json!({"type": "pointerUp", "button": button}),
            ],
        )
    }

    /// Presses the main button of the mouse at a point of the page, carries it through others, in CSS pixels, and
    /// releases it at the last; `held` are keys that are held down meanwhile.
    ///
    /// # Errors
    /// When the driver does not answer.
    pub fn drag(&self, held: &[char], from: (f64, f64), through: &[(f64, f64)]) -> Result<()> {
        let mut actions = vec![go_to(from), json!({"type": "pointerDown", "button": 0})];
        actions.extend(through.iter().copied().map(go_to));
        actions.push(json!({"type": "pointerUp", "button": 0}));
        self.point(held, &actions)
    }

    fn point(&self, held: &[char], pointer: &[Value]) -> Result<()> {
        let key = |kind: &str, key: char| json!({"type": kind, "value": key.to_string()});
        let pause = || json!({"type": "pause"});
        let mut keys: Vec<Value> = held.iter().map(|&held| key("keyDown", held)).collect();
        let mut mouse: Vec<Value> = held.iter().map(|_| pause()).collect();
        keys.extend(pointer.iter().map(|_| pause()));
        mouse.extend_from_slice(pointer);
        keys.extend(held.iter().map(|&held| key("keyUp", held)));
        mouse.extend(held.iter().map(|_| pause()));
        self.post(
            "actions",
            &json!({"actions": [
                {"type": "key", "id": "keys", "actions": keys},
                {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": mouse},
            ]}),
        )
        .map(drop)
    }

    /// Empties a text field.
    ///
    /// # Errors
    /// When it is none, or the driver does not answer.
    pub fn clear(&self, element: &Element) -> Result<()> {
        self.post(&format!("element/{}/clear", element.0), &json!({}))
            .map(drop)
    }

    /// Returns the text that a user sees.
    ///
    /// # Errors
    /// When the element is gone, or the driver does not answer.
    pub fn text(&self, element: &Element) -> Result<String> {
        let text = self.get(&format!("element/{}/text", element.0))?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// Returns an attribute, or `None`.
    ///
    /// # Errors
    /// When the element is gone, or the driver does not answer.
    pub fn attribute(&self, element: &Element, name: &str) -> Result<Option<String>> {
        let value = self.get(&format!("element/{}/attribute/{name}", element.0))?;
        Ok(value.as_str().map(str::to_owned))
    }

    /// Runs the body of a function in the page and returns its result.
    ///
    /// # Errors
    /// When it throws, or the driver does not answer.
    pub fn execute(&self, script: &str, arguments: &[Value]) -> Result<Value> {
        self.post(
            "execute/sync",
            &json!({"script": script, "args": arguments}),
        )
    }

    /// Runs the body of an asynchronous function in the page; it ends by calling its last argument.
    ///
    /// # Errors
    /// When it throws, does not end in time, or the driver does not answer.
    pub fn execute_async(&self, script: &str, arguments: &[Value]) -> Result<Value> {
        self.post(
            "execute/async",
            &json!({"script": script, "args": arguments}),
        )
    }

    /// Sets how long a script may take.
    ///
    /// # Errors
    /// When the driver does not answer.
    pub fn set_script_limit(&self, limit: Duration) -> Result<()> {
        let milliseconds = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        self.post("timeouts", &json!({"script": milliseconds}))
            .map(drop)
    }

    /// Loads the page again.
    ///
    /// # Errors
    /// When the driver does not answer.
    pub fn reload(&self) -> Result<()> {
        self.post("refresh", &json!({})).map(drop)
    }

    /// Returns the page's address.
    ///
    /// # Errors
    /// When the driver does not answer.
    pub fn url(&self) -> Result<String> {
        Ok(self.get("url")?.as_str().unwrap_or_default().to_owned())
    }

    /// Sets the window's size in pixels.
    ///
    /// # Errors
    /// When the driver does not answer.
    pub fn resize(&self, width: u32, height: u32) -> Result<()> {
        self.post("window/rect", &json!({"width": width, "height": height}))
            .map(drop)
    }

    /// Saves what the window shows as a PNG file.
    ///
    /// # Errors
    /// When the driver does not answer or the file cannot be written.
    pub fn screenshot(&self, path: &Path) -> Result<()> {
        let failed = || format!("failed to save the screenshot `{}`", path.display());
        let encoded = self.get("screenshot").with_context(failed)?;
        let image = base64::engine::general_purpose::STANDARD
            .decode(encoded.as_str().unwrap_or_default())
            .with_context(failed)?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(failed)?;
        }
        std::fs::write(path, image).with_context(failed)
    }

    fn get(&self, path: &str) -> Result<Value> {
        send(self.agent.get(format!("{}/{path}", self.session)).call())
            .with_context(|| format!("failed to ask the window for `{path}`"))
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let request = self.agent.post(format!("{}/{path}", self.session));
        send(
            request
                .content_type("application/json")
                .send(body.to_string()),
        )
        .with_context(|| format!("failed to tell the window `{path}`"))
    }
}

impl Drop for WebDriver {
    fn drop(&mut self) {
        // The driver's end closes the app as well.
        let _ = self.agent.delete(&self.session).call();
    }
}

fn go_to((x, y): (f64, f64)) -> Value {
    json!({"type": "pointerMove", "duration": 40, "origin": "viewport", "x": x.round(), "y": y.round()})
}

fn send(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value> {
    let mut answer = answer?;
    let has_failed = !answer.status().is_success();
    // The limit is for a screenshot or a script's result; the default of 10 MB is too little for neither, but near.
    let text = answer
        .body_mut()
        .with_config()
        .limit(256 << 20)
        .read_to_string()?;
    let mut answer: Value =
        serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))?;
    let value = answer
        .get_mut("value")
        .map(Value::take)
        .ok_or_else(|| anyhow!("no value in the answer: {text}"))?;
    // A script's own result may have an `error` too; only the status tells whose it is.
    if has_failed {
        let word = |name| value.get(name).and_then(Value::as_str).unwrap_or_default();
        bail!("{}: {}", word("error"), word("message"));
    }
    Ok(value)
}
