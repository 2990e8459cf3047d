//! Real daemons of every Nix there is: what they answer, and what they do when they are left.

use std::collections::BTreeMap;

use drover::id::StorePath;
use drover::nix_compat::daemon::{
    BasicDerivation, BuildMode, BuildResult, BuildStatus, DerivedPath, Message, SingleDerivedPath,
};
use drover::nix_compat::drv;
use drover::store::local::{LocalStore, StoreOptions, Wishes};
use drover::store::session::Session;

use crate::support::nix::{Lab, Nix, each_nix};

/// Runs a future as drover does: on one thread.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn options(lab: &Lab) -> StoreOptions {
    StoreOptions {
        nix_bin: Some(lab.nix.bin.clone()),
        store: lab.store_arg(),
        env: lab.env(),
        ..StoreOptions::default()
    }
}

async fn build(session: &mut Session, store: &LocalStore, drv_path: &str, log: &mut Vec<Message>) -> BuildResult {
    let path = store.store_dir().parse_path(drv_path.as_bytes()).unwrap();
    let drv = store.read_drvs(vec![path.clone()]).await.remove(0).unwrap();
    let mut inputs = Vec::new();
    for (input, wanted) in drv.input_derivations() {
        let input = store.drv_reader().read(input).unwrap();
        let paths = drv::output_paths(&input).unwrap();
        inputs.extend(wanted.outputs().iter().map(|name| paths[name].clone().unwrap()));
    }
    let basic = BasicDerivation::new(&drv, inputs).unwrap();
    session.build_derivation(&path, &basic, BuildMode::Normal, &mut |message| log.push(message)).await.unwrap()
}

#[test]
fn probe() {
    each_nix(|nix| {
        for lab in [Lab::plain(nix), Lab::chroot(nix)] {
            block_on(async {
                let store = LocalStore::open(options(&lab)).await.unwrap();
                let cases: Vec<(&str, &str, &str)> = vec![
                    ("ok", "echo hi > $out", ""),
                    ("fail", "echo one; echo two >&2; exit 3", ""),
                    ("signal", "kill -9 $$", ""),
                    ("noout", "true", ""),
                    ("multi", "echo a > $out; echo b > $dev", "outputs = [ \"out\" \"dev\" ];"),
                    ("multinoout", "echo a > $out", "outputs = [ \"out\" \"dev\" ];"),
                    (
                        "fod",
                        "printf hi > $out",
                        "outputHashMode = \"flat\"; outputHashAlgo = \"sha256\"; outputHash = \"8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4\";",
                    ),
                    (
                        "fodbad",
                        "printf ho > $out",
                        "outputHashMode = \"flat\"; outputHashAlgo = \"sha256\"; outputHash = \"8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4\";",
                    ),
                    (
                        "fodfail",
                        "exit 22",
                        "outputHashMode = \"flat\"; outputHashAlgo = \"sha256\"; outputHash = \"8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4\";",
                    ),
                    ("platform", "true", "system = \"mips-linux\";"),
                    ("features", "true", "requiredSystemFeatures = [ \"nope\" ];"),
                    ("disallowed", "echo $dep > $out", "dep = builtins.toFile \"dep\" \"x\"; allowedReferences = [];"),
                    (
                        "disallowed2",
                        "echo $dep > $out",
                        "dep = builtins.toFile \"dep\" \"x\"; disallowedReferences = [ (builtins.toFile \"dep\" \"x\") ];",
                    ),
                    ("toobig", "echo xxxxxxxxxxxxxxxxxx > $out", "outputChecks = 1; __structuredAttrs = true; "),
                    ("selfref", "echo $out > $out", "allowedReferences = [];"),
                    ("requisites", "echo $dep > $out", "dep = builtins.toFile \"dep\" \"x\"; allowedRequisites = [];"),
                    ("badbuilder", "true", "builder = \"/nonexistent\";"),
                ];
                for (name, script, more) in cases {
                    let expr = crate::support::nix::derivation(name, script, "");
                    let expr = format!(
                        "derivation ({{ {} }} // {{ {more} }})",
                        expr.strip_prefix("derivation { ").unwrap().strip_suffix('}').unwrap()
                    );
                    let drv = lab.instantiate(&expr);
                    let mut session = store.connect().await.unwrap();
                    let mut log = Vec::new();
                    let r = build(&mut session, &store, &drv, &mut log).await;
                    println!(
                        "#### {} {:?} {name}: {:?} {}\n{:?}",
                        nix.version,
                        lab.layout,
                        r.status,
                        r.error_text(),
                        r.outputs.keys()
                    );
                }
                // timeouts
                for (name, wishes) in [
                    ("timeout", Wishes { timeout: Some(1), ..Wishes::default() }),
                    ("silent", Wishes { max_silent_time: Some(1), ..Wishes::default() }),
                    (
                        "log",
                        Wishes { overrides: vec![("max-build-log-size".into(), "10".into())], ..Wishes::default() },
                    ),
                ] {
                    let script = if name == "log" {
                        "echo 123456789012345678901234567890; sleep 1; echo 2 > $out"
                    } else {
                        "while :; do :; done"
                    };
                    let drv = lab.drv(
                        name,
                        script,
                        if lab.layout == crate::support::nix::Layout::Plain {
                            "PATH = \"/bin:/usr/bin\";"
                        } else {
                            "PATH = \"/bin\";"
                        },
                    );
                    let mut session = store.connect_with(&wishes).await.unwrap();
                    let r = build(&mut session, &store, &drv, &mut Vec::new()).await;
                    println!("#### {} {:?} {name}: {:?} {}", nix.version, lab.layout, r.status, r.error_text());
                }
            });
        }
    });
}
