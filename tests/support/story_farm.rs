//! Made-up runs on builders over ssh: what goes well, and all that can go wrong with them. Owns no expectations.

use drover::event::{AttemptEnd, Class, DrvOutcome, Fact, Failure, OutputPath, Stage, Status};
use drover::id::{AttemptId, AttrId, BuilderId, CacheId, DrvId, Kind};

use super::story::{Story, failure, store_path};

pub const LOCAL: BuilderId = BuilderId(0);
pub const BIG1: BuilderId = BuilderId(1);
pub const BIG2: BuilderId = BuilderId(2);

/// A run on builders in the making.
pub struct Farm {
    pub story: Story,
    pub attrs: Vec<AttrId>,
    attempts: u32,
    builds: u32,
}

/// A builder, as its facts name it.
pub fn ready(id: BuilderId, name: &str, slots: u32, systems: &[&str], speed: Option<f64>) -> Fact {
    let named_in = (id != LOCAL).then(|| "/etc/nix/machines".into());
    let systems = systems.iter().map(|system| (*system).into()).collect();
    Fact::BuilderReady { builder: id, name: name.into(), slots, systems, features: Vec::new(), speed, named_in }
}

/// A builder cannot be used, and is tried again after so many seconds.
pub fn suspended(id: BuilderId, name: &str, message: &str, running: u32, again: Option<f64>) -> Fact {
    let failure = failure(Class::BuilderLost, message);
    let hint = Some(format!("ssh ci@{name}.acme.net nix-daemon --version").into());
    Fact::BuilderSuspended { builder: id, name: name.into(), failure, running, again, hint }
}

impl Farm {
    /// Hosts that are evaluated and compared by 1.5 s; all of them are to be built.
    pub fn new(command: &str, hosts: &[&str]) -> Self {
        let mut story = Story::new(command, &[]);
        story.at(0.05, ready(LOCAL, "local", 4, &["x86_64-linux"], None));
        story.flake(0.3, 0, false);
        let attrs: Vec<AttrId> = hosts.iter().map(|name| story.attr(0.4, Kind::NixosConfigurations, name)).collect();
        for attr in &attrs {
            story.evaluated(*attr, 0, 0.5, 1.0);
        }
        story.stage(Stage::Eval, 0.3, 1.0);
        story.at(
            1.4,
            Fact::DiffProgress { paths: 900, valid: 0, present: 800, absent: 100, untrusted: 0, no_answer: 0 },
        );
        story.stage(Stage::Diff, 0.6, 1.5);
        Self { story, attrs, attempts: 0, builds: 0 }
    }

    /// With two builders of 16 slots that are there at once.
    pub fn with_two(command: &str, hosts: &[&str]) -> Self {
        let mut farm = Self::new(command, hosts);
        farm.story.at(0.4, ready(BIG1, "big1", 16, &["x86_64-linux"], None));
        farm.story.at(0.4, ready(BIG2, "big2", 16, &["x86_64-linux", "aarch64-linux"], None));
        farm
    }

    /// A drv that is needed from 1.4 s on.
    pub fn need(&mut self, name: &str, inputs: &[DrvId], attr: usize, expected: Option<f64>) -> DrvId {
        self.builds += 1;
        self.story.need(1.4, name, expected.unwrap_or(0.0), inputs, self.attrs[attr], expected.is_some())
    }

    /// The same for a system with features.
    pub fn need_on(&mut self, name: &str, system: &str, features: &[&str], inputs: &[DrvId], attr: usize) -> DrvId {
        let drv = self.need(name, inputs, attr, None);
        let fact = Fact::DrvNeeded {
            drv,
            path: format!("{}.drv", store_path(name)).into(),
            name: name.into(),
            system: system.into(),
            inputs: inputs.to_vec(),
            fetch: false,
            opaque: false,
            features: features.iter().map(|feature| (*feature).into()).collect(),
            attr: Some(self.attrs[attr]),
            expected: None,
            outputs: vec![out(name)],
        };
        self.story.at(1.4, fact);
        drv
    }

    /// The host's own drv; it is planned.
    pub fn host(&mut self, attr: usize, inputs: &[DrvId], expected: Option<f64>) -> DrvId {
        let name = self.story.top(self.attrs[attr]);
        let drv = self.need(&name, inputs, attr, expected);
        self.story.planned(1.45, self.attrs[attr], Status::ToBuild, Some(drv), self.builds);
        self.builds = 0;
        drv
    }

    /// An attempt begins.
    pub fn start(&mut self, at: f64, drv: DrvId, builder: BuilderId) -> AttemptId {
        let attempt = AttemptId(self.attempts);
        self.attempts += 1;
        self.story.at(at, Fact::AttemptStarted { attempt, drv, builder });
        attempt
    }

    /// Its inputs are on their way.
    pub fn bring(&mut self, at: f64, attempt: AttemptId, nar_size: u64) {
        self.story.at(at, Fact::AttemptBringing { attempt, paths: 12, nar_size });
    }

    /// Its inputs are there.
    pub fn prepared(&mut self, at: f64, attempt: AttemptId, copied_size: u64) {
        self.story.at(at, Fact::AttemptPrepared { attempt, copied: 12, copied_size, fetched: 3 });
    }

    /// An attempt that is prepared at once and builds.
    pub fn build(&mut self, at: f64, drv: DrvId, builder: BuilderId) -> AttemptId {
        let attempt = self.start(at, drv, builder);
        self.prepared(at, attempt, 0);
        self.story.at(at, Fact::AttemptBuilding { attempt });
        attempt
    }

    /// An attempt builds a drv; its final word.
    pub fn built(&mut self, at: f64, attempt: AttemptId, drv: DrvId, name: &str) {
        self.ends(at, attempt, AttemptEnd::Built { outputs: vec![out(name)] }, 20);
        self.story.at(at, Fact::DrvEnded { drv, outcome: DrvOutcome::Built });
    }

    /// An attempt finds a drv's outputs; its final word.
    pub fn found(&mut self, at: f64, attempt: AttemptId, drv: DrvId, name: &str) {
        self.ends(at, attempt, AttemptEnd::AlreadyValid { outputs: vec![out(name)] }, 0);
        self.story.at(at, Fact::DrvEnded { drv, outcome: DrvOutcome::Valid });
    }

    /// An attempt fails; nothing is said of the drv.
    pub fn fails(&mut self, at: f64, attempt: AttemptId, class: Class, message: &str) {
        let lines = if class == Class::Build { 214 } else { 0 };
        self.ends(at, attempt, AttemptEnd::Failed(failure(class, message)), lines);
    }

    fn ends(&mut self, at: f64, attempt: AttemptId, end: AttemptEnd, log_lines: u64) {
        self.story.at(at, Fact::AttemptEnded { attempt, end, log_lines, log_tail: Vec::new() });
    }

    /// The host ended so; its results come home from where they are in the second before.
    pub fn host_built(&mut self, at: f64, attr: usize, drv: DrvId, builder: BuilderId) {
        if builder != LOCAL {
            self.story.at(at - 1.0, Fact::ResultsReturning { drv, builder });
            self.story.at(at, Fact::ResultsReturned { drv, paths: 40, nar_size: 90 << 20, failure: None });
        }
        let attr = self.attrs[attr];
        self.story.at(at, Fact::AttrEnded { attr, status: Status::Built, reason: None, root: None });
    }

    /// A drv has failed for good, and all that die of it with it.
    pub fn host_failed(&mut self, at: f64, attr: usize, drv: DrvId, top: DrvId, failure: Failure) {
        self.story.at(at, Fact::DrvEnded { drv, outcome: DrvOutcome::Failed(failure) });
        if top != drv {
            self.story.at(at, Fact::DrvEnded { drv: top, outcome: DrvOutcome::DependencyFailed { root: drv } });
        }
        let attr = self.attrs[attr];
        self.story.at(at, Fact::AttrEnded { attr, status: Status::Failed, reason: None, root: Some(drv) });
    }

    pub fn end(&mut self, at: f64, exit: u8) {
        self.story.stage(Stage::Build, 1.6, at - 0.1);
        self.story.at(at, Fact::RunEnded { exit });
    }
}

fn out(name: &str) -> OutputPath {
    OutputPath { name: "out".into(), path: Some(store_path(name).into()) }
}

/// Two minutes and a half into a run: two builders at work, inputs on their way, results coming home.
pub fn at_work() -> Farm {
    let mut farm = Farm::with_two("run", &["web1", "web2", "db1"]);
    let linux = farm.need("linux-6.12.58", &[], 0, Some(260.0));
    let nginx = farm.need("nginx-1.29.4", &[], 0, Some(91.0));
    let systemd = farm.need("systemd-258.2", &[], 1, None);
    let units: Vec<DrvId> = (1..=20).map(|n| farm.need(&format!("unit-{n}.service"), &[], 1, Some(60.0))).collect();
    let top1 = farm.host(0, &[linux, nginx], Some(4.0));
    let top2 = farm.host(1, &[systemd], Some(4.0));
    let db1 = farm.host(2, &[], Some(30.0));
    farm.build(8.0, linux, BIG1);
    farm.build(141.0, nginx, BIG1);
    farm.build(119.0, systemd, BIG2);
    for (n, unit) in units.iter().enumerate() {
        match n {
            0..10 => drop(farm.build(150.0 + n as f64, *unit, BIG1)),
            10..16 => drop(farm.build(160.0 + n as f64, *unit, BIG2)),
            16 | 17 => {
                let attempt = farm.start(185.0, *unit, BIG2);
                farm.bring(185.2, attempt, 107 << 20);
            }
            _ => {
                let attempt = farm.start(170.0, *unit, BIG2);
                farm.prepared(171.0, attempt, 5 << 20);
            }
        }
    }
    let attempt = farm.build(100.0, db1, BIG2);
    farm.built(180.0, attempt, db1, "nixos-system-db1-25.11");
    farm.story.at(185.0, Fact::BuilderLoad { builder: BIG1, cpu: Some(80.0), memory: Some(2.0), disk_free: None });
    farm.story.at(186.0, Fact::ResultsReturning { drv: db1, builder: BIG2 });
    let _ = (top1, top2);
    farm
}

/// A builder that cannot be reached, one that is lost in the middle and comes back, one that runs out of disk.
pub fn in_trouble() -> Farm {
    let mut farm = Farm::new("run", &["web1", "web2"]);
    farm.story.at(0.4, ready(BIG1, "big1", 16, &["x86_64-linux"], None));
    let unreachable = "ssh: connect to big2.acme.net port 22: timed out (5s)";
    for (at, again) in [(5.4, 1.0), (11.4, 2.0), (18.4, 60.0), (83.4, 60.0)] {
        farm.story.at(at, suspended(BIG2, "big2", unreachable, 0, Some(again)));
    }
    let names: Vec<String> = (1..=7).map(|n| format!("unit-{n}.service")).collect();
    let units: Vec<DrvId> = names.iter().map(|name| farm.need(name, &[], 0, Some(150.0))).collect();
    let base = farm.need("base-1.0", &[], 0, Some(20.0));
    let top1 = farm.host(0, &units, Some(4.0));
    let top2 = farm.host(1, &[base], Some(4.0));
    let attempt = farm.build(2.0, base, BIG1);
    farm.built(22.0, attempt, base, "base-1.0");
    let attempt = farm.build(22.5, top2, BIG1);
    farm.built(26.0, attempt, top2, "nixos-system-web2-25.11");
    farm.host_built(27.5, 1, top2, BIG1);
    // Seven are lost with their builder.
    for unit in &units {
        let attempt = farm.build(30.0, *unit, BIG1);
        farm.fails(160.4, attempt, Class::BuilderLost, "no bytes for 30s");
    }
    farm.story.at(160.4, suspended(BIG1, "big1", "no bytes for 30s", 7, Some(1.0)));
    for (at, again) in [(166.4, 2.0), (173.4, 30.0)] {
        farm.story
            .at(at, suspended(BIG1, "big1", "ssh: connect to big1.acme.net port 22: timed out (5s)", 0, Some(again)));
    }
    let local: Vec<AttemptId> = units[..4].iter().map(|unit| farm.build(160.5, *unit, LOCAL)).collect();
    farm.story.at(170.0, Fact::BuilderPaused { builder: LOCAL, reason: Some("2.1 GiB free in /nix/store".into()) });
    farm.story.at(200.0, Fact::BuilderPaused { builder: LOCAL, reason: None });
    farm.story.at(221.4, ready(BIG1, "big1", 16, &["x86_64-linux"], None));
    for (n, unit) in units.iter().enumerate().skip(4) {
        let attempt = farm.start(221.5, *unit, BIG1);
        farm.found(221.6, attempt, *unit, &names[n]);
    }
    for ((attempt, unit), name) in local.into_iter().zip(&units).zip(&names) {
        farm.built(310.5, attempt, *unit, name);
    }
    let attempt = farm.start(310.5, top1, BIG1);
    farm.bring(310.6, attempt, 214 << 20);
    farm.prepared(314.5, attempt, 214 << 20);
    farm.story.at(314.5, Fact::AttemptBuilding { attempt });
    farm.built(318.5, attempt, top1, "nixos-system-web1-25.11");
    farm.host_built(320.5, 0, top1, BIG1);
    farm.end(321.0, 0);
    farm
}

/// Hosts of a system whose only builder never comes.
pub fn without_builder() -> Farm {
    let mut farm = Farm::with_two("run", &["web1", "pi1", "pi2", "pi3"]);
    let arm = BuilderId(3);
    let message = "ssh: connect to arm1.acme.net port 22: timed out (5s)";
    for (at, again) in [(5.4, Some(30.0)), (40.4, Some(60.0)), (125.4, None)] {
        farm.story.at(at, suspended(arm, "arm1", message, 0, again));
    }
    let web1 = farm.host(0, &[], None);
    let attempt = farm.build(2.0, web1, BIG1);
    farm.built(12.0, attempt, web1, "nixos-system-web1-25.11");
    farm.host_built(14.0, 0, web1, BIG1);
    let no_builder = "no builder for riscv64-linux; there is local (x86_64-linux), big1 (x86_64-linux)";
    for host in 1..=3 {
        let kernel = farm.need_on(&format!("linux-pi{host}-6.12"), "riscv64-linux", &[], &[], host);
        let top = farm.host(host, &[kernel], None);
        farm.host_failed(125.4, host, kernel, top, failure(Class::NoBuilder, no_builder));
    }
    let vm = farm.need_on("vm-test", "x86_64-linux", &["kvm"], &[], 3);
    let why = "no builder for x86_64-linux with kvm; there is local (x86_64-linux), big1 (x86_64-linux)";
    farm.story.at(125.4, Fact::DrvEnded { drv: vm, outcome: DrvOutcome::Failed(failure(Class::NoBuilder, why)) });
    farm.end(125.6, 4);
    farm
}

/// A drv that fails and is built when tried again, and one that dies twice.
pub fn tried_again(dies: bool) -> Farm {
    let mut farm = Farm::with_two("run", &["web1"]);
    let nginx = farm.need("nginx-1.29.4", &[], 0, Some(91.0));
    let top = farm.host(0, &[nginx], None);
    let message = "builder for 'nginx-1.29.4.drv' failed with exit code 2";
    let first = farm.build(2.0, nginx, BIG1);
    if dies {
        farm.fails(30.0, first, Class::BuilderLost, "no bytes for 30s");
        farm.story.at(30.0, suspended(BIG1, "big1", "no bytes for 30s", 1, None));
        let second = farm.build(30.1, nginx, BIG2);
        farm.fails(60.0, second, Class::Build, message);
        farm.host_failed(60.0, 0, nginx, top, failure(Class::Build, message));
        farm.end(60.5, 1);
        return farm;
    }
    farm.fails(30.0, first, Class::Build, message);
    let second = farm.build(30.1, nginx, BIG2);
    farm.built(120.0, second, nginx, "nginx-1.29.4");
    let attempt = farm.build(120.2, top, BIG2);
    farm.built(124.0, attempt, top, "nixos-system-web1-25.11");
    farm.host_built(126.0, 0, top, BIG2);
    farm.end(126.5, 0);
    farm
}

/// A push cache that takes nothing, and what is kept where.
pub fn kept() -> Farm {
    let mut farm = Farm::with_two("run", &["web1", "web2", "db1"]);
    let cache = CacheId(0);
    farm.story.cache(0.2, 0, "acme.cachix.org", true);
    let arm = BuilderId(3);
    farm.story.at(0.4, ready(arm, "guest1", 4, &["x86_64-linux"], None));
    let refused =
        || drover::event::Pushed::Failed(failure(Class::Cache, "HTTP status 500, 9 tries, gave up after 5m00s"));
    for (host, builder) in [BIG1, BIG2, arm].into_iter().enumerate() {
        let top = farm.host(host, &[], None);
        let name = farm.story.top(farm.attrs[host]);
        let attempt = farm.build(2.0, top, builder);
        farm.built(9.0, attempt, top, &name);
        farm.host_built(11.0, host, top, builder);
        let path: drover::event::Text = store_path(&name).into();
        farm.story.at(9.0, Fact::PushQueued { cache, path: path.clone(), nar_size: 70 << 20 });
        farm.story.at(309.0, Fact::PushEnded { cache, path: path.clone(), pushed: refused() });
        let untrusted = builder == arm;
        let until = (!untrusted).then(|| "2026-11-28".into());
        let reason = untrusted.then(|| "its login is not trusted there".into());
        farm.story.at(309.5, Fact::OutputsKept { builder, paths: vec![path], until, reason });
    }
    farm.story.stage(Stage::Push, 9.0, 309.4);
    farm.end(310.0, 5);
    farm
}

/// A plan for two builders, one of them twice as fast.
pub fn planned() -> Farm {
    let mut farm = Farm::new("plan", &["web1", "web2"]);
    farm.story.at(0.4, ready(BIG1, "big1", 2, &["x86_64-linux"], Some(2.0)));
    farm.story.at(0.4, ready(BIG2, "big2", 1, &["x86_64-linux"], None));
    let linux = farm.need("linux-6.12.58", &[], 0, Some(260.0));
    let nginx = farm.need("nginx-1.29.4", &[], 0, Some(91.0));
    let new = farm.need("brand-new-1.0", &[], 0, None);
    let path = farm.need("system-path", &[linux, nginx, new], 0, Some(12.0));
    farm.host(0, &[path], Some(4.0));
    let units: Vec<DrvId> = (1..=4).map(|n| farm.need(&format!("unit-{n}.service"), &[], 1, Some(30.0))).collect();
    farm.host(1, &units, Some(4.0));
    farm.story.fetches(1.5, &["glibc-2.42", "openssl-3.5.1"]);
    for builder in [BIG1, BIG2] {
        farm.story.at(1.5, Fact::BuilderAsked { builder, asked: 100, valid: 7 });
    }
    farm.story
        .at(1.55, suspended(BuilderId(3), "arm1", "ssh: connect to arm1.acme.net port 22: refused", 0, Some(1.0)));
    farm.story.at(1.6, Fact::RunEnded { exit: 0 });
    farm
}
