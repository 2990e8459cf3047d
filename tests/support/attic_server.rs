//! An Attic server as strict as the real one, and stricter where a careless client would get away with it: it refuses
//! what the real one refuses, and notes what a good client never does.
#![allow(dead_code, unreachable_pub, reason = "a toolbox for many tests; not every tool is in use at every moment")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Response, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use drover::store::cache::SecretKey;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::service::{Answers, Asked, Control, Seat, Service, json as json_of, status, text_of};

/// Bytes of JSON that the server takes.
const MAX_JSON: usize = 2 << 20;

/// Hash parts that its database takes in one question.
const MAX_HASHES: usize = 32_766;

/// Bytes of what is known of a path.
const MAX_ABOUT: usize = 1 << 20;

/// From this size on a NAR is cut into chunks, and not redirected to the storage.
const CHUNKED: usize = 64 << 10;

/// A server with one cache that ends when dropped.
pub struct AtticServer {
    /// Where its configuration is asked for; ends in a slash. All other calls go to another place.
    pub endpoint: String,
    pub state: Arc<Attic>,
    _service: Service,
}

/// What the server knows.
pub struct Attic {
    url: String,
    cache: String,
    store_dir: String,
    key: SecretKey,
    pub control: Control,
    /// The token that may push; `None`: no token is good any more.
    token: Mutex<Option<String>>,
    /// Whether everybody may read.
    public: bool,
    /// By hash part.
    objects: Mutex<BTreeMap<String, Object>>,
    /// By hash: shared by all caches of the real one.
    nars: Mutex<BTreeMap<String, Bytes>>,
    /// What a good client never does.
    odd: Mutex<Vec<String>>,
    uploads: Mutex<Vec<Upload>>,
}

/// One upload that was registered.
#[derive(Debug, Clone)]
pub struct Upload {
    pub name: String,
    /// What is known of it came before the NAR, not in a header.
    pub preamble: bool,
    pub deduplicated: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Object {
    cache: String,
    store_path_hash: String,
    store_path: String,
    references: Vec<String>,
    #[expect(dead_code, reason = "part of the protocol")]
    system: Option<String>,
    deriver: Option<String>,
    #[expect(dead_code, reason = "kept by the real server, and never shown")]
    sigs: Vec<String>,
    ca: Option<String>,
    nar_hash: String,
    nar_size: u64,
}

impl AtticServer {
    /// A server with a cache of this name, which is signed by this key; `token` may push.
    pub fn start(cache: &str, store_dir: &str, key: &Path, token: &str) -> Self {
        Self::with(cache, store_dir, key, token, true)
    }

    /// The same with a cache that only tokens may read.
    pub fn private(cache: &str, store_dir: &str, key: &Path, token: &str) -> Self {
        Self::with(cache, store_dir, key, token, false)
    }

    fn with(cache: &str, store_dir: &str, key: &Path, token: &str, public: bool) -> Self {
        let seat = Seat::new();
        let state = Arc::new(Attic {
            url: seat.url.clone(),
            cache: cache.to_owned(),
            store_dir: store_dir.to_owned(),
            key: SecretKey::read(key).unwrap(),
            control: Control::default(),
            token: Mutex::new(Some(token.to_owned())),
            public,
            objects: Mutex::default(),
            nars: Mutex::default(),
            odd: Mutex::default(),
            uploads: Mutex::default(),
        });
        let endpoint = format!("{}/", seat.url);
        Self { endpoint, _service: seat.serve(state.clone()), state }
    }

    /// Where plain Nix reads the cache.
    pub fn substituter(&self) -> String {
        format!("{}{}", self.endpoint, self.state.cache)
    }

    /// Its configuration as Attic's own client writes it.
    pub fn config(&self, token: &str) -> String {
        format!("default-server = \"ci\"\n[servers.ci]\nendpoint = \"{}\"\ntoken = \"{token}\"\n", self.endpoint)
    }
}

impl Attic {
    /// Only this token may push from now on.
    pub fn token(&self, token: Option<&str>) {
        *self.token.lock().unwrap() = token.map(str::to_owned);
    }

    /// Names of the paths that it has.
    pub fn names(&self) -> BTreeSet<String> {
        self.objects.lock().unwrap().values().map(|object| object.base()[33..].to_owned()).collect()
    }

    /// What was uploaded and registered, in order.
    pub fn uploads(&self) -> Vec<Upload> {
        self.uploads.lock().unwrap().clone()
    }

    /// What no good client does.
    pub fn odd(&self) -> Vec<String> {
        self.odd.lock().unwrap().clone()
    }

    /// Paths that refer to something that it does not have.
    pub fn dangling(&self) -> Vec<String> {
        let objects = self.objects.lock().unwrap();
        let there: BTreeSet<&str> = objects.values().map(Object::base).collect();
        let whole = |object: &&Object| object.references.iter().all(|reference| there.contains(reference.as_str()));
        objects.values().filter(|object| !whole(object)).map(|object| object.base().to_owned()).collect()
    }

    /// Forgets a path.
    pub fn forget(&self, name: &str) {
        self.objects.lock().unwrap().retain(|_, object| &object.base()[33..] != name);
    }

    /// Whether the request has the token.
    fn may(&self, asked: &Asked) -> bool {
        let token = self.token.lock().unwrap().clone();
        let (Some(token), Some(said)) = (token, asked.header("authorization")) else { return false };
        let basic = |text: &str| String::from_utf8(STANDARD.decode(text).ok()?).ok();
        match said.split_once(' ') {
            Some((kind, said)) if kind.eq_ignore_ascii_case("bearer") => said == token,
            Some((kind, said)) if kind.eq_ignore_ascii_case("basic") => {
                basic(said).is_some_and(|login| login.split_once(':').is_some_and(|(_, password)| password == token))
            }
            _ => false,
        }
    }

    fn about(&self, asked: &Asked, cache: &str) -> Response<Body> {
        if !self.public && !self.may(asked) {
            return error(401, "Unauthorized", "Unauthorized.");
        }
        if cache != self.cache {
            // Whether a cache is there is not for everybody.
            return match self.may(asked) {
                true => error(404, "NoSuchCache", "The requested cache does not exist."),
                false => error(401, "Unauthorized", "Unauthorized."),
            };
        }
        json_of(&json!({
            "substituter_endpoint": format!("{}/{}", self.url, self.cache),
            "api_endpoint": format!("{}/api/", self.url),
            "public_key": self.key.public_text(),
            "is_public": self.public,
            "store_dir": self.store_dir,
            "priority": 41,
            "upstream_cache_key_names": ["cache.nixos.org-1"],
            "retention_period": "Global",
        }))
    }

    fn missing(&self, asked: &Asked) -> Response<Body> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Question {
            cache: String,
            store_path_hashes: Vec<String>,
        }
        if asked.body.len() > MAX_JSON {
            return text_of(413, "length limit exceeded");
        }
        if asked.header("content-type") != Some("application/json") {
            return text_of(415, "Expected request with `Content-Type: application/json`");
        }
        let Ok(question) = serde_json::from_slice::<Question>(&asked.body) else { return text_of(422, "no question") };
        if let Some(refusal) = self.refuses_push(asked, &question.cache) {
            return refusal;
        }
        if question.store_path_hashes.iter().any(|hash| !is_hash(hash)) {
            return error(400, "RequestError", "Invalid store path hash");
        }
        if question.store_path_hashes.len() > MAX_HASHES {
            return error(500, "DatabaseError", "too many SQL variables");
        }
        let objects = self.objects.lock().unwrap();
        let missing: Vec<_> = question.store_path_hashes.iter().filter(|hash| !objects.contains_key(*hash)).collect();
        json_of(&json!({ "missing_paths": missing }))
    }

    fn refuses_push(&self, asked: &Asked, cache: &str) -> Option<Response<Body>> {
        match self.may(asked) {
            false => Some(error(401, "Unauthorized", "Unauthorized.")),
            true if cache != self.cache => Some(error(404, "NoSuchCache", "The requested cache does not exist.")),
            true => None,
        }
    }

    fn upload(&self, asked: &Asked) -> Response<Body> {
        let bad = |why: &str| error(400, "RequestError", why);
        let (about, nar, preamble) = match asked.header("x-attic-nar-info-preamble-size").map(str::parse::<usize>) {
            Some(Ok(size)) if size > MAX_ABOUT => return bad("Upload info is too large"),
            Some(Ok(size)) if size > asked.body.len() => return bad("Upload info doesn't match specified size"),
            Some(Ok(size)) => (asked.body.slice(..size), asked.body.slice(size..), true),
            Some(Err(_)) => return bad("X-Attic-Nar-Info-Preamble-Size must be a valid unsigned integer"),
            None => match asked.headers.get("x-attic-nar-info") {
                Some(about) => (about.as_bytes().to_vec().into(), asked.body.clone(), false),
                None => return bad("X-Attic-Nar-Info must be set"),
            },
        };
        let Ok(object) = serde_json::from_slice::<Object>(&about) else { return bad("no upload info") };
        if let Some(refusal) = self.refuses_push(asked, &object.cache) {
            return refusal;
        }
        if let Some(why) = object.wrong(&self.store_dir) {
            return bad(why);
        }
        if !preamble && about.len() >= 4096 {
            self.note(format!("a header of {} bytes for {}", about.len(), object.base()));
        }
        // The real one stops reading at the size that it was told.
        if nar.len() as u64 > object.nar_size {
            self.note(format!("more than the NAR of {}", object.base()));
        }
        let hash = format!("sha256:{}", hex(&Sha256::digest(&nar)));
        if hash != object.nar_hash || nar.len() as u64 != object.nar_size {
            return bad("Bad NAR Hash or Size");
        }
        let there = self.objects.lock().unwrap().values().map(|other| other.base().to_owned()).collect::<BTreeSet<_>>();
        let missing = object.references.iter().find(|&base| base != object.base() && !there.contains(base));
        if let Some(missing) = missing {
            self.note(format!("{} before {missing}", object.base()));
        }
        let deduplicated = self.nars.lock().unwrap().insert(hash, nar.clone()).is_some();
        let name = object.base()[33..].to_owned();
        self.objects.lock().unwrap().insert(object.store_path_hash.clone(), object);
        self.uploads.lock().unwrap().push(Upload { name, preamble, deduplicated });
        match deduplicated {
            true => json_of(&json!({ "kind": "Deduplicated", "frac_deduplicated": null })),
            false => json_of(&json!({ "kind": "Uploaded", "file_size": nar.len(), "frac_deduplicated": 0.0 })),
        }
    }

    fn note(&self, what: String) {
        self.odd.lock().unwrap().push(what);
    }

    /// The side that plain Nix reads.
    fn plain(&self, asked: &Asked, name: &str) -> Response<Body> {
        if !self.public && !self.may(asked) {
            return error(401, "Unauthorized", "Unauthorized.");
        }
        if name == "nix-cache-info" {
            return text_of(200, format!("WantMassQuery: 1\nStoreDir: {}\nPriority: 41\n", self.store_dir));
        }
        let objects = self.objects.lock().unwrap();
        let gone = || error(404, "NoSuchObject", "The requested object does not exist.");
        if let Some(object) = name.strip_suffix(".narinfo").and_then(|hash| objects.get(hash)) {
            return text_of(200, object.narinfo(&self.key));
        }
        let nar = name.strip_prefix("nar/").and_then(|name| name.strip_suffix(".nar"));
        let Some(object) = nar.and_then(|hash| objects.get(hash)) else { return gone() };
        match self.nars.lock().unwrap().get(&object.nar_hash) {
            // Small ones are one object of the storage, which is sent to.
            Some(nar) if nar.len() < CHUNKED => {
                let mut response = status(307);
                let at = format!("{}/storage/{}?signature=1", self.url, &object.nar_hash[7..]);
                response.headers_mut().insert("location", at.parse().unwrap());
                response
            }
            Some(nar) => Response::new(Body::from(nar.clone())),
            None => gone(),
        }
    }

    /// The storage: its URLs are signed for downloads and nothing else.
    fn storage(&self, asked: &Asked, hash: &str) -> Response<Body> {
        let nars = self.nars.lock().unwrap();
        match nars.get(&format!("sha256:{hash}")) {
            Some(nar) if asked.method == Method::GET => Response::new(Body::from(nar.clone())),
            _ => {
                let mut response = status(403);
                response.headers_mut().insert("x-amz-request-id", "1".parse().unwrap());
                response
            }
        }
    }
}

impl Answers for Attic {
    fn name(&self, method: &Method, uri: &Uri, _headers: &HeaderMap) -> &'static str {
        let path = uri.path();
        match () {
            () if path.starts_with("/_api/v1/cache-config/") => "config",
            () if path == "/api/_api/v1/get-missing-paths" => "missing",
            () if path == "/api/_api/v1/upload-path" => "upload",
            () if path.ends_with(".narinfo") => "narinfo",
            () if path.ends_with(".nar") && method == Method::HEAD => "HEAD nar",
            () if path.ends_with(".nar") => "nar",
            () if path.starts_with("/storage/") => "storage",
            () if path.ends_with("/nix-cache-info") => "nix-cache-info",
            () => "unknown",
        }
    }

    fn answer(&self, asked: Asked) -> Response<Body> {
        let path = asked.uri.path().to_owned();
        match (self.name(&asked.method, &asked.uri, &asked.headers), asked.method.as_str()) {
            ("config", "GET") => self.about(&asked, path.trim_start_matches("/_api/v1/cache-config/")),
            ("missing", "POST") => self.missing(&asked),
            ("upload", "PUT") => self.upload(&asked),
            ("storage", _) => self.storage(&asked, path.trim_start_matches("/storage/")),
            ("narinfo" | "nar" | "HEAD nar" | "nix-cache-info", "GET" | "HEAD") => {
                match path.trim_start_matches('/').split_once('/') {
                    Some((cache, name)) if cache == self.cache => self.plain(&asked, name),
                    _ => error(404, "NotFound", "Not found."),
                }
            }
            _ => error(404, "NotFound", "Not found."),
        }
    }

    fn control(&self) -> &Control {
        &self.control
    }
}

impl Object {
    fn base(&self) -> &str {
        self.store_path.rsplit('/').next().unwrap()
    }

    /// What is wrong with it.
    fn wrong(&self, store_dir: &str) -> Option<&'static str> {
        let digits = self.nar_hash.strip_prefix("sha256:").unwrap_or_default();
        let base = |text: &str| text.len() > 33 && is_hash(&text[..32]) && !text.contains('/');
        match () {
            () if !is_hash(&self.store_path_hash) => Some("Invalid store path hash"),
            () if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) => Some("Invalid hash"),
            () if self.store_path.strip_prefix(store_dir).is_none_or(|rest| !rest.starts_with('/')) => {
                Some("Invalid store path")
            }
            () if !self.base().starts_with(&self.store_path_hash) => Some("Invalid store path"),
            () if !self.references.iter().all(|reference| base(reference)) => Some("Invalid reference"),
            () => None,
        }
    }

    /// As the real one makes it: of what it was told, with one signature of its own.
    fn narinfo(&self, key: &SecretKey) -> String {
        let (dir, _) = self.store_path.rsplit_once('/').unwrap();
        let digest: Vec<u8> = (7..self.nar_hash.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&self.nar_hash[at..at + 2], 16).unwrap())
            .collect();
        let hash = format!("sha256:{}", drover::nix_compat::narinfo::nixbase32::encode(&digest));
        let mut references = self.references.clone();
        references.sort();
        let full: Vec<String> = references.iter().map(|base| format!("{dir}/{base}")).collect();
        let fingerprint = format!("1;{};{hash};{};{}", self.store_path, self.nar_size, full.join(","));
        let optional = |name: &str, value: &Option<String>| {
            value.as_ref().map(|value| format!("{name}: {value}\n")).unwrap_or_default()
        };
        format!(
            "StorePath: {}\nURL: nar/{}.nar\nCompression: none\nNarHash: {hash}\nNarSize: {}\nReferences: {}\n{}Sig: {}\n{}",
            self.store_path,
            self.store_path_hash,
            self.nar_size,
            references.join(" "),
            optional("Deriver", &self.deriver),
            key.sign(&fingerprint).to_nix_string(),
            optional("CA", &self.ca),
        )
    }
}

/// An error as the server says it.
fn error(code: u16, name: &str, message: &str) -> Response<Body> {
    let mut response = json_of(&json!({ "code": code, "error": name, "message": message }));
    *response.status_mut() = code.try_into().unwrap();
    response
}

/// Whether this is the hash part of a store path.
pub fn is_hash(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| b"0123456789abcdfghijklmnpqrsvwxyz".contains(&byte))
}

/// Bytes as hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
