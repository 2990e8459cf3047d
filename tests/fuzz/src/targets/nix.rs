//! Files and words of Nix's formats.

use drover::id::{StoreDir, StorePath};
use drover::nix_compat::drv;
use drover::nix_compat::narinfo::{NarInfo, NixHash, NixSignature, TrustedPublicKey};
use drover::store::cache::SecretKey;
use drover::store::cache::info::CacheInfo;
use drover::store::local::file_of_nar;

/// A .drv, and all that drover wants to know of one.
pub fn drv(bytes: &[u8]) {
    let dir = StoreDir::default();
    let path = StorePath::from_basename(b"00000000000000000000000000000000-x.drv").unwrap();
    let Ok(read) = drv::parse(bytes, &path, &dir) else { return };
    let _ = (drv::required_features(&read), drv::prefers_local(&read), drv::allows_substitutes(&read));
    let _ = (drv::is_builtin(&read), drv::system(&read), drv::is_fixed_output(&read), drv::has_dynamic_inputs(&read));
    let _ = (drv::output_paths(&read), drv::output_texts(&read, &path));
    assert!(drv::verify(bytes, &path, &dir, |_| None).is_err(), "no text has that path");
    let written = read.to_aterm_bytes();
    // Like Nix, who writes it does not escape a platform: one with such signs is read as another one, or not at all.
    if !drv::system(&read).0.contains(['"', '\\']) {
        assert_eq!(drv::parse(&written, &path, &dir).unwrap().to_aterm_bytes(), written);
    }
}

/// A `.narinfo`.
pub fn narinfo(bytes: &[u8]) {
    let dir = StoreDir::default();
    let Ok(read) = NarInfo::parse_in(&dir, bytes) else { return };
    let _ = (read.fingerprint(&dir), read.is_content_addressed(&dir), read.has_valid_signature(&dir, &[]));
    let again = NarInfo::parse_in(&dir, &read.to_canonical_bytes()).unwrap();
    // Each reading takes a carriage return off the end of a field that nobody knows.
    assert!(again == read || bytes.contains(&b'\r'));
    assert_eq!(again.fingerprint(&dir), read.fingerprint(&dir));
}

/// A `nix-cache-info`.
pub fn cache_info(bytes: &[u8]) {
    let _ = CacheInfo::parse(bytes);
}

/// A NAR that should be one plain file.
pub fn nar_file(bytes: &[u8]) {
    if let Ok(file) = super::daemon::block_on(file_of_nar(bytes)) {
        assert!(file.len() < bytes.len());
    }
}

/// Keys, signatures and hashes.
pub fn keys(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(key) = SecretKey::parse(text) {
        assert!(SecretKey::parse(&key.secret_text()).unwrap().public_text() == key.public_text());
        let said = format!("{key:?}");
        assert!(!said.contains(key.secret_text().rsplit(':').next().unwrap()), "a secret is shown");
    }
    let _ = TrustedPublicKey::parse(text);
    let _ = NixHash::parse(text);
    if let Ok(signature) = NixSignature::parse(text) {
        let _ = signature.verify(b"x", &[]);
    }
}

/// A store path, and the directory of a store.
pub fn store_path(bytes: &[u8]) {
    let dir = StoreDir::default();
    if let Ok(path) = dir.parse_path(bytes) {
        assert_eq!(dir.render_path(&path).into_bytes(), bytes);
    }
    if let Ok(path) = StorePath::from_basename(bytes) {
        assert_eq!(path.to_basename().into_bytes(), bytes);
        assert!(!bytes.contains(&b'/') && !["", ".", ".."].contains(&path.name()));
        let _ = path.is_derivation();
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = StoreDir::new(text);
}
