//! A niks3 server and its bucket, as strict as the real ones: the server refuses what the real one refuses, the bucket
//! takes nothing but what a URL was signed for. What a good client never does is noted.
#![allow(dead_code, unreachable_pub, reason = "a toolbox for many tests; not every tool is in use at every moment")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::Body;
use axum::http::{HeaderMap, Method, Response, Uri};
use drover::store::cache::SecretKey;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::attic_server::{hex, is_hash};
use super::service::{Answers, Asked, Control, Seat, Service, json as json_of, status, text_of};

/// Larger NARs go in parts.
const SIMPLE: u64 = 10 << 20;

/// Every part but the last one has as many bytes at least.
const LEAST_PART: usize = 5 << 20;

/// Bytes of JSON that begin or sign a closure.
const MAX_CLOSURE: usize = 128 << 20;

/// Bytes of JSON of other calls.
const MAX_JSON: usize = 8 << 20;

/// A server and its bucket that end when dropped.
pub struct Niks3Server {
    /// Where its calls go.
    pub url: String,
    /// Where plain Nix reads the cache.
    pub substituter: String,
    pub state: Arc<Niks3>,
    pub bucket: Arc<Bucket>,
    _services: [Service; 2],
}

/// What the server knows.
pub struct Niks3 {
    bucket_url: String,
    key: Option<SecretKey>,
    pub control: Control,
    /// The token that is good; `None`: none is any more.
    token: Mutex<Option<String>>,
    books: Mutex<Books>,
    bucket: Arc<Bucket>,
}

#[derive(Default)]
struct Books {
    closures: BTreeSet<String>,
    /// Key → what it refers to.
    objects: BTreeMap<String, Vec<String>>,
    pending: BTreeMap<u32, Pending>,
    begun: u32,
}

struct Pending {
    closure: String,
    objects: BTreeMap<String, Vec<String>>,
}

/// The bucket.
#[derive(Default)]
pub struct Bucket {
    pub control: Control,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    files: BTreeMap<String, Vec<u8>>,
    /// Signature → key, and part of which upload.
    signed: BTreeMap<String, (String, Option<(String, u32)>)>,
    /// Upload → key and parts.
    uploads: BTreeMap<String, (String, BTreeMap<u32, Vec<u8>>)>,
    signatures: u32,
    /// What a good client never does.
    odd: Vec<String>,
    /// Keys that were written, in order.
    written: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Object {
    key: String,
    r#type: String,
    refs: Vec<String>,
    nar_size: Option<u64>,
}

impl Niks3Server {
    /// A server that signs with this key, and takes this token; its bucket is for stores in this directory.
    pub fn start(store_dir: &str, key: Option<&Path>, token: &str) -> Self {
        let (seat, bucket_seat) = (Seat::new(), Seat::new());
        let bucket = Arc::new(Bucket::default());
        let info = format!("StoreDir: {store_dir}\nWantMassQuery: 1\nPriority: 30\n");
        bucket.inside().files.insert("nix-cache-info".to_owned(), info.into_bytes());
        let state = Arc::new(Niks3 {
            bucket_url: bucket_seat.url.clone(),
            key: key.map(|key| SecretKey::read(key).unwrap()),
            control: Control::default(),
            token: Mutex::new(Some(token.to_owned())),
            books: Mutex::default(),
            bucket: Arc::clone(&bucket),
        });
        let (url, substituter) = (seat.url.clone(), bucket_seat.url.clone());
        let services = [seat.serve(state.clone()), bucket_seat.serve(bucket.clone())];
        Self { url, substituter, state, bucket, _services: services }
    }
}

impl Bucket {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap()
    }

    /// What no good client does.
    pub fn odd(&self) -> Vec<String> {
        self.inside().odd.clone()
    }

    /// Keys that were written, in order.
    pub fn written(&self) -> Vec<String> {
        self.inside().written.clone()
    }

    /// Removes a file behind the back of the server.
    pub fn remove(&self, key: &str) {
        assert!(self.inside().files.remove(key).is_some(), "{key}");
    }

    /// Puts a file there, as another client would.
    pub fn put(&self, key: &str, bytes: &[u8]) {
        self.inside().files.insert(key.to_owned(), bytes.to_vec());
    }

    /// The URLs that were signed are good no more.
    pub fn expire(&self) {
        self.inside().signed.clear();
    }

    /// Names of the paths that it has records of.
    pub fn names(&self) -> BTreeSet<String> {
        self.records()
            .into_values()
            .map(|record| field(&record, "StorePath").rsplit('/').next().unwrap()[33..].to_owned())
            .collect()
    }

    /// Records by key.
    pub fn records(&self) -> BTreeMap<String, String> {
        let inside = self.inside();
        let records = inside.files.iter().filter(|(key, _)| key.ends_with(".narinfo"));
        records.map(|(key, body)| (key.clone(), String::from_utf8(body.clone()).unwrap())).collect()
    }

    /// Records whose NAR or whose references are not there.
    pub fn dangling(&self) -> Vec<String> {
        let records = self.records();
        let inside = self.inside();
        let whole = |record: &str| {
            let mut references = field(record, "References").split_whitespace();
            inside.files.contains_key(field(record, "URL"))
                && references.all(|base| records.contains_key(&format!("{}.narinfo", &base[..32])))
        };
        records.iter().filter(|(_, record)| !whole(record)).map(|(key, _)| key.clone()).collect()
    }

    /// Uploads in parts that were begun and neither ended nor given up.
    pub fn open_uploads(&self) -> usize {
        self.inside().uploads.len()
    }

    fn sign(&self, base: &str, key: &str, part: Option<(String, u32)>) -> String {
        let mut inside = self.inside();
        inside.signatures += 1;
        let signature = format!("s{}", inside.signatures);
        inside.signed.insert(signature.clone(), (key.to_owned(), part));
        format!("{base}/{key}?X-Amz-Signature={signature}")
    }

    fn put_signed(&self, asked: &Asked) -> Response<Body> {
        let key = asked.uri.path().trim_start_matches('/').to_owned();
        if asked.header("authorization").is_some() {
            return s3_error(400, "InvalidArgument");
        }
        if asked.header("content-length").is_none() {
            return s3_error(411, "MissingContentLength");
        }
        let mut inside = self.inside();
        let signed = asked.param("X-Amz-Signature").and_then(|signature| inside.signed.get(signature).cloned());
        match signed {
            Some((for_key, part)) if for_key == key => {
                let etag = hex(&Sha256::digest(&asked.body)[..16]);
                match part {
                    None => inside.write(&key, asked.body.to_vec()),
                    Some((upload, number)) => match inside.uploads.get_mut(&upload) {
                        Some((_, parts)) => drop(parts.insert(number, asked.body.to_vec())),
                        None => return s3_error(404, "NoSuchUpload"),
                    },
                }
                let mut response = status(200);
                response.headers_mut().insert("etag", format!("\"{etag}\"").parse().unwrap());
                response
            }
            _ => s3_error(403, "AccessDenied"),
        }
    }

    /// Makes one file of parts. The name of an error if they do not fit.
    fn complete(&self, key: &str, upload: &str, parts: &[(u32, String)]) -> Result<(), &'static str> {
        let mut inside = self.inside();
        let (for_key, have) = inside.uploads.get(upload).cloned().ok_or("NoSuchUpload")?;
        if for_key != key {
            return Err("NoSuchUpload");
        }
        let mut whole = Vec::new();
        for (at, (number, etag)) in parts.iter().enumerate() {
            let part = have.get(number).ok_or("InvalidPart")?;
            if *etag != hex(&Sha256::digest(part)[..16]) {
                return Err("InvalidPart");
            }
            if at + 1 < parts.len() && part.len() < LEAST_PART {
                return Err("EntityTooSmall");
            }
            whole.extend_from_slice(part);
        }
        inside.uploads.retain(|_, (other, _)| other != key);
        inside.write(key, whole);
        Ok(())
    }
}

impl Inside {
    fn write(&mut self, key: &str, bytes: Vec<u8>) {
        if key.ends_with(".narinfo") {
            let text = String::from_utf8(bytes.clone()).unwrap_or_default();
            let mut needs: Vec<String> =
                field(&text, "References").split_whitespace().map(|base| format!("{}.narinfo", &base[..32])).collect();
            needs.push(field(&text, "URL").to_owned());
            let missing = needs.into_iter().find(|need| need != key && !self.files.contains_key(need));
            self.odd.extend(missing.map(|missing| format!("{key} before {missing}")));
        }
        self.files.insert(key.to_owned(), bytes);
        self.written.push(key.to_owned());
    }
}

impl Niks3 {
    /// Only this token is good from now on.
    pub fn token(&self, token: Option<&str>) {
        *self.token.lock().unwrap() = token.map(str::to_owned);
    }

    /// Closures that are completed.
    pub fn closures(&self) -> BTreeSet<String> {
        self.books.lock().unwrap().closures.clone()
    }

    /// Closures that were begun and not completed.
    pub fn pending(&self) -> usize {
        self.books.lock().unwrap().pending.len()
    }

    /// Files that the books say are there and are not, and files that clearing away would take from a completed
    /// closure.
    pub fn lost(&self) -> Vec<String> {
        let books = self.books.lock().unwrap();
        let inside = self.bucket.inside();
        let gone = books.objects.keys().filter(|key| !inside.files.contains_key(*key)).cloned();
        let (mut kept, mut next) = (BTreeSet::new(), books.closures.iter().cloned().collect::<Vec<_>>());
        while let Some(key) = next.pop() {
            if kept.insert(key.clone()) {
                next.extend(books.objects.get(&key).into_iter().flatten().cloned());
            }
        }
        let stale = books.objects.keys().filter(|key| !kept.contains(*key)).cloned();
        gone.chain(stale).collect()
    }

    fn may(&self, asked: &Asked) -> bool {
        let token = self.token.lock().unwrap().clone();
        token.is_some_and(|token| asked.header("authorization") == Some(&format!("Bearer {token}")))
    }

    fn begin(&self, asked: &Asked) -> Response<Body> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Begin {
            closure: String,
            objects: Vec<Object>,
            #[serde(default)]
            verify_s3: bool,
        }
        let begin: Begin = match read(asked, MAX_CLOSURE) {
            Ok(begin) => begin,
            Err(refusal) => return *refusal,
        };
        if !begin.closure.ends_with(".narinfo") {
            return text_of(400, "closure key must end with .narinfo\n");
        }
        if begin.objects.is_empty() {
            return text_of(400, "missing objects key\n");
        }
        if let Some(bad) = begin.objects.iter().find(|object| !is_key(&object.key, &object.r#type)) {
            return text_of(400, format!("invalid object key {:?} for type {:?}\n", bad.key, bad.r#type));
        }
        let mut books = self.books.lock().unwrap();
        let there = |key: &str| self.bucket.inside().files.contains_key(key);
        let lacks: Vec<&Object> = begin
            .objects
            .iter()
            .filter(|object| !books.objects.contains_key(&object.key) || begin.verify_s3 && !there(&object.key))
            .collect();
        let places: serde_json::Map<_, _> =
            lacks.iter().map(|object| (object.key.clone(), self.place(object))).collect();
        let objects = lacks.into_iter().map(|object| (object.key.clone(), object.refs.clone())).collect();
        books.begun += 1;
        let id = books.begun;
        books.pending.insert(id, Pending { closure: begin.closure, objects });
        json_of(&json!({ "id": id.to_string(), "started_at": "2026-11-22T00:00:00Z", "pending_objects": places }))
    }

    fn place(&self, object: &Object) -> serde_json::Value {
        let sign = |part| self.bucket.sign(&self.bucket_url, &object.key, part);
        match object.nar_size {
            Some(size) if object.r#type == "nar" && size > SIMPLE => {
                let upload = {
                    let mut inside = self.bucket.inside();
                    inside.signatures += 1;
                    let upload = format!("u{}", inside.signatures);
                    inside.uploads.insert(upload.clone(), (object.key.clone(), BTreeMap::new()));
                    upload
                };
                // Fewer than it takes, so that more have to be asked for.
                let urls: Vec<String> = (1..=2).map(|number| sign(Some((upload.clone(), number)))).collect();
                json!({ "type": "nar", "multipart_info": { "upload_id": upload, "part_urls": urls } })
            }
            _ => json!({ "type": object.r#type, "presigned_url": sign(None) }),
        }
    }

    fn more_parts(&self, asked: &Asked) -> Response<Body> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct More {
            object_key: String,
            upload_id: String,
            start_part_number: u32,
            num_parts: u32,
        }
        let more: More = match read(asked, MAX_JSON) {
            Ok(more) => more,
            Err(refusal) => return *refusal,
        };
        if more.start_part_number == 0 || more.num_parts == 0 || more.num_parts > 1000 {
            return text_of(400, "bad part numbers\n");
        }
        if !self.bucket.inside().uploads.contains_key(&more.upload_id) {
            return text_of(404, "multipart upload not found\n");
        }
        let numbers = more.start_part_number..more.start_part_number + more.num_parts;
        let part =
            |number| self.bucket.sign(&self.bucket_url, &more.object_key, Some((more.upload_id.clone(), number)));
        let urls: Vec<String> = numbers.map(part).collect();
        json_of(&json!({ "part_urls": urls, "start_part_number": more.start_part_number }))
    }

    fn complete_parts(&self, asked: &Asked) -> Response<Body> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Part {
            part_number: u32,
            etag: String,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Complete {
            object_key: String,
            upload_id: String,
            parts: Vec<Part>,
        }
        let complete: Complete = match read(asked, MAX_JSON) {
            Ok(complete) => complete,
            Err(refusal) => return *refusal,
        };
        if !is_key(&complete.object_key, "nar") || complete.parts.is_empty() {
            return text_of(400, "missing parts\n");
        }
        let mut parts: Vec<_> = complete.parts.into_iter().map(|part| (part.part_number, part.etag)).collect();
        parts.sort();
        match self.bucket.complete(&complete.object_key, &complete.upload_id, &parts) {
            Ok(()) => status(204),
            Err("NoSuchUpload") => text_of(404, "multipart upload not found\n"),
            Err(why) => text_of(500, format!("failed to complete multipart upload: {why}\n")),
        }
    }

    fn sign(&self, asked: &Asked, id: &str) -> Response<Body> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Record {
            store_path: String,
            url: String,
            compression: String,
            nar_hash: String,
            nar_size: u64,
            references: Vec<String>,
            deriver: Option<String>,
            #[serde(default)]
            signatures: Vec<String>,
            ca: Option<String>,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Sign {
            narinfos: BTreeMap<String, Record>,
        }
        let sign: Sign = match read(asked, MAX_CLOSURE) {
            Ok(sign) => sign,
            Err(refusal) => return *refusal,
        };
        let books = self.books.lock().unwrap();
        let Ok(id) = id.parse::<u32>() else { return text_of(400, "invalid id\n") };
        let pending = books.pending.get(&id);
        let mut signatures = serde_json::Map::new();
        for (key, record) in sign.narinfos {
            if pending.is_none_or(|pending| !pending.objects.contains_key(&key)) {
                return text_of(403, "invalid narinfo key: not part of this pending closure\n");
            }
            let absolute =
                |path: &str| path.starts_with('/') && path.rsplit('/').next().is_some_and(|base| base.len() > 33);
            let paths = [&record.store_path].into_iter().chain(&record.references).chain(&record.deriver);
            let wrong = !paths.into_iter().all(|path| absolute(path))
                || record.nar_size == 0
                || record.nar_hash.len() != 59
                || record.compression.is_empty()
                || record.signatures.iter().chain(&record.ca).any(|text| !text.contains(':'));
            if wrong || !self.bucket.inside().files.contains_key(&record.url) {
                self.bucket.inside().odd.push(format!("{key} is signed as {}", record.url));
            }
            let mut references = record.references.clone();
            references.sort();
            let text =
                format!("1;{};{};{};{}", record.store_path, record.nar_hash, record.nar_size, references.join(","));
            let made: Vec<String> = self.key.iter().map(|key| key.sign(&text).to_nix_string()).collect();
            signatures.insert(key, json!(made));
        }
        json_of(&json!({ "signatures": signatures }))
    }

    fn complete(&self, id: &str) -> Response<Body> {
        let Ok(id) = id.parse::<u32>() else { return text_of(400, "invalid id\n") };
        let mut books = self.books.lock().unwrap();
        let Some(pending) = books.pending.remove(&id) else { return text_of(404, "pending closure not found\n") };
        let mut inside = self.bucket.inside();
        let gone: Vec<_> = pending.objects.keys().filter(|key| !inside.files.contains_key(*key)).collect();
        inside.odd.extend(gone.into_iter().map(|key| format!("{} is completed without {key}", pending.closure)));
        books.closures.insert(pending.closure);
        books.objects.extend(pending.objects);
        status(204)
    }
}

impl Answers for Niks3 {
    fn name(&self, method: &Method, uri: &Uri, _headers: &HeaderMap) -> &'static str {
        let path = uri.path();
        match method.as_str() {
            "GET" if path == "/api/cache-config" => "config",
            "HEAD" if path.starts_with("/api/objects/") => "object",
            "POST" if path == "/api/pending_closures" => "begin",
            "POST" if path == "/api/multipart/request-parts" => "more parts",
            "POST" if path == "/api/multipart/complete" => "complete parts",
            "POST" if path.starts_with("/api/pending_closures/") && path.ends_with("/sign") => "sign",
            "POST" if path.starts_with("/api/pending_closures/") && path.ends_with("/complete") => "complete",
            _ => "unknown",
        }
    }

    fn answer(&self, asked: Asked) -> Response<Body> {
        let name = self.name(&asked.method, &asked.uri, &asked.headers);
        if name == "config" {
            let keys: Vec<String> = self.key.iter().map(SecretKey::public_text).collect();
            return json_of(&json!({ "substituter_url": self.bucket_url, "public_keys": keys }));
        }
        if !self.may(&asked) {
            return text_of(401, "Unauthorized\n");
        }
        let id = asked.uri.path().split('/').nth(3).unwrap_or_default().to_owned();
        match name {
            "object" => {
                let key = asked.uri.path().trim_start_matches("/api/objects/");
                status(if self.bucket.inside().files.contains_key(key) { 204 } else { 404 })
            }
            "begin" => self.begin(&asked),
            "more parts" => self.more_parts(&asked),
            "complete parts" => self.complete_parts(&asked),
            "sign" => self.sign(&asked, &id),
            "complete" => self.complete(&id),
            _ => text_of(404, "404 page not found\n"),
        }
    }

    fn control(&self) -> &Control {
        &self.control
    }
}

impl Answers for Bucket {
    fn name(&self, method: &Method, uri: &Uri, _headers: &HeaderMap) -> &'static str {
        let record = uri.path().ends_with(".narinfo");
        match method.as_str() {
            "PUT" if record => "PUT narinfo",
            "PUT" => "PUT nar",
            _ if record => "narinfo",
            _ => "GET",
        }
    }

    fn answer(&self, asked: Asked) -> Response<Body> {
        if asked.method == Method::PUT {
            return self.put_signed(&asked);
        }
        let inside = self.inside();
        match inside.files.get(asked.uri.path().trim_start_matches('/')) {
            Some(file) if asked.method == Method::HEAD => {
                Response::builder().header("content-length", file.len()).body(Body::empty()).unwrap()
            }
            Some(file) => Response::new(Body::from(file.clone())),
            None => s3_error(404, "NoSuchKey"),
        }
    }

    fn control(&self) -> &Control {
        &self.control
    }
}

fn read<T: for<'de> Deserialize<'de>>(asked: &Asked, limit: usize) -> Result<T, Box<Response<Body>>> {
    if asked.body.len() > limit {
        return Err(Box::new(text_of(413, format!("request body exceeds {limit} bytes\n"))));
    }
    let bad = |error: serde_json::Error| Box::new(text_of(400, format!("failed to decode request: {error}\n")));
    serde_json::from_slice(&asked.body).map_err(bad)
}

/// Whether a file of this sort may have this key.
fn is_key(key: &str, sort: &str) -> bool {
    let nix32 = |text: &str, length| text.len() == length && is_hash(&text[..32]) && is_hash(&text[length - 32..]);
    match sort {
        "narinfo" => key.strip_suffix(".narinfo").is_some_and(|hash| nix32(hash, 32)),
        "nar" => {
            let name = key.strip_prefix("nar/").and_then(|name| name.split_once(".nar"));
            name.is_some_and(|(hash, end)| nix32(hash, 52) && ["", ".zst", ".xz", ".bz2"].contains(&end))
        }
        _ => false,
    }
}

fn field<'a>(record: &'a str, name: &str) -> &'a str {
    record.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default()
}

fn s3_error(code: u16, name: &str) -> Response<Body> {
    let mut response = text_of(code, format!("<?xml version=\"1.0\"?><Error><Code>{name}</Code></Error>"));
    response.headers_mut().insert("x-amz-request-id", "1".parse().unwrap());
    response
}
