//! `[notify]`: real runs that fail and recover, and real servers that are told.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use serde_json::Value;

use crate::support::nix::{Lab, newest};
use crate::support::site::Site;

/// A server that takes whatever is posted to it, and answers with this status.
struct Hook {
    url: String,
    posted: Receiver<(Option<String>, Value)>,
}

impl Hook {
    fn start(status: u16) -> Self {
        let (told, posted) = channel();
        let (ready, is_ready) = channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                ready.send(listener.local_addr().unwrap()).unwrap();
                let take = move |headers: HeaderMap, body: axum::Json<Value>| async move {
                    let auth = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
                    let _ = told.send((auth, body.0));
                    StatusCode::from_u16(status).unwrap()
                };
                let app = axum::Router::new().route("/hook/s3cret", axum::routing::post(take));
                axum::serve(listener, app).await.unwrap();
            });
        });
        let address = is_ready.recv_timeout(Duration::from_secs(10)).unwrap();
        Self { url: format!("http://{address}/hook/s3cret"), posted }
    }

    /// What was posted since it was last asked; a run has ended before.
    fn posted(&self) -> Vec<(Option<String>, Value)> {
        self.posted.try_iter().collect()
    }
}

fn flake(command: &str) -> String {
    format!(
        "{{ outputs = _: {{ packages.x86_64-linux.web = derivation {{ name = \"web-1\"; system = \"x86_64-linux\"; \
         builder = \"/bin/sh\"; args = [ \"-c\" ''{command}'' ]; }}; }}; }}"
    )
}

#[test]
fn failures_and_recoveries_are_told_once() {
    let hooks = [Hook::start(200), Hook::start(204)];
    let site = Site::of(Lab::plain(&newest()), &flake("echo no <b>; exit 1"));
    let told = site.lab.work().join("told");
    let config = format!(
        "[notify.chat]\nslack-env = 'CHAT'\n[notify.bot]\nwebhook-env = 'BOT'\ntoken-file = '{token}'\n\
         [notify.own]\ncommand = ['/bin/sh', '-c', 'echo \"$DROVER_TEXT\" >> {told}; cat >> {told}.json']\n\
         [notify.release]\ncommand = ['/bin/false']\nbranches = ['release']\n",
        token = site.lab.work().join("token").display(),
        told = told.display(),
    );
    site.lab.write("token", "t0ken\n");
    site.edit("drover.toml", &config);
    let run = |code: i32| {
        let mut command = site.command(&["run"]);
        command.env("CHAT", &hooks[0].url).env("BOT", &hooks[1].url);
        let ran = crate::support::site::finish(command, &["run"]);
        ran.expect(code);
        assert!(!ran.stderr.contains("was not told"), "{}", ran.stderr);
        (hooks[0].posted(), hooks[1].posted())
    };

    let (chat, bot) = run(1);
    let text = chat[0].1["text"].as_str().unwrap();
    assert!(text.starts_with("drover run failed: 0 of 1 package ok, web failed\n"), "{text}");
    assert!(text.contains("• web: ") || text.contains("• web-1"), "{text}");
    assert_eq!((chat.len(), bot.len()), (1, 1));
    let (auth, document) = &bot[0];
    assert_eq!(auth.as_deref(), Some("Bearer t0ken"));
    assert_eq!((document["event"].as_str(), document["exit"].as_u64()), (Some("failure"), Some(1)));
    assert_eq!(document["failures"].as_array().unwrap().len(), 1, "{document}");

    let again = run(1);
    assert_eq!((again.0.len(), again.1.len()), (0, 0), "that it still fails is no news");
    site.edit("flake.nix", &flake("echo yes > $out"));
    let (chat, bot) = run(0);
    assert!(chat[0].1["text"].as_str().unwrap().starts_with("drover run is well again: "), "{chat:?}");
    assert_eq!(bot[0].1["event"].as_str(), Some("recovery"));
    let again = run(0);
    assert_eq!((again.0.len(), again.1.len()), (0, 0));
    let own = std::fs::read_to_string(&told).unwrap();
    assert_eq!(own.matches("drover run ").count(), 2, "{own}");
    let documents = std::fs::read_to_string(told.with_extension("json")).unwrap();
    assert_eq!(serde_json::Deserializer::from_str(&documents).into_iter::<Value>().count(), 2);
}

#[test]
fn whoever_cannot_be_told_is_named_and_no_secret_is() {
    let refuses = Hook::start(500);
    let site = Site::of(Lab::plain(&newest()), &flake("exit 1"));
    let gone = "http://127.0.0.1:9/hook/s3cret";
    site.edit(
        "drover.toml",
        "[notify.a]\nslack-env = 'CHAT'\n[notify.b]\nwebhook-env = 'BOT'\n[notify.c]\ncommand = ['/bin/sh', '-c', 'echo why >&2; exit 3']\n",
    );
    let mut command = site.command(&["run"]);
    command.env("CHAT", &refuses.url).env("BOT", gone);
    let ran = crate::support::site::finish(command, &["run"]);
    ran.expect(1);
    assert!(ran.stderr.contains("[notify.a] was not told of this run: HTTP 500"), "{}", ran.stderr);
    assert!(ran.stderr.contains("[notify.b] was not told of this run: "), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("[notify.c] was not told of this run: /bin/sh exited with code 3: why"),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains("s3cret"), "{}", ran.stderr);
    let record = std::fs::read_to_string(site.runs().pop().unwrap().join("events.jsonl")).unwrap();
    assert!(record.contains("was not told") && !record.contains("s3cret"));
}
