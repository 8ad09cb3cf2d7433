//! Any bytes as a request's head, as a chunked body and as a path: the same judgement whatever pieces they
//! come in, and nothing that a rule could be evaded with.
#![no_main]

use labctl::plan::ingress::{host_of, normalise};
use labctl::workload::ingress::built_in::intake::chunks::Chunks;
use labctl::workload::ingress::built_in::intake::head;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, &[u8])| {
    let (cut, bytes) = input;
    let cut = usize::from(cut).min(bytes.len());
    let whole = head::end(bytes, 0);
    match head::end(&bytes[..cut], 0) {
        Ok(None) => assert_eq!(head::end(bytes, cut), whole),
        early => assert_eq!(early, whole),
    }
    if let Ok(Some(end)) = whole {
        assert!(end <= bytes.len());
        let _ = head::judge(&bytes[..end]);
    }

    let (mut at_once, mut in_pieces) = (Chunks::default(), Chunks::default());
    let all = at_once.follow(bytes);
    let first = in_pieces.follow(&bytes[..cut]);
    let both = first.and_then(|first| {
        let rest = if first < cut { Ok(0) } else { in_pieces.follow(&bytes[cut..]) };
        rest.map(|rest| first + rest)
    });
    assert_eq!(all, both);

    if let Ok(path) = normalise(bytes) {
        assert!(path.starts_with(b"/") && !path.contains(&0));
        let evades = |element: &[u8]| matches!(element, b"." | b"..");
        assert!(!path.split(|&b| b == b'/').any(evades));
        assert!(!path.windows(2).any(|pair| pair == b"//"));
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(host) = host_of(text)
    {
        assert!(!host.is_empty() && !host.bytes().any(|b| b.is_ascii_uppercase()));
    }
});
