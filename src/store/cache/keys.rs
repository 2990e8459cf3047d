//! Signing keys of caches: reads Nix's secret key files, makes signatures and public keys.
//!
//! A key file holds `NAME:BASE64`, where BASE64 is the 32-byte Ed25519 seed followed by the 32-byte public key. No
//! error and no `Debug` output shows any of it but the name.

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};

use crate::nix_compat::narinfo::{NixSignature, TrustedPublicKey};

/// Bytes of a key file that are read at most.
const MAX_FILE: u64 = 16 * 1024;

/// Why a text is no secret key. Says nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretKeyFormat {
    /// No colon, or nothing before it.
    #[error("it does not read NAME:BASE64")]
    Name,
    /// What follows the name is no base64.
    #[error("what follows the name is no base64")]
    Base64,
    /// It is a public key.
    #[error("it is a public key, the secret one is twice as long")]
    Public,
    /// The wrong number of bytes.
    #[error("it has {0} bytes instead of 64")]
    Length(usize),
    /// The second half is not the public key of the first.
    #[error("its two halves do not belong together")]
    Halves,
}

/// Why a secret key file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum SecretKeyError {
    /// It cannot be read.
    #[error("cannot read '{}'", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It holds no key.
    #[error("'{}' holds no secret key", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SecretKeyFormat,
    },
}

/// A named Ed25519 key that can sign.
#[derive(Clone)]
pub struct SecretKey {
    name: String,
    key: SigningKey,
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretKey").field("name", &self.name).finish_non_exhaustive()
    }
}

impl SecretKey {
    /// Reads a key file as `nix key generate-secret` writes it.
    pub fn read(path: &Path) -> Result<Self, SecretKeyError> {
        use std::io::Read as _;
        let mut text = String::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
            .map_err(|source| SecretKeyError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|source| SecretKeyError::Format { path: path.to_owned(), source })
    }

    /// Reads `NAME:BASE64`; white space around it is ignored.
    pub fn parse(text: &str) -> Result<Self, SecretKeyFormat> {
        let (name, encoded) = text.trim().split_once(':').ok_or(SecretKeyFormat::Name)?;
        if name.is_empty() {
            return Err(SecretKeyFormat::Name);
        }
        let bytes = STANDARD.decode(encoded.trim()).map_err(|_| SecretKeyFormat::Base64)?;
        if bytes.len() == 32 {
            return Err(SecretKeyFormat::Public);
        }
        let bytes: [u8; 64] = bytes.try_into().map_err(|bytes: Vec<u8>| SecretKeyFormat::Length(bytes.len()))?;
        let key = SigningKey::from_keypair_bytes(&bytes).map_err(|_| SecretKeyFormat::Halves)?;
        Ok(Self { name: name.to_owned(), key })
    }

    /// A new key; its name is this text and a few letters of its public key, so that no two keys share one.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn generate(name: &str) -> std::io::Result<Self> {
        use std::io::Read as _;
        let mut seed = [0; 32];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
        let key = SigningKey::from_bytes(&seed);
        let letters: String = key.verifying_key().as_bytes()[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { name: format!("{name}-{letters}"), key })
    }

    /// The secret itself, as a key file holds it: for writing one, and for nothing else.
    #[must_use]
    pub fn secret_text(&self) -> String {
        format!("{}:{}", self.name, STANDARD.encode(self.key.to_keypair_bytes()))
    }

    /// Its name, `cache.example.org-1`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The public key that checks its signatures.
    #[must_use]
    pub fn public_key(&self) -> TrustedPublicKey {
        TrustedPublicKey { name: self.name.clone(), key: self.key.verifying_key() }
    }

    /// The public key as people write it into `trusted-public-keys`.
    #[must_use]
    pub fn public_text(&self) -> String {
        format!("{}:{}", self.name, STANDARD.encode(self.key.verifying_key().as_bytes()))
    }

    /// Signs a text: a narinfo's fingerprint, or what stands for something else.
    #[must_use]
    pub fn sign(&self, text: &str) -> NixSignature {
        let signature = self.key.sign(text.as_bytes());
        NixSignature { key_name: self.name.clone(), encoded: STANDARD.encode(signature.to_bytes()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(seed: u8) -> String {
        format!("test-1:{}", STANDARD.encode(SigningKey::from_bytes(&[seed; 32]).to_keypair_bytes()))
    }

    #[test]
    fn signs_what_its_public_key_checks() {
        let key = SecretKey::parse(&format!("{}\n", text(7))).unwrap();
        let other = SecretKey::parse(&text(8)).unwrap();
        let public = TrustedPublicKey::parse(&key.public_text()).unwrap();
        assert_eq!(public, key.public_key());
        let signature = key.sign("1;/nix/store/x");
        assert_eq!(signature.verify(b"1;/nix/store/x", std::slice::from_ref(&public)), Ok(true));
        assert_eq!(signature.verify(b"1;/nix/store/y", &[public]), Ok(false));
        assert_eq!(signature.verify(b"1;/nix/store/x", &[other.public_key()]), Ok(false));
    }

    #[test]
    fn bad_keys_are_told_apart_and_never_shown() {
        let good = text(7);
        let (_, payload) = good.split_once(':').unwrap();
        let mut mixed = SigningKey::from_bytes(&[7; 32]).to_keypair_bytes();
        mixed[40] ^= 1;
        let cases = [
            (payload.to_owned(), SecretKeyFormat::Name),
            (format!(":{payload}"), SecretKeyFormat::Name),
            (format!("test-1:{}!", &payload[..20]), SecretKeyFormat::Base64),
            (format!("test-1:{}", STANDARD.encode([1; 32])), SecretKeyFormat::Public),
            (format!("test-1:{}", STANDARD.encode([1; 10])), SecretKeyFormat::Length(10)),
            (format!("test-1:{}", STANDARD.encode(mixed)), SecretKeyFormat::Halves),
        ];
        for (text, expected) in cases {
            assert_eq!(SecretKey::parse(&text).map(|_| ()), Err(expected));
        }
        let shown = format!("{:?}", SecretKey::parse(&good).unwrap());
        assert!(shown.contains("test-1") && !shown.contains(&payload[..8]), "{shown}");
    }

    #[test]
    fn a_new_key_is_one_of_its_own() {
        let (one, two) = (SecretKey::generate("state").unwrap(), SecretKey::generate("state").unwrap());
        assert!(one.name().starts_with("state-") && one.name() != two.name());
        let read = SecretKey::parse(&one.secret_text()).unwrap();
        assert_eq!(read.public_text(), one.public_text());
    }

    #[test]
    fn files_are_named_in_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let missing = crate::error::chain(&SecretKey::read(&path).unwrap_err());
        assert!(missing.contains("cannot read") && missing.contains("key"), "{missing}");
        std::fs::write(&path, "top-secret-payload").unwrap();
        let bad = crate::error::chain(&SecretKey::read(&path).unwrap_err());
        assert!(bad.contains("holds no secret key") && !bad.contains("top-secret"), "{bad}");
        std::fs::write(&path, text(3)).unwrap();
        assert_eq!(SecretKey::read(&path).unwrap().name(), "test-1");
    }
}
