//! What drover wrote itself, and somebody may have changed since: records, shared evaluations, plans.

use std::io::{Cursor, Write as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use drover::diff::plan_file::PlanFile;
use drover::eval::record::{Keyring, seal};
use drover::event::Event;
use drover::id::{RunId, StoreDir};
use drover::nix_compat::wire::Encoder;
use drover::record::Reader;
use drover::record::history::{Entry, pack, unpack};
use drover::store::cache::SecretKey;
use ed25519_dalek::SigningKey;

/// A record, and all reports of it.
pub fn record(bytes: &[u8]) {
    let mut reader = Reader::new(Path::new("record"), Cursor::new(bytes));
    let mut events = Vec::new();
    while let Ok(Some(event)) = reader.next_event() {
        let line = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event, "{line}");
        events.push(event);
    }
    super::shown::all_reports(&events);
}

/// A shared evaluation: as it is, and as one that was signed by a key that is believed.
pub fn eval_record(bytes: &[u8]) {
    let pair = SigningKey::from_bytes(&[1; 32]).to_keypair_bytes();
    let key = SecretKey::parse(&format!("k:{}", STANDARD.encode(pair))).unwrap();
    let keyring = Keyring::default().with_own(Some(key));
    assert!(seal::open(bytes, "fp", &keyring, "x").is_err() || bytes.len() > 64, "nobody signed that");
    // The content of a real one goes, this comes instead, and is signed again.
    let content = zstd::encode_all(bytes, 1).unwrap();
    let sealed = seal::seal_content(&content, "fp", &keyring).unwrap();
    let Ok(record) = seal::open(&sealed, "fp", &keyring, "x") else { return };
    let again = seal::seal(&record, "fp", &keyring).unwrap();
    assert_eq!(seal::open(&again, "fp", &keyring, "x").unwrap(), record);
    for (path, _, recorded) in record.answers() {
        let _ = (path.to_string(), recorded.answer());
    }
    let _ = (record.len(), record.drvs().count());
}

/// An entry of the shared history: packed as it is, and packed here.
pub fn history_entry(bytes: &[u8]) {
    let run: RunId = "01KAJX3M000000000000000000".parse().unwrap();
    let _ = unpack(bytes, run);
    let packed = zstd::encode_all(bytes, 1).unwrap();
    if let Some(entry) = unpack(&packed, run) {
        let again = unpack(&pack(&entry).unwrap(), run).unwrap();
        assert_eq!(again, entry);
        super::shown::history(&entry);
    }
    let _ = serde_json::from_slice::<Entry>(bytes);
}

/// A plan file. The first byte says what is left to the input: the whole file, the stream in it, or what it says of attrs.
pub fn plan_file(bytes: &[u8]) {
    let [which, bytes @ ..] = bytes else { return };
    let dir = StoreDir::default();
    let stream = |plain: &[u8]| [b"drover plan 1\n", &*zstd::encode_all(plain, 1).unwrap()].concat();
    let file = match which % 3 {
        0 => bytes.to_vec(),
        1 => stream(&[Encoder::new().bytes(dir.as_str()).as_bytes(), bytes].concat()),
        _ => stream(Encoder::new().bytes(dir.as_str()).bytes(bytes).u64(0).as_bytes()),
    };
    let mut on_disk = tempfile::NamedTempFile::new().unwrap();
    on_disk.write_all(&file).unwrap();
    let Ok(plan) = PlanFile::open(on_disk.path(), &dir) else { return };
    for info in plan.bundle.infos() {
        assert!(plan.bundle.nar(&info.path).is_some());
        let _ = (plan.bundle.drv(&info.path), plan.expected(&info.path));
    }
}
