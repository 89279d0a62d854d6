//! The types of settings, and how they are written: `16MiB`, `1h30m`, `auto`.

use cluster::placement::Domain;
use std::fmt;
use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

/// What stands where a secret would.
pub const REDACTED: &str = "<redacted>";

/// A setting's type: reads what a person writes and prints what is in force.
pub trait Setting: Sized {
    /// What may be written, for error messages: `a duration such as 30s or 1h30m`.
    const EXPECTS: &'static str;
    /// Whether its value is never shown.
    const SECRET: bool = false;
    /// Reads a value.
    fn parse(text: &str) -> Option<Self>;
    /// Prints it so that `parse` reads it back.
    fn print(&self) -> String;
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

const BYTE_UNITS: [(&str, u64); 8] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
];

impl Setting for Bytes {
    const EXPECTS: &'static str = "a number of bytes such as 64KiB, 16MiB or 2GiB";

    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = BYTE_UNITS
            .iter()
            .find_map(|(name, unit)| {
                let cut = text.len().checked_sub(name.len())?;
                let (number, suffix) = text.split_at_checked(cut)?;
                suffix.eq_ignore_ascii_case(name).then_some((number, *unit))
            })
            .unwrap_or((text.strip_suffix('B').unwrap_or(text), 1));
        number.trim().parse::<u64>().ok()?.checked_mul(unit).map(Bytes)
    }

    fn print(&self) -> String {
        match BYTE_UNITS[..4].iter().find(|(_, unit)| self.0 != 0 && self.0.is_multiple_of(*unit)) {
            Some((name, unit)) => format!("{}{name}", self.0 / unit),
            None => self.0.to_string(),
        }
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.print())
    }
}

/// Origins of web pages, as browsers send them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Any.
    All,
    /// These; none if there are none.
    Listed(Vec<String>),
}

impl Setting for Origins {
    const EXPECTS: &'static str =
        "`none`, `*`, or origins separated by commas such as https://grafana.example";

    fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            "none" => return Some(Origins::Listed(Vec::new())),
            "*" => return Some(Origins::All),
            _ => {}
        }
        let origin = |text: &str| {
            let (scheme, authority) = text.trim().split_once("://")?;
            let host = !authority.is_empty() && !authority.contains(['/', '?', '#', '*', '@', ' ']);
            (matches!(scheme, "http" | "https") && host).then(|| text.trim().to_string())
        };
        text.split(',').map(origin).collect::<Option<Vec<String>>>().map(Origins::Listed)
    }

    fn print(&self) -> String {
        match self {
            Origins::All => "*".to_string(),
            Origins::Listed(list) if list.is_empty() => "none".to_string(),
            Origins::Listed(list) => list.join(","),
        }
    }
}

impl Setting for Duration {
    const EXPECTS: &'static str = "a duration such as 500ms, 30s, 1h30m or 15d";

    fn parse(text: &str) -> Option<Self> {
        let millis = crate::time::parse_duration_ms(text)?;
        Some(Duration::from_millis(u64::try_from(millis).ok()?))
    }

    fn print(&self) -> String {
        crate::time::print_duration_ms(i64::try_from(self.as_millis()).unwrap_or(i64::MAX))
    }
}

/// How long data is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// Until somebody deletes it.
    Forever,
    /// Samples older than this many milliseconds go.
    Millis(i64),
}

impl Setting for Retention {
    const EXPECTS: &'static str = "`forever` or a duration of at least 1h, such as 15d or 1y";

    fn parse(text: &str) -> Option<Self> {
        if text == "forever" {
            return Some(Retention::Forever);
        }
        // Less than an hour is most likely a slip of the unit (`15m` for fifteen months), and it would delete data.
        crate::time::parse_duration_ms(text).filter(|&ms| ms >= 3_600_000).map(Retention::Millis)
    }

    fn print(&self) -> String {
        match self {
            Retention::Forever => "forever".to_string(),
            Retention::Millis(ms) => crate::time::print_duration_ms(*ms),
        }
    }
}

/// A setting that the server chooses by itself unless it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auto<T> {
    /// Chosen at the start from CPUs, memory or disk.
    Auto,
    /// As told.
    Set(T),
}

impl<T: Copy> Auto<T> {
    /// What was told, or `choose()`.
    pub fn or(self, choose: impl FnOnce() -> T) -> T {
        match self {
            Auto::Auto => choose(),
            Auto::Set(value) => value,
        }
    }
}

impl<T: Setting> Setting for Auto<T> {
    const EXPECTS: &'static str = T::EXPECTS;
    const SECRET: bool = T::SECRET;

    fn parse(text: &str) -> Option<Self> {
        if text == "auto" { Some(Auto::Auto) } else { T::parse(text).map(Auto::Set) }
    }

    fn print(&self) -> String {
        match self {
            Auto::Auto => "auto".to_string(),
            Auto::Set(value) => value.print(),
        }
    }
}

impl Setting for u64 {
    const EXPECTS: &'static str = "a whole number";

    fn parse(text: &str) -> Option<Self> {
        text.replace('_', "").parse().ok()
    }

    fn print(&self) -> String {
        self.to_string()
    }
}

impl Setting for std::path::PathBuf {
    const EXPECTS: &'static str = "a path";

    fn parse(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| text.into())
    }

    fn print(&self) -> String {
        self.display().to_string()
    }
}

/// `HOST:PORT` to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen(pub String);

impl Setting for Listen {
    const EXPECTS: &'static str = "HOST:PORT, such as 127.0.0.1:7420 or [::]:7420";

    fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let plain = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
        (!host.is_empty() && plain && port.parse::<u16>().is_ok()).then(|| Listen(text.to_string()))
    }

    fn print(&self) -> String {
        self.0.clone()
    }
}

/// Addresses of other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peers(pub Vec<String>);

impl Setting for Peers {
    const EXPECTS: &'static str =
        "`none`, or HOST:PORT of nodes separated by commas, such as 10.0.0.1:7421,10.0.0.2:7421";

    fn parse(text: &str) -> Option<Self> {
        if text.trim() == "none" {
            return Some(Peers(Vec::new()));
        }
        let addresses = text.split(',').map(|address| Listen::parse(address.trim()).map(|listen| listen.0));
        addresses.collect::<Option<Vec<String>>>().map(Peers)
    }

    fn print(&self) -> String {
        if self.0.is_empty() { "none".to_string() } else { self.0.join(",") }
    }
}

/// A secret that nodes share. Nothing prints it but [`Secret::reveal`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Setting for Secret {
    const EXPECTS: &'static str = "1 to 128 visible ASCII characters without spaces";
    const SECRET: bool = true;

    fn parse(text: &str) -> Option<Self> {
        // What a header can carry. How good a secret is, is its owner's affair.
        let fits = (1..=128).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_graphic());
        // Copied out of a printed configuration.
        (fits && text != REDACTED).then(|| Secret(text.to_string()))
    }

    fn print(&self) -> String {
        REDACTED.to_string()
    }
}

/// Where a node stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(pub Domain);

impl Setting for Zone {
    const EXPECTS: &'static str = "`none`, or names from the widest to the narrowest, such as eu/zone-a/rack-3 (no spaces, at most 255 bytes)";

    fn parse(text: &str) -> Option<Self> {
        let path = if text == "none" { "" } else { text };
        path.parse().ok().map(Zone)
    }

    fn print(&self) -> String {
        if self.0.segments().is_empty() { "none".to_string() } else { self.0.to_string() }
    }
}

impl Setting for bool {
    const EXPECTS: &'static str = "`yes` or `no`";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "yes" | "true" => Some(true),
            "no" | "false" => Some(false),
            _ => None,
        }
    }

    fn print(&self) -> String {
        if *self { "yes" } else { "no" }.to_string()
    }
}

impl Setting for NonZeroU32 {
    const EXPECTS: &'static str = "a whole number from 1 on";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn print(&self) -> String {
        self.to_string()
    }
}

impl Setting for NonZeroU8 {
    const EXPECTS: &'static str = "a whole number from 1 to 255";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn print(&self) -> String {
        self.to_string()
    }
}

/// An enumeration among the settings, from its words.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal),+ $(,)? } $expects:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$vmeta])* $variant),+ }

        impl Setting for $name {
            const EXPECTS: &'static str = $expects;
            fn parse(text: &str) -> Option<Self> {
                match text { $($word => Some($name::$variant),)+ _ => None }
            }
            fn print(&self) -> String {
                match self { $($name::$variant => $word.to_string()),+ }
            }
        }
    };
}

words! {
    /// Form of the log lines.
    LogFormat {
        /// `ts=… level=info msg="…" key=value`
        Logfmt = "logfmt",
        /// One JSON object a line.
        Json = "json",
    } "`logfmt` or `json`"
}

words! {
    /// Least severe lines that are logged.
    LogLevel {
        /// Something is broken and a human must look.
        Error = "error",
        /// Something may need a look.
        Warn = "warn",
        /// Start, stop, background work.
        Info = "info",
        /// Every request.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    } "one of error, warn, info, debug, trace"
}

words! {
    /// When a write is acknowledged.
    Durability {
        /// After its part of the write-ahead log has been fsynced.
        Fsync = "fsync",
        /// At once; the log is fsynced every 200 ms. A power cut can lose that much of what was acknowledged.
        Interval = "interval",
    } "`fsync` or `interval`"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_whole_or_refused() {
        for text in ["none", "*", "https://a.example", "https://a.example,http://b:3000"] {
            assert_eq!(Origins::parse(text).unwrap().print(), text);
        }
        for bad in
            ["", "a.example", "https://", "https://a.example/", "https://*.example", "ftp://a", "*,http://a"]
        {
            assert_eq!(Origins::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn bytes_are_read_with_and_without_units() {
        assert_eq!(Bytes::parse("16MiB"), Some(Bytes(16 << 20)));
        assert_eq!(Bytes::parse("2 gib"), Some(Bytes(2 << 30)));
        assert_eq!(Bytes::parse("5MB"), Some(Bytes(5_000_000)));
        assert_eq!(Bytes::parse("12"), Some(Bytes(12)));
        assert_eq!(Bytes::parse("12B"), Some(Bytes(12)));
        assert_eq!(Bytes::parse("12MX"), None);
        assert_eq!(Bytes::parse("99999999999TiB"), None);
        assert_eq!(Bytes(16 << 20).print(), "16MiB");
        assert_eq!(Bytes(1500).print(), "1500");
    }

    #[test]
    fn a_retention_that_would_delete_fresh_data_by_a_slip_is_refused() {
        assert_eq!(Retention::parse("15m"), None);
        assert_eq!(Retention::parse("0"), None);
        assert_eq!(Retention::parse("forever"), Some(Retention::Forever));
        assert_eq!(Retention::parse("30d"), Some(Retention::Millis(30 * 86_400_000)));
    }

    #[test]
    fn peers_and_zones_print_what_they_read() {
        for text in ["none", "a:1", "10.0.0.1:7421,[::1]:7421"] {
            assert_eq!(Peers::parse(text).unwrap().print(), text);
        }
        assert_eq!(Peers::parse("a:1, b:2").unwrap().0, ["a:1", "b:2"]);
        for text in ["none", "eu", "eu/zone-a/rack-3"] {
            assert_eq!(Zone::parse(text).unwrap().print(), text);
        }
        assert!(Peers::parse("a").is_none() && Peers::parse("a:1,").is_none() && Peers::parse("").is_none());
        assert!(Zone::parse("eu//a").is_none() && Zone::parse("e u").is_none());
        assert!(Secret::parse("").is_none() && Secret::parse("with spaces in it").is_none());
        assert_eq!((NonZeroU8::parse("0"), NonZeroU8::parse("256")), (None, None));
    }

    #[test]
    fn listen_addresses_need_a_port() {
        assert!(Listen::parse("127.0.0.1:7420").is_some());
        assert!(Listen::parse("[::]:0").is_some());
        assert!(Listen::parse("localhost:80").is_some());
        assert!(Listen::parse("127.0.0.1").is_none());
        assert!(Listen::parse("::1:99").is_none());
        assert!(Listen::parse(":7420").is_none());
    }
}
