//! The file `nix-cache-info`: what a cache says about itself.
//!
//! Lines `Key: value`; unknown keys and lines without a colon are ignored, as in Nix.

/// Name of the file, at the top of every cache.
pub const NAME: &str = "nix-cache-info";

/// Its MIME type.
pub(super) const MIME: &str = "text/x-nix-cache-info";

/// Bytes of it that are read at most; real ones have fewer than 100.
pub(super) const MAX_SIZE: usize = 64 * 1024;

/// What a cache says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CacheInfo {
    /// The directory of the stores that it is for.
    pub store_dir: Option<String>,
    /// Whether it likes to be asked for many paths at once.
    pub want_mass_query: bool,
    /// Lower is asked first.
    pub priority: Option<i32>,
}

impl CacheInfo {
    /// Reads the file; errors name the line's key.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|_| format!("its {NAME} is no text"))?;
        let mut info = Self::default();
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            match key {
                "StoreDir" => info.store_dir = Some(value.to_owned()),
                "WantMassQuery" => info.want_mass_query = value == "1",
                "Priority" => {
                    let number = value.parse().map_err(|_| format!("the Priority in its {NAME} is no number"))?;
                    info.priority = Some(number);
                }
                _ => {}
            }
        }
        Ok(info)
    }

    /// The file as Nix writes it for a new cache.
    #[must_use]
    pub fn new_file(store_dir: &str) -> String {
        format!("StoreDir: {store_dir}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_real_caches_say() {
        let info = CacheInfo::parse(b"StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n").unwrap();
        assert_eq!(info, CacheInfo { store_dir: Some("/nix/store".into()), want_mass_query: true, priority: Some(40) });
        let odd = CacheInfo::parse(b"hello\nFoo: bar\nPriority: -1\nWantMassQuery: true").unwrap();
        assert_eq!(odd, CacheInfo { store_dir: None, want_mass_query: false, priority: Some(-1) });
        assert!(CacheInfo::parse(b"Priority: high\n").is_err());
        assert!(CacheInfo::parse(b"\xff\xfe").is_err());
    }

    #[test]
    fn reads_what_it_writes() {
        let info = CacheInfo::parse(CacheInfo::new_file("/gnu/store").as_bytes()).unwrap();
        assert_eq!(info.store_dir.as_deref(), Some("/gnu/store"));
    }
}
