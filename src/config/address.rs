//! Where a builder is: a store URL as Nix's machines file has it, and what of it drover can use.

use std::fmt;

/// How a builder is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It is the store that drover works on.
    Local,
    /// A daemon's socket on this machine.
    Unix,
    /// ssh; `ssh://` is taken as `ssh-ng://`.
    Ssh,
}

/// A builder's URL.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// The whole, with a scheme: `ssh-ng://ci@big1?ssh-key=…`. It may hold a login, which `Debug` does not show.
    pub url: String,
    /// How it is reached.
    pub way: Way,
    /// The host, without user and port; the path of a socket; `local`.
    pub host: String,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address").field("way", &self.way).field("host", &self.host).finish_non_exhaustive()
    }
}

/// Words that name the local store in place of a URL.
const LOCAL: [&str; 3] = ["local", "daemon", "auto"];

impl Address {
    /// Reads a URL, or a host alone, which Nix takes as `ssh://HOST`. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let shown = super::public_url(text);
        if LOCAL.contains(&text) {
            return Ok(Self { url: text.to_owned(), way: Way::Local, host: "local".to_owned() });
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(format!("there is a blank in '{}'", shown.escape_debug()));
        }
        let url = match text.split_once("://") {
            Some(_) => text.to_owned(),
            None if text.contains('/')
                || text.contains('?')
                || LOCAL.iter().any(|word| text == format!("{word}://")) =>
            {
                return Err(format!("'{shown}' is a store in a directory, which has no daemon to ask"));
            }
            None => format!("ssh://{text}"),
        };
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let place = rest.split('?').next().unwrap_or_default();
        let (way, host) = match scheme {
            "ssh-ng" | "ssh" => {
                (Way::Ssh, host(place).ok_or_else(|| format!("there is no host, or no port, in '{shown}'"))?)
            }
            "unix" if place.is_empty() => return Err(format!("there is no path of a socket in '{shown}'")),
            "unix" => (Way::Unix, place.to_owned()),
            other => return Err(format!("a builder cannot be reached by '{other}://'")),
        };
        Ok(Self { url, way, host })
    }

    /// A name for people: the first part of the host's, `big1` of `big1.acme.net`; of a number all of it.
    #[must_use]
    pub fn short(&self) -> &str {
        match self.way {
            Way::Ssh if self.host.parse::<std::net::IpAddr>().is_err() => {
                self.host.split('.').next().unwrap_or_default()
            }
            Way::Ssh | Way::Local => &self.host,
            Way::Unix => "socket",
        }
    }
}

/// The host of `user@host:port`. One that begins with `-` would be an option of ssh.
fn host(place: &str) -> Option<String> {
    let place = place.split('/').next().unwrap_or_default();
    let (user, place) = place.rsplit_once('@').unwrap_or(("", place));
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(host, port)| (host, port.strip_prefix(':')))?,
        // An address with colons and without brackets has no port.
        None if place.matches(':').count() > 1 => (place, None),
        None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
    };
    let fits = !host.is_empty() && !host.starts_with('-') && !user.starts_with('-');
    (fits && port.is_none_or(|port| port.parse::<u16>().is_ok())).then(|| host.to_owned())
}

/// A host's public key as ssh writes it, `ssh-ed25519 AAAA…`, without the comment, and without the host that
/// ssh-keyscan and known_hosts write before it; `None` if it is none.
pub(super) fn host_key(text: &str) -> Option<String> {
    let words: Vec<&str> = text.split_ascii_whitespace().take(3).collect();
    words.windows(2).find_map(|pair| is_key(pair[0], pair[1]).then(|| pair.join(" ")))
}

/// Whether this is the base64 of a public key of this kind.
fn is_key(kind: &str, key: &str) -> bool {
    use base64::Engine as _;
    let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(key) else { return false };
    let Some((length, rest)) = bytes.split_first_chunk() else { return false };
    // The key repeats its kind, after four bytes of length.
    let same = u32::from_be_bytes(*length) as usize == kind.len() && rest.starts_with(kind.as_bytes());
    same && rest.len() > kind.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_bare_hosts() {
        for (text, url, way, host, short) in [
            ("big1", "ssh://big1", Way::Ssh, "big1", "big1"),
            ("ci@big1.acme.net", "ssh://ci@big1.acme.net", Way::Ssh, "big1.acme.net", "big1"),
            ("ssh-ng://ci@big1:2222?compress=1", "ssh-ng://ci@big1:2222?compress=1", Way::Ssh, "big1", "big1"),
            ("ssh-ng://10.0.0.7", "ssh-ng://10.0.0.7", Way::Ssh, "10.0.0.7", "10.0.0.7"),
            ("ssh-ng://me@[fe80::1]:22", "ssh-ng://me@[fe80::1]:22", Way::Ssh, "fe80::1", "fe80::1"),
            ("unix:///run/d.sock?root=/r", "unix:///run/d.sock?root=/r", Way::Unix, "/run/d.sock", "socket"),
            ("local", "local", Way::Local, "local", "local"),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(
                (&*address.url, address.way, &*address.host, address.short()),
                (url, way, host, short),
                "{text}"
            );
        }
    }

    #[test]
    fn what_cannot_be_a_builder_is_said() {
        for (text, what) in [
            ("", "there is no host"),
            ("ssh-ng://", "there is no host"),
            ("ssh-ng://-oProxyCommand=x", "there is no host"),
            ("-oProxyCommand=x@big1", "there is no host"),
            ("ssh-ng://ci@:22", "there is no host"),
            ("ssh-ng://big1:ssh", "or no port"),
            ("ssh-ng://[::1", "there is no host"),
            ("https://cache.example", "cannot be reached by 'https://'"),
            ("/srv/store", "a store in a directory"),
            ("local?root=/srv", "a store in a directory"),
            ("unix://", "no path of a socket"),
            ("big1 big2", "a blank"),
        ] {
            let error = Address::parse(text).unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        }
        let address = Address::parse("ssh-ng://ci:hunter2@big1").unwrap();
        assert!(!format!("{address:?}").contains("hunter2"));
    }

    #[test]
    fn host_keys_are_known_by_their_kind() {
        let key = "AAAAC3NzaC1lZDI1NTE5AAAAIBNmnKb5jRrWyI4j0PWZlPTPHoqs0cM2LT1r9Hh4Ydlv";
        let line = format!("ssh-ed25519 {key}");
        for text in [format!(" {line} root@big1\n"), format!("big1 {line}"), format!("[big1]:22 {line} c")] {
            assert_eq!(host_key(&text).as_deref(), Some(&*line));
        }
        for text in ["", key, "ssh-ed25519", "ssh-ed25519 AAAA", &format!("ssh-rsa {key}"), "ssh-ed25519 é"] {
            assert_eq!(host_key(text), None, "{text}");
        }
    }
}
