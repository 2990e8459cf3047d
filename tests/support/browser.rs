//! A headless Chromium that opens pages and is asked about them, in the words of the DevTools protocol over its pipes
//! (`--remote-debugging-pipe`: JSON messages, each ended by a zero byte).
#![expect(clippy::disallowed_methods, clippy::print_stderr, reason = "looks for a browser, starts it, or says why not")]

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::deadline::wait_until;

/// Names under which distributions have it.
const NAMES: [&str; 4] = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"];

/// A browser; it ends with this value.
pub struct Browser {
    child: Child,
    to: File,
    from: BufReader<File>,
    last: u64,
    session: Option<String>,
    /// What it told without being asked.
    events: Vec<Value>,
    _dir: tempfile::TempDir,
}

/// How a page is shown.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    pub width: u32,
    pub dark: bool,
}

/// What became of a page.
#[derive(Debug)]
pub struct Opened {
    /// Seconds for which a processor worked for the page, from the start until it was there: however long that took.
    pub load: f64,
    /// Errors and warnings of the console, exceptions.
    pub complaints: Vec<String>,
    /// Everything that was requested.
    pub requests: Vec<String>,
    /// Pixels of the document, and of the window.
    pub scroll_width: f64,
    pub inner_width: f64,
}

impl Browser {
    /// Starts it; says so and gives `None` where there is none.
    pub fn start() -> Option<Self> {
        let path = std::env::var("PATH").unwrap_or_default();
        let found = NAMES.iter().find(|name| path.split(':').any(|dir| Path::new(dir).join(name).exists()));
        let Some(name) = found else {
            eprintln!("skipped: there is no chromium on PATH (apt-get install chromium-headless-shell)");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        // A shell, since only it can give descriptors 3 and 4 without unsafe code.
        let script = "mkfifo \"$1/in\" \"$1/out\" && exec \"$0\" --headless --no-sandbox --remote-debugging-pipe --disable-gpu \
                      --disable-dev-shm-usage --hide-scrollbars --no-first-run --disable-background-networking \
                      --user-data-dir=\"$1/profile\" about:blank 3<>\"$1/in\" 4<>\"$1/out\"";
        let mut command = Command::new("sh");
        command.args(["-c", script, name]).arg(dir.path()).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(Stdio::null()).spawn().unwrap();
        let (to, from) = (dir.path().join("in"), dir.path().join("out"));
        wait_until("the browser's pipes", || (to.exists() && from.exists()).then_some(()));
        let to = File::options().write(true).open(to).unwrap();
        let from = BufReader::new(File::open(from).unwrap());
        Some(Self { child, to, from, last: 0, session: None, events: Vec::new(), _dir: dir })
    }

    /// Opens a file in a new page.
    pub fn open(&mut self, file: &Path, look: Look) -> Opened {
        self.session = None;
        self.events.clear();
        let target = self.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attached = self.call("Target.attachToTarget", json!({ "targetId": target["targetId"], "flatten": true }));
        self.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.call(&format!("{domain}.enable"), json!({}));
        }
        let metrics = json!({ "width": look.width, "height": 900, "deviceScaleFactor": 1, "mobile": look.width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        let scheme = if look.dark { "dark" } else { "light" };
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", features);
        self.call("Performance.enable", json!({ "timeDomain": "threadTicks" }));
        self.call("Page.navigate", json!({ "url": format!("file://{}", file.display()) }));
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.read();
            self.events.push(event);
        }
        // After what the load event started.
        let script =
            "new Promise(done => setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(done)), 50))";
        self.evaluate(script);
        let metrics = self.call("Performance.getMetrics", json!({}));
        let metric = |name: &str| metrics["metrics"].as_array()?.iter().find(|metric| metric["name"] == name);
        let load = metric("TaskDuration").and_then(|metric| metric["value"].as_f64()).unwrap();
        let scroll_width = self.evaluate("document.documentElement.scrollWidth").as_f64().unwrap();
        let inner_width = self.evaluate("innerWidth").as_f64().unwrap();
        let complaints = self.events.iter().filter_map(complaint).collect();
        let sent = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        let requests = sent.map(|event| event["params"]["request"]["url"].as_str().unwrap().to_owned()).collect();
        Opened { load, complaints, requests, scroll_width, inner_width }
    }

    /// The value of an expression in the page; a promise is awaited.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let asked = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", asked);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression in the page is true, which it is at the latest some frames from now.
    pub fn wait_for(&mut self, expression: &str) {
        let look = format!("const look = () => ({expression}) ? done() : requestAnimationFrame(look)");
        self.evaluate(&format!("new Promise(done => {{ {look}; look(); }})"));
    }

    /// Presses a key.
    pub fn press(&mut self, key: &str) {
        let text = if key.chars().count() == 1 { key } else { "" };
        self.call("Input.dispatchKeyEvent", json!({ "type": "keyDown", "key": key, "text": text }));
        self.call("Input.dispatchKeyEvent", json!({ "type": "keyUp", "key": key }));
    }

    /// All of the page, or what the window shows, as a PNG.
    pub fn picture(&mut self, file: &Path, whole: bool) {
        let taken = self.call("Page.captureScreenshot", json!({ "captureBeyondViewport": whole, "format": "png" }));
        std::fs::write(file, BASE64_STANDARD.decode(taken["data"].as_str().unwrap()).unwrap()).unwrap();
    }

    /// As high as the page.
    pub fn grow(&mut self, look: Look) {
        let height = self.evaluate("document.documentElement.scrollHeight").as_f64().unwrap().min(12_000.0);
        let metrics =
            json!({ "width": look.width, "height": height as u32, "deviceScaleFactor": 1, "mobile": look.width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = serde_json::to_vec(&message).unwrap();
        bytes.push(0);
        self.to.write_all(&bytes).unwrap();
        loop {
            let answer = self.read();
            if answer["id"] == self.last {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.events.push(answer);
        }
    }

    fn read(&mut self) -> Value {
        let mut bytes = Vec::new();
        self.from.read_until(0, &mut bytes).unwrap();
        assert!(bytes.pop() == Some(0), "the browser has ended");
        serde_json::from_slice(&bytes).unwrap()
    }
}

/// What an event complains of, if it does.
fn complaint(event: &Value) -> Option<String> {
    let params = &event["params"];
    match event["method"].as_str()? {
        "Runtime.exceptionThrown" => Some(params["exceptionDetails"].to_string()),
        "Log.entryAdded" if params["entry"]["level"] != "info" => Some(params["entry"].to_string()),
        "Runtime.consoleAPICalled" => Some(params.to_string()),
        _ => None,
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
