//! The hand that breaks things at random, and mends each after a while.
#![expect(clippy::disallowed_methods, reason = "what is broken stays so for a while")]

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::super::fake_cache::Fault;
use super::super::fault_proxy;
use super::super::nix::Lab;
use super::super::package_set::random::Random;
use super::super::sshd::{descendants, is_named, signal};
use super::{Place, SMALL};

/// What the hand can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// A builder's sshd dies with all its sessions.
    Sshd,
    /// All its sessions die, and it listens on.
    Sessions,
    /// Its daemon dies with all that it does; where there is none, its sessions do.
    Daemon,
    /// All that a builder does stands still.
    Freeze,
    /// The line to a builder is cut, stalled, slow, or garbles.
    Line,
    /// The small disk is full.
    Disk,
    /// A builder collects garbage.
    Collect,
    /// The cache refuses, breaks off or does not answer.
    Cache,
    /// The cache takes its time.
    Late,
    /// The coordinator's daemon dies with all that it does.
    OwnDaemon,
    /// One of its connections dies.
    OwnConnection,
    /// The coordinator collects garbage.
    OwnCollect,
    /// drover is asked to end.
    Stop,
    /// drover is killed.
    Kill,
    /// drover stands still.
    Pause,
}

/// Which blows belong together: a round is about one of these.
pub const MOODS: [&[Blow]; 6] = [
    &[Blow::Sshd, Blow::Sessions, Blow::Daemon, Blow::Freeze, Blow::Line, Blow::Line, Blow::Disk],
    &[Blow::Cache, Blow::Cache, Blow::Late, Blow::OwnCollect],
    &[Blow::OwnDaemon, Blow::OwnConnection, Blow::OwnConnection, Blow::OwnCollect, Blow::Collect],
    &[Blow::Stop, Blow::Line, Blow::Cache, Blow::Collect],
    &[Blow::Kill, Blow::Line, Blow::Cache, Blow::Collect],
    &[
        Blow::Sshd,
        Blow::Sessions,
        Blow::Daemon,
        Blow::Freeze,
        Blow::Line,
        Blow::Disk,
        Blow::Collect,
        Blow::Cache,
        Blow::Late,
        Blow::OwnDaemon,
        Blow::OwnConnection,
        Blow::OwnCollect,
        Blow::Pause,
    ],
];

/// One drover, and what was done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drover {
    pub pid: u32,
    pub killed: bool,
    /// It was asked to end.
    pub stopped: bool,
}

/// What cannot be broken twice at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spot {
    Builder(usize),
    Cache,
    Own,
    Drover(u32),
}

/// What mends it.
#[derive(Debug)]
enum Cure {
    Sshd(usize),
    Daemon(usize),
    /// These processes go on.
    Wake(Vec<u32>),
    Line(usize),
    Disk,
    /// The rule of the cache that goes.
    Cache(&'static str),
    Prompt,
    OwnDaemon,
    /// This program ends.
    Program(Child),
    Nothing,
}

/// See the module's page. One for each round.
pub struct Hand<'a> {
    random: &'a mut Random,
    mood: &'static [Blow],
    begun: Instant,
    wounds: Vec<(Spot, Instant, Cure)>,
    /// All drovers of the round.
    pub drovers: Vec<Drover>,
    /// What was done, for people.
    pub story: Vec<String>,
    /// Garbage was collected in the coordinator's store.
    pub collected: bool,
}

impl<'a> Hand<'a> {
    pub fn new(random: &'a mut Random, drovers: &[u32]) -> Self {
        let mood = MOODS[random.below(MOODS.len())];
        let drovers = drovers.iter().map(|pid| Drover { pid: *pid, killed: false, stopped: false }).collect();
        Self { random, mood, begun: Instant::now(), wounds: Vec::new(), drovers, story: Vec::new(), collected: false }
    }

    /// For how long to leave everything alone.
    pub fn pause(&mut self) -> Duration {
        Duration::from_millis(self.random.between(50, 1200) as u64)
    }

    /// Mends what has been broken for long enough.
    pub fn mend(&mut self, place: &mut Place) {
        let now = Instant::now();
        let (due, rest) = std::mem::take(&mut self.wounds).into_iter().partition(|(_, at, _)| *at <= now);
        self.wounds = rest;
        self.cure(place, due);
    }

    /// Mends everything.
    pub fn mend_all(&mut self, place: &mut Place) {
        let all = std::mem::take(&mut self.wounds);
        self.cure(place, all);
        self.tell("all is well again".to_owned());
    }

    fn cure(&mut self, place: &mut Place, wounds: Vec<(Spot, Instant, Cure)>) {
        for (spot, _, cure) in wounds {
            match cure {
                Cure::Sshd(n) => place.farm.builders[n].sshd.restart(),
                Cure::Daemon(n) => place.farm.builders[n].restart_daemon(),
                Cure::Wake(pids) => pids.into_iter().for_each(|pid| signal(pid, "CONT")),
                Cure::Line(n) => place.farm.builders[n].proxy().heal(),
                Cure::Disk => drop(place.filler().map(fs::remove_file)),
                Cure::Cache(rule) => place.cache.heal(rule),
                Cure::Prompt => place.cache.delay(Duration::ZERO),
                Cure::OwnDaemon => place.start_daemon(),
                Cure::Program(mut child) => drop(child.wait()),
                Cure::Nothing => continue,
            }
            self.tell(format!("{spot:?} is well"));
        }
    }

    fn tell(&mut self, what: String) {
        self.story.push(format!("{:6.2} s {what}", self.begun.elapsed().as_secs_f64()));
    }

    /// Breaks something that is not broken yet.
    pub fn strike(&mut self, place: &mut Place) {
        let blow = self.mood[self.random.below(self.mood.len())];
        let builder = self.random.below(place.farm.builders.len());
        let nth = self.random.below(self.drovers.len());
        let spot = match blow {
            Blow::Disk => Spot::Builder(SMALL),
            Blow::Sshd | Blow::Sessions | Blow::Daemon | Blow::Freeze | Blow::Line | Blow::Collect => {
                Spot::Builder(builder)
            }
            Blow::Cache | Blow::Late => Spot::Cache,
            Blow::OwnDaemon | Blow::OwnConnection | Blow::OwnCollect => Spot::Own,
            Blow::Stop | Blow::Kill | Blow::Pause => Spot::Drover(self.drovers[nth].pid),
        };
        if self.wounds.iter().any(|(other, ..)| *other == spot) {
            return;
        }
        let lasts = Duration::from_millis(self.random.between(200, 4000) as u64);
        self.tell(format!("{blow:?} at {spot:?} for {:.1} s", lasts.as_secs_f64()));
        let cure = match spot {
            Spot::Builder(n) => self.break_builder(place, blow, n),
            Spot::Cache => self.break_cache(place, blow),
            Spot::Own => self.break_own(place, blow),
            Spot::Drover(pid) => self.break_drover(blow, nth, pid),
        };
        self.wounds.push((spot, Instant::now() + lasts, cure));
    }

    fn break_builder(&mut self, place: &mut Place, blow: Blow, n: usize) -> Cure {
        let filler = place.filler();
        let builder = &mut place.farm.builders[n];
        match blow {
            Blow::Sshd => {
                builder.sshd.kill();
                Cure::Sshd(n)
            }
            Blow::Daemon if builder.daemon.is_some() => {
                builder.kill_daemon();
                Cure::Daemon(n)
            }
            Blow::Freeze => {
                let pids = builder.processes();
                pids.iter().for_each(|pid| signal(*pid, "STOP"));
                Cure::Wake(pids)
            }
            Blow::Line => {
                let rate = self.random.between(20_000, 2_000_000) as u64;
                let faults = [
                    fault_proxy::Fault::Cut,
                    fault_proxy::Fault::Stall,
                    fault_proxy::Fault::Slow(rate),
                    fault_proxy::Fault::Garble,
                ];
                let fault = faults[self.random.below(faults.len())];
                self.tell(format!("  {fault:?}"));
                builder.proxy().set(fault);
                Cure::Line(n)
            }
            // What is larger than the disk fills it.
            Blow::Disk if filler.is_some() => {
                let mut command = Command::new("dd");
                command.args(["if=/dev/zero", "bs=1M", "status=none"]).stderr(Stdio::null());
                command.arg(format!("of={}", filler.unwrap_or_default().display()));
                let _ = command.status();
                Cure::Disk
            }
            Blow::Collect => collect(&builder.lab),
            _ => {
                builder.sshd.kill_sessions();
                Cure::Nothing
            }
        }
    }

    fn break_cache(&mut self, place: &mut Place, blow: Blow) -> Cure {
        if blow == Blow::Late {
            place.cache.delay(Duration::from_millis(self.random.between(20, 700) as u64));
            return Cure::Prompt;
        }
        let faults =
            [Fault::Status(500), Fault::Status(503), Fault::Status(429), Fault::Close, Fault::Cut, Fault::Hang];
        let read = [Fault::Half, Fault::Flipped];
        let rules = ["PUT nar", "PUT narinfo", "PUT *", "*.narinfo", "nar/*", "*"];
        let rule = rules[self.random.below(rules.len())];
        // A cache that says another thing about itself is rightly refused.
        let damages = ["*.narinfo", "nar/*"].contains(&rule);
        let most = if damages { faults.len() + read.len() } else { faults.len() };
        let which = self.random.below(most);
        let fault = faults.into_iter().chain(read).nth(which).unwrap();
        self.tell(format!("  {rule}: {fault:?}"));
        place.cache.always(rule, fault);
        Cure::Cache(rule)
    }

    fn break_own(&mut self, place: &mut Place, blow: Blow) -> Cure {
        match blow {
            Blow::OwnDaemon => {
                place.end_daemon();
                Cure::OwnDaemon
            }
            Blow::OwnCollect => {
                self.collected = true;
                collect(&place.site.lab)
            }
            _ => {
                let connections: Vec<u32> = place.daemon().into_iter().flat_map(descendants).collect();
                let connections: Vec<u32> =
                    connections.into_iter().filter(|pid| is_named(*pid, "nix-daemon")).collect();
                if !connections.is_empty() {
                    signal(connections[self.random.below(connections.len())], "KILL");
                }
                Cure::Nothing
            }
        }
    }

    fn break_drover(&mut self, blow: Blow, nth: usize, pid: u32) -> Cure {
        // Its number may be somebody else's by now.
        if !is_named(pid, "drover") {
            return Cure::Nothing;
        }
        match blow {
            Blow::Pause => {
                signal(pid, "STOP");
                return Cure::Wake(vec![pid]);
            }
            Blow::Kill => {
                self.drovers[nth].killed = true;
                signal(pid, "KILL");
            }
            _ => {
                let signals = [&["INT"][..], &["TERM"], &["INT", "INT"]][self.random.below(3)];
                self.drovers[nth].stopped = true;
                self.tell(format!("  {signals:?}"));
                signals.iter().for_each(|name| signal(pid, name));
            }
        }
        Cure::Nothing
    }
}

/// Collects garbage in a store, beside whatever else happens there.
fn collect(lab: &Lab) -> Cure {
    let mut command = lab.command("nix-store");
    command.arg("--gc").stdout(Stdio::null()).stderr(Stdio::null());
    Cure::Program(command.spawn().unwrap())
}
