//! The address of a builder: what its store URI says.
//!
//! Follows `ssh-store.cc`, `common-ssh-store-config.cc` and `uds-remote-store.cc` of Nix.

use std::path::PathBuf;

use base64::Engine as _;

use super::super::uri::Params;

/// How a builder is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// A daemon listens here, on this machine.
    Socket(PathBuf),
    /// Over ssh.
    Ssh(SshAddress),
}

/// What a `ssh-ng://` URI says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SshAddress {
    pub(super) user: Option<String>,
    /// As ssh takes it: a name of ~/.ssh/config, a host, an address without brackets.
    pub(super) host: String,
    pub(super) port: Option<u16>,
    /// `remote-store`: which store the daemon over there is to use.
    pub(super) store: Option<String>,
    /// `remote-program`: instead of `nix-daemon`.
    pub(super) program: Option<Vec<String>>,
    pub(super) key: Option<PathBuf>,
    /// `base64-ssh-public-host-key`, decoded: `ssh-ed25519 AAAA…`.
    pub(super) host_key: Option<String>,
    pub(super) compress: bool,
}

impl Address {
    /// Of a URI; without a scheme it is a host, as in Nix's machines file. The error says what is wrong.
    pub(super) fn parse(uri: &str) -> Result<Self, String> {
        let (place, params) = Params::split(uri);
        if let Some(path) = place.strip_prefix("unix://") {
            return match path.starts_with('/') {
                true => Ok(Self::Socket(path.into())),
                false => Err("a unix:// address needs the path of a socket".to_owned()),
            };
        }
        let authority = match place.split_once("://") {
            Some(("ssh-ng" | "ssh", rest)) => rest,
            Some((scheme, _)) => return Err(format!("{scheme}:// is no way to reach a builder")),
            None => place.as_str(),
        };
        let authority = authority.trim_end_matches('/');
        let (user, rest) = match authority.rsplit_once('@') {
            Some((user, rest)) => (Some(user.to_owned()).filter(|user| !user.is_empty()), rest),
            None => (None, authority),
        };
        let (host, port) = host_and_port(rest)?;
        let dash = |word: &str| word.starts_with('-');
        if host.is_empty() || dash(&host) || user.as_deref().is_some_and(dash) || host.contains(['/', ' ']) {
            return Err("it names no host".to_owned());
        }
        Ok(Self::Ssh(SshAddress {
            user,
            host,
            port,
            store: params.get("remote-store"),
            program: params.get("remote-program").map(|words| words.split_whitespace().map(str::to_owned).collect()),
            key: params.get("ssh-key").map(PathBuf::from),
            host_key: params.get("base64-ssh-public-host-key").map(|key| host_key(&key)).transpose()?,
            compress: params.get("compress").is_some_and(|value| matches!(value.as_str(), "true" | "1" | "yes")),
        }))
    }
}

/// `host`, `host:22`, `[::1]:22`, and `::1`, which has no port.
fn host_and_port(text: &str) -> Result<(String, Option<u16>), String> {
    let port = |port: &str| port.parse().map(Some).map_err(|_| format!("{port:?} is no port"));
    if let Some(rest) = text.strip_prefix('[') {
        return match rest.split_once(']') {
            Some((host, "")) => Ok((host.to_owned(), None)),
            Some((host, after)) => Ok((host.to_owned(), port(after.trim_start_matches(':'))?)),
            None => Err("a bracket is not closed".to_owned()),
        };
    }
    match text.split_once(':') {
        Some((host, after)) if !after.contains(':') => Ok((host.to_owned(), port(after)?)),
        _ => Ok((text.to_owned(), None)),
    }
}

/// A public key as Nix's machines file has it: the whole line in base64, or just the line.
pub(super) fn host_key(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.contains(' ') {
        return Ok(text.to_owned());
    }
    let engine = base64::engine::general_purpose::GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        base64::engine::GeneralPurposeConfig::new()
            .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
    );
    let bytes = engine.decode(text).map_err(|_| "the public host key is not base64 of a line".to_owned())?;
    let line = String::from_utf8(bytes).map_err(|_| "the public host key is not text".to_owned())?;
    Ok(line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ssh(uri: &str) -> SshAddress {
        match Address::parse(uri).unwrap() {
            Address::Ssh(address) => address,
            Address::Socket(path) => panic!("{uri} is the socket {}", path.display()),
        }
    }

    #[test]
    fn hosts_users_and_ports() {
        for (uri, user, host, port) in [
            ("ssh-ng://big1", None, "big1", None),
            ("ssh://ci@big1.acme.net", Some("ci"), "big1.acme.net", None),
            ("ci@big1", Some("ci"), "big1", None),
            ("ssh-ng://ci@big1:2222/", Some("ci"), "big1", Some(2222)),
            ("ssh-ng://[fe80::1]:22?compress=true", None, "fe80::1", Some(22)),
            ("ssh-ng://fe80::1", None, "fe80::1", None),
        ] {
            let address = ssh(uri);
            assert_eq!((address.user.as_deref(), address.host.as_str(), address.port), (user, host, port), "{uri}");
        }
    }

    #[test]
    fn parameters() {
        let address = ssh("ssh-ng://h?remote-store=%2Fa%20b&remote-program=sudo%20nix-daemon&ssh-key=/k&compress=1\
             &base64-ssh-public-host-key=c3NoLWVkMjU1MTkgQUFBQQ==");
        assert_eq!(address.store.as_deref(), Some("/a b"));
        assert_eq!(address.program.as_deref(), Some(&["sudo".to_owned(), "nix-daemon".to_owned()][..]));
        assert_eq!(address.key.as_deref(), Some(std::path::Path::new("/k")));
        assert_eq!(address.host_key.as_deref(), Some("ssh-ed25519 AAAA"));
        assert!(address.compress && !ssh("ssh-ng://h").compress);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for uri in
            ["", "ssh-ng://", "ssh-ng://-oProxyCommand=x", "ssh-ng://-l@h", "ssh-ng://h:x", "https://h", "unix://"]
        {
            assert!(Address::parse(uri).is_err(), "{uri}");
        }
        assert_eq!(Address::parse("unix:///run/s?root=/x"), Ok(Address::Socket("/run/s".into())));
    }
}
