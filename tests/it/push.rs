//! Pushing to a `file://` cache: with real Nix on both ends, and with streams that misbehave.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::process::Stdio;

use drover::event::Class;
use drover::id::{CacheId, StoreDir, StorePath};
use drover::nix_compat::narinfo::NixHash;
use drover::push::queue::{Action, End, Input, Item, Limits};
use drover::push::{Nar, PathInfo, Queue, Source, UploadError, closure, finish, verify, verify_nars};
use drover::store::cache::{Answer, Cache, CacheConfig, Codec, OpenContext, SecretKey, Sink};
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::FuturesUnordered;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::support::nix::{Lab, Nix, each_nix};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A cache to push to; `params` go to the URL.
async fn target(dir: &Path, store_dir: &str, params: &str) -> Cache {
    let url = format!("file://{}?{params}", dir.display());
    let config = CacheConfig { url, push: true, pull: true, ..CacheConfig::default() };
    Cache::open(CacheId(0), config, &OpenContext::new(StoreDir::new(store_dir).unwrap())).await.unwrap()
}

/// Brings a NAR into a cache, as far as `info.nar_size` says.
async fn upload(sink: &Sink, info: &PathInfo, nar: impl AsyncRead + Unpin) -> Result<Nar, UploadError> {
    let read = |mut writer| async move {
        tokio::io::copy(&mut nar.take(info.nar_size), &mut writer).await?;
        Ok(writer)
    };
    drover::push::upload(sink, info, read).await
}

/// Everything that a push to one cache came to.
#[derive(Debug, Default)]
struct Pushed {
    ends: BTreeMap<StorePath, End>,
    nars: BTreeMap<StorePath, Nar>,
}

type Effect<'a> = BoxFuture<'a, (Input, Option<(StorePath, Nar)>)>;

/// Runs the queue to its end: what the driver does, in small.
async fn drive<R: AsyncRead + Unpin + Send>(
    cache: &Cache,
    infos: &[PathInfo],
    held: &BTreeSet<StorePath>,
    open: impl Fn(&PathInfo) -> R + Sync,
) -> Pushed {
    let by_path: BTreeMap<_, _> = infos.iter().map(|info| (info.path.clone(), info.clone())).collect();
    let sink = cache.sink().unwrap();
    let items = infos.iter().map(|info| Item {
        path: info.path.clone(),
        references: info.references.iter().cloned().collect(),
        nar_size: info.nar_size,
    });
    let mut inputs = vec![Input::NoMore, Input::Add(items.collect()), Input::Held(held.iter().cloned().collect())];
    let mut queue = Queue::new(Limits { uploads: 3, ..Limits::default() });
    let mut running: FuturesUnordered<Effect<'_>> = FuturesUnordered::new();
    let mut pushed = Pushed::default();
    while let Some(input) = inputs.pop() {
        let mut actions = Vec::new();
        queue.handle(input, &mut actions);
        for action in actions {
            let effect: Effect<'_> = match action {
                Action::Check(paths) => async move {
                    let answers = cache.inspect(&paths).await;
                    let has = |answer: &Result<Option<drover::store::cache::Held>, _>| {
                        matches!(answer, Ok(Some(held)) if held.nar)
                    };
                    let (present, absent): (Vec<_>, Vec<_>) =
                        paths.into_iter().zip(answers).partition(|(_, answer)| has(answer));
                    let paths = |list: Vec<(StorePath, _)>| list.into_iter().map(|(path, _)| path).collect();
                    (Input::Checked { present: paths(present), absent: paths(absent) }, None)
                }
                .boxed(),
                Action::Upload(path) => {
                    let info = by_path[&path].clone();
                    let open = &open;
                    async move {
                        match upload(sink, &info, open(&info)).await {
                            Ok(nar) => (Input::Uploaded(path.clone()), Some((path, nar))),
                            Err(error) => (Input::Failed(path, error.failure()), None),
                        }
                    }
                    .boxed()
                }
                Action::Finish(path) => {
                    let (info, nar) = (by_path[&path].clone(), pushed.nars[&path].clone());
                    async move {
                        match finish(sink, &info, &nar).await {
                            Ok(_) => (Input::Finished(path), None),
                            Err(error) => (Input::Failed(path, error.failure()), None),
                        }
                    }
                    .boxed()
                }
                Action::Ended(path, end) => {
                    pushed.ends.insert(path, end);
                    continue;
                }
            };
            running.push(effect);
        }
        if inputs.is_empty()
            && let Some((input, nar)) = running.next().await
        {
            pushed.nars.extend(nar);
            inputs.push(input);
        }
    }
    assert!(queue.is_done(), "{queue:?}");
    pushed
}

fn sha256(hash: &NixHash) -> [u8; 32] {
    match hash {
        NixHash::Sha256(digest) => *digest,
        other => panic!("no SHA-256: {other:?}"),
    }
}

/// What the lab's store says about a path, in words that every Nix speaks.
fn info(lab: &Lab, path: &StorePath) -> Option<PathInfo> {
    let dir = StoreDir::new(lab.store_dir()).unwrap();
    let absolute = dir.render_path(path);
    let parse = |line: &str| dir.parse_path(line.as_bytes()).unwrap();
    lab.command("nix-store").args(["--check-validity", &absolute]).output().unwrap().status.success().then(|| {
        let query = |what: &str| lab.run("nix-store", &["-q", what, &absolute]);
        PathInfo {
            path: path.clone(),
            nar_hash: sha256(&NixHash::parse(&query("--hash")).unwrap()),
            nar_size: query("--size").parse().unwrap(),
            references: query("--references").lines().map(parse).collect(),
            deriver: Some(query("--deriver")).filter(|drv| drv != "unknown-deriver").map(|drv| parse(&drv)),
            registration_time: 0,
            ultimate: false,
            signatures: BTreeSet::new(),
            ca: None,
        }
    })
}

/// The NAR of a path, as it comes out of Nix.
fn dump(lab: &Lab, path: &StorePath) -> tokio::process::ChildStdout {
    let mut command = lab.bare_command("nix-store");
    command.arg("--dump").arg(lab.physical().join(path.to_basename())).stdout(Stdio::piped());
    tokio::process::Command::from(command).spawn().unwrap().stdout.take().unwrap()
}

/// Builds app → lib → base, app → itself, lib → a text; gives app.
fn build_closure(lab: &Lab) -> StorePath {
    let sh = |name: &str, script: &str, more: &str| crate::support::nix::derivation(name, script, more);
    let base = sh("base", "echo base > $out", "");
    let text = "builtins.toFile \"text\" \"some text\"";
    let lib = sh("lib", "echo $base $text lib > $out", &format!("base = {base}; text = {text};"));
    let app = sh("app", "echo $lib $out > $out", &format!("lib = {lib};"));
    let drv = lab.instantiate(&app);
    let out = lab.run("nix-store", &["--realise", &drv]);
    StoreDir::new(lab.store_dir()).unwrap().parse_path(out.as_bytes()).unwrap()
}

fn generate_key(lab: &Lab, name: &str) -> (SecretKey, String) {
    let text = lab.run("nix", &["key", "generate-secret", "--key-name", name]);
    let file = lab.write(name, &text);
    (SecretKey::read(&file).unwrap(), file.display().to_string())
}

/// The lab's store, and no other cache.
struct Alone<'a>(&'a Lab);

impl Source for Alone<'_> {
    type Error = Infallible;

    async fn held(&mut self, paths: Vec<StorePath>) -> Result<Vec<bool>, Infallible> {
        Ok(vec![false; paths.len()])
    }

    async fn infos(&mut self, paths: Vec<StorePath>) -> Result<Vec<Option<PathInfo>>, Infallible> {
        Ok(paths.iter().map(|path| info(self.0, path)).collect())
    }
}

/// Every path below `root`.
async fn all_infos(lab: &Lab, root: &StorePath) -> Vec<PathInfo> {
    let found = closure([root.clone()], &mut Alone(lab)).await.unwrap();
    assert!(found.invalid.is_empty() && found.held.is_empty());
    found.push
}

/// A store that trusts only these keys takes the path from the cache; gives what Nix said if it does not.
fn copy_from(nix: &Nix, cache: &Path, path: &str, keys: &str) -> Result<(), String> {
    let lab = Lab::chroot(nix);
    lab.configure(&format!("require-sigs = true\ntrusted-public-keys = {keys}"));
    let from = format!("file://{}", cache.display());
    let to = lab.store_arg().unwrap();
    let output = lab.bare_command("nix").args(["copy", "--from", &from, "--to", &to, path]).output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let said = lab.run("nix", &["store", "verify", "--recursive", path]);
    assert_eq!(said, "", "nix store verify");
    Ok(())
}

#[test]
fn nix_takes_what_was_pushed() {
    each_nix(|nix| {
        let lab = Lab::chroot(nix);
        let app = build_closure(&lab);
        let (key, key_file) = generate_key(&lab, "push-1");
        let dir = lab.path("cache");
        for compression in ["zstd&compression-level=5", "none"] {
            let _ = std::fs::remove_dir_all(&dir);
            block_on(async {
                let params = format!("secret-key={key_file}&compression={compression}");
                let cache = target(&dir, "/nix/store", &params).await;
                let infos = all_infos(&lab, &app).await;
                assert_eq!(infos.len(), 4);
                let pushed = drive(&cache, &infos, &BTreeSet::new(), |info| dump(&lab, &info.path)).await;
                assert!(pushed.ends.values().all(|end| *end == End::Pushed), "{pushed:?}");
                assert!(pushed.nars.values().all(|nar| nar.new));

                let verified = verify(&cache, &infos, BTreeSet::new(), &BTreeSet::new(), &BTreeSet::new()).await;
                assert_eq!((verified.present.len(), verified.missing.len()), (4, 0), "{verified:?}");

                let again = drive(&cache, &infos, &BTreeSet::new(), |info| dump(&lab, &info.path)).await;
                assert!(again.ends.values().all(|end| *end == End::Present), "{again:?}");
            });
            let absolute = StoreDir::default().render_path(&app);
            copy_from(nix, &dir, &absolute, &key.public_text()).unwrap();
            let refused = copy_from(nix, &dir, &absolute, "").unwrap_err();
            assert!(refused.contains("signature"), "{refused}");
            let spool = dir.join(".drover-spool");
            // Empty, so it can be removed.
            std::fs::remove_dir(&spool).unwrap();
            for file in std::fs::read_dir(dir.join("nar")).unwrap().chain(std::fs::read_dir(&dir).unwrap()) {
                use std::os::unix::fs::PermissionsExt as _;
                let file = file.unwrap();
                let name = file.file_name().into_string().unwrap();
                assert!(!name.starts_with('.'), "left behind: {name}");
                assert_eq!(file.metadata().unwrap().permissions().mode() & 0o444, 0o444, "{name} is not for all");
            }
        }
    });
}

#[test]
fn what_nix_wrote_is_read() {
    each_nix(|nix| {
        // A store directory that is not /nix/store, so that the fingerprint's is seen to be the right one.
        for lab in [Lab::chroot(nix), Lab::plain(nix)] {
            let app = build_closure(&lab);
            let (key, key_file) = generate_key(&lab, "nix-1");
            let dir = StoreDir::new(lab.store_dir()).unwrap();
            let cache_dir = lab.path("cache");
            let to = format!("file://{}?secret-key={key_file}", cache_dir.display());
            lab.run("nix", &["copy", "--to", &to, &dir.render_path(&app)]);
            let url = format!("file://{}", cache_dir.display());
            let config = CacheConfig { url, pull: true, ..CacheConfig::default() };
            let stranger = StorePath::from_parts([9; 20], "stranger").unwrap();
            let ask = |keys: Vec<String>| {
                let context = OpenContext { trusted_public_keys: keys, ..OpenContext::new(dir.clone()) };
                let cache = block_on(Cache::open(CacheId(0), config.clone(), &context)).unwrap();
                block_on(cache.ask(&[app.clone(), stranger.clone()]))
            };
            let answers = ask(vec![key.public_text()]);
            let Answer::Present(record) = &answers[0] else { panic!("{answers:?}") };
            let expected = info(&lab, &app).unwrap();
            assert_eq!(
                (record.nar_hash(), record.nar_size()),
                (&NixHash::Sha256(expected.nar_hash), expected.nar_size)
            );
            assert_eq!(*record.references(), expected.references);
            assert_eq!(answers[1], Answer::Absent);
            let other = crate::cache::key("nix-1", 9).public_text();
            assert!(matches!(ask(vec![other])[0], Answer::Untrusted(_)));
            assert!(matches!(ask(Vec::new())[0], Answer::Untrusted(_)));
        }
    });
}

#[test]
fn our_public_key_is_the_one_that_nix_makes() {
    each_nix(|nix| {
        let lab = Lab::chroot(nix);
        let (key, file) = generate_key(&lab, "some.example-1");
        let mut command = lab.bare_command("nix");
        command.args(["key", "convert-secret-to-public"]).stdin(std::fs::File::open(file).unwrap());
        let public = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert_eq!(public.trim(), key.public_text());
    });
}

/// A path whose NAR is these bytes. What they hold makes no difference to a push.
fn fake_info(n: u8, nar: &[u8], references: &[u8]) -> PathInfo {
    let path = |n: u8| StorePath::from_parts([n; 20], "fake").unwrap();
    PathInfo {
        path: path(n),
        nar_hash: Sha256::digest(nar).into(),
        nar_size: nar.len() as u64,
        references: references.iter().copied().map(path).collect(),
        deriver: None,
        registration_time: 0,
        ultimate: false,
        signatures: BTreeSet::new(),
        ca: None,
    }
}

fn files_below(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = entries.collect();
    names.sort();
    names
}

#[test]
fn a_damaged_path_fails_with_its_referrers_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("cache");
    block_on(async {
        let cache = target(&root, "/nix/store", "").await;
        let nar = vec![5u8; 300_000];
        let infos = [fake_info(1, &nar, &[]), fake_info(2, b"two", &[1]), fake_info(3, b"three", &[])];
        let streams = |info: &PathInfo| match info.path.digest()[0] {
            1 => {
                let mut damaged = nar.clone();
                damaged[200_000] ^= 1;
                io::Cursor::new(damaged)
            }
            2 => io::Cursor::new(b"two".to_vec()),
            _ => io::Cursor::new(b"thr".to_vec()),
        };
        let pushed = drive(&cache, &infos, &BTreeSet::new(), streams).await;
        let failure = |n: usize| match &pushed.ends[&infos[n].path] {
            End::Failed(failure) => (failure.class, failure.message.to_string()),
            other => panic!("{other:?}"),
        };
        let (class, message) = failure(0);
        assert_eq!(class, Class::Cache);
        assert!(message.contains("is damaged in the store"), "{message}");
        assert_eq!(pushed.ends[&infos[1].path], End::Reference(infos[0].path.clone()));
        let (class, message) = failure(2);
        assert_eq!(class, Class::Network);
        assert!(message.contains("3 of 5 bytes"), "{message}");
        let names = files_below(&root);
        assert!(names.iter().all(|name| !name.ends_with(".narinfo")), "{names:?}");
        assert!(files_below(&root.join("nar")).len() <= 1, "only the NAR of the path that was whole");
    });
}

#[test]
fn nothing_is_written_twice_and_no_more_is_read_than_the_nar() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("cache");
    block_on(async {
        let cache = target(&root, "/nix/store", "").await;
        let sink = cache.sink().unwrap();
        let info = fake_info(1, b"some nar", &[]);
        let mut stream = io::Cursor::new(b"some nar, and the next answer".to_vec());
        let first = upload(sink, &info, &mut stream).await.unwrap();
        assert_eq!(stream.position(), 8);
        let second = upload(sink, &fake_info(2, b"some nar", &[]), io::Cursor::new(b"some nar")).await.unwrap();
        assert_eq!((first.new, second.new), (true, false));
        assert_eq!(first.url, second.url);
        let digest = first.file_hash.unwrap().to_nix_nixbase32_string();
        assert_eq!(first.url, format!("nar/{}.nar.zst", digest.strip_prefix("sha256:").unwrap()));
        let file = std::fs::read(root.join(&first.url)).unwrap();
        assert_eq!(
            (file.len() as u64, zstd::decode_all(&*file).unwrap().as_slice()),
            (first.file_size.unwrap(), &b"some nar"[..])
        );
    });
}

#[test]
fn signatures_of_the_store_go_along() {
    let dir = tempfile::tempdir().unwrap();
    let key_file = dir.path().join("key");
    use base64::Engine as _;
    let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let pair = ed25519_dalek::SigningKey::from_bytes(&[4; 32]).to_keypair_bytes();
    std::fs::write(&key_file, format!("ours-1:{}", encode(&pair))).unwrap();
    let kept = format!("upstream-1:{}", encode(&[8; 64]));
    let stale = format!("ours-1:{}", encode(&[8; 64]));
    block_on(async {
        let root = dir.path().join("cache");
        let cache = target(&root, "/nix/store", &format!("secret-key={}", key_file.display())).await;
        let sink = cache.sink().unwrap();
        let signatures = BTreeSet::from([kept.clone(), stale.clone(), "nonsense".to_owned()]);
        let info = PathInfo { signatures, ..fake_info(1, b"nar", &[1]) };
        let nar = upload(sink, &info, io::Cursor::new(b"nar")).await.unwrap();
        let record = finish(sink, &info, &nar).await.unwrap().unwrap();
        let names: Vec<_> = record.signatures().iter().map(|signature| signature.key_name.as_str()).collect();
        assert_eq!(names, ["ours-1", "upstream-1"]);
        assert_eq!(record.signatures()[1].to_nix_string(), kept);
        assert!(record.has_valid_signature(&StoreDir::default(), &[sink.keys()[0].public_key()]));
    });
}

#[test]
fn what_was_lost_since_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("cache");
    let key_file = dir.path().join("key");
    use base64::Engine as _;
    let pair = ed25519_dalek::SigningKey::from_bytes(&[4; 32]).to_keypair_bytes();
    let text = format!("ours-1:{}", base64::engine::general_purpose::STANDARD.encode(pair));
    std::fs::write(&key_file, text).unwrap();
    block_on(async {
        let cache = target(&root, "/nix/store", &format!("secret-key={}", key_file.display())).await;
        let bodies: Vec<Vec<u8>> = (0..8u8).map(|n| format!("nar {n}").into_bytes()).collect();
        // 6 → 5 → 4 (held elsewhere) and 7 → 1.
        let references: [&[u8]; 8] = [&[], &[], &[], &[], &[], &[4], &[5], &[1]];
        let infos: Vec<_> = (0..8).map(|n| fake_info(n as u8, &bodies[n], references[n])).collect();
        let held = BTreeSet::from([infos[4].path.clone()]);
        let wanted: Vec<_> = infos.iter().filter(|info| !held.contains(&info.path)).cloned().collect();
        let streams = |info: &PathInfo| io::Cursor::new(bodies[info.path.digest()[0] as usize].clone());
        let pushed = drive(&cache, &wanted, &held, streams).await;
        assert!(pushed.ends.values().all(|end| *end == End::Pushed), "{pushed:?}");
        let whole = verify(&cache, &wanted, BTreeSet::new(), &BTreeSet::new(), &held).await;
        assert_eq!((whole.present.len(), whole.missing.len()), (7, 0), "{whole:?}");

        // A NAR of the right size and other bytes: only who reads it sees that.
        let file = root.join(&pushed.nars[&infos[5].path].url);
        let right = std::fs::read(&file).unwrap();
        let last = right.len() - 5;
        std::fs::write(&file, [&right[..last], &[right[last] ^ 1], &right[last + 1..]].concat()).unwrap();
        let mut deep = verify(&cache, &wanted, BTreeSet::new(), &BTreeSet::new(), &held).await;
        assert_eq!(deep.missing.len(), 0);
        verify_nars(&cache, &wanted, &held, &mut deep).await;
        assert_eq!(deep.missing.len(), 2, "it, and what refers to it: {deep:?}");
        std::fs::write(&file, right).unwrap();
        let mut deep = verify(&cache, &wanted, BTreeSet::new(), &BTreeSet::new(), &held).await;
        verify_nars(&cache, &wanted, &held, &mut deep).await;
        assert_eq!((deep.present.len(), deep.missing.len()), (7, 0), "{deep:?}");

        let record = |n: usize| root.join(drover::store::cache::narinfo_name(&infos[n].path));
        let nar = |n: usize| root.join(&pushed.nars[&infos[n].path].url);
        std::fs::remove_file(nar(0)).unwrap();
        std::fs::remove_file(record(1)).unwrap();
        std::fs::write(nar(2), b"x").unwrap();
        let text = std::fs::read_to_string(record(3)).unwrap();
        let unsigned: Vec<_> = text.lines().filter(|line| !line.starts_with("Sig:")).collect();
        std::fs::write(record(3), unsigned.join("\n") + "\n").unwrap();
        let found = verify(&cache, &wanted, BTreeSet::new(), &BTreeSet::new(), &held).await;
        let why = |n: usize| found.missing.get(&infos[n].path).map(String::as_str).unwrap_or("nothing");
        assert!(why(0).contains("is not there, or not whole"), "{found:?}");
        assert_eq!(why(1), "the cache does not have it");
        assert!(why(2).contains("is not there, or not whole"), "{found:?}");
        assert_eq!(why(3), "it is not signed with our key");
        assert!(why(7).contains("it refers to") && why(7).contains("not whole in any cache"), "{found:?}");
        assert_eq!(found.present, BTreeSet::from([infos[5].path.clone(), infos[6].path.clone()]));
        // What was there before is not expected to be ours.
        let before: BTreeSet<_> = [0, 3].map(|n: usize| infos[n].path.clone()).into();
        let found = verify(&cache, &[], BTreeSet::new(), &before, &held).await;
        assert_eq!(found.present, BTreeSet::from([infos[3].path.clone()]));

        // Pushing again mends what was lost.
        drive(&cache, &wanted, &held, streams).await;
        let mended = verify(&cache, &wanted, BTreeSet::new(), &BTreeSet::new(), &held).await;
        let left: Vec<_> = mended.missing.keys().collect();
        assert_eq!(left, [&infos[3].path], "only what somebody else wrote stays as it is");
    });
}

#[test]
fn a_broken_stream_is_told_from_a_broken_cache() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("cache");
    block_on(async {
        let cache = target(&root, "/nix/store", "").await;
        let info = fake_info(1, &[3; 3 << 20], &[]);
        let broken = breaking(&[3; 1000], io::ErrorKind::ConnectionReset);
        let error = upload(cache.sink().unwrap(), &info, broken).await.unwrap_err();
        assert!(matches!(&error, UploadError::Read { source, .. } if source.kind() == io::ErrorKind::ConnectionReset));
        assert_eq!(error.failure().class, Class::Network, "{error:?}");

        // The cache breaks while more than all chunks together is still to come.
        std::fs::remove_dir(root.join("nar")).unwrap();
        std::fs::write(root.join("nar"), "in the way").unwrap();
        let error = upload(cache.sink().unwrap(), &info, io::Cursor::new(vec![3; 3 << 20])).await.unwrap_err();
        assert!(matches!(error, UploadError::Write { .. }), "{error:?}");
    });
}

/// These bytes, then this error.
fn breaking(bytes: &[u8], error: io::ErrorKind) -> impl AsyncRead + Unpin {
    let parts = [Ok(tokio_util::bytes::Bytes::copy_from_slice(bytes)), Err(io::Error::from(error))];
    tokio_util::io::StreamReader::new(futures_util::stream::iter(parts))
}

#[test]
fn an_upload_that_is_dropped_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("cache");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let cache = target(&root, "/nix/store", "").await;
        let (mut writer, reader) = tokio::io::duplex(1024);
        let info = PathInfo { nar_size: 1 << 20, ..fake_info(1, b"", &[]) };
        let sending = async {
            tokio::io::AsyncWriteExt::write_all(&mut writer, &[0; 300 * 1024]).await.unwrap();
        };
        tokio::select! {
            ended = upload(cache.sink().unwrap(), &info, reader) => panic!("{ended:?}"),
            () = sending => {}
        }
    });
    // Waits for the blocking half.
    runtime.shutdown_timeout(std::time::Duration::from_secs(60));
    assert_eq!(files_below(&root.join("nar")), [""; 0]);
}

#[test]
fn a_cache_that_cannot_be_written_says_which_path() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("cache");
    block_on(async {
        let cache = target(&root, "/nix/store", "compression=none").await;
        assert_eq!(cache.sink().unwrap().codec(&fake_info(1, b"nar", &[])), Codec::None);
        std::fs::remove_dir(root.join("nar")).unwrap();
        std::fs::write(root.join("nar"), "in the way").unwrap();
        let info = fake_info(1, b"nar", &[]);
        let error = upload(cache.sink().unwrap(), &info, io::Cursor::new(b"nar")).await.unwrap_err();
        assert!(matches!(error, UploadError::Write { .. }), "{error:?}");
        assert!(error.failure().message.contains("cannot write") && error.failure().message.contains("-fake"));
        for (params, expected) in [("compression=xz", "compression 'xz'"), ("compression-level=99", "level 99")] {
            let url = format!("file://{}?{params}", dir.path().join("other").display());
            let config = CacheConfig { url, push: true, ..CacheConfig::default() };
            let context = OpenContext::new(StoreDir::default());
            let error = Cache::open(CacheId(0), config, &context).await.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    });
}
