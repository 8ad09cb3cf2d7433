//! The line by which the lab's echo server says who answered: a JSON object with at least `name`
//! and `source`. Other servers send none, and then nobody is known to have answered.

use std::net::SocketAddr;

use serde::Deserialize;

use super::outcome::Details;

#[derive(Deserialize)]
struct Line {
    name: String,
    #[serde(default)]
    pod: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
    source: SocketAddr,
}

/// Put who answered and the source it saw into `details`; whether `text` is an identity at all.
pub fn read(text: &str, details: &mut Details) -> bool {
    let Ok(line) = serde_json::from_str::<Line>(text) else { return false };
    // Pods elsewhere than in `default` are called by both names, as everywhere in the lab.
    let elsewhere = line.namespace.filter(|n| line.pod.is_some() && n != "default");
    details.answered_by = Some(match elsewhere {
        Some(namespace) => format!("{namespace}/{}", line.name),
        None => line.name,
    });
    details.source = Some(line.source);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_tells_name_and_source() {
        let mut details = Details::default();
        let line =
            r#"{"name":"tea-1","kind":"pod","pod":"tea-1","namespace":"shop","ip":"1.2.3.4","source":"10.0.0.1:5"}"#;
        assert!(read(line, &mut details));
        assert_eq!(details.answered_by.as_deref(), Some("shop/tea-1"));
        assert_eq!(details.source, "10.0.0.1:5".parse().ok());
        assert!(read(r#"{"name":"node1","kind":"host","source":"[fd00::1]:5"}"#, &mut details));
        assert_eq!(details.answered_by.as_deref(), Some("node1"));
    }

    #[test]
    fn other_text_is_none() {
        for text in ["", "hello", "{}", "[1]", r#"{"name":"x"}"#, r#"{"name":"x","source":"nowhere"}"#] {
            let mut details = Details::default();
            assert!(!read(text, &mut details), "{text}");
            assert_eq!(details, Details::default());
        }
    }
}
