//! Where a bucket is and how it is written to: the parameters of its URL, as Nix knows them.

use reqwest::Url;
use reqwest::header::HeaderValue;

use super::super::budget::Parts;

/// Parameters of its URL besides those of all caches.
pub(in super::super) const PARAMS: &[&str] = &[
    "profile",
    "region",
    "endpoint",
    "scheme",
    "addressing-style",
    "multipart-upload",
    "multipart-threshold",
    "multipart-chunk-size",
    "buffer-size",
    "storage-class",
];

/// Bytes of a part where nobody says otherwise.
const PART: u64 = 8 << 20;

/// Bytes that a part may have: all parts but the last at least so many, by the rules of S3 …
const SMALLEST: u64 = 5 << 20;
/// … and so many at most, since a part is in memory as a whole.
const LARGEST: u64 = 64 << 20;

/// NARs of more bytes than this go in parts where nobody says otherwise.
const THRESHOLD: u64 = 16 << 20;

/// Parts of one file at most, by the rules of S3.
const PARTS: u64 = 10_000;

/// What the URL of a bucket says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Where its files are; ends in a slash.
    pub(super) base: Url,
    pub(super) bucket: String,
    pub(super) region: String,
    /// The profile that has the keys.
    pub(super) profile: Option<String>,
    /// False if every file is to be sent in one piece.
    pub(super) in_parts: bool,
    /// NARs of more bytes than this go in parts.
    threshold: u64,
    /// Bytes of a part.
    part: u64,
    pub(super) storage_class: Option<HeaderValue>,
}

impl Place {
    /// Reads the parameters of `s3://BUCKET`.
    pub(super) fn read(bucket: &str, params: &[(String, String)]) -> Result<Self, String> {
        let get = |name: &str| {
            let said = params.iter().rev().find(|(known, _)| known == name);
            said.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
        };
        let region = get("region").unwrap_or("us-east-1").to_owned();
        let scheme = get("scheme").unwrap_or("https");
        if !matches!(scheme, "http" | "https") {
            return Err(format!("its parameter 'scheme' is neither http nor https: '{scheme}'"));
        }
        let endpoint = get("endpoint").map(|text| endpoint(text, scheme)).transpose()?;
        let style = Style::read(get("addressing-style"))?;
        let storage_class = get("storage-class").map(HeaderValue::from_str).transpose();
        let size = |name: &str| get(name).map(|value| bytes(name, value)).transpose();
        let part = size("multipart-chunk-size")?.or(size("buffer-size")?).unwrap_or(PART);
        if !(SMALLEST..=LARGEST).contains(&part) {
            let (least, most) = (SMALLEST >> 20, LARGEST >> 20);
            return Err(format!("its parameter 'multipart-chunk-size' is not between {least} and {most} MiB: {part}"));
        }
        Ok(Self {
            base: base(bucket, &region, scheme, endpoint, style)?,
            bucket: bucket.to_owned(),
            region,
            profile: get("profile").map(str::to_owned),
            in_parts: get("multipart-upload").is_none_or(|value| !matches!(value, "false" | "no" | "0")),
            threshold: size("multipart-threshold")?.unwrap_or(THRESHOLD),
            part,
            storage_class: storage_class.map_err(|_| "its parameter 'storage-class' is no word".to_owned())?,
        })
    }

    /// How a NAR of this size goes.
    pub(super) fn way(&self, nar_size: u64) -> Way {
        if nar_size <= self.threshold.min(LARGEST) {
            return Way::Whole;
        }
        self.part(nar_size).filter(|_| self.in_parts).map_or(Way::Spooled, |part| Way::Parts(Parts::of(part)))
    }

    /// Bytes of one part of a NAR of this size; `None` if so large a file cannot be sent in parts.
    fn part(&self, nar_size: u64) -> Option<u64> {
        // What cannot be compressed grows a little.
        let most = nar_size.saturating_add(nar_size / 64).saturating_add(1 << 20);
        Some(self.part.max(most.div_ceil(PARTS))).filter(|part| *part <= LARGEST)
    }
}

/// How a NAR gets into a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// In one piece, from memory.
    Whole,
    /// In parts, while it is made.
    Parts(Parts),
    /// In one piece, by way of a temporary file.
    Spooled,
}

/// Whether the bucket is in the host or in the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// In the host at Amazon; in the path elsewhere, and where the bucket's name has a dot.
    Auto,
    Path,
    Virtual,
}

impl Style {
    fn read(text: Option<&str>) -> Result<Self, String> {
        match text {
            None | Some("auto") => Ok(Self::Auto),
            Some("path") => Ok(Self::Path),
            Some("virtual") => Ok(Self::Virtual),
            Some(other) => {
                Err(format!("its parameter 'addressing-style' is neither auto, path nor virtual: '{other}'"))
            }
        }
    }
}

/// A whole URL, or only a host, which Nix takes as well.
fn endpoint(text: &str, scheme: &str) -> Result<Url, String> {
    let url = if text.contains("://") { text.to_owned() } else { format!("{scheme}://{text}") };
    let bad = || "its parameter 'endpoint' is no URL".to_owned();
    let url = Url::parse(&url).map_err(|_| bad())?;
    let plain = matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none();
    if plain && url.username().is_empty() && url.password().is_none() { Ok(url) } else { Err(bad()) }
}

fn base(bucket: &str, region: &str, scheme: &str, endpoint: Option<Url>, style: Style) -> Result<Url, String> {
    let custom = endpoint.is_some();
    let amazon = || Url::parse(&format!("{scheme}://s3.{region}.amazonaws.com"));
    let mut url = endpoint.map_or_else(amazon, Ok).map_err(|_| format!("there is no region '{region}'"))?;
    let in_host = match style {
        Style::Virtual => true,
        Style::Path => false,
        Style::Auto => !custom && !bucket.contains('.'),
    };
    if in_host {
        let host = format!("{bucket}.{}", url.host_str().unwrap_or_default());
        url.set_host(Some(&host)).map_err(|_| format!("'{bucket}' cannot be part of a host's name"))?;
    }
    let above = url.path().trim_end_matches('/').to_owned();
    url.set_path(&if in_host { format!("{above}/") } else { format!("{above}/{bucket}/") });
    Ok(url)
}

fn bytes(name: &str, value: &str) -> Result<u64, String> {
    value.parse().map_err(|_| format!("its parameter '{name}' is no number of bytes: '{value}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(bucket: &str, params: &[(&str, &str)]) -> Result<Place, String> {
        let params: Vec<_> = params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Place::read(bucket, &params)
    }

    #[test]
    fn buckets_are_found_as_nix_finds_them() {
        let base = |bucket: &str, params: &[(&str, &str)]| place(bucket, params).unwrap().base.to_string();
        assert_eq!(base("b", &[]), "https://b.s3.us-east-1.amazonaws.com/");
        assert_eq!(base("b", &[("region", "eu-west-1")]), "https://b.s3.eu-west-1.amazonaws.com/");
        assert_eq!(base("a.b", &[]), "https://s3.us-east-1.amazonaws.com/a.b/");
        assert_eq!(base("b", &[("addressing-style", "path")]), "https://s3.us-east-1.amazonaws.com/b/");
        assert_eq!(base("b", &[("endpoint", "http://127.0.0.1:9000")]), "http://127.0.0.1:9000/b/");
        assert_eq!(base("b", &[("endpoint", "minio.example"), ("scheme", "http")]), "http://minio.example/b/");
        let inside = [("endpoint", "https://s3.example/"), ("addressing-style", "virtual")];
        assert_eq!(base("b", &inside), "https://b.s3.example/");
    }

    #[test]
    fn wrong_parameters_are_told() {
        for (params, expected) in [
            (("addressing-style", "both"), "neither auto, path nor virtual"),
            (("scheme", "ftp"), "neither http nor https"),
            (("endpoint", "http://user:pw@h"), "'endpoint' is no URL"),
            (("multipart-chunk-size", "1000"), "not between 5 and 64 MiB"),
            (("multipart-threshold", "much"), "no number of bytes"),
            (("storage-class", "a\nb"), "is no word"),
        ] {
            let error = place("b", &[params]).unwrap_err();
            assert!(error.contains(expected) && !error.contains("pw"), "{error}");
        }
    }

    #[test]
    fn parts_are_as_large_as_they_have_to_be() {
        let place = place("b", &[("buffer-size", "5242880")]).unwrap();
        assert_eq!(place.part(1 << 30), Some(5 << 20));
        let large = place.part(300 << 30).unwrap();
        assert!(large > 5 << 20 && (300u64 << 30).div_ceil(large) < 10_000);
        assert_eq!(place.part(u64::MAX), None);
    }
}
