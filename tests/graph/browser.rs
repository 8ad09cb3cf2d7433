//! A headless Chromium of a test's own, driven by the WebDriver protocol (w3.org/TR/webdriver2). It asks
//! nobody for anything, and keeps nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::harness::Background;
use super::harness::tests::Need;

pub const NEEDS: &[Need] = &[Need::Program("chromium"), Need::Program("chromedriver")];

const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    // It ends with the driver, however that ends.
    "--remote-debugging-pipe",
];

/// The key under which an element's reference stands.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

pub struct Browser {
    _driver: Background,
    port: u16,
    session: String,
    /// Holds the page and the browser's own files.
    dir: tempfile::TempDir,
}

impl Browser {
    /// A window of this many pixels; a narrow one is a phone's.
    pub fn new(width: u32, height: u32) -> Browser {
        let dir = tempfile::Builder::new().prefix("labctl-page-").tempdir().expect("a directory");
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").env("HOME", dir.path());
        let mut driver = Background::start(command);
        let port = loop {
            let line = driver.line();
            assert!(!line.is_empty(), "chromedriver ended before it had a port");
            let port = line
                .trim()
                .rsplit_once("successfully on port ")
                .and_then(|(_, port)| port.trim_end_matches('.').parse().ok());
            if let Some(port) = port {
                break port;
            }
        };
        let mut browser = Browser { _driver: driver, port, session: String::new(), dir };
        let data = format!("--user-data-dir={}", browser.dir.path().join("profile").display());
        let size = format!("--window-size={width},{height}");
        let args: Vec<&str> = FLAGS.iter().copied().chain([data.as_str(), size.as_str()]).collect();
        let mut options = json!({ "args": args });
        if width < 600 {
            options["mobileEmulation"] =
                json!({ "deviceMetrics": { "width": width, "height": height, "pixelRatio": 1 } });
        }
        let wanted = json!({ "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" } });
        let session = browser.ask("POST", "/session", &json!({ "capabilities": { "alwaysMatch": wanted } }));
        browser.session = session["sessionId"].as_str().expect("a session").to_owned();
        browser
    }

    /// One request and its answer's value, over a connection of its own.
    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("chromedriver");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost:{}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.port,
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).expect("a reader");
        let (status, body) = answer(stream).unwrap_or_else(|e| panic!("{method} {path}: {e}"));
        assert!(status.starts_with("HTTP/1.1 200"), "{method} {path}: {status}\n{body}");
        serde_json::from_str::<Value>(&body).unwrap_or_else(|e| panic!("{e}: {body}"))["value"].take()
    }

    /// A request of the session.
    #[track_caller]
    fn post(&self, path: &str, body: &Value) -> Value {
        self.ask("POST", &format!("/session/{}{path}", self.session), body)
    }

    /// Show a page.
    #[track_caller]
    pub fn open(&self, page: &str) {
        let path = self.dir.path().join("page.html");
        std::fs::write(&path, page).expect("a page");
        self.post("/url", &json!({ "url": format!("file://{}", path.display()) }));
    }

    /// What a function's body gives back in the page.
    #[track_caller]
    pub fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    #[track_caller]
    pub fn text(&self, script: &str) -> String {
        self.run(&format!("return String({script})")).as_str().unwrap_or_default().to_owned()
    }

    #[track_caller]
    fn element(&self, selector: &str) -> String {
        let found = self.post("/element", &json!({ "using": "css selector", "value": selector }));
        found[ELEMENT].as_str().unwrap_or_else(|| panic!("no {selector}: {found}")).to_owned()
    }

    /// Click as a hand does: what lies on top takes it, and what is covered gives an error.
    #[track_caller]
    pub fn click(&self, selector: &str) {
        let element = self.element(selector);
        self.post(&format!("/element/{element}/click"), &json!({}));
    }

    /// Type into an element.
    #[track_caller]
    pub fn keys(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.post(&format!("/element/{element}/value"), &json!({ "text": text }));
    }

    /// The role and the name that a screen reader tells of an element.
    #[track_caller]
    pub fn announced(&self, selector: &str) -> (String, String) {
        let element = self.element(selector);
        let ask =
            |what: &str| self.ask("GET", &format!("/session/{}/element/{element}/{what}", self.session), &Value::Null);
        let word = |value: Value| value.as_str().unwrap_or_default().to_owned();
        (word(ask("computedrole")), word(ask("computedlabel")))
    }

    /// Set a feature that style sheets ask for, such as `prefers-reduced-motion`.
    pub fn prefer(&self, feature: &str, value: &str) {
        let features = json!({ "features": [{ "name": feature, "value": value }] });
        self.post("/goog/cdp/execute", &json!({ "cmd": "Emulation.setEmulatedMedia", "params": features }));
    }

    /// What the page and its scripts complained of, and what was refused to them.
    #[track_caller]
    pub fn complaints(&self) -> Vec<String> {
        let log = self.post("/se/log", &json!({ "type": "browser" }));
        log.as_array().into_iter().flatten().map(Value::to_string).collect()
    }

    /// Keep the picture of what is shown, for whoever wants to look at it.
    pub fn keep(&self, path: &Path) {
        use base64::Engine;
        let picture = self.ask("GET", &format!("/session/{}/screenshot", self.session), &Value::Null);
        let png = base64::engine::general_purpose::STANDARD.decode(picture.as_str().unwrap_or_default());
        std::fs::write(path, png.expect("a picture")).expect("a file");
    }
}

/// An answer's first line and its body; the driver leaves the connection open behind it.
fn answer(stream: TcpStream) -> std::io::Result<(String, String)> {
    let mut reader = BufReader::new(stream);
    let (mut status, mut length) = (String::new(), 0);
    reader.read_line(&mut status)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap_or_default();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

impl Drop for Browser {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.session.is_empty() {
            let path = std::env::temp_dir().join(format!("labctl-page-{}.png", std::process::id()));
            self.keep(&path);
            eprintln!("--- what the browser showed is in {}", path.display());
        }
        if !self.session.is_empty() {
            // It ends the browser; the driver ends behind it.
            self.ask("DELETE", &format!("/session/{}", self.session), &Value::Null);
        }
    }
}
