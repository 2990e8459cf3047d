//! Buckets (`s3://`): signatures, parts, listings and what goes wrong with them, against s3s-fs, which checks every
//! signature, and moto, which knows nothing of drover; and real Nix reads what was pushed.

use std::collections::BTreeSet;
use std::path::Path;

use drover::id::{CacheId, StoreDir, StorePath};
use drover::nix_compat::daemon::PathInfo;
use drover::store::cache::{Answer, Cache, CacheConfig, CacheError, LoginEnv, NarStream, OpenContext, PutError};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

use crate::support::bucket::{Asked, BUCKET, Bucket, Fault, KEY_ID, Moto, SECRET, client};
use crate::support::nix::{Lab, Nix, each_nix, newest};
use crate::support::site::{Ran, Site, finish};

const MIB: usize = 1 << 20;

/// What makes NARs of more than 6 MiB go in parts of 5 MiB.
const PARTS: &str = "multipart-chunk-size=5242880&multipart-threshold=6291456&compression=none";

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn context(env: &[(&str, &str)]) -> OpenContext {
    let login_env: LoginEnv = env.iter().copied().collect();
    OpenContext { login_env, require_sigs: false, ..OpenContext::new(StoreDir::default()) }
}

fn with_keys() -> OpenContext {
    context(&[("AWS_ACCESS_KEY_ID", KEY_ID), ("AWS_SECRET_ACCESS_KEY", SECRET)])
}

async fn open(url: String, push: bool, context: &OpenContext) -> Result<Cache, CacheError> {
    let config = CacheConfig { url, push, pull: true, ..CacheConfig::default() };
    Cache::open(CacheId(0), config, context).await
}

/// A path whose NAR is `size` bytes that do not repeat.
fn path(number: u8, size: usize) -> (PathInfo, Vec<u8>) {
    let mut state = u64::from(number) + 1;
    let nar: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(size)
    .collect();
    let info = PathInfo {
        path: StorePath::from_parts([number; 20], "some-path").unwrap(),
        nar_hash: Sha256::digest(&nar).into(),
        nar_size: nar.len() as u64,
        registration_time: 0,
        ultimate: false,
        references: BTreeSet::new(),
        deriver: None,
        signatures: BTreeSet::new(),
        ca: None,
    };
    (info, nar)
}

/// Both steps of a push of one path.
async fn push(cache: &Cache, info: &PathInfo, nar: &[u8]) -> Result<String, PutError> {
    let sink = cache.sink().unwrap();
    let (mut writer, stream) = NarStream::start(sink.codec(info), info);
    let write = async {
        // Whoever reads says what is wrong.
        if writer.write_all(nar).await.is_ok() {
            let _ = writer.end().await;
        }
    };
    let (sent, ()) = tokio::join!(sink.send(info, stream), write);
    let nar = sent?;
    sink.register(info, &nar).await?;
    Ok(nar.url)
}

/// How often each sort of request came, those of opening left out.
fn sorts(log: &[Asked]) -> Vec<String> {
    let mut sorts: Vec<String> = log.iter().map(Asked::sort).collect();
    sorts.retain(|sort| !sort.ends_with("nix-cache-info") && !sort.ends_with("list-type"));
    sorts.sort();
    sorts
}

#[test]
fn who_has_no_keys_may_only_read_what_everybody_may() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = Bucket::serve(dir.path(), true);
    block_on(async {
        let refused = |keys: &[(&'static str, &'static str)], push| {
            let (url, context) = (bucket.url(""), context(keys));
            async move { open(url, push, &context).await.unwrap_err() }
        };
        let error = refused(&[], false).await;
        assert!(matches!(error, CacheError::NotACache { .. }), "{error}");
        let error = refused(&[], true).await;
        assert!(error.is_refusal() && error.has_no_login(), "{error}");
        assert!(error.to_string().contains("wants keys for pushing: "), "{error}");

        let wrong = [("AWS_ACCESS_KEY_ID", KEY_ID), ("AWS_SECRET_ACCESS_KEY", "wrong")];
        let error = refused(&wrong, true).await;
        assert!(error.is_refusal() && !error.has_no_login(), "{error}");
        let text = error.to_string();
        assert!(text.contains("SignatureDoesNotMatch") && text.contains("AWS_ACCESS_KEY_ID"), "{text}");
        assert!(!text.contains("wrong"), "{text}");
        let other = [("AWS_ACCESS_KEY_ID", "AKOTHER"), ("AWS_SECRET_ACCESS_KEY", SECRET)];
        assert!(refused(&other, true).await.to_string().contains("AKOTHER") == false);

        // The keys of a profile do.
        let file = dir.path().join("profiles");
        std::fs::write(&file, format!("[ci]\naws_access_key_id={KEY_ID}\naws_secret_access_key={SECRET}\n")).unwrap();
        let profile = context(&[("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap())]);
        let cache = open(bucket.url("profile=ci"), true, &profile).await.unwrap();
        assert!(cache.login().unwrap().to_string().contains("profile 'ci' in "));
        let error = open(bucket.url("profile=gone"), true, &profile).await.unwrap_err();
        assert!(format!("{:?}", drover::error::Error::from(error)).contains("no profile 'gone'"));

        // From now on it is a cache, which everybody may read.
        let cache = open(bucket.url(""), false, &context(&[])).await.unwrap();
        assert_eq!(cache.ask(&[path(1, 1).0.path]).await, [Answer::Absent]);
        assert!(!cache.is_bulk(), "it is not to be listed by all");
    });
}

#[test]
fn nars_go_in_one_piece_or_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = Bucket::serve(dir.path(), true);
    block_on(async {
        let url = bucket.url(&format!("{PARTS}&storage-class=STANDARD"));
        let cache = open(url, true, &with_keys()).await.unwrap();
        let (small, small_nar) = path(1, 1000);
        let (large, large_nar) = path(2, 23 * MIB + 77);
        let small_url = push(&cache, &small, &small_nar).await.unwrap();
        assert_eq!(
            sorts(&bucket.log()),
            ["PUT narinfo", "PUT nar"].map(str::to_owned).iter().rev().cloned().collect::<Vec<_>>()
        );
        let large_url = push(&cache, &large, &large_nar).await.unwrap();
        let log = bucket.log();
        let count = |sort: &str| log.iter().filter(|asked| asked.sort() == sort).count();
        assert_eq!((count("POST uploads"), count("PUT part"), count("POST uploadId")), (1, 5, 1));
        for (url, nar) in [(small_url, small_nar), (large_url, large_nar)] {
            assert!(std::fs::read(bucket.dir().join(&url)).unwrap() == nar, "{url}");
        }
        // Every request is signed, and what is written is signed with the hash of its body.
        for asked in &log {
            assert!(asked.header("authorization").is_some_and(|login| login.starts_with("AWS4-HMAC-SHA256 ")));
            assert_ne!(asked.header("x-amz-content-sha256"), Some("UNSIGNED-PAYLOAD"), "{asked:?}");
            let kept = matches!(asked.sort().as_str(), "PUT nar" | "PUT narinfo" | "POST uploads");
            assert!(!kept || asked.header("x-amz-storage-class") == Some("STANDARD"), "{asked:?}");
        }
        // The parts are put together before the record says where they are.
        let at = |sort: &str| log.iter().rposition(|asked| asked.sort() == sort).unwrap();
        assert!(at("PUT part") < at("POST uploadId") && at("POST uploadId") < at("PUT narinfo"));

        let asked = cache.ask(&[small.path.clone(), large.path.clone(), path(3, 1).0.path]).await;
        assert!(matches!(&asked[..], [Answer::Present(_), Answer::Present(_), Answer::Absent]), "{asked:?}");
        let held = cache.inspect(&[small.path, large.path]).await;
        assert!(held.iter().all(|held| held.as_ref().unwrap().as_ref().unwrap().nar), "{held:?}");
    });
}

#[test]
fn what_goes_wrong_with_parts_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = Bucket::serve(dir.path(), true);
    block_on(async {
        let cache = open(bucket.url(PARTS), true, &with_keys()).await.unwrap();
        bucket.next("PUT part", [Fault::Says(503, "SlowDown"), Fault::Close, Fault::Says(400, "RequestTimeout")]);
        // The parts are put together, but nobody hears that; asked again, the server knows no such upload.
        bucket.next("POST uploadId", [Fault::Lost]);
        bucket.next("PUT narinfo", [Fault::Says(500, "InternalError"), Fault::Lost]);
        let (info, nar) = path(1, 23 * MIB);
        let url = push(&cache, &info, &nar).await.unwrap();
        assert!(std::fs::read(bucket.dir().join(url)).unwrap() == nar);
        assert_eq!((bucket.count("PUT part"), bucket.count("PUT narinfo")), (5 + 3, 3));

        // Keys that end meanwhile are an end, and told; nothing of the path is to be seen.
        let (info, nar) = path(2, 12 * MIB);
        bucket.next("PUT part", vec![Fault::Says(400, "ExpiredToken"); 3]);
        let error = push(&cache, &info, &nar).await.unwrap_err().to_string();
        assert!(error.contains("ExpiredToken: as told"), "{error}");
        assert_eq!(cache.missing(&[info.path]).await, Ok(vec![true]));
        cache.sink().unwrap().close().await;
        assert_eq!(bucket.count("DELETE uploadId"), 1, "nothing is left behind");
    });
}

#[test]
fn a_nar_that_is_not_what_it_was_is_never_put_together() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = Bucket::serve(dir.path(), true);
    block_on(async {
        let cache = open(bucket.url(PARTS), true, &with_keys()).await.unwrap();
        let (info, mut nar) = path(1, 12 * MIB);
        nar[7] ^= 1;
        let error = push(&cache, &info, &nar).await.unwrap_err();
        assert!(matches!(error, PutError::Stream(_)), "{error}");
        assert_eq!((bucket.count("POST uploadId"), bucket.count("DELETE uploadId")), (0, 1));
        assert!(!bucket.dir().join("nar").exists());
    });
}

/// Writes a record of each hash that begins with one of two letters and a number.
fn fill(dir: &Path, many: usize) -> Vec<StorePath> {
    let paths = (0..many).map(|at| {
        let digest = Sha256::digest(at.to_le_bytes());
        StorePath::from_parts(digest[..20].try_into().unwrap(), "some-path").unwrap()
    });
    let paths: Vec<StorePath> = paths.collect();
    for path in &paths {
        std::fs::write(dir.join(drover::store::cache::narinfo_name(path)), "").unwrap();
    }
    paths
}

#[test]
fn a_bucket_is_listed_where_that_is_cheaper() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = Bucket::serve(dir.path(), false);
    std::fs::write(bucket.dir().join("nix-cache-info"), "StoreDir: /nix/store\n").unwrap();
    let there = fill(&bucket.dir(), 2500);
    std::fs::create_dir(bucket.dir().join("nar")).unwrap();
    std::fs::write(bucket.dir().join("nar/x.nar"), "nar").unwrap();
    block_on(async {
        let cache = open(bucket.url(""), false, &with_keys()).await.unwrap();
        assert!(cache.is_bulk());
        let absent = [path(1, 1).0.path, path(2, 1).0.path];
        let asked = |many: usize| there.iter().take(many).chain(&absent).cloned().collect::<Vec<_>>();
        let lacks = |many: usize| [vec![false; many], vec![true; 2]].concat();

        let before = bucket.log().len();
        assert_eq!(cache.missing(&asked(1)).await, Ok(lacks(1)));
        let log = bucket.log().split_off(before);
        assert!(log.len() == 3 && log.iter().all(|asked| asked.method == "HEAD"), "few are asked one by one: {log:?}");

        let before = bucket.log().len();
        assert_eq!(cache.missing(&asked(2500)).await, Ok(lacks(2500)));
        let pages = bucket.log().split_off(before);
        assert!(pages.len() <= 33 && pages.iter().all(|asked| asked.sort() == "GET list-type"), "{}", pages.len());

        let listing = cache.list().await.unwrap();
        assert_eq!((listing.records.len(), listing.nars.len(), listing.nars[0].size), (2500, 1, 3));
        assert!(listing.records.is_sorted_by(|a, b| a.name < b.name));
        cache.remove(&[listing.records[0].name.clone(), "nar/x.nar".into(), "nar/x.nar".into()]).await.unwrap();
        let left = cache.list().await.unwrap();
        assert_eq!((left.records.len(), left.nars.len()), (2499, 0));
        cache.put_back(&listing.records[0].name, b"again".to_vec()).await.unwrap();
        assert_eq!(cache.list().await.unwrap().records.len(), 2500);
    });
}

/// Begins to push a path of five parts, and drops all of it when three have come.
async fn begin(bucket: &Bucket, url: &str, info: &PathInfo, nar: &[u8]) {
    let cache = open(url.to_owned(), true, &with_keys()).await.unwrap();
    // The last two never come through.
    bucket.next("PUT part 4", [Fault::Hang]);
    bucket.next("PUT part 5", [Fault::Hang]);
    let arrived = async {
        while bucket.count("PUT part") < 5 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        // Those that do not hang have been answered.
        while bucket.answered("PUT part") < 3 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        pushed = push(&cache, info, nar) => panic!("{pushed:?}"),
        () = arrived => {}
    }
}

#[test]
fn no_part_that_came_through_is_sent_again() {
    let moto = Moto::start();
    let bucket = Bucket::before(&moto);
    block_on(async {
        moto.make_bucket().await;
        let url = bucket.url(PARTS);
        let (info, nar) = path(1, 21 * MIB);
        begin(&bucket, &url, &info, &nar).await;
        assert_eq!(bucket.count("POST uploadId"), 0);

        let before = bucket.log().len();
        let cache = open(url, true, &with_keys()).await.unwrap();
        let at = push(&cache, &info, &nar).await.unwrap();
        let log = bucket.log().split_off(before);
        let parts = log.iter().filter(|asked| asked.sort() == "PUT part");
        let mut parts: Vec<&str> = parts.filter_map(|asked| asked.query.strip_prefix("partNumber=")).collect();
        parts.sort_unstable();
        assert!(parts.len() == 2 && parts[0].starts_with("4&") && parts[1].starts_with("5&"), "{parts:?}");
        assert_eq!(
            log.iter().filter(|asked| asked.sort() == "POST uploads").count(),
            0,
            "it goes on with the same one"
        );
        let read = client().get(format!("{}/{at}", moto.http())).send().await.unwrap().bytes().await.unwrap();
        assert!(read == nar);
        // Once more: it is there.
        let before = bucket.log().len();
        push(&cache, &info, &nar).await.unwrap();
        assert_eq!(sorts(&bucket.log().split_off(before)), ["HEAD nar", "PUT narinfo"]);
    });
}

#[test]
fn a_bucket_that_is_not_there_is_told_by_name() {
    let moto = Moto::start();
    let opened = block_on(async { open(moto.url(""), true, &with_keys()).await.map(drop) });
    let error = opened.unwrap_err().to_string();
    assert!(error.contains(&format!("there is no bucket '{BUCKET}' at 127.0.0.1")), "{error}");
}

#[test]
fn two_runs_push_the_same_path() {
    let moto = Moto::start();
    let bucket = Bucket::before(&moto);
    block_on(async {
        moto.make_bucket().await;
        let url = bucket.url(PARTS);
        let (info, nar) = path(1, 30 * MIB);
        let (keys_a, keys_b) = (with_keys(), with_keys());
        let (a, b) = tokio::join!(open(url.clone(), true, &keys_a), open(url.clone(), true, &keys_b));
        let (a, b) = (a.unwrap(), b.unwrap());
        let (one, two) = tokio::join!(push(&a, &info, &nar), push(&b, &info, &nar));
        assert_eq!(one.unwrap(), two.unwrap());
        let cache = open(url, false, &with_keys()).await.unwrap();
        let held = cache.inspect(std::slice::from_ref(&info.path)).await;
        assert!(held[0].as_ref().unwrap().as_ref().is_some_and(|held| held.nar), "{held:?}");
    });
}

/// Three attrs' worth of paths, one of which goes in parts.
const FLAKE: &str = r#"{
  outputs = _:
    let
      build = name: more: script: derivation ({
        inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "set -e; ${script}" ];
      } // more);
      base = build "base-1.0" { } "echo base > $out";
      big = build "big-1.0" { } "s=many-bytes; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do s=$s$s; done; echo $s > $out";
    in {
      packages.x86_64-linux.app = build "app-1.0" { inherit base big; } "echo $base $big app > $out";
    };
}
"#;

/// drover with the keys of the server in its environment, and no others.
fn drover(site: &Site, args: &[&str]) -> Ran {
    let mut command = site.command(args);
    for name in ["AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"] {
        command.env_remove(name);
    }
    finish(prepared(command), args)
}

fn prepared(mut command: std::process::Command) -> std::process::Command {
    command.env("AWS_ACCESS_KEY_ID", KEY_ID).env("AWS_SECRET_ACCESS_KEY", SECRET);
    command
}

/// An empty store that trusts only this key takes the path from there.
fn nix_takes(nix: &Nix, url: &str, key: &str, path: &str) {
    let lab = Lab::chroot(nix);
    lab.configure(&format!("require-sigs = true\ntrusted-public-keys = {key}"));
    let to = lab.store_arg().unwrap();
    let mut command = lab.bare_command("nix");
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"] {
        command.env_remove(name);
    }
    let output = command.args(["copy", "--from", url, "--to", &to, path]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "nix copy --from {url} with Nix {}:\n{said}", nix.version);
    assert_eq!(lab.run("nix", &["store", "verify", "--recursive", path]), "");
}

/// Builds the flake, pushes to this URL, and lets both Nix versions read by these URLs.
fn readers(nix: &Nix, push_to: &str, read_from: &[(&str, Option<(u32, u32)>)]) {
    let site = Site::of(Lab::chroot(nix), FLAKE);
    let key = site.key("bucket-1");
    let url = format!("{push_to}&secret-key={}", key.secret.display());
    let ran = drover(&site, &["run", "--push-to", &url, "--json"]);
    ran.expect(0);
    let document = ran.json();
    let attr = &document["attrs"][0];
    let pushed: Vec<&str> = attr["pushed"].as_object().unwrap().values().map(|word| word.as_str().unwrap()).collect();
    assert_eq!(pushed, ["complete"], "{document}");
    let path = attr["outputs"]["out"].as_str().map(str::to_owned);
    let path = path
        .unwrap_or_else(|| site.lab.run("nix", &["eval", "--raw", &format!("{}#app.outPath", site.flake.display())]));
    each_nix(|reader| {
        for (url, since) in read_from {
            if since.is_none_or(|since| reader.release() >= since) {
                nix_takes(reader, url, &key.public, &path);
            }
        }
    });
}

#[test]
fn nix_reads_a_public_bucket_by_both_addresses() {
    let nix = newest();
    let dir = tempfile::tempdir().unwrap();
    let bucket = Bucket::serve(dir.path(), true);
    let by_s3 = format!("s3://{BUCKET}?endpoint={}&region=eu-west-1", bucket.endpoint);
    // The other Nix of the tests was built without s3://.
    readers(&nix, &bucket.url(PARTS), &[(&bucket.http(), None), (&by_s3, Some((2, 33)))]);
    assert!(bucket.count("PUT part") >= 2 && bucket.count("POST uploadId") == 1);
}

#[test]
fn nix_reads_what_moto_was_given() {
    let moto = Moto::start();
    block_on(moto.make_bucket());
    let by_s3 = format!("s3://{BUCKET}?endpoint={}&region=eu-west-1", moto.endpoint);
    readers(&newest(), &moto.url(PARTS), &[(&moto.http(), None), (&by_s3, Some((2, 33)))]);
}
