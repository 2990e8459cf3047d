//! Every screen that people read about a run, from made-up runs: at 100 and 60 columns, and as lines of a CI log.
//! A changed screen is a changed snapshot: read it as a user would before accepting it.

use std::io::Write;
use std::sync::{Arc, Mutex};

use drover::event::{Difference, Event, Fact, Moment, Pushed, SkippedPath, Stage, Status};
use drover::id::{CacheId, Kind};
use drover::report::summary::Summary;
use drover::report::text::{Line, Style, render};
use drover::report::{affected, closing, doctor, hits, home, list, plan, time};
use drover::ui::model::Model;
use drover::ui::{Marks, Mode, Settings, Ui, live};

use crate::support::story::{self, Story, Twist, fleet};

/// Labels of lines that are there to be copied and therefore never cut.
const TYPED: [&str; 10] = ["fix:", "repeat", "log", "again", "at", "go on", "hint:", "drover", "nix", "ssh"];

fn settings(mode: Mode) -> Settings {
    Settings {
        mode,
        style: Style::default(),
        width: None,
        verbose: false,
        pushes: true,
        fail_fast: false,
        run: "01KAJX3M".to_owned(),
        report: None,
        marks: Marks::None,
    }
}

/// What `Ui` writes to.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// The whole log of a run in CI, with a tick every second as the driver gives.
pub(super) fn ci(events: &[Event]) -> String {
    let sink = Sink::default();
    let mut ui = Ui::new(settings(Mode::Plain), Box::new(sink.clone()));
    play(events, 1_000_000, |step| match step {
        Step::Event(event) => ui.on_event(event),
        Step::Tick(now) => ui.tick(now),
    });
    ui.finish();
    sink.text()
}

enum Step<'a> {
    Event(&'a Event),
    Tick(Moment),
}

/// Events in their time, with ticks between them.
fn play(events: &[Event], every: u64, mut each: impl FnMut(Step<'_>)) {
    let mut next = every;
    for event in events {
        while next < event.at.0 {
            each(Step::Tick(Moment(next)));
            next += every;
        }
        each(Step::Event(event));
    }
}

/// The live view at the end of the events: what scrolled by, then the live part, then the verdict if the run is over.
pub(super) fn live_at(events: &[Event], now: f64, width: usize) -> String {
    let settings = settings(Mode::Live);
    let mut model = Model::default();
    let mut lines = Vec::new();
    play(events, 100_000, |step| match step {
        Step::Event(event) => model.on_event(event, false),
        Step::Tick(_) => {
            for (_, notice) in model.take_notices() {
                lines.extend(live::notice(&model, &notice, &settings, width));
            }
        }
    });
    for (_, notice) in model.take_notices() {
        lines.extend(live::notice(&model, &notice, &settings, width));
    }
    let now = Moment::from_seconds(now);
    model.estimate(now);
    let region = live::region(&model, now, width);
    assert!(region.len() <= model.summary.builders.len() + 3);
    lines.extend(region);
    show(&lines, width)
}

pub(super) fn verdict(events: &[Event], width: usize) -> String {
    let options = closing::Options { width, verbose: false, run: Some("01KAJX3M".into()), report: None, clock: false };
    show(&closing::screen(&Summary::of(events), &options), width)
}

/// Lines as text, after a look at their width.
pub(super) fn show(lines: &[Line], width: usize) -> String {
    for line in lines {
        let text = line.render(Style::default());
        let typed = TYPED.iter().any(|label| text.trim_start().starts_with(label));
        assert!(typed || line.width() <= width, "{} columns: {text}", line.width());
    }
    render(lines, Style::default())
}

/// One snapshot of a screen in all its forms.
pub(super) fn both(screen: impl Fn(usize) -> String) -> String {
    format!("== 100 columns\n{}\n== 60 columns\n{}", screen(100), screen(60))
}

pub(super) fn snap(name: &str, text: &str) {
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!(name, text);
    });
}

#[test]
fn home_says_where_you_are_and_what_is_next() {
    let builder = |name: &str, slots, systems: &[&str]| home::Builder {
        name: name.into(),
        slots: Some(slots),
        systems: systems.iter().map(|s| (*s).to_owned()).collect(),
    };
    let cache = |name: &str| home::Cache { name: name.into(), pull: true, push: false };
    let facts = home::Facts {
        drover: "0.1.0".into(),
        nix: Some("2.34.8".into()),
        flake: Some("git+file:///home/me/infra".into()),
        dirty_files: Some(2),
        attrs: vec![(Kind::NixosConfigurations, 40), (Kind::Packages, 6), (Kind::Checks, 3)],
        attrs_from: Some("4f2c1d9".into()),
        builders: vec![
            builder("local", 8, &["x86_64-linux"]),
            builder("big1", 16, &["x86_64-linux"]),
            builder("big2", 16, &["x86_64-linux", "aarch64-linux"]),
        ],
        builders_from: Some("/etc/nix/machines".into()),
        caches: vec![cache("cache.nixos.org"), cache("acme.cachix.org")],
        caches_from: Some("nix.conf".into()),
        last: Some(home::LastRun {
            run: "01KAJX3M".into(),
            ago: "2h ago".into(),
            seconds: Some(432.0),
            verdict: "39 of 40 hosts ok, web3 failed".into(),
            failed: true,
            unpushed: false,
        }),
        troubles: vec![],
        example: Some("web1".into()),
    };
    let nothing = home::Facts { drover: "0.1.0".into(), nix: Some("2.34.8".into()), ..home::Facts::default() };
    let text = format!(
        "{}\n== not in a flake, nothing set up\n{}",
        both(|width| show(&home::screen(&facts, width), width)),
        show(&home::screen(&nothing, 100), 100)
    );
    snap("home", &text);
}

#[test]
fn doctor_says_what_is_wrong_and_what_mends_it() {
    use doctor::{
        Cache, Checked, Disk, Down, Facts, Flake, Git, KeyFile, KeyFileState, Netrc, Nix, Reach, Signed, StateDir,
        Store,
    };
    let nix = Nix {
        version: "2.34.8".into(),
        features: vec!["nix-command".into(), "flakes".into()],
        sandbox: true,
        substitute: true,
        require_sigs: true,
        max_jobs: Some(8),
        ..Nix::default()
    };
    let cache = |name: &str, reach| Cache {
        name: name.into(),
        url: format!("https://{name}"),
        host: Some(name.into()),
        pull: true,
        millis: 31,
        signed: if reach == Reach::Ok { Signed::Trusted } else { Signed::Unknown },
        reach,
        ..Cache::default()
    };
    let key = KeyFile { file: "/run/keys/acme".into(), world_readable: false, state: KeyFileState::Missing };
    let netrc = Netrc { file: "/etc/nix/netrc".into(), ..Netrc::default() };
    let disk = Disk {
        uses: vec!["the store", "records"],
        dir: "/nix/store".into(),
        free: 3 << 30,
        total: 250 << 30,
        inodes_free: Some(9_000_000),
    };
    let fine = Facts {
        nix: Checked::Found(nix),
        store: Checked::Found(Store {
            uri: "daemon".into(),
            dir: "/nix/store".into(),
            daemon: true,
            ..Store::default()
        }),
        nix_conf: "/etc/nix/nix.conf".into(),
        netrc,
        linux: true,
        flake: Some(Flake {
            dir: "/home/me/infra".into(),
            exists: true,
            locked: true,
            inputs: Checked::Found(vec!["nixpkgs".into()]),
        }),
        git: Checked::Found(Git {
            flake_tracked: true,
            lock_tracked: true,
            changed: 2,
            has_commit: true,
            ..Git::default()
        }),
        caches: vec![Cache { skew: Some(1), ..cache("c.acme.net", Reach::Ok) }],
        keys: vec![doctor::PublicKey { key: "c.acme.net-1:AAAA".into(), table: None, bad: None }],
        disks: vec![Disk { free: 71 << 30, ..disk.clone() }],
        state: StateDir {
            dir: Some("/home/me/.local/state/drover".into()),
            runs: Some(212),
            shared: Some("https://acme.example/drover".to_owned()),
            problem: None,
        },
        ..Facts::default()
    };
    let mut ill = fine.clone();
    ill.caches.push(cache("big.acme.net", Reach::Down(Down::Refused)));
    ill.caches.push(Cache {
        table: Some("acme".into()),
        push: true,
        key_files: vec![key],
        ..cache("push.acme.net", Reach::Denied(401))
    });
    ill.disks = vec![disk];
    let text = format!(
        "{}\n== nothing wrong\n{}",
        both(|width| show(&doctor::screen(&doctor::examine(&ill), width), width)),
        show(&doctor::screen(&doctor::examine(&fine), 100), 100)
    );
    snap("doctor", &text);
}

#[test]
fn a_plan_says_what_would_be_done_and_for_how_long() {
    let mut story = fleet(Twist { plan: true, eval_fails: true, ..Twist::default() });
    story.fetches(53.0, &["glibc-2.42", "openssl-3.5.1"]);
    let summary = Summary::of(&story.events());
    let known = both(|width| show(&plan::screen(&summary, width, true), width));
    snap("plan", &format!("{known}\n== CI\n{}", ci(&story.events())));
}

/// A comparison of a small flake: one attr for each way to differ.
fn comparison() -> Story {
    let mut story = Story::new("affected", &[]);
    story.flake(0.1, 0, false);
    story.at(0.1, Fact::StageStarted { stage: Stage::Eval });
    for (second, done) in [(1.0, 0), (2.0, 5)] {
        story.at(second, Fact::BaseProgress { label: "main@a01b77e".into(), done, total: 9 });
    }
    story.base(3.0, false, 9);
    let host = Kind::NixosConfigurations;
    let attrs: Vec<_> =
        ["web1", "web2", "web3", "db1", "lb1", "new1", "old1", "rev1"].map(|name| story.attr(3.25, host, name)).into();
    let tool = story.attr(3.25, Kind::Packages, "tool");
    for (number, attr) in attrs.iter().copied().chain([tool]).enumerate() {
        let difference = match number {
            0..=2 | 8 => Difference::Changed,
            3 => Difference::NewlyBroken,
            5 => Difference::Added,
            6 => Difference::StillBroken,
            _ => Difference::Unchanged,
        };
        match difference {
            Difference::NewlyBroken | Difference::StillBroken => {
                story.eval_failed(
                    attr,
                    0,
                    3.5,
                    4.0,
                    ("error: attribute 'hostKey' missing", Some("hosts/db1.nix:12:9")),
                );
            }
            _ => story.evaluated(attr, 0, 3.5, 4.0),
        }
        story.compared(4.0, attr, difference);
    }
    let changed = |attr, revision_only| Fact::AttrCompared {
        attr,
        difference: Difference::Changed,
        revision_only,
        same_outputs: !revision_only,
        base_drv: None,
    };
    story.at(4.5, changed(attrs[4], false));
    story.at(4.5, changed(attrs[7], true));
    story.at(4.5, Fact::AttrRemoved { path: "nixosConfigurations.web9".parse().unwrap(), base_drv: None });
    story.at(4.5, Fact::StageEnded { stage: Stage::Eval });
    story
}

#[test]
fn what_differs_from_a_base_is_told_by_the_way_it_does() {
    let mut story = comparison();
    let while_it_goes_on = both(|width| live_at(&story.until(2.5), 2.5, width));
    story.at(5.0, Fact::RunEnded { exit: 3 });
    let summary = Summary::of(&story.events());
    let screen = both(|width| show(&affected::screen(&summary, width), width));
    let ci = ci(&story.events());
    let names = format!("{}== hosts\n{}", affected::names(&summary, false), affected::names(&summary, true));
    snap("affected", &format!("{while_it_goes_on}\n== the end\n{screen}\n== CI\n{ci}\n== stdout\n{names}"));
}

#[test]
fn what_skip_skips_is_named() {
    let mut story = Story::new("affected", &[]);
    story.flake(0.1, 0, false);
    story.at(0.1, Fact::StageStarted { stage: Stage::Eval });
    story.base(0.2, true, 9);
    let path = |n: u32| SkippedPath { path: format!("docs/chapter-{n}.md").into(), glob: "docs/**".into() };
    story.at(0.2, Fact::ChangesSkipped { paths: (0..12).map(path).collect() });
    story.at(0.2, Fact::StageEnded { stage: Stage::Eval });
    story.at(0.3, Fact::RunEnded { exit: 0 });
    let summary = Summary::of(&story.events());
    let screen = both(|width| show(&affected::screen(&summary, width), width));
    snap("affected_skipped", &format!("{screen}\n== CI\n{}", ci(&story.events())));
}

#[test]
fn a_plan_without_history_invents_no_number() {
    let story = fleet(Twist { plan: true, no_history: true, push: true, ..Twist::default() });
    let summary = Summary::of(&story.events());
    snap("plan_no_history", &both(|width| show(&plan::screen(&summary, width, true), width)));
}

#[test]
fn while_it_locks_lists_and_evaluates() {
    let story = fleet(Twist { push: true, ..Twist::default() });
    let mut text = String::new();
    for (label, at) in [("locking", 0.5), ("listing", 1.2), ("evaluating", 21.0)] {
        text.push_str(&format!("==== {label}\n{}\n", both(|width| live_at(&story.until(at), at, width))));
    }
    snap("live_evaluating", &text);
}

#[test]
fn while_it_builds_and_pushes() {
    let story = fleet(Twist { push: true, nginx_fails: true, ..Twist::default() });
    snap("live_building", &both(|width| live_at(&story.until(111.0), 111.0, width)));
}

#[test]
fn a_whole_run_in_ci() {
    let story = fleet(Twist { push: true, ..Twist::default() });
    snap("ci_run", &ci(&story.events()));
}

#[test]
fn a_failure_shared_by_several_hosts_is_one_failure() {
    let story = fleet(Twist { nginx_fails: true, ..Twist::default() });
    let events = story.events();
    snap("failure", &format!("{}\n== CI\n{}", both(|width| verdict(&events, width)), ci(&events)));
}

#[test]
fn an_attr_that_does_not_evaluate_is_its_own_failure() {
    let story = fleet(Twist { eval_fails: true, idle: false, ..Twist::default() });
    let events = story.events();
    snap("failure_eval", &format!("{}\n== CI\n{}", both(|width| verdict(&events, width)), ci(&events)));
}

#[test]
fn where_the_time_went_adds_up() {
    let story = fleet(Twist { push: true, ..Twist::default() });
    let summary = Summary::of(&story.events());
    snap("time", &both(|width| show(&time::screen(&summary, width), width)));
}

#[test]
fn ctrl_c_says_what_is_kept() {
    let mut story = fleet(Twist { push: true, ..Twist::default() });
    story.at(30.0, Fact::Cancelled { level: 1 });
    let mut events = story.until(30.0);
    let seq = events.len() as u64;
    let live = both(|width| live_at(&events, 30.4, width));
    events.push(Event { seq, at: Moment::from_seconds(33.0), fact: Fact::RunEnded { exit: 130 } });
    snap("ctrl_c", &format!("{live}\n== the end\n{}\n== CI\n{}", verdict(&events, 100), ci(&events)));
}

#[test]
fn nothing_to_do_is_one_line() {
    let story = fleet(Twist { idle: true, ..Twist::default() });
    let events = story.events();
    snap("nothing_to_do", &format!("{}\n== CI\n{}", both(|width| verdict(&events, width)), ci(&events)));
}

#[test]
fn warnings_are_said_once_with_what_to_type() {
    let mut story = fleet(Twist { idle: true, ..Twist::default() });
    let warning =
        |message: &str, hint: Option<&str>| Fact::Warning { message: message.into(), hint: hint.map(Into::into) };
    let unreachable = "builder big2 unreachable: ssh: connect to big2.acme.net port 22: timed out (5s)\n\
                       going on with big1 (16 slots) and local; big2 is tried again every 60s";
    story.at(0.95, warning(unreachable, None));
    story.at(0.96, warning("cache acme.cachix.org answers 503: its paths are built", Some("drover doctor")));
    for _ in 0..3 {
        let message = "'system' has been renamed to/replaced by 'stdenv.hostPlatform.system'".into();
        story.at(0.97, Fact::EvalWarning { attr: None, message });
    }
    let what = "3 packages for aarch64-darwin".into();
    story.at(0.98, Fact::AttrsLeftOut { count: 3, what, flag: "--all-systems".into() });
    let events = story.events();
    snap("warnings", &format!("{}\n== CI\n{}", both(|width| live_at(&events, 1.2, width)), ci(&events)));
}

#[test]
fn what_was_not_pushed_is_said_by_host() {
    let mut story = fleet(Twist { push: true, ..Twist::default() });
    let end = story.events().last().unwrap().at.seconds();
    let mut events: Vec<Event> = story.events();
    events.pop();
    let refused = story::failure(drover::event::Class::Cache, "HTTP 429 since 6m02s, 9 tries, gave up after 5m00s");
    for event in &mut events {
        if let Fact::PushEnded { path, pushed, .. } = &mut event.fact
            && (path.contains("linux-6") || path.contains("nixos-system-web"))
        {
            *pushed = Pushed::Failed(refused.clone());
        }
    }
    let seq = events.len() as u64;
    events.push(Event { seq, at: Moment::from_seconds(end), fact: Fact::RunEnded { exit: 5 } });
    story.at(end, Fact::RunEnded { exit: 5 });
    snap("not_pushed", &both(|width| verdict(&events, width)));
}

/// A push of nothing but paths: this many of four are not taken.
fn only_pushed(refused: usize, optional: bool) -> Vec<Event> {
    let cache = drover::id::CacheId(1);
    let mut story = Story::new("push", &["--run", "01KAJX3M"]);
    let (name, url) = ("acme.cachix.org".into(), "https://acme.cachix.org".into());
    story.at(0.2, Fact::CacheReady { cache, name, url, pull: true, push: true, optional, asked: true, sick: false });
    let names = ["base-1.0", "lib-1.0", "linux-6.12.58", "nixos-system-web1-25.11"];
    story.at(0.2, Fact::PushAsked { paths: vec![story::store_path(names[3]).into()] });
    story.at(0.2, Fact::StageStarted { stage: Stage::Push });
    let last = names.len() - refused;
    for (i, name) in names.into_iter().enumerate() {
        story.push(1.0 + i as f64, cache, name, 90_000_000, if i < last { 3.0 } else { 300.0 });
    }
    let end = if refused > 0 { 305.0 } else { 7.0 };
    story.at(end, Fact::PushVerified { cache, present: last as u32, missing: vec![] });
    story.at(end, Fact::StageEnded { stage: Stage::Push });
    let exit = if refused > 0 && !optional { 5 } else { 0 };
    story.at(end + 0.1, Fact::RunEnded { exit });
    let mut events = story.events();
    let gave_up = "HTTP status 429, 9 tries, gave up after waiting 4m51s";
    let failure = story::failure(drover::event::Class::Cache, gave_up);
    for event in &mut events {
        if let Fact::PushEnded { path, pushed, .. } = &mut event.fact
            && names[last..].iter().any(|name| path.ends_with(name))
        {
            *pushed = Pushed::Failed(failure.clone());
        }
    }
    events
}

#[test]
fn a_push_of_nothing_but_paths() {
    let mut text = String::new();
    for (refused, optional) in [(0, false), (2, false), (2, true)] {
        let events = only_pushed(refused, optional);
        let half: Vec<Event> = events.iter().filter(|event| event.at < Moment::from_seconds(5.0)).cloned().collect();
        text += &format!(
            "== {refused} refused, optional: {optional}\n{}\n== CI\n{}\n{}\n",
            both(|width| live_at(&half, 5.0, width)),
            ci(&events),
            both(|width| verdict(&events, width)),
        );
    }
    snap("push", &text);
}

#[test]
fn no_builder_is_said_before_anything_is_built() {
    let mut story = Story::new("run", &[]);
    story.builder(0.1, 0, "local", 8, &["x86_64-linux"]);
    story.flake(0.3, 0, false);
    let attrs: Vec<_> =
        ["web1", "pi1", "pi2", "pi3"].map(|name| story.attr(0.4, Kind::NixosConfigurations, name)).into();
    for attr in &attrs {
        story.evaluated(*attr, 0, 0.5, 1.0);
    }
    story.stage(Stage::Eval, 0.3, 1.0);
    story.planned(1.1, attrs[0], Status::Valid, None, 0);
    story.at(1.1, Fact::AttrEnded { attr: attrs[0], status: Status::Valid, reason: None, root: None });
    for attr in &attrs[1..] {
        let reason = Some("no builder for aarch64-linux: arm1 is unreachable (3 tries, 2m00s)".into());
        story.at(1.2, Fact::AttrEnded { attr: *attr, status: Status::Failed, reason, root: None });
    }
    story.at(1.3, Fact::RunEnded { exit: 4 });
    let events = story.events();
    snap("no_builder", &format!("{}\n== CI\n{}", both(|width| verdict(&events, width)), ci(&events)));
}

#[test]
fn the_list_of_runs_has_a_line_a_run() {
    let digest = |story: &Story| list::Digest::of(&Summary::of(&story.events()));
    let rows = vec![
        list::Row {
            run: "01KAKQ7TAB".into(),
            digest: list::Digest::of(&Summary::of(&fleet(Twist::default()).until(60.0))),
            live: true,
        },
        list::Row {
            run: "01KAKQ7TAA".into(),
            digest: digest(&fleet(Twist { idle: true, ..Twist::default() })),
            live: false,
        },
        list::Row {
            run: "01KAJX3M".into(),
            digest: digest(&fleet(Twist { nginx_fails: true, ..Twist::default() })),
            live: false,
        },
        list::Row {
            run: "01KAJ000".into(),
            digest: list::Digest::of(&Summary::of(&fleet(Twist::default()).until(60.0))),
            live: false,
        },
        list::Row { run: "01KA0000".into(), digest: None, live: false },
    ];
    let now = "2026-11-21T10:20:00Z".parse().unwrap();
    snap("list", &both(|width| show(&list::screen(&rows, now, width), width)));
}

#[test]
fn a_killed_run_still_has_a_verdict() {
    let events = fleet(Twist { push: true, ..Twist::default() }).until(60.0);
    snap("cut_off", &both(|width| verdict(&events, width)));
}

#[test]
fn the_plain_view_is_never_silent_for_half_a_minute() {
    let sink = Sink::default();
    let mut ui = Ui::new(settings(Mode::Plain), Box::new(sink.clone()));
    let events = fleet(Twist { push: true, ..Twist::default() }).events();
    let (mut last, mut seen, mut now) = (Moment(0), 0, Moment(0));
    play(&events, 1_000_000, |step| {
        match step {
            Step::Event(event) => ui.on_event(event),
            Step::Tick(at) => {
                now = at;
                ui.tick(at);
            }
        }
        let length = sink.text().len();
        if length > seen {
            (last, seen) = (now, length);
        }
        assert!(now.since(last) <= 30.0, "silent since {}s", last.seconds());
    });
}

/// For the eye: `cargo test --test it live_demo -- --ignored --nocapture` in a terminal.
#[test]
#[ignore = "plays a run on the real terminal, for the eye"]
#[expect(clippy::disallowed_methods, reason = "a demonstration in real time")]
fn live_demo() {
    let speed = 20.0;
    let begin = std::time::Instant::now();
    let mut settings = settings(Mode::Live);
    settings.style.colour = true;
    let mut ui = Ui::new(settings, Box::new(std::io::stderr()));
    play(&fleet(Twist { push: true, nginx_fails: true, ..Twist::default() }).events(), 2_000_000, |step| match step {
        Step::Event(event) => ui.on_event(event),
        Step::Tick(now) => {
            let due = std::time::Duration::from_secs_f64(now.seconds() / speed);
            std::thread::sleep(due.saturating_sub(begin.elapsed()));
            ui.tick(now);
        }
    });
    ui.finish();
}

/// For the eye: the live part is gone before the message of a panic appears.
#[test]
#[ignore = "panics on the real terminal, for the eye"]
fn live_panic_demo() {
    let mut ui = Ui::new(settings(Mode::Live), Box::new(std::io::stderr()));
    for event in fleet(Twist::default()).until(21.0) {
        ui.on_event(&event);
    }
    ui.tick(Moment::from_seconds(21.0));
    panic!("on purpose");
}

#[test]
fn what_caches_had_and_what_that_spared() {
    let mut story = fleet(Twist::default());
    let cache = CacheId(0);
    story.at(62.0, Fact::CacheAsked { cache, present: 29_478, absent: 632, untrusted: 0, no_answer: 0 });
    let (seconds, nar_size) = (50_520.0, 13_314_398_618);
    story.at(62.0, Fact::CachesSpared { drvs: 1204, known: 812, seconds, paths: 29_478, nar_size });
    let events = story.events();
    let summary = Summary::of(&events);
    let closing = |width| {
        let last = verdict(&events, width);
        format!("{}{}", show(&hits::screen(&summary, width), width), last.lines().last().unwrap_or_default())
    };
    snap("hits", &both(closing));
}
