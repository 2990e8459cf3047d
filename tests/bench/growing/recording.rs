//! What a run leaves: its events on disk and read again, and all that reports say of them.

use drover::event::{AttemptEnd, DrvOutcome, Evaluated, Event, FORMAT, Fact, Moment, Pushed, Status, Text};
use drover::id::{AttemptId, AttrId, BuilderId, CacheId, DrvId, Kind, RunId, StoreDir, System};
use drover::record::{self, RunDir, Writer};
use drover::report::entry;
use drover::report::summary::Summary;

use super::Work;
use super::set::{Drv, inputs};

fn run() -> RunId {
    "01KAJX3M000000000000000000".parse().unwrap()
}

/// The events of a run that builds and pushes so many drvs, for a tenth as many attrs.
fn events(drvs: usize) -> Vec<Event> {
    let started = "2026-11-21T08:14:00Z".parse().unwrap();
    let (drover, command, nix) = ("0.1.0".into(), "run".into(), "2.34.8".into());
    let mut facts = vec![Fact::RunStarted { format: FORMAT, run: run(), drover, command, what: vec![], started, nix }];
    let systems = vec![System("x86_64-linux".to_owned())];
    facts.extend((0..8).map(|at| Fact::BuilderReady {
        builder: BuilderId(at),
        name: format!("big{at}").into(),
        slots: 8,
        systems: systems.clone(),
        features: Vec::new(),
        speed: None,
        named_in: None,
    }));
    facts.extend((0..drvs).step_by(10).flat_map(attr));
    facts.extend((0..drvs).map(needed));
    facts.extend((0..drvs).flat_map(built));
    facts.push(Fact::RunEnded { exit: 0 });
    (0..).zip(facts).map(|(seq, fact)| Event { seq, at: Moment(seq * 1000), fact }).collect()
}

fn id(number: usize) -> u32 {
    u32::try_from(number).unwrap()
}

fn drv(number: usize) -> Drv {
    Drv { number, salt: 0 }
}

fn attr(number: usize) -> [Fact; 4] {
    let (attr, name): (_, Text) = (AttrId(id(number)), format!("host{number}").into());
    let path = format!("nixosConfigurations.{name}").parse().unwrap();
    let (drv_path, system) = (shown(&drv(number).path()), System("x86_64-linux".to_owned()));
    let evaluated = Evaluated::Drv { drv: drv_path, outputs: Vec::new(), name: name.clone(), system, position: None };
    let (drv, status) = (Some(DrvId(id(number))), Status::ToBuild);
    [
        Fact::AttrListed { attr, path, kind: Kind::NixosConfigurations, name },
        Fact::EvalStarted { attr, worker: 0 },
        Fact::EvalEnded { attr, evaluated, peak: None, grown: None },
        Fact::AttrPlanned { attr, status, drv, builds: 1 },
    ]
}

fn shown(path: &drover::id::StorePath) -> Text {
    StoreDir::default().render_path(path).into()
}

fn needed(number: usize) -> Fact {
    Fact::DrvNeeded {
        drv: DrvId(id(number)),
        path: shown(&drv(number).path()),
        name: format!("package-{number}-1.0").into(),
        system: System("x86_64-linux".to_owned()),
        inputs: inputs(number).into_iter().map(|input| DrvId(id(input))).collect(),
        fetch: false,
        opaque: false,
        features: Vec::new(),
        attr: Some(AttrId(id(number / 10 * 10))),
        expected: Some(3.0),
        outputs: Vec::new(),
    }
}

fn built(number: usize) -> Vec<Fact> {
    let (attempt, drv_id, cache) = (AttemptId(id(number)), DrvId(id(number)), CacheId(0));
    let path = shown(&drv(number).output("out"));
    let end = AttemptEnd::Built { outputs: Vec::new() };
    let mut facts = vec![
        Fact::AttemptStarted { attempt, drv: drv_id, builder: BuilderId(id(number % 8)) },
        Fact::AttemptBuilding { attempt },
        Fact::AttemptEnded { attempt, end, log_lines: 100, log_tail: Vec::new() },
        Fact::DrvSized { drv: drv_id, nar_size: 1_000_000 },
        Fact::DrvEnded { drv: drv_id, outcome: DrvOutcome::Built },
        Fact::PushQueued { cache, path: path.clone(), nar_size: 1_000_000 },
        Fact::PushStarted { cache, path: path.clone() },
        Fact::PushEnded { cache, path, pushed: Pushed::Uploaded { file_size: 300_000 } },
    ];
    if number.is_multiple_of(10) {
        let attr = AttrId(id(number));
        facts.push(Fact::AttrEnded { attr, status: Status::Built, reason: None, root: None });
    }
    facts
}

pub(crate) fn fold(size: usize) -> Work {
    let events = events(size);
    Box::new(move || {
        let summary = Summary::of(&events);
        let entry = entry::of(&summary).unwrap();
        assert_eq!(entry.builds.len(), size);
        std::mem::forget((events, summary, entry));
    })
}

pub(crate) fn record(size: usize) -> Work {
    let events = events(size);
    Box::new(move || {
        // Whoever starts this says where temporary files go, and removes them.
        let dir = std::env::temp_dir().join(format!("drover-growing-{}", std::process::id()));
        let into = RunDir::new(&dir, run());
        let mut writer = Writer::create(&into, None).unwrap();
        events.iter().for_each(|event| writer.write(event).unwrap());
        drop(writer);
        let read = record::read(&into.events()).unwrap().events;
        assert_eq!(read.len(), events.len());
        std::mem::forget((events, read));
    })
}
