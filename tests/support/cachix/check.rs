//! What is held against what a client says of an upload: its parts, its hashes, its record.

use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use drover::nix_compat::narinfo::nixbase32;
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use md5::{Digest as _, Md5};
use serde_json::Value;
use sha2::Sha256;

use super::{LEAST_PART, NAME, State, Upload};

pub(super) fn md5(bytes: &[u8]) -> Vec<u8> {
    Md5::digest(bytes).to_vec()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn is_md5(text: &str) -> bool {
    STANDARD.decode(text).is_ok_and(|bytes| bytes.len() == 16)
}

/// The hash part of a store path.
pub(super) fn is_hash(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| b"0123456789abcdfghijklmnpqrsvwxyz".contains(&byte))
}

/// The file that the parts make: those that came, in order, with their ETags, and none too small.
pub(super) fn joined(upload: &Upload, said: &Value) -> Result<Vec<u8>, (u16, String)> {
    let said = said.as_array().ok_or((400, "parts is no list".to_owned()))?;
    let numbers: Vec<u64> = said.iter().map(|part| part["partNumber"].as_u64().unwrap_or(0)).collect();
    if said.is_empty() || numbers != (1..=said.len() as u64).collect::<Vec<_>>() {
        return Err((400, format!("the numbers of the parts are {numbers:?}")));
    }
    let mut file = Vec::new();
    for (at, part) in said.iter().enumerate() {
        let number = u32::try_from(at + 1).unwrap();
        let (etag, bytes) = upload.parts.get(&number).ok_or((400, format!("part {number} was not uploaded")))?;
        if part["eTag"].as_str() != Some(etag) {
            return Err((400, format!("the ETag of part {number} is {etag}, and not {}", part["eTag"])));
        }
        if bytes.len() < LEAST_PART && at + 1 < said.len() {
            return Err((400, format!("part {number} has {} bytes and is not the last", bytes.len())));
        }
        file.extend_from_slice(bytes);
    }
    if upload.parts.len() != said.len() {
        return Err((400, format!("{} parts were uploaded, and {} are named", upload.parts.len(), said.len())));
    }
    Ok(file)
}

/// A `narInfoCreate` that agrees with its file.
pub(super) struct Record {
    /// `HASH-NAME`.
    pub(super) base: String,
    /// The same of all that it refers to.
    pub(super) references: Vec<String>,
    /// The name of the file, without `nar/`.
    pub(super) file: String,
    pub(super) text: String,
    nar_hash: String,
    nar_size: u64,
    signature: Option<String>,
}

impl Record {
    pub(super) fn read(said: &Value, file: &[u8], compression: &str) -> Result<Self, String> {
        let text = |key: &str| said[key].as_str().map(str::to_owned).ok_or(format!("{key} is no text: {}", said[key]));
        let number = |key: &str| said[key].as_u64().ok_or(format!("{key} is no number: {}", said[key]));
        let known = [
            "cStoreHash",
            "cStoreSuffix",
            "cNarHash",
            "cNarSize",
            "cFileHash",
            "cFileSize",
            "cReferences",
            "cDeriver",
            "cSig",
        ];
        let keys = said.as_object().ok_or("narInfoCreate is no object")?;
        if let Some(odd) = keys.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(format!("narInfoCreate has no {odd}"));
        }
        let (hash, suffix) = (text("cStoreHash")?, text("cStoreSuffix")?);
        if !is_hash(&hash) || suffix.is_empty() || suffix.contains('/') {
            return Err(format!("'{hash}' and '{suffix}' are no store path"));
        }
        let nar = match compression {
            "zst" => {
                let mut nar = Vec::new();
                let decoder = zstd::Decoder::new(file).map_err(|error| error.to_string())?;
                { decoder }.read_to_end(&mut nar).map_err(|error| format!("it cannot be unpacked: {error}"))?;
                nar
            }
            other => return Err(format!("nobody sends '{other}'")),
        };
        let nar_hash = format!("sha256:{}", nixbase32::encode(&Sha256::digest(&nar)));
        let file_hash = hex(&Sha256::digest(file));
        let (nar_size, file_size) = (number("cNarSize")?, number("cFileSize")?);
        for (key, said, is) in
            [("cNarHash", text("cNarHash")?, &nar_hash), ("cFileHash", text("cFileHash")?, &file_hash)]
        {
            if said != *is {
                return Err(format!("{key} is {is}, and not {said}"));
            }
        }
        if (nar_size, file_size) != (nar.len() as u64, file.len() as u64) || nar_size == 0 {
            return Err(format!("the sizes are {} and {}, not {nar_size} and {file_size}", nar.len(), file.len()));
        }
        let references = said["cReferences"].as_array().ok_or("cReferences is no list")?;
        let references: Vec<String> =
            references.iter().map(|text| text.as_str().unwrap_or_default().to_owned()).collect();
        let is_base =
            |text: &String| text.split_once('-').is_some_and(|(hash, _)| is_hash(hash)) && !text.contains('/');
        if !references.iter().all(is_base) || !references.is_sorted() {
            return Err(format!("cReferences are not sorted names of paths: {references:?}"));
        }
        let deriver = text("cDeriver")?;
        if deriver != "unknown-deriver" && !(is_base(&deriver) && deriver.ends_with(".drv")) {
            return Err(format!("'{deriver}' is no deriver"));
        }
        let signature = match &said["cSig"] {
            Value::Null => None,
            Value::String(text) if STANDARD.decode(text).is_ok_and(|bytes| bytes.len() == 64) => Some(text.clone()),
            other => return Err(format!("cSig is {other}")),
        };
        let (base, name) = (format!("{hash}-{suffix}"), format!("{file_hash}.nar.zst"));
        let file_hash = nixbase32::encode(&Sha256::digest(file));
        let text = format!(
            "URL: nar/{name}\nCompression: zstd\nFileHash: sha256:{file_hash}\nFileSize: {file_size}\n\
             NarHash: {nar_hash}\nNarSize: {nar_size}\nReferences: {}\nDeriver: {deriver}\n",
            references.join(" ")
        );
        Ok(Self { base, references, file: name, text, nar_hash, nar_size, signature })
    }

    /// With the path, and with a signature: the client's, which one of the cache's keys must have made, else one of the
    /// server.
    pub(super) fn signed(mut self, state: &State, store_dir: &str) -> Result<Self, String> {
        let absolute: Vec<String> = self.references.iter().map(|base| format!("{store_dir}/{base}")).collect();
        let path = format!("{store_dir}/{}", self.base);
        let fingerprint = format!("1;{path};{};{};{}", self.nar_hash, self.nar_size, absolute.join(","));
        let signature = match self.signature.take() {
            None => STANDARD.encode(state.managed.sign(fingerprint.as_bytes()).to_bytes()),
            Some(text) => {
                let bytes = STANDARD.decode(&text).ok().and_then(|bytes| bytes.try_into().ok());
                let signature = Signature::from_bytes(&bytes.ok_or("cSig is no signature")?);
                let made = |key: &String| {
                    let key = STANDARD.decode(key.split_once(':')?.1).ok()?.try_into().ok()?;
                    VerifyingKey::from_bytes(&key).ok()?.verify_strict(fingerprint.as_bytes(), &signature).ok()
                };
                state.keys.iter().find_map(made).ok_or("no key of this cache made cSig")?;
                text
            }
        };
        self.text = format!("StorePath: {path}\n{}Sig: {NAME}.cachix.org-1:{signature}\n", self.text);
        Ok(self)
    }
}
