//! The forms of values in annotations and ConfigMaps.

use std::time::Duration;

use ipnet::IpNet;

/// As Go's strconv.ParseBool has it.
pub fn truth(word: &str) -> Option<bool> {
    match word {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A number of seconds, without a unit: ingress-nginx takes no other.
pub fn seconds(word: &str) -> Option<Duration> {
    let digits = word.bytes().all(|b| b.is_ascii_digit());
    // A year is longer than anything waits; beyond it clocks may overflow.
    let seconds = word.parse().ok().filter(|s| digits && *s <= 365 * 86400)?;
    Some(Duration::from_secs(seconds))
}

/// A size in bytes, as nginx writes it: `1048576`, `1024k`, `8m`, `1g`.
pub fn size(word: &str) -> Option<u64> {
    let (number, unit) = split(word);
    let shift = match unit {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift).filter(|s| i64::try_from(*s).is_ok())
}

/// Ranges or addresses with commas between them.
pub fn ranges(words: &str) -> Option<Vec<IpNet>> {
    let one = |word: &str| word.parse().ok().or_else(|| word.parse::<std::net::IpAddr>().ok().map(IpNet::from));
    words.split(',').map(str::trim).filter(|w| !w.is_empty()).map(one).collect()
}

/// A word of RFC 9110's `token`, such as a cookie's name.
pub fn is_token(word: &str) -> bool {
    !word.is_empty()
        && word.len() <= 256
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// A path that may stand in a header: it begins with `/` and has neither spaces nor signs that end an attribute.
pub fn is_path(word: &str) -> bool {
    word.starts_with('/') && word.len() <= 4096 && word.bytes().all(|b| b.is_ascii_graphic() && !b"\"';\\".contains(&b))
}

fn split(word: &str) -> (&str, &str) {
    word.split_at(word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len()))
}
