//! Where spans are sent to, by the variables that all programs have which tell OpenTelemetry of themselves
//! (`OTEL_EXPORTER_OTLP_…`).

use std::fmt;

use super::Env;

/// A collector of spans, and what is said to it besides.
#[derive(Clone, PartialEq, Eq)]
pub struct Collector {
    /// Where spans are posted to; it may hold a login.
    pub url: String,
    /// Headers, most of them logins.
    pub headers: Vec<(String, String)>,
}

/// Says no more than where it is, without logins.
impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").field("url", &super::public_url(&self.url)).finish_non_exhaustive()
    }
}

impl Collector {
    /// The one below this URL, to which spans go as `/v1/traces`; the environment says the headers.
    #[must_use]
    pub fn below(base: &str, env: &Env) -> Self {
        Self { url: format!("{}/v1/traces", base.trim_end_matches('/')), headers: headers(env) }
    }

    /// The one that the environment names, if it does: that for spans alone as it is, else the one for all.
    #[must_use]
    pub fn of(env: &Env) -> Option<Self> {
        if let Some(url) = env.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
            return Some(Self { url: url.to_owned(), headers: headers(env) });
        }
        Some(Self::below(env.get("OTEL_EXPORTER_OTLP_ENDPOINT")?, env))
    }
}

/// `name=value,name=value`, where the values are as in URLs.
fn headers(env: &Env) -> Vec<(String, String)> {
    let names = ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"];
    let all = names.into_iter().filter_map(|name| env.get(name)).flat_map(|text| text.split(','));
    let pairs = all.filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.trim().to_owned(), decoded(value.trim()))).collect()
}

fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let code = more.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &more[2..];
            }
            None => {
                out.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_a_collector_and_its_login_is_not_shown() {
        assert_eq!(Collector::of(&Env::of([])), None);
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://me:pass@otlp.example/x/");
        let login = ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc, x-scope = a%zz");
        let collector = Collector::of(&Env::of([all, login])).unwrap();
        assert_eq!(collector.url, "https://me:pass@otlp.example/x/v1/traces");
        let headers =
            [("authorization".to_owned(), "Bearer abc".to_owned()), ("x-scope".to_owned(), "a%zz".to_owned())];
        assert_eq!(collector.headers, headers);
        let shown = format!("{collector:?}");
        assert!(!shown.contains("pass") && !shown.contains("abc"), "{shown}");
        let spans = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t.example/spans");
        assert_eq!(Collector::of(&Env::of([all, spans])).unwrap().url, "http://t.example/spans");
    }
}
