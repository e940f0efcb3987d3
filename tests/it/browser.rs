//! The page in headless Chromium, driven over a pipe by the `DevTools` protocol with real mouse and key events. Skipped where there is no Chromium.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cli::schedc;

/// Longer than any answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// A page in a browser of its own.
struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    next: u64,
    session: Option<String>,
    /// What happened beside answers.
    events: Vec<Value>,
    _profile: tempfile::TempDir,
}

/// The browser that this machine has.
fn chromium() -> Option<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    let folders = std::env::var_os("PATH")?;
    let found = |name: &str| {
        std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file())
    };
    names.into_iter().find_map(found)
}

impl Browser {
    /// Starts Chromium; `None`, with a word about it, where there is none.
    #[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
    fn start() -> Option<Self> {
        let Some(program) = chromium() else {
            eprintln!("skipped: no Chromium on this machine");
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        // The protocol is spoken on descriptors 3 and 4.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null"])
            .arg(program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--hide-scrollbars", "--window-size=1400,900", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, mut out) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, from) = channel();
        std::thread::spawn(move || {
            let (mut kept, mut part) = (Vec::new(), vec![0; 1 << 16]);
            while let Ok(length) = out.read(&mut part) {
                if length == 0 {
                    return;
                }
                kept.extend_from_slice(&part[..length]);
                while let Some(end) = kept.iter().position(|&byte| byte == 0) {
                    let message: Vec<u8> = kept.drain(..=end).collect();
                    let _ = sender.send(serde_json::from_slice(&message[..end]).unwrap());
                }
            }
        });
        let events = Vec::new();
        let mut browser = Self { child, to, from, next: 0, session: None, events, _profile: profile };
        let targets = browser.call("Target.getTargets", &json!({}));
        let pages = targets["targetInfos"].as_array().unwrap();
        let page = pages.iter().find(|target| target["type"] == "page").unwrap()["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", &json!({ "targetId": page, "flatten": true }));
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page.enable", "Runtime.enable", "Network.enable"] {
            browser.call(domain, &json!({}));
        }
        let size = json!({ "width": 1400, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        browser.call("Emulation.setDeviceMetricsOverride", &size);
        Some(browser)
    }

    fn call(&mut self, method: &str, params: &Value) -> Value {
        self.next += 1;
        let mut message = json!({ "id": self.next, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let mut answer = self.receive();
            if answer["id"] == self.next {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].take();
            }
            self.events.push(answer);
        }
    }

    fn receive(&self) -> Value {
        self.from.recv_timeout(PATIENCE).expect("Chromium answers")
    }

    /// Opens a file; how long it takes until it is loaded and drawn.
    fn open(&mut self, file: &Path) -> Duration {
        self.events.clear();
        let started = Instant::now();
        self.call("Page.navigate", &json!({ "url": format!("file://{}", file.display()) }));
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.receive();
            self.events.push(event);
        }
        self.evaluate("new Promise(done => requestAnimationFrame(() => done(0)))");
        started.elapsed()
    }

    fn evaluate(&mut self, script: &str) -> Value {
        let params = json!({ "expression": script, "returnByValue": true, "awaitPromise": true });
        let mut result = self.call("Runtime.evaluate", &params);
        assert!(result["exceptionDetails"].is_null(), "{script}: {result}");
        result["result"]["value"].take()
    }

    fn text(&mut self, id: &str) -> String {
        // What was asked for is drawn with the next frame.
        self.evaluate(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))",
        );
        let text = self.evaluate(&format!("document.getElementById('{id}').innerText"));
        text.as_str().unwrap().to_owned()
    }

    fn mouse(&mut self, kind: &str, at: (u32, u32), turn: i32) {
        let wheel = json!({ "type": kind, "x": at.0, "y": at.1, "deltaX": 0, "deltaY": turn });
        self.call("Input.dispatchMouseEvent", &wheel);
    }

    fn hover(&mut self, at: (u32, u32)) -> String {
        self.mouse("mouseMoved", at, 0);
        if self.evaluate("document.getElementById('tip').hidden") == true {
            String::new()
        } else {
            self.text("tip")
        }
    }

    fn key(&mut self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({ "type": kind, "key": key });
            if kind == "keyDown" && key.len() == 1 {
                event["text"] = key.into();
            }
            self.call("Input.dispatchKeyEvent", &event);
        }
    }

    /// The colours at some points of a screenshot, and how many colours it has in all. Chromium reads its own PNG.
    fn screenshot(&mut self, points: &[(u32, u32)]) -> (Vec<String>, u64) {
        let shot = self.call("Page.captureScreenshot", &json!({ "format": "png" }));
        let script = format!(
            "new Promise(done => {{
                const image = window.kept = new Image();
                image.onerror = () => done([[], 0]);
                image.onload = () => {{
                    const canvas = document.createElementNS('http://www.w3.org/1999/xhtml', 'canvas');
                    canvas.width = image.width; canvas.height = image.height;
                    const pen = canvas.getContext('2d');
                    pen.drawImage(image, 0, 0);
                    const all = new Set(new Uint32Array(pen.getImageData(0, 0, image.width, image.height).data.buffer));
                    const hex = ([x, y]) => '#' + [...pen.getImageData(x, y, 1, 1).data].slice(0, 3).map(byte => byte.toString(16).padStart(2, '0')).join('');
                    done([{}.map(hex), all.size]);
                }};
                image.src = 'data:image/png;base64,{}';
            }})",
            json!(points),
            shot["data"].as_str().unwrap()
        );
        let seen = self.evaluate(&script);
        let colours = seen[0].as_array().unwrap().iter().map(|colour| colour.as_str().unwrap().to_owned());
        (colours.collect(), seen[1].as_u64().unwrap())
    }

    /// No script failed, and nothing but the file was asked for.
    fn assert_calm(&self) {
        for event in &self.events {
            assert_ne!(event["method"], "Runtime.exceptionThrown", "{event}");
            if event["method"] == "Network.requestWillBeSent" {
                let url = event["params"]["request"]["url"].as_str().unwrap();
                assert!(url.starts_with("file:") || url.starts_with("data:"), "the page asked for {url}");
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn page(folder: &Path, words: &str) -> PathBuf {
    let done = schedc(folder, &format!("view {words} -o page.html"));
    assert_eq!(done.code, 0, "{}", done.err);
    folder.join("page.html")
}

/// The colour that `view/palette.rs` gives a pass.
fn colour(pass: &str) -> &'static str {
    match pass.split(' ').next().unwrap() {
        "F" => "#0072b2",
        "B" => "#e69f00",
        "S" => "#cc79a7",
        "T" => "#8e3b7a",
        "IF" => "#f0e442",
        "IB" => "#a89b00",
        other => panic!("no colour for `{other}`"),
    }
}

#[test]
fn a_page_zooms_and_says_what_is_under_the_mouse() {
    let Some(mut browser) = Browser::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    browser.open(&page(folder.path(), "1f1b --with vocab-2 -p 4 -m 8"));
    let (corner, colours) = browser.screenshot(&[(5, 895)]);
    assert_eq!(corner, ["#ffffff"], "a light page");
    assert!(colours > 20, "a drawing, not a blank page: {colours} colours");
    let whole = browser.text("where");
    assert!(whole.starts_with("0 –"), "{whole}");

    // In the middle of the first rank's row, wheel in.
    let row = browser.evaluate(
        "Math.round(rowTop(layout[0], 0) + layout[0].pass / 2 + canvas.getBoundingClientRect().top)",
    );
    let row = u32::try_from(row.as_u64().unwrap()).unwrap();
    browser.mouse("mouseMoved", (700, row), 0);
    for _ in 0..8 {
        browser.mouse("mouseWheel", (700, row), -100);
    }
    let zoomed = browser.text("where");
    let span = |text: &str| {
        let (from, rest) = text.split_once(" – ").unwrap();
        let to: f64 = rest.split(' ').next().unwrap().parse().unwrap();
        to - from.parse::<f64>().unwrap()
    };
    assert!(span(&zoomed) < span(&whole) / 3.0, "{whole}, then {zoomed}");

    // Each pass under the mouse is what the picture shows there.
    let mut seen = 0;
    for column in (60..1380).step_by(40) {
        let said = browser.hover((column, row));
        let Some(title) = said.lines().next().map(str::to_owned) else { continue };
        assert!(said.contains("takes") && said.contains("waits for"), "{said}");
        // Away from the number in the middle of the box, and from its outline.
        browser.mouse("mouseMoved", (700, 5), 0);
        let (pixel, _) = browser.screenshot(&[(column, row - 8)]);
        let edge = browser.evaluate(&format!("Math.abs(x(momentAt({column})) - {column}) < 1")) == true;
        if pixel[0] == colour(&title) {
            seen += 1;
        } else {
            assert!(edge, "{title}: {pixel:?}");
        }
    }
    assert!(seen >= 15, "{seen} passes had their colour");
    browser.assert_calm();
}

#[test]
fn a_page_is_worked_by_keys_and_shows_the_dark_the_memory_and_two_plans() {
    let Some(mut browser) = Browser::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    browser.open(&page(folder.path(), "1f1b zb-h1 -p 3 -m 5"));
    assert_eq!(browser.evaluate("layout.length"), 2, "two plans");
    browser.evaluate("document.getElementById('canvas').focus()");
    browser.key("ArrowRight");
    assert!(browser.text("tip").starts_with("F s0 m0"), "{}", browser.text("tip"));
    browser.key("ArrowRight");
    browser.key("ArrowDown");
    let said = browser.text("tip");
    assert!(said.starts_with("F s1 m0"), "{said}");
    assert!(said.contains("x of F s0 m0 from r0") && said.contains("makes"), "{said}");
    assert!(
        browser
            .evaluate("document.getElementById('said').textContent")
            .as_str()
            .unwrap()
            .starts_with("F s1 m0")
    );
    browser.key("Escape");
    let before = browser.text("where");
    browser.key("+");
    assert_ne!(browser.text("where"), before);
    browser.key("0");
    assert_eq!(browser.text("where"), before);
    for name in ["memory", "messages"] {
        let pressed = format!("document.getElementById('{name}').getAttribute('aria-pressed')");
        let was = browser.evaluate(&pressed);
        browser.evaluate(&format!("document.getElementById('{name}').click()"));
        assert_ne!(browser.evaluate(&pressed), was, "{name}");
    }
    let undimmed = browser.screenshot(&[]).1;
    browser.key("c");
    browser.text("where");
    assert_ne!(browser.screenshot(&[]).1, undimmed, "all but the critical path is dimmed");
    assert_eq!(browser.evaluate("data.charts.every(chart => chart.critical.length > 10)"), true);
    let dark = json!({ "features": [{ "name": "prefers-color-scheme", "value": "dark" }] });
    browser.call("Emulation.setEmulatedMedia", &dark);
    let (corner, colours) = browser.screenshot(&[(5, 895)]);
    assert_eq!(corner, ["#15171c"]);
    assert!(colours > 20);
    browser.assert_calm();
}

#[test]
fn a_page_shows_the_peak_that_the_simulator_finds() {
    let Some(mut browser) = Browser::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    browser.open(&page(
        folder.path(),
        "1f1b+vocab-2 v-half+vocab-1 zb-h1+interlaced dualpipe -p 4 -m 8 --cost p2p=0.1",
    ));
    let same = "data.charts.every(chart => chart.rows.every((row, rank) => {
        const { most, peak } = memoryOf(chart, row), [at, bytes] = chart.peaks[rank];
        return bytes > 0 && most === bytes && Math.abs(peak - at) < 1e-9;
    }))";
    assert_eq!(browser.evaluate(same), true);
    let row =
        "rowTop(layout[0], 0) + layout[0].pass + layout[0].lane + 5 + canvas.getBoundingClientRect().top";
    let row = browser.evaluate(&format!("Math.round({row})")).as_u64().unwrap();
    let said = browser.hover((700, u32::try_from(row).unwrap()));
    assert!(said.starts_with("r0 holds") && said.contains("act") && said.contains("peak"), "{said}");
    browser.assert_calm();
}

#[test]
fn pages_and_pictures_of_many_ranks_open_quickly() {
    let Some(mut browser) = Browser::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    // Two seconds is what a reader waits; a machine that runs other tests takes longer.
    let bound = Duration::from_secs(10);
    let file = page(folder.path(), "1f1b -p 64 -m 256");
    let took = browser.open(&file);
    assert!(took < bound, "{took:?}");
    let (_, colours) = browser.screenshot(&[(5, 5)]);
    assert!(colours > 20);
    browser.assert_calm();
    for words in ["1f1b -p 64 -m 256", "v-half --with vocab-1 -p 8 -m 32 --messages --critical"] {
        let done = schedc(folder.path(), &format!("view {words} -o picture.svg"));
        assert_eq!(done.code, 0, "{}", done.err);
        let took = browser.open(&folder.path().join("picture.svg"));
        assert!(took < bound, "{took:?}");
        assert_eq!(browser.evaluate("document.documentElement.nodeName"), "svg", "well formed");
        assert_eq!(browser.evaluate("document.getElementsByTagName('parsererror').length"), 0);
        let (_, colours) = browser.screenshot(&[(5, 5)]);
        assert!(colours > 8);
    }
}
