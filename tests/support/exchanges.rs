//! Every operation of the daemon protocol with good replies of its own: what the tests cut, garble and hold up.
#![allow(dead_code, unreachable_pub, reason = "a toolbox for many tests; not every tool is in use at every moment")]
#![allow(clippy::panic, reason = "tests say what went wrong by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use drover::id::StoreDir;
use drover::nix_compat::daemon::*;
use drover::nix_compat::wire::Encoder;

use super::fake_daemon::{build_result, error, last, nar, path};

/// One request and the whole reply to it.
pub struct Exchange {
    /// For [`ask`].
    pub what: &'static str,
    /// What it asks for.
    pub op: Op,
    /// The protocol in which the reply is laid out.
    pub minor: u16,
    /// Everything that the daemon sends.
    pub reply: Vec<u8>,
    /// The reply is an error of the daemon's.
    pub refused: bool,
}

/// Who does not listen.
pub fn quiet(_: Message) {}

/// A derivation.
pub fn basic() -> BasicDerivation {
    BasicDerivation {
        outputs: BTreeMap::new(),
        inputs: [path("in")].into(),
        platform: "x86_64-linux".into(),
        builder: "/bin/sh".into(),
        args: vec!["-c".into(), "true".into()],
        env: [("out".to_owned(), b"\xff".to_vec())].into(),
    }
}

/// What is known of a path whose content is `hello`.
pub fn info() -> PathInfo {
    PathInfo {
        path: path("a"),
        deriver: Some(path("a.drv")),
        nar_hash: [7; 32],
        references: [path("a"), path("b")].into(),
        registration_time: 5,
        nar_size: nar(b"hello").len() as u64,
        ultimate: true,
        signatures: ["k:c2ln".to_owned()].into(),
        ca: None,
    }
}

/// Builds [`basic`].
pub async fn build(connection: &mut Connection, messages: Messages<'_>) -> Result<BuildResult, DaemonError> {
    connection.build_derivation(&path("x.drv"), &basic(), BuildMode::Normal, messages).await
}

/// What a daemon says while it works: each kind of message once.
pub fn chatter() -> Encoder {
    let mut said = Encoder::new();
    said.u64(Tag::Next as u64).bytes("a log line\n");
    said.u64(Tag::StartActivity as u64).u64(9).u64(3).u64(105).bytes("building").u64(1).u64(1).bytes("x").u64(0);
    said.u64(Tag::Result as u64).u64(9).u64(101).u64(1).u64(1).bytes("line");
    said.u64(Tag::Result as u64).u64(9).u64(105).u64(2).u64(0).u64(1).u64(0).u64(2);
    said.u64(Tag::StopActivity as u64).u64(9);
    said
}

/// Whether it is several requests at once.
pub fn is_burst(what: &str) -> bool {
    matches!(what, "valid, three" | "root and valid")
}

/// Every operation, answered well and refused, in each layout that it has.
pub fn exchanges() -> Vec<Exchange> {
    let dir = StoreDir::default();
    let mut all = Vec::new();
    let mut add = |what, op, minors: &[u16], fill: &dyn Fn(&mut Encoder, u16)| {
        for &minor in minors {
            let mut reply = chatter();
            reply.u64(Tag::Last as u64);
            fill(&mut reply, minor);
            all.push(Exchange { what, op, minor, reply: reply.finish(), refused: false });
        }
        let mut reply = chatter().finish();
        reply.extend(error("\u{1b}[31merror:\u{1b}[0m no").finish());
        if is_burst(what) {
            // The others are answered nevertheless.
            let mut others = Encoder::new();
            fill(&mut others, minors[0]);
            reply.extend(&others.as_bytes()[8..]);
        }
        all.push(Exchange { what, op, minor: minors[0], reply, refused: true });
    };
    let done = |to: &mut Encoder, _: u16| {
        to.u64(1);
    };
    add("options", Op::SetOptions, &[38], &|_, _| ());
    add("valid", Op::IsValidPath, &[38], &done);
    add("valid, three", Op::IsValidPath, &[38], &|to, _| {
        // The first has its tag already.
        to.u64(0).u64(Tag::Last as u64).u64(1).u64(Tag::Last as u64).u64(0);
    });
    add("root", Op::AddTempRoot, &[38], &done);
    add("root and valid", Op::AddTempRoot, &[38], &|to, _| {
        to.u64(1).u64(Tag::Last as u64).u64(1);
    });
    add("link", Op::AddIndirectRoot, &[38], &done);
    add("lasting root", Op::AddPermRoot, &[38], &|to, _| {
        to.bytes("/roots/a");
    });
    add("query", Op::QueryValidPaths, &[38], &|to, _| {
        to.paths(&StoreDir::default(), &[path("a")]);
    });
    add("info", Op::QueryPathInfo, &[38], &|to, _| {
        to.u64(1);
        info().write_unkeyed(&dir, to);
    });
    add("fetch", Op::EnsurePath, &[38], &done);
    add("sign", Op::AddSignatures, &[38], &done);
    add("upload", Op::AddToStoreNar, &[38], &|_, _| ());
    add("build", Op::BuildDerivation, &[35, 37, 38], &|to, minor| {
        build_result(to, minor, 0, "", &[("out", &path("x")), ("dev", &path("x-dev"))]);
    });
    add("outputs", Op::QueryDerivationOutputMap, &[38], &|to, _| {
        to.u64(2).bytes("dev").bytes("").bytes("out").path(&StoreDir::default(), &path("x"));
    });
    add("paths", Op::BuildPathsWithResults, &[35, 37, 38], &|to, minor| {
        to.u64(1).bytes(format!("/nix/store/{}!*", path("x.drv").to_basename()));
        build_result(to, minor, 3, "no", &[]);
    });
    add("missing", Op::QueryMissing, &[38], &|to, _| {
        to.paths(&StoreDir::default(), &[path("x.drv")]).u64(0).u64(0).u64(1).u64(2);
    });
    all.push(Exchange {
        what: "nar",
        op: Op::NarFromPath,
        minor: 38,
        reply: [last().finish(), nar(b"hello")].concat(),
        refused: false,
    });
    all
}

/// Asks; what is answered comes as text.
pub async fn ask(connection: &mut Connection, what: &str) -> Result<String, DaemonError> {
    let built = DerivedPath::Built { drv_path: SingleDerivedPath::Opaque(path("x.drv")), outputs: vec![] };
    let three = [path("a"), path("b"), path("c")];
    Ok(match what {
        "options" => format!("{:?}", connection.set_options(&ClientOptions::default(), &mut quiet).await?),
        "valid" => format!("{:?}", connection.valid_paths(&[path("a")]).await?),
        "valid, three" => format!("{:?}", connection.valid_paths(&three).await?),
        "root" => format!("{:?}", connection.add_temp_roots(&[path("a")]).await?),
        "root and valid" => format!("{:?}", connection.hold_valid(&[path("a")]).await?),
        "link" => format!("{:?}", connection.add_indirect_root(Path::new("/link")).await?),
        "lasting root" => format!("{:?}", connection.add_perm_root(&path("a"), Path::new("/roots/a")).await?),
        "query" => format!("{:?}", connection.query_valid_paths(&[path("a")], false, &mut quiet).await?),
        "info" => format!("{:?}", connection.path_info(&path("a")).await?),
        "fetch" => format!("{:?}", connection.ensure_path(&path("a"), &mut quiet).await?),
        "sign" => format!("{:?}", connection.add_signatures(&path("a"), &["k:c2ln".to_owned()]).await?),
        "upload" => {
            let content = nar(b"hello");
            format!("{:?}", connection.add_to_store_nar(&info(), false, &mut &content[..], &mut quiet).await?)
        }
        "build" => format!("{:?}", build(connection, &mut quiet).await?),
        "outputs" => format!("{:?}", connection.output_map(&path("x.drv")).await?),
        "paths" => format!("{:?}", connection.build_paths(&[built], BuildMode::Normal, &mut quiet).await?),
        "missing" => format!("{:?}", connection.query_missing(&[built], &mut quiet).await?),
        "nar" => {
            let mut sink = Vec::new();
            connection.nar_from_path(&path("a"), nar(b"hello").len() as u64, &mut sink).await?;
            format!("{}", sink == nar(b"hello"))
        }
        other => panic!("{other}"),
    })
}
