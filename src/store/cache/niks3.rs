//! A niks3 server (`niks3:https://HOST`).
//!
//! The server keeps the books and signs; the files lie in a bucket, and are written to URLs that it signs for one
//! upload each. Each path is a closure of its own to it: it is begun with the names of its record and its NAR and with
//! what it refers to (the answer has URLs for those that the bucket lacks), the NAR is written, then, after all that
//! it refers to, the record is signed and written, and the closure completed. What was begun and never completed the
//! server clears away by itself after some hours; a client has no call for that.
//!
//! A record that is there and whose closure was never completed will be cleared away, too. So a path is there, for who
//! pushes, if the bucket has it and the books do: the books are asked with a closure that is begun with all records
//! that the bucket has, of which nothing must be lacking.
//!
//! NARs are named by what they hold, before they are compressed, so that the name is known when the first byte comes;
//! somebody else may have compressed it in another way, so a record says nothing about the file. There is no question
//! for many paths that would leave no trace in its books: plans ask it like the plain cache that it is for readers.
//!
//! Source of the protocol: the JSON messages of niks3's own client and server, version 1.7.

mod message;
mod parts;

use std::collections::BTreeSet;
use std::sync::Arc;

use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Url};

use super::answer::{Trust, narinfo_name};
use super::api::{Api, Call, CallFailure};
use super::backend::Opening;
use super::error::CacheError;
use super::http::HttpCache;
use super::info::{self, CacheInfo};
use super::login::{Auth, LoginEnv};
use super::netrc::Login;
use super::put::NARINFO;
use super::sink::{Nar, PutError, Sink, Ticket as SinkTicket};
use super::stream::NarStream;
use super::{Held, LoginSource};
use crate::event::{Class, Failure};
use crate::id::{StoreDir, StorePath};
use crate::nix_compat::daemon::PathInfo;
use crate::nix_compat::narinfo::{NarInfo, NixHash};

use message::{About, Begin, Begun, Object, Record, Sign, Signed};

/// Parameters of its URL besides those of all caches.
pub(super) const PARAMS: &[&str] = &[];

/// Uploads at once: of small paths, most of the time is waiting for five answers one after the other.
const UPLOADS: usize = 32;

/// Records that the books are asked for at a time.
const QUESTION: usize = 16_000;

/// See the module's page.
#[derive(Debug)]
pub(super) struct Niks3Cache {
    api: Arc<Api>,
    /// Ends in a slash.
    server: Url,
    store_dir: StoreDir,
    http: Arc<HttpCache>,
    /// The server has a key.
    signs: bool,
}

/// A path that the server has been told of, and that is not completed yet.
#[derive(Debug)]
pub struct Ticket {
    /// The number of the closure.
    closure: String,
    /// Where the record goes; `None` if the server has it.
    record: Option<Url>,
}

impl Niks3Cache {
    /// Asks the server where it is read from, and whether it takes the login; reads the `nix-cache-info`.
    pub(super) async fn open(
        (server, login): (&Url, Option<&Login>),
        opening: &Opening<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<(Self, CacheInfo), CacheError> {
        let auth = find_login(server, login, opening, warnings)?;
        let patience = opening.patience();
        let api = Api::new(server, auth.clone(), opening.shown, opening.context, patience)?;
        let about = about(&api, server).await.map_err(|failed| api.refusal(failed, opening.config.push))?;
        if opening.config.push {
            // Any question that needs the login will do.
            let asked = has(&api, server, info::NAME, true).await;
            asked.map_err(|failed| api.refusal(failed, true))?;
        }
        let bad = |why: String| CacheError::Url { url: opening.shown.to_owned(), why };
        let plain = match about.substituter_url.as_deref().filter(|url| !url.is_empty()) {
            Some(url) => super::attic::moved(server, url).map_err(bad)?,
            None => server.clone(),
        };
        let auth = match plain.origin() == server.origin() {
            true => auth,
            // The bucket is another host, which has no business with the server's login.
            false => {
                let (netrc, host) = (opening.context.netrc.as_deref(), plain.host_str().unwrap_or_default());
                Auth::find(None, None, netrc, host, opening.shown, warnings)?
            }
        };
        let read = HttpCache::open(plain, auth, opening.shown, opening.context, patience, false).await;
        let (http, info) = read?;
        let cache = Self {
            api: Arc::new(api),
            server: server.clone(),
            store_dir: opening.context.store_dir.clone(),
            http: Arc::new(http),
            signs: !about.public_keys.is_empty(),
        };
        Ok((cache, info))
    }

    /// Where it is read from.
    pub(super) fn http(&self) -> &Arc<HttpCache> {
        &self.http
    }

    /// Where its login comes from.
    pub(super) fn login(&self) -> &LoginSource {
        self.api.source()
    }

    /// Requests sent so far, those of reading included.
    pub(super) fn requests(&self) -> u64 {
        self.api.requests() + self.http.requests()
    }

    /// Whether the server signs.
    pub(super) fn signs(&self) -> bool {
        self.signs
    }

    /// Paths that are best sent at once.
    pub(super) fn parallel(&self) -> usize {
        UPLOADS
    }

    /// Which of these paths have to be sent.
    pub(super) async fn missing(&self, trust: &Trust, paths: &[StorePath]) -> Result<Vec<bool>, Failure> {
        let held = self.http.inspect(trust, paths).await;
        let mut lacks: Vec<bool> = held.iter().map(|held| !matches!(held, Ok(Some(Held { nar: true, .. })))).collect();
        let names: Vec<String> = paths.iter().map(narinfo_name).collect();
        let seen: Vec<&String> = names.iter().zip(&lacks).filter(|(_, lacks)| !**lacks).map(|(name, _)| name).collect();
        let mut unknown = BTreeSet::new();
        for some in seen.chunks(QUESTION) {
            unknown.extend(self.unknown(some).await.map_err(|failed| failed.failure)?);
        }
        for (lacks, name) in lacks.iter_mut().zip(&names) {
            *lacks |= unknown.contains(name);
        }
        Ok(lacks)
    }

    /// Those of the records that the books do not know.
    async fn unknown(&self, records: &[&String]) -> Result<Vec<String>, CallFailure> {
        let Some(closure) = records.first() else { return Ok(Vec::new()) };
        let objects = records.iter().map(|key| Object { key, r#type: "narinfo", refs: Vec::new(), nar_size: None });
        let objects: Vec<Object<'_>> = objects.collect();
        let begin = Begin { closure, objects: &objects, verify_s3: false };
        let begun: Begun = self.post(&["api", "pending_closures"], &begin).await?.json()?;
        if begun.pending_objects.is_empty() {
            // Nothing is to come: it only says once more that the first one is wanted.
            self.post(&["api", "pending_closures", &begun.id, "complete"], &()).await?;
        }
        Ok(begun.pending_objects.into_keys().collect())
    }

    /// Bytes that a NAR of this size takes in memory at most while it is sent.
    pub(super) fn memory(&self, nar_size: u64) -> u64 {
        parts::memory(nar_size)
    }

    /// See [`Sink::send`].
    pub(super) async fn send(&self, sink: &Sink, info: &PathInfo, nar: NarStream) -> Result<Nar, PutError> {
        let codec = sink.codec(info);
        let url = Nar::file_name(&NixHash::Sha256(info.nar_hash), codec);
        let mut begun = self.begin(info, &url).await?;
        let file_size = match begun.pending_objects.remove(&url) {
            Some(place) => {
                let entry = sink.entry(info, parts::part_size(info.nar_size));
                self.bring(&url, place, (info.nar_size, entry), nar).await?
            }
            None => {
                self.expect(&url).await?;
                None
            }
        };
        let record = begun.pending_objects.remove(&narinfo_name(&info.path));
        let record = record.map(|place| place.url()).transpose()?;
        let ticket = SinkTicket::Niks3(Arc::new(Ticket { closure: begun.id, record }));
        let (compression, new) = (codec.compression(), file_size.is_some());
        Ok(Nar { url, compression, file_hash: None, file_size, new, ticket: Some(ticket) })
    }

    /// See [`Sink::register`].
    pub(super) async fn register(&self, sink: &Sink, info: &PathInfo, nar: &Nar) -> Result<Option<NarInfo>, PutError> {
        let Some(SinkTicket::Niks3(ticket)) = &nar.ticket else {
            return Err(CallFailure::here(Class::Internal, "it was sent to another cache").into());
        };
        let record = match &ticket.record {
            Some(place) => Some(self.write_record(sink, info, nar, (&ticket.closure, place)).await?),
            None => None,
        };
        match self.post(&["api", "pending_closures", &ticket.closure, "complete"], &()).await {
            Ok(_) => Ok(record),
            // It may have been completed by a call whose answer was lost.
            Err(CallFailure { status: Some(404), failure, .. }) => {
                match self.begin(info, &nar.url).await?.pending_objects.is_empty() {
                    true => Ok(record),
                    false => Err(PutError::Server(failure)),
                }
            }
            Err(failed) => Err(failed.into()),
        }
    }

    /// Tells the server of a path; the answer has places for what it lacks.
    async fn begin(&self, info: &PathInfo, nar: &str) -> Result<Begun, CallFailure> {
        let record = narinfo_name(&info.path);
        let refs = info.references.iter().map(narinfo_name).chain([nar.to_owned()]).collect();
        let objects = [
            Object { key: &record, r#type: "narinfo", refs, nar_size: None },
            Object { key: nar, r#type: "nar", refs: Vec::new(), nar_size: Some(info.nar_size) },
        ];
        // It looks into the bucket for what its books say is there.
        let begin = Begin { closure: &record, objects: &objects, verify_s3: true };
        self.post(&["api", "pending_closures"], &begin).await?.json()
    }

    /// A file that the server says it has must be there: one that is about to be cleared away counts as had, too.
    async fn expect(&self, key: &str) -> Result<(), PutError> {
        match has(&self.api, &self.server, key, false).await? {
            true => Ok(()),
            false => Err(CallFailure::here(Class::Cache, format!("it says that it has {key}, and has not")).into()),
        }
    }

    /// Has a record signed, and writes it.
    async fn write_record(
        &self,
        sink: &Sink,
        info: &PathInfo,
        nar: &Nar,
        (closure, place): (&str, &Url),
    ) -> Result<NarInfo, PutError> {
        let name = narinfo_name(&info.path);
        let narinfos = [(name.as_str(), Record::new(info, nar, &self.store_dir))].into();
        let signed = self.post(&["api", "pending_closures", closure, "sign"], &Sign { narinfos }).await?;
        let mut signatures = signed.json::<Signed>()?.signatures;
        let mut info = info.clone();
        info.signatures.extend(signatures.remove(&name).unwrap_or_default());
        // Whoever comes next may compress the same NAR in another way.
        let record = sink.record(&info, &Nar { file_hash: None, file_size: None, ..nar.clone() })?;
        let call = Call::signed(place.clone(), record.to_canonical_bytes().into());
        let call = call.header(CONTENT_TYPE, HeaderValue::from_static(NARINFO));
        self.api.call(&call, self.api.patience).await?;
        Ok(record)
    }

    async fn post(&self, path: &[&str], body: &impl serde::Serialize) -> Result<super::api::Reply, CallFailure> {
        let call = Call::new(Method::POST, at(&self.server, path)?).json(body)?;
        self.api.call(&call, self.api.patience).await
    }
}

/// What the server says of itself; an older one says nothing.
async fn about(api: &Api, server: &Url) -> Result<About, CallFailure> {
    let call = Call::new(Method::GET, at(server, &["api", "cache-config"])?);
    match api.call(&call, api.patience.brief()).await {
        Ok(reply) => reply.json(),
        Err(CallFailure { status: Some(404), .. }) => Ok(About::default()),
        Err(failed) => Err(failed),
    }
}

/// Whether the bucket holds a file.
async fn has(api: &Api, server: &Url, key: &str, brief: bool) -> Result<bool, CallFailure> {
    let path: Vec<&str> = ["api", "objects"].into_iter().chain(key.split('/')).collect();
    let patience = if brief { api.patience.brief() } else { api.patience };
    match api.call(&Call::new(Method::HEAD, at(server, &path)?), patience).await {
        Ok(_) => Ok(true),
        Err(CallFailure { status: Some(404), .. }) => Ok(false),
        Err(failed) => Err(failed),
    }
}

/// A URL below the server's; each part is escaped.
fn at(server: &Url, path: &[&str]) -> Result<Url, CallFailure> {
    let mut url = server.clone();
    match url.path_segments_mut() {
        Ok(mut parts) => drop(parts.pop_if_empty().extend(path)),
        Err(()) => return Err(CallFailure::here(Class::Internal, format!("'{server}' has no paths"))),
    }
    Ok(url)
}

/// The token file of drover.toml, else the login of the URL, else the token file of niks3's own client
/// (`NIKS3_AUTH_TOKEN_FILE`, `$XDG_CONFIG_HOME/niks3/auth-token`), else the netrc file.
fn find_login(
    server: &Url,
    login: Option<&Login>,
    opening: &Opening<'_>,
    warnings: &mut Vec<String>,
) -> Result<Auth, CacheError> {
    let own = opening.config.token_file.is_some() || login.is_some();
    if let Some(file) = token_file(&opening.context.login_env).filter(|_| !own) {
        return Auth::token_file(&file, opening.shown);
    }
    let (token, netrc) = (opening.config.token_file.as_deref(), opening.context.netrc.as_deref());
    Auth::find(token, login, netrc, server.host_str().unwrap_or_default(), opening.shown, warnings)
}

/// Where niks3's own client has its token; a file that is not there only counts if a variable names it.
fn token_file(env: &LoginEnv) -> Option<std::path::PathBuf> {
    if let Some(file) = env.get("NIKS3_AUTH_TOKEN_FILE") {
        return Some(file.into());
    }
    Some(env.config_home()?.join("niks3").join("auth-token")).filter(|file| file.exists())
}
