//! What is written is read again; what is cut, changed or forged is refused, and nothing makes the reader panic.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use nix_derivation::{DerivationBuilder, InputDerivation};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Bundle, BundleError, Writer};
use crate::id::{StoreDir, StorePath};
use crate::nix_compat::daemon::PathInfo;
use crate::nix_compat::drv::{self, DrvHash};
use crate::nix_compat::wire::Encoder;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// The NAR of a file.
fn nar(text: &[u8]) -> Vec<u8> {
    let mut nar = Encoder::new();
    for word in ["nix-archive-1", "(", "type", "regular", "contents"] {
        nar.bytes(word);
    }
    nar.bytes(text).bytes(")");
    nar.finish()
}

/// An object: what is said of it, and its NAR.
type Object = (PathInfo, Vec<u8>);

fn object(path: StorePath, text: &[u8], references: BTreeSet<StorePath>) -> Object {
    let nar = nar(text);
    let info = PathInfo {
        path,
        deriver: None,
        nar_hash: Sha256::digest(&nar).into(),
        references,
        registration_time: 0,
        nar_size: nar.len() as u64,
        ultimate: false,
        signatures: BTreeSet::from(["key:c2lnbmF0dXJl".to_owned()]),
        ca: Some("text:sha256:0".to_owned()),
    };
    (info, nar)
}

fn source(name: &str, text: &[u8]) -> Object {
    let path = StoreDir::default().build_text_path(name, text, []).unwrap();
    object(path, text, BTreeSet::new())
}

/// A derivation as Nix would write it, and its text.
fn drv_text(name: &str, inputs: &[(&StorePath, DrvHash)], sources: &[&StorePath]) -> (StorePath, Vec<u8>, DrvHash) {
    let mut builder = DerivationBuilder::new(name, "x86_64-linux", "/bin/sh").input_addressed_output("out");
    for (input, _) in inputs {
        builder = builder.input_derivation((*input).clone(), InputDerivation::new(["out"]));
    }
    for source in sources {
        builder = builder.input_source((*source).clone());
    }
    let known = |path: &StorePath| inputs.iter().find(|(input, _)| *input == path).unwrap().1;
    let drv = builder.build_with_input_hashes(known).unwrap();
    let text = drv.to_aterm_bytes();
    let hash = drv.hash_input_derivation_modulo(known).unwrap();
    (drv.drv_path(), text, hash)
}

/// A source, a derivation that needs it, and one that needs both.
fn three() -> Vec<Object> {
    let (source, _) = &source("source", b"some text");
    let (low, low_text, hash) = drv_text("low", &[], &[&source.path]);
    let (top, top_text, _) = drv_text("top", &[(&low, hash)], &[&source.path]);
    vec![
        self::source("source", b"some text"),
        object(low.clone(), &low_text, BTreeSet::from([source.path.clone()])),
        object(top, &top_text, BTreeSet::from([source.path.clone(), low])),
    ]
}

fn write(file: &Path, head: &[u8], objects: &[Object]) -> Result<u64, BundleError> {
    let mut writer = Writer::create(file, &StoreDir::default(), head, objects.len() as u64)?;
    for (info, nar) in objects {
        let mut sink = writer.object(info)?;
        block_on(sink.write_all(nar)).unwrap();
        sink.end()?;
    }
    writer.finish()
}

fn open(file: &Path) -> Result<Bundle, BundleError> {
    Bundle::open(file, &StoreDir::default())
}

/// All that is in it.
fn content(bundle: &Bundle) -> (Vec<u8>, Vec<Object>) {
    let objects = bundle.infos().map(|info| {
        let mut nar = Vec::new();
        block_on(bundle.nar(&info.path).unwrap().read_to_end(&mut nar)).unwrap();
        (info.clone(), nar)
    });
    (bundle.head().to_vec(), objects.collect())
}

fn broken(objects: &[Object]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p");
    write(&file, b"", objects).unwrap();
    match open(&file) {
        Err(BundleError::Broken { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p");
    let bytes = write(&file, b"a head", &three()).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().len(), bytes);
    let bundle = open(&file).unwrap();
    assert_eq!(content(&bundle), (b"a head".to_vec(), three()));
    let top = &three()[2].0.path;
    let drv = bundle.drv(top).unwrap().unwrap();
    assert_eq!((drv.name(), drv.input_derivations().len()), ("top", 1));
    assert!(bundle.info(&StorePath::from_parts([9; 20], "other").unwrap()).is_none());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
}

/// `format-1.drover` was written by drover 0.1.0. Never change it.
#[test]
fn files_of_the_first_drover_are_read() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/plan/format-1.drover");
    assert_eq!(content(&open(&golden).unwrap()), (b"a head".to_vec(), three()));
}

#[test]
fn a_file_that_is_not_finished_replaces_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p");
    std::fs::write(&file, "before").unwrap();
    drop(Writer::create(&file, &StoreDir::default(), b"", 3).unwrap());
    assert!(Writer::create(&file, &StoreDir::default(), b"", 3).unwrap().finish().is_err());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "before");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    let mut wrong = three();
    wrong[0].1[100] ^= 1;
    assert!(matches!(write(&file, b"", &wrong), Err(BundleError::Changed(_))));
    assert!(write(&dir.path().join("no/such/folder"), b"", &[]).is_err());
}

#[test]
fn other_files_and_other_formats_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p");
    for (text, wanted) in [
        ("", "no plan file"),
        ("drover plan 1", "no plan file"),
        ("{\"version\":1}\n", "no plan file"),
        ("drover plan 2\nwhatever", "has format 2, and this drover reads format 1"),
        ("drover plan 1\n", "cannot be used: it is cut off"),
        ("drover plan 1\nno zstd at all", "cannot be used: it is damaged"),
    ] {
        std::fs::write(&file, text).unwrap();
        let error = open(&file).unwrap_err().to_string();
        assert!(error.contains(wanted), "{text:?}: {error}");
    }
    write(&file, b"", &three()).unwrap();
    let other = Bundle::open(&file, &StoreDir::new("/gnu/store").unwrap()).unwrap_err();
    assert!(matches!(other, BundleError::StoreDir { .. }), "{other}");
}

#[test]
fn forged_objects_are_refused() {
    let [source, low, top] = three().try_into().unwrap();
    // A derivation under the path of another one, with the hash of what is really there.
    let (_, text, _) = drv_text("low", &[], &[]);
    let renamed = object(low.0.path.clone(), &text, BTreeSet::new());
    assert!(broken(&[renamed]).contains("has the text of another derivation"));
    // An output somewhere else, under the path that follows from that text.
    let (_, text, _) = drv_text("low", &[], &[]);
    let out = drv::output_paths(&drv::parse(&text, &low.0.path, &StoreDir::default()).unwrap()).unwrap();
    let out = out["out"].as_ref().unwrap().to_basename();
    let victim = out.replace(|c: char| c == out.chars().next().unwrap(), "0");
    let text = String::from_utf8(text).unwrap().replace(&out, &victim).into_bytes();
    let path = StoreDir::default().build_text_path("low.drv", &text, []).unwrap();
    assert!(broken(&[object(path, &text, BTreeSet::new())]).contains("do not follow from it"));
    // Not all that it needs, or in the wrong order.
    assert!(broken(&[source.clone(), top.clone()]).contains("comes without"));
    assert!(broken(&[source.clone(), top, low.clone()]).contains("comes without"));
    assert!(broken(&[source.clone(), source.clone()]).contains("twice"));
    let mut silent = low;
    silent.0.references.clear();
    assert!(broken(&[source, silent]).contains("refers to something else"));
}

#[test]
fn sizes_are_not_believed() {
    let write = |info: &PathInfo| {
        let mut stream = Encoder::new();
        stream.bytes("/nix/store").bytes("").u64(1);
        info.write(&StoreDir::default(), &mut stream);
        stream.finish()
    };
    let (info, _) = source("s", b"");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p");
    let reads = |bytes: Vec<u8>| {
        let mut all = b"drover plan 1\n".to_vec();
        all.extend(zstd::encode_all(&bytes[..], 1).unwrap());
        std::fs::write(&file, all).unwrap();
        open(&file).unwrap_err().to_string()
    };
    for nar_size in [0, 8, 97, u64::MAX, u64::MAX - 7, 1 << 60] {
        let error = reads(write(&PathInfo { nar_size, ..info.clone() }));
        assert!(error.contains("bytes") || error.contains("too large"), "{nar_size}: {error}");
    }
    let mut other = write(&PathInfo { nar_hash: [7; 32], ..info.clone() });
    other.extend(nar(b""));
    assert!(reads(other).contains("are not those that were written"));
    let mut more = write(&info);
    more.extend(nar(b""));
    more.push(0);
    assert!(reads(more).contains("comes after its end"));
    for length in [u64::MAX, 1 << 40] {
        let mut stream = Encoder::new();
        stream.bytes("/nix/store").u64(length);
        assert!(reads(stream.finish()).contains("beyond the bound"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_objects_come_back(
        head in prop::collection::vec(any::<u8>(), 0..300),
        texts in prop::collection::btree_set(prop::collection::vec(any::<u8>(), 0..9000), 0..6),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p");
        let objects: Vec<Object> = texts.iter().map(|text| source("s", text)).collect();
        write(&file, &head, &objects).unwrap();
        prop_assert_eq!(content(&open(&file).unwrap()), (head, objects));
    }

    #[test]
    fn what_is_cut_is_refused(at in any::<prop::sample::Index>()) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p");
        write(&file, b"a head", &three()).unwrap();
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(&file, &bytes[..at.index(bytes.len())]).unwrap();
        prop_assert!(open(&file).is_err());
    }

    #[test]
    fn what_is_changed_is_refused_or_says_the_same(at in any::<prop::sample::Index>(), with in 1..=255_u8) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p");
        write(&file, b"a head", &three()).unwrap();
        let mut bytes = std::fs::read(&file).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= with;
        std::fs::write(&file, &bytes).unwrap();
        if let Ok(bundle) = open(&file) {
            prop_assert_eq!(content(&bundle), (b"a head".to_vec(), three()));
        }
    }

    #[test]
    fn any_stream_is_an_error_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), at in any::<prop::sample::Index>()) {
        // Some of a good stream, and then anything.
        let mut stream = Encoder::new().bytes("/nix/store").bytes("head").u64(3).as_bytes().to_vec();
        for (info, nar) in three() {
            let mut meta = Encoder::new();
            info.write(&StoreDir::default(), &mut meta);
            stream.extend(meta.finish());
            stream.extend(nar);
        }
        stream.truncate(at.index(stream.len()));
        stream.extend(bytes);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p");
        let mut all = b"drover plan 1\n".to_vec();
        all.extend(zstd::encode_all(&stream[..], 1).unwrap());
        std::fs::write(&file, all).unwrap();
        prop_assert!(open(&file).is_err());
    }
}
