//! Signing records, so that they may lie where others can write, and reading sealed ones.
//!
//! A sealed record is a few lines of text and, after an empty one, the record as JSON, compressed with zstd:
//!
//! ```text
//! drover-eval-record 2
//! sig: NAME:BASE64
//! ```
//!
//! A signature (Ed25519, in Nix's format for keys and signatures) is over a text of its own kind, so that it can be
//! taken for that of no store path, with the fingerprint and the SHA-256 of the compressed bytes. A record is believed
//! only under a key of this machine's state or one that is trusted here; what is not believed is not decompressed.

use std::io::Read as _;

use super::{Corrupt, FORMAT, Record, hex};
use crate::nix_compat::narinfo::{NixSignature, TrustedPublicKey};
use crate::store::cache::SecretKey;

/// Most bytes of a sealed record.
pub const MAX_SEALED: usize = 8 << 20;
/// Most bytes of a record's JSON.
const MAX_PLAIN: usize = 64 << 20;
/// Most bytes of the lines before it, and most of these that are signatures.
const MAX_HEAD: usize = 16 << 10;
const MAX_SIGNATURES: usize = 16;
/// Begins every sealed record.
const MAGIC: &str = "drover-eval-record";

/// The keys that records are signed with and believed under.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    own: Option<SecretKey>,
    secret: Vec<SecretKey>,
    trusted: Vec<TrustedPublicKey>,
}

impl Keyring {
    /// Signs with these keys and believes what was signed with them or with a trusted one.
    #[must_use]
    pub fn new(secret: Vec<SecretKey>, trusted: Vec<TrustedPublicKey>) -> Self {
        Self { own: None, secret, trusted }
    }

    /// With the key of this machine's state as well.
    #[must_use]
    pub fn with_own(mut self, own: Option<SecretKey>) -> Self {
        self.own = own;
        self
    }

    /// Whether what is signed here may be believed elsewhere.
    #[must_use]
    pub fn can_share(&self) -> bool {
        !self.secret.is_empty()
    }

    fn keys(&self) -> Vec<TrustedPublicKey> {
        let ours = self.own.iter().chain(&self.secret).map(SecretKey::public_key);
        ours.chain(self.trusted.iter().cloned()).collect()
    }
}

/// What is signed.
fn statement(fingerprint: &str, content: &[u8]) -> String {
    format!("{MAGIC} {FORMAT};{fingerprint};{}", hex(content))
}

/// Why a record is not sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// There is no key.
    #[error("there is no key to sign it with")]
    NoKey,
    /// It is larger than records may be.
    #[error("it is larger than {} MiB", MAX_SEALED >> 20)]
    Size,
    /// It could not be written down.
    #[error("it cannot be written down")]
    Encode(#[source] std::io::Error),
}

/// Signs a record of this fingerprint with every key that there is.
pub fn seal(record: &Record, fingerprint: &str, keyring: &Keyring) -> Result<Vec<u8>, SealError> {
    let json = serde_json::to_vec(record).map_err(|error| SealError::Encode(error.into()))?;
    if json.len() > MAX_PLAIN {
        return Err(SealError::Size);
    }
    let content = zstd::encode_all(json.as_slice(), 3).map_err(SealError::Encode)?;
    let sealed = seal_content(&content, fingerprint, keyring)?;
    if sealed.len() > MAX_SEALED { Err(SealError::Size) } else { Ok(sealed) }
}

/// Signs what is said to be a record: whether it is one, and not too large, is for [`open`] to find out.
pub fn seal_content(content: &[u8], fingerprint: &str, keyring: &Keyring) -> Result<Vec<u8>, SealError> {
    let statement = statement(fingerprint, content);
    let signatures = keyring.own.iter().chain(&keyring.secret).take(MAX_SIGNATURES);
    let lines: Vec<String> = signatures.map(|key| format!("sig: {}\n", key.sign(&statement))).collect();
    if lines.is_empty() {
        return Err(SealError::NoKey);
    }
    let mut sealed = format!("{MAGIC} {FORMAT}\n{}\n", lines.concat()).into_bytes();
    sealed.extend(content);
    Ok(sealed)
}

/// Reads a sealed record of this fingerprint. `place` is named in errors.
pub fn open(sealed: &[u8], fingerprint: &str, keyring: &Keyring, place: &str) -> Result<Record, Corrupt> {
    let opened = take_apart(sealed).and_then(|(signatures, content)| {
        believed(&signatures, fingerprint, content, &keyring.keys())?;
        decode(content)
    });
    opened.map_err(|cause| Corrupt { place: place.to_owned(), cause })
}

/// Who signed a sealed record that is believed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signer {
    /// A key that is to be believed elsewhere, which is here as well.
    Shared,
    /// A key that is trusted here and lies elsewhere.
    Other,
    /// This machine's state alone.
    State,
}

/// Who signed a sealed record, by the key that counts most.
#[must_use]
pub fn signer(sealed: &[u8], fingerprint: &str, keyring: &Keyring) -> Signer {
    let by = |keys: &[TrustedPublicKey]| {
        take_apart(sealed).is_ok_and(|(signatures, content)| believed(&signatures, fingerprint, content, keys).is_ok())
    };
    let shared: Vec<TrustedPublicKey> = keyring.secret.iter().map(SecretKey::public_key).collect();
    if by(&shared) {
        Signer::Shared
    } else if by(&keyring.trusted) {
        Signer::Other
    } else {
        Signer::State
    }
}

/// The signatures and what they are for.
fn take_apart(sealed: &[u8]) -> Result<(Vec<NixSignature>, &[u8]), String> {
    let no_record = || "it is no record of an evaluation".to_owned();
    if sealed.len() > MAX_SEALED {
        return Err(format!("it is larger than {} MiB", MAX_SEALED >> 20));
    }
    let head = &sealed[..sealed.len().min(MAX_HEAD)];
    let end = head.windows(2).position(|two| two == b"\n\n").ok_or_else(no_record)?;
    let content = &sealed[end + 2..];
    let head = std::str::from_utf8(&head[..end]).map_err(|_| no_record())?;
    let mut lines = head.lines();
    let format = lines.next().and_then(|line| line.strip_prefix(MAGIC)).ok_or_else(no_record)?.trim();
    if format != FORMAT.to_string() {
        return Err(format!("it has format {format}"));
    }
    let signatures = lines.filter_map(|line| NixSignature::parse(line.strip_prefix("sig: ")?).ok());
    Ok((signatures.take(MAX_SIGNATURES).collect(), content))
}

/// Whether one of the signatures is by one of the keys.
fn believed(
    signatures: &[NixSignature],
    fingerprint: &str,
    content: &[u8],
    keys: &[TrustedPublicKey],
) -> Result<(), String> {
    let statement = statement(fingerprint, content);
    let good = |signature: &NixSignature| signature.verify(statement.as_bytes(), keys).unwrap_or(false);
    if signatures.iter().any(good) {
        return Ok(());
    }
    let known = |signature: &&NixSignature| keys.iter().any(|key| key.name == signature.key_name);
    Err(match (signatures.first(), signatures.iter().find(known)) {
        (None, _) => "it is not signed".to_owned(),
        (_, Some(known)) => format!("the signature of {} on it is wrong", shown(&known.key_name)),
        (Some(first), None) => {
            format!("it is signed by no key that is trusted here, but by {}", shown(&first.key_name))
        }
    })
}

/// The name of a key, which somebody else has chosen.
fn shown(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_graphic()).take(64).collect()
}

fn decode(content: &[u8]) -> Result<Record, String> {
    let mut json = Vec::new();
    zstd::Decoder::new(content)
        .and_then(|decoder| decoder.take(MAX_PLAIN as u64 + 1).read_to_end(&mut json))
        .map_err(|error| format!("it cannot be decompressed: {error}"))?;
    if json.len() > MAX_PLAIN {
        return Err(format!("it holds more than {} MiB", MAX_PLAIN >> 20));
    }
    let record: Record = serde_json::from_slice(&json).map_err(|error| error.to_string())?;
    if record.format == FORMAT { Ok(record) } else { Err(format!("it has format {}", record.format)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use ed25519_dalek::SigningKey;

    fn key(name: &str, seed: u8) -> SecretKey {
        let bytes = SigningKey::from_bytes(&[seed; 32]).to_keypair_bytes();
        SecretKey::parse(&format!("{name}:{}", STANDARD.encode(bytes))).unwrap()
    }

    fn record() -> Record {
        Record { format: FORMAT, ..Record::default() }
    }

    /// Seals bytes that need not be a record.
    fn seal_bytes(content: &[u8], fingerprint: &str, key: &SecretKey) -> Vec<u8> {
        let keyring = Keyring::default().with_own(Some(key.clone()));
        seal_content(content, fingerprint, &keyring).unwrap()
    }

    #[test]
    fn a_record_is_believed_under_the_own_and_under_a_trusted_key() {
        let (own, push) = (key("state", 1), key("push", 2));
        let writer = Keyring::new(vec![push.clone()], Vec::new()).with_own(Some(own.clone()));
        let sealed = seal(&record(), "fp", &writer).unwrap();
        for reader in [
            Keyring::default().with_own(Some(own)),
            Keyring::new(Vec::new(), vec![push.public_key()]),
            Keyring::new(vec![push], Vec::new()),
        ] {
            assert_eq!(open(&sealed, "fp", &reader, "x").unwrap(), record());
        }
        assert!(matches!(seal(&record(), "fp", &Keyring::default()), Err(SealError::NoKey)));
    }

    #[test]
    fn nothing_else_is_believed() {
        let (mine, other) = (key("k", 1), key("other", 2));
        let reader = Keyring::default().with_own(Some(mine.clone()));
        let good = seal(&record(), "fp", &reader).unwrap();
        assert!(open(&good, "fp", &reader, "x").is_ok());
        let cause = |sealed: &[u8]| open(sealed, "fp", &reader, "file").unwrap_err().to_string();

        let foreign = seal(&record(), "fp", &Keyring::new(vec![other], Vec::new())).unwrap();
        assert_eq!(
            cause(&foreign),
            "the recorded evaluation 'file' is ignored: it is signed by no key that is trusted here, but by other"
        );
        // The name is nothing that one could not give oneself.
        let same_name = seal(&record(), "fp", &Keyring::new(vec![key("k", 3)], Vec::new())).unwrap();
        assert!(cause(&same_name).ends_with("the signature of k on it is wrong"), "{}", cause(&same_name));
        let elsewhere = seal(&record(), "other fingerprint", &reader).unwrap();
        assert!(cause(&elsewhere).contains("is wrong"));
        let end = good.windows(2).position(|two| two == b"\n\n").unwrap();
        let unsigned = [format!("{MAGIC} {FORMAT}\n").as_bytes(), &good[end + 1..]].concat();
        assert!(cause(&unsigned).ends_with("it is not signed"), "{}", cause(&unsigned));
        // What signs a store path signs no record, whatever the path is called.
        let path = mine.sign(&format!("1;fp;{}", hex(&good[end + 2..])));
        let taken = [format!("{MAGIC} {FORMAT}\nsig: {path}\n\n").as_bytes(), &good[end + 2..]].concat();
        assert!(cause(&taken).contains("is wrong"));
    }

    #[test]
    fn damage_is_found_wherever_it_is() {
        let reader = Keyring::default().with_own(Some(key("k", 1)));
        let good = seal(&record(), "fp", &reader).unwrap();
        for length in 0..good.len() {
            assert!(open(&good[..length], "fp", &reader, "x").is_err(), "cut at {length}");
        }
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            match open(&bad, "fp", &reader, "x") {
                Err(_) => {}
                // Base64 has bits that mean nothing, and a space may be any other.
                Ok(read) => assert!(bit / 8 < good.len() - 20 && read == record(), "bit {bit}"),
            }
        }
        for text in ["", "\n\n", "{}", "drover-eval-record 1\n\n", "\u{0}\n\n"] {
            assert!(open(text.as_bytes(), "fp", &reader, "x").is_err());
        }
    }

    #[test]
    fn signed_nonsense_costs_no_more_than_its_bounds() {
        let key = key("k", 1);
        let reader = Keyring::default().with_own(Some(key.clone()));
        let cause = |content: &[u8]| {
            let sealed = seal_bytes(content, "fp", &key);
            open(&sealed, "fp", &reader, "x").unwrap_err().cause
        };
        let zip = |text: &[u8]| zstd::encode_all(text, 1).unwrap();
        let bomb = zip(&vec![b' '; MAX_PLAIN + 10]);
        assert!(bomb.len() < 100_000);
        assert!(cause(&bomb).contains("more than 64 MiB"));
        assert!(cause(b"no zstd").contains("decompressed"));
        // However deep it is: neither where nothing is known nor where something else is wanted.
        for field in ["x", "answers"] {
            let deep = format!("{{\"format\":{FORMAT},\"lists\":{{}},\"{field}\":{}", "[".repeat(1_000_000));
            assert!(!cause(&zip(deep.as_bytes())).is_empty());
        }
        assert!(cause(&zip(br#"{"format":1,"lists":{},"answers":{}}"#)).contains("format 1"));
        assert!(cause(&zip(br#"{"format":2,"lists":[],"answers":{}}"#)).contains("invalid type"));
        assert!(cause(&vec![0; MAX_SEALED]).contains("larger than 8 MiB"));
    }
}
