//! What a simulated run is made of: derivations, builders, caches and what befalls them, all drawn from one number.

use std::collections::BTreeSet;

use crate::event::Class;
use crate::graph::testing;
use crate::graph::{DrvInfo, OutputInfo};
use crate::id::{BuilderId, StorePath, System};
use crate::sched::{Builder, Policy};

/// What outputs are called, by number.
const OUTPUTS: [&str; 3] = ["out", "dev", "doc"];

/// Where the outputs of a derivation are when the run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    Nowhere,
    /// In the store of this builder; 0 is the local one.
    On(usize),
    /// In this cache, with all that they refer to.
    In(usize),
    /// In this cache, which lacks what they refer to.
    Bare(usize),
}

/// How tries of a derivation end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Fine,
    /// Every try.
    Broken(Class),
    /// The first so many tries.
    Shaky(Class, u32),
}

/// One derivation. It needs others with lower numbers.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) outputs: usize,
    /// Number, and which of its outputs.
    pub(super) inputs: Vec<(usize, usize)>,
    /// Which of the inputs its outputs refer to, by place.
    pub(super) keeps: Vec<usize>,
    pub(super) seconds: f64,
    pub(super) expected: f64,
    pub(super) bytes: u64,
    pub(super) feature: Option<&'static str>,
    pub(super) system: &'static str,
    pub(super) fixed: bool,
    pub(super) prefer_local: bool,
    pub(super) substitutes: bool,
    pub(super) start: Start,
    /// The cache that promises it does not bring it.
    pub(super) lie: bool,
    pub(super) fate: Fate,
}

/// A cache.
#[derive(Debug, Clone)]
pub(super) struct Depot {
    pub(super) pull: bool,
    pub(super) push: bool,
    pub(super) optional: bool,
    /// What is uploaded is seen at once.
    pub(super) ordered: bool,
    pub(super) uploads: usize,
    /// Seconds of an answer.
    pub(super) latency: f64,
    /// Of a hundred paths it refuses so many.
    pub(super) refuses: u32,
    /// It never says what it has.
    pub(super) mute: bool,
}

/// What befalls builders, caches and the run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Trouble {
    /// A builder is gone; `silent` seconds go by before anybody knows. Its store may be another one when it is back.
    Lost { builder: BuilderId, silent: f64, back: Option<f64>, wiped: bool },
    /// Its disk is full for so many seconds.
    Full { builder: BuilderId, seconds: f64 },
    /// A cache takes nothing for so many seconds.
    Down { cache: usize, seconds: f64 },
    /// Somebody presses Ctrl-C.
    Stop(u8),
}

/// All that a simulated run depends on.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) seed: u64,
    /// Nothing goes wrong that a run could not mend.
    pub(super) calm: bool,
    pub(super) made: Vec<Made>,
    /// The derivation of each attr.
    pub(super) attrs: Vec<usize>,
    /// The first is the local store.
    pub(super) builders: Vec<Builder>,
    pub(super) caches: Vec<Depot>,
    /// Seconds, and what happens then.
    pub(super) troubles: Vec<(f64, Trouble)>,
    pub(super) policy: Policy,
    /// Built results come into the local store.
    pub(super) home: bool,
    /// Seconds for which a builder that is away is dialled again.
    pub(super) wait: f64,
    /// So do those that a cache has.
    pub(super) download: bool,
}

/// Numbers that look drawn by lot, the same for the same seed.
struct Lots(u64);

impl Lots {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = mixed(self.0);
        usize::try_from(self.0 >> 33).unwrap() % bound.max(1)
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    fn share(&mut self) -> f64 {
        self.below(1_000_000) as f64 / 1e6
    }
}

/// One step of splitmix64.
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

impl World {
    /// The world of a seed. One in three has no faults that a run could not mend.
    pub(super) fn drawn(seed: u64) -> Self {
        let mut lots = Lots(mixed(seed));
        let calm = lots.one_in(3);
        let many = match lots.below(40) {
            0 => 150 + lots.below(150),
            1..=8 => 20 + lots.below(40),
            _ => 2 + lots.below(18),
        };
        let others = lots.below(4);
        let builders: Vec<Builder> = (0..=others).map(|id| builder(id, calm, &mut lots)).collect();
        let depots = lots.below(4);
        let caches: Vec<Depot> = (0..depots).map(|_| depot(calm, &mut lots)).collect();
        let made = (0..many).map(|at| drv(at, calm, others, caches.len(), &mut lots)).collect();
        let attrs = (0..1 + lots.below(5)).map(|_| many - 1 - lots.below(many.min(4 + many / 2))).collect();
        let retries = if calm { 4 } else { u32::try_from(lots.below(4)).unwrap() };
        let policy = Policy {
            fail_fast: !calm && lots.one_in(10),
            max_failures: (!calm && lots.one_in(10)).then(|| u32::try_from(lots.below(3)).unwrap()),
            retries,
            retry_failures: if lots.one_in(5) { retries } else { 0 },
            fetch_slots: 1 + u32::try_from(lots.below(8)).unwrap(),
            fetch_where_needed: others > 0,
        };
        let (home, download) = (!lots.one_in(3), lots.one_in(4));
        let wait = if calm { 60.0 } else { [0.0, 10.0, 60.0][lots.below(3)] };
        let mut world =
            Self { seed, calm, made, attrs, builders, caches, troubles: Vec::new(), policy, home, wait, download };
        for _ in 0..lots.below(5) {
            let trouble = world.trouble(calm, &mut lots);
            world.troubles.extend(trouble.map(|trouble| (60.0 * lots.share() * lots.share(), trouble)));
        }
        world.fitted()
    }

    fn trouble(&self, calm: bool, lots: &mut Lots) -> Option<Trouble> {
        let away = self.builders.len() - 1;
        let builder = (away > 0).then(|| self.builders[1 + lots.below(away)].id);
        match lots.below(10) {
            0..=4 => {
                let back = calm || !lots.one_in(4);
                let (silent, wiped) = (20.0 * lots.share() * lots.share(), lots.one_in(3));
                let back = back.then(|| 1.0 + 30.0 * lots.share());
                Some(Trouble::Lost { builder: builder?, silent, back, wiped })
            }
            5 | 6 => Some(Trouble::Full { builder: builder?, seconds: 30.0 * lots.share() }),
            7 if !self.caches.is_empty() && !calm => {
                Some(Trouble::Down { cache: lots.below(self.caches.len()), seconds: 20.0 * lots.share() })
            }
            8 if !calm => Some(Trouble::Stop(if lots.one_in(4) { 2 } else { 1 })),
            _ => None,
        }
    }

    /// Which outputs are used is drawn once it is known how many there are.
    fn fitted(mut self) -> Self {
        for at in 0..self.made.len() {
            let mut inputs = std::mem::take(&mut self.made[at].inputs);
            for (place, (input, output)) in inputs.iter_mut().enumerate() {
                *output = self.lot(1, (at * 7 + place) as u64) as usize % self.made[*input].outputs;
            }
            self.made[at].inputs = inputs;
        }
        self
    }

    /// Whether some attr needs a derivation.
    pub(super) fn is_needed(&self, made: usize) -> bool {
        let mut open = self.attrs.clone();
        let mut seen = BTreeSet::new();
        while let Some(at) = open.pop() {
            if seen.insert(at) {
                open.extend(self.made[at].inputs.iter().map(|(input, _)| *input));
            }
        }
        seen.contains(&made)
    }

    /// The exit code of a run in which nothing goes wrong: some needed derivation may have no builder.
    pub(super) fn best(&self) -> u8 {
        let takes = |at: usize| {
            let made = &self.made[at];
            self.builders.iter().any(|builder| {
                let has = |feature| builder.features.contains(feature) || builder.mandatory.contains(feature);
                builder.slots > 0
                    && builder.systems.iter().any(|system| system.0 == made.system)
                    && made.feature.is_none_or(has)
                    && builder.mandatory.iter().all(|feature| made.feature == Some(feature))
            })
        };
        let all = (0..self.made.len()).filter(|at| self.is_needed(*at)).all(takes);
        if all { 0 } else { 4 }
    }

    /// The same with nothing that goes wrong.
    pub(super) fn healed(&self) -> Self {
        let mut world = self.clone();
        world.troubles.clear();
        (world.policy.fail_fast, world.policy.max_failures) = (false, None);
        for made in &mut world.made {
            (made.fate, made.lie) = (Fate::Fine, false);
        }
        for cache in &mut world.caches {
            (cache.refuses, cache.mute) = (0, false);
        }
        world
    }

    /// A number below 100 that depends on what it is drawn for, and on nothing that was drawn before.
    pub(super) fn lot(&self, what: u64, which: u64) -> u32 {
        u32::try_from(mixed(mixed(self.seed ^ mixed(what)) ^ which) >> 33).unwrap_or(0) % 100
    }

    /// Whether anything is built elsewhere.
    pub(super) fn is_farm(&self) -> bool {
        self.builders.len() > 1
    }

    /// The path of an output.
    pub(super) fn path(&self, made: usize, output: usize) -> StorePath {
        testing::output_path(number(made), OUTPUTS[output])
    }

    /// All outputs of a derivation.
    pub(super) fn paths(&self, made: usize) -> Vec<StorePath> {
        (0..self.made[made].outputs).map(|output| self.path(made, output)).collect()
    }

    /// What each output of a derivation refers to, besides itself.
    pub(super) fn references(&self, made: usize) -> BTreeSet<StorePath> {
        let drv = &self.made[made];
        let kept = drv.keeps.iter().filter_map(|at| drv.inputs.get(*at));
        kept.map(|(input, output)| self.path(*input, *output)).collect()
    }

    /// What the .drv of a derivation says.
    pub(super) fn info(&self, made: usize) -> DrvInfo {
        let drv = &self.made[made];
        let outputs =
            (0..drv.outputs).map(|at| OutputInfo { name: OUTPUTS[at].into(), path: Some(self.path(made, at)) });
        let mut inputs: Vec<(StorePath, Vec<std::sync::Arc<str>>)> = Vec::new();
        for (input, output) in &drv.inputs {
            let path = testing::drv_path(number(*input));
            match inputs.iter_mut().find(|(known, _)| *known == path) {
                Some((_, names)) => names.push(OUTPUTS[*output].into()),
                None => inputs.push((path, vec![OUTPUTS[*output].into()])),
            }
        }
        inputs.iter_mut().for_each(|(_, names)| {
            names.sort();
            names.dedup();
        });
        DrvInfo {
            outputs: outputs.collect(),
            inputs,
            system: System::from(drv.system),
            features: drv.feature.iter().map(|feature| (*feature).to_owned()).collect(),
            prefer_local: drv.prefer_local,
            substitutes: drv.substitutes,
            fixed_output: drv.fixed,
            ..testing::drv(number(made), &[], &[])
        }
    }
}

fn number(at: usize) -> u32 {
    u32::try_from(at).unwrap()
}

fn builder(id: usize, calm: bool, lots: &mut Lots) -> Builder {
    let all = calm || id == 0 && !lots.one_in(5);
    let features = ["big-parallel", "kvm"].into_iter().filter(|_| all || lots.one_in(2)).map(str::to_owned).collect();
    let mandatory =
        if !calm && id > 0 && lots.one_in(8) { BTreeSet::from(["kvm".to_owned()]) } else { BTreeSet::new() };
    let systems = if calm { 2 } else { 1 + lots.below(3).min(1) };
    Builder {
        id: BuilderId(number(id)),
        name: if id == 0 { "local".to_owned() } else { format!("b{id}") },
        slots: if !calm && id == 0 && lots.one_in(6) { 0 } else { 1 + number(lots.below(4)) },
        systems: ["x86_64-linux", "aarch64-linux"].into_iter().take(systems).map(System::from).collect(),
        features,
        mandatory,
        speed: [0.5, 1.0, 1.0, 2.0][lots.below(4)],
        local: id == 0,
        trusting: true,
    }
}

fn depot(calm: bool, lots: &mut Lots) -> Depot {
    Depot {
        pull: !lots.one_in(4),
        push: lots.one_in(2),
        optional: lots.one_in(3),
        ordered: lots.one_in(3),
        uploads: 1 + lots.below(6),
        latency: [0.001, 0.03, 1.0][lots.below(3)],
        refuses: if !calm && lots.one_in(4) { 20 } else { 0 },
        mute: !calm && lots.one_in(10),
    }
}

fn drv(at: usize, calm: bool, others: usize, caches: usize, lots: &mut Lots) -> Made {
    let near = lots.one_in(2);
    let many = if at == 0 { 0 } else { lots.below(4) };
    let inputs: BTreeSet<(usize, usize)> =
        (0..many).map(|_| at - 1 - lots.below(if near { at.min(5) } else { at })).map(|input| (input, 0)).collect();
    let inputs: Vec<(usize, usize)> = inputs.into_iter().collect();
    let keeps = (0..inputs.len()).filter(|_| lots.below(10) < 6).collect();
    let start = match lots.below(20) {
        0 | 1 => Start::On(lots.below(others + 1)),
        2..=4 if caches > 0 => Start::In(lots.below(caches)),
        5 if caches > 0 => Start::Bare(lots.below(caches)),
        _ => Start::Nowhere,
    };
    let fate = match lots.below(30) {
        0 if !calm => Fate::Broken([Class::Build, Class::HashMismatch, Class::Timeout][lots.below(3)]),
        1 | 2 => {
            let classes = [Class::Signal, Class::Network, Class::DiskFull, Class::Dependency, Class::BuilderLost];
            let again = if calm { 1 } else { 1 + number(lots.below(3)) };
            Fate::Shaky(classes[lots.below(5)], again)
        }
        _ => Fate::Fine,
    };
    let seconds = [0.1, 1.0, 5.0, 30.0][lots.below(4)] * (0.5 + lots.share());
    Made {
        outputs: 1 + lots.below(6).saturating_sub(3),
        inputs,
        keeps,
        seconds,
        // In whole milliseconds, which are read from a record as they were written.
        expected: if lots.one_in(4) { 1.0 } else { (seconds * (700.0 + 600.0 * lots.share())).round() / 1000.0 },
        bytes: 1 << (10 + lots.below(18)),
        feature: if lots.one_in(8) { Some(["big-parallel", "kvm"][lots.below(2)]) } else { None },
        system: if lots.one_in(6) { "aarch64-linux" } else { "x86_64-linux" },
        fixed: lots.one_in(8),
        prefer_local: lots.one_in(8),
        substitutes: !lots.one_in(12),
        start,
        lie: lots.one_in(25),
        fate,
    }
}
