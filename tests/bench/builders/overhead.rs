//! What an attempt costs besides the build itself: a chain of 200 drvs on one builder, so that none waits for a slot
//! and every connection is warm. No output refers to the one before: a daemon's preparations grow with the closure.
//!
//! The record tells when an attempt began and when its builder ran; when the builder ended only the daemon tells. So
//! what passes between that and the result is measured apart, on a connection of the same kind to the same builder.

use std::time::{Duration, Instant};

use drover::id::{StoreDir, StorePath};
use drover::nix_compat::daemon::{ActivityKind, BasicDerivation, BuildMode, BuildStatus, Message};
use drover::store::local::{LocalStore, StoreOptions, Wishes};
use drover::store::remote::{RemoteOptions, RemoteStore};

use super::{Bench, median};

const COUNT: usize = 200;

/// Prints the medians, in milliseconds.
pub(crate) fn measure(bench: &mut Bench) {
    let (asked, answered) = protocol(bench);
    let system = super::system();
    bench.write(
        "flake.nix",
        &format!(
            r#"{{
  outputs = {{ self }}: {{
    packages.{system}.chain = builtins.foldl' (before: number: derivation {{
      inherit before;
      name = "link${{toString number}}";
      system = "{system}";
      builder = "/bin/sh";
      args = [ "-c" "echo > $out" ];
      salt = builtins.readFile ./salt;
    }}) "" (builtins.genList (number: number) {COUNT});
  }};
}}
"#
        ),
    );
    bench.salt();
    let (_, record) = bench.with_drover(&[format!(".#packages.{system}.chain")]);
    bench.assert_built_there(&record, COUNT);
    let of = |part: fn(&super::record::Attempt) -> f64| {
        median(&record.attempts.values().map(|attempt| 1e3 * part(attempt)).collect::<Vec<_>>())
    };
    let before = of(|attempt| attempt.building - attempt.started);
    let prepared = of(|attempt| attempt.prepared - attempt.started);
    let running = of(|attempt| attempt.ended - attempt.building);
    println!(
        "overhead          {:.2} ms besides the daemon's own (bar 3); {before:.2} before the builder runs \
         ({prepared:.2} until prepared; the daemon alone {asked:.2}), {answered:.2} after it; it runs {running:.1}",
        before - asked + answered
    );
}

/// Milliseconds from a request until the builder runs, and from its end until the result: medians.
fn protocol(bench: &Bench) -> (f64, f64) {
    let drvs = instantiate(bench);
    let lab = &bench.farm.coordinator;
    let options = StoreOptions {
        nix_bin: Some(lab.nix.bin.clone()),
        store: lab.store_arg(),
        env: lab.env(),
        ..StoreOptions::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let local = LocalStore::open(options).await.unwrap();
        let dir = local.store_dir().clone();
        let mut to = RemoteOptions::new("b0", bench.farm.builder_uri(0), &lab.path("tmp"), dir);
        to.ssh_opts = bench.farm.ssh_opts();
        let builder = RemoteStore::dial(to).await.unwrap();
        // As in a run. Before its first command sshd leaves Nagle's algorithm on, which costs 40 ms an answer.
        builder.about().await;
        let wishes = Wishes { substitute: Some(false), ..Wishes::default() };
        let mut session = builder.connect_with(&wishes).await.unwrap();
        let (mut asked, mut answered) = (Vec::new(), Vec::new());
        for (path, drv) in drvs.iter().zip(local.read_drvs(drvs.clone()).await) {
            let basic = BasicDerivation::new(&drv.unwrap(), []).unwrap();
            let (mut started, mut stopped, mut id) = (None, None, None);
            let mut listen = |message: Message| match message {
                Message::Start(activity) if activity.kind == ActivityKind::Build => {
                    started = Some(Instant::now());
                    id = Some(activity.id);
                }
                Message::Stop { id: ended } if Some(ended) == id => stopped = Some(Instant::now()),
                _ => {}
            };
            let begin = Instant::now();
            let result = session.build_derivation(path, &basic, BuildMode::Normal, &mut listen).await.unwrap();
            let end = Instant::now();
            assert_eq!(result.status, BuildStatus::Built);
            asked.push((started.unwrap() - begin).as_secs_f64() * 1e3);
            answered.push((end - stopped.unwrap()).as_secs_f64() * 1e3);
        }
        drop(session);
        builder.settle(Duration::from_secs(1)).await;
        local.settle(Duration::from_secs(1)).await;
        (median(&asked), median(&answered))
    })
}

/// Derivations that need nothing and do nothing.
fn instantiate(bench: &Bench) -> Vec<StorePath> {
    let expr = format!(
        "builtins.genList (number: derivation {{ name = \"alone${{toString number}}\"; system = \"{}\"; builder = \
         \"/bin/sh\"; args = [ \"-c\" \"echo > $out\" ]; }}) {COUNT}",
        super::system()
    );
    let out = bench.farm.coordinator.run("nix-instantiate", &["--expr", &expr]);
    let paths: Vec<StorePath> =
        out.lines().map(|line| StoreDir::default().parse_path(line.as_bytes()).unwrap()).collect();
    assert_eq!(paths.len(), COUNT);
    paths
}
