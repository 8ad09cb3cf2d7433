//! From the order in which locations are tried to nginx' own way to choose one: `=` before the
//! longest `^~` before regular expressions in their order (ngx_http_core_find_location).
//!
//! A location becomes one or two [`Matcher`]s. One whose paths an earlier location takes already is
//! left out, which is all that is needed for nginx to choose as [`Routing::choose`] does: what it
//! prefers, the longer path, is then never the later one.
//!
//! [`Routing::choose`]: super::super::Routing

use super::super::rendered::anchored;
use super::super::types::{Location, PathPattern};
use super::quote;

/// What stands behind `location`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matcher {
    Exact(String),
    Begin(String),
    /// Whatever nothing else takes.
    Rest,
    /// A regular expression, and whether letters' case matters.
    Regex(String, bool),
}

impl Matcher {
    /// As nginx has it; nothing where it cannot be written.
    pub fn directive(&self) -> Option<String> {
        Some(match self {
            Matcher::Exact(path) => format!("= {}", quote::quote(path)?),
            Matcher::Begin(path) => format!("^~ {}", quote::quote(path)?),
            // `^~` would keep regular expressions from being tried.
            Matcher::Rest => "/".to_owned(),
            Matcher::Regex(regex, true) => format!("~ {}", quote::quote(regex)?),
            Matcher::Regex(regex, false) => format!("~* {}", quote::quote(regex)?),
        })
    }
}

/// A matcher and the location it leads to; `None`: to whoever takes what is left.
pub type Way<'a> = (Matcher, Option<&'a Location>);

/// The ways of a virtual host. The last takes what is left, unless a location takes all.
pub fn ways(locations: &[Location]) -> Vec<Way<'_>> {
    if locations.iter().any(|l| matches!(l.path, PathPattern::Regex(_))) {
        let ways = locations.iter().map(|l| (regex(&l.path), Some(l)));
        return ways.chain([(Matcher::Rest, None)]).collect();
    }
    let mut ways: Vec<Way<'_>> = Vec::new();
    for location in locations {
        for matcher in matchers(&location.path) {
            if !taken(&ways, &matcher) {
                ways.push((matcher, Some(location)));
            }
        }
    }
    if !taken(&ways, &Matcher::Begin("/".to_owned())) {
        ways.push((Matcher::Rest, None));
    }
    without_redirects(&mut ways);
    ways
}

/// nginx sends a request for `/foo` to `/foo/` where it knows only that. Nobody asked for it, so
/// `/foo` is led where it belongs.
fn without_redirects(ways: &mut Vec<Way<'_>>) {
    let slashed = |way: &Way<'_>| match &way.0 {
        Matcher::Exact(path) | Matcher::Begin(path) if path != "/" => path.strip_suffix('/').map(str::to_owned),
        _ => None,
    };
    let bare: Vec<String> = ways.iter().filter_map(slashed).collect();
    for path in bare {
        let exact = Matcher::Exact(path.clone());
        if ways.iter().any(|(m, _)| *m == exact) {
            continue;
        }
        let fits = |way: &&Way<'_>| matches!(&way.0, Matcher::Begin(begin) if path.starts_with(begin.as_str()));
        let length = |way: &&Way<'_>| if let Matcher::Begin(begin) = &way.0 { begin.len() } else { 0 };
        let to = ways.iter().filter(fits).max_by_key(length).and_then(|way| way.1);
        ways.push((exact, to));
    }
}

/// Whether all that `new` would take has gone to an earlier location.
fn taken(ways: &[Way<'_>], new: &Matcher) -> bool {
    let (Matcher::Exact(path) | Matcher::Begin(path)) = new else { return false };
    ways.iter().any(|(there, _)| match there {
        Matcher::Begin(begin) => path.starts_with(begin.as_str()),
        Matcher::Exact(_) => there == new,
        Matcher::Rest | Matcher::Regex(..) => false,
    })
}

fn matchers(path: &PathPattern) -> Vec<Matcher> {
    match path {
        PathPattern::Exact(path) => vec![Matcher::Exact(path.clone())],
        PathPattern::Begin(path) => vec![Matcher::Begin(path.clone())],
        PathPattern::Prefix(path) => {
            let elements = path.trim_end_matches('/');
            let below = Matcher::Begin(format!("{elements}/"));
            if elements.is_empty() { vec![below] } else { vec![Matcher::Exact(elements.to_owned()), below] }
        }
        PathPattern::Regex(_) => vec![regex(path)],
    }
}

/// Any path as a regular expression, for hosts that have one.
fn regex(path: &PathPattern) -> Matcher {
    match path {
        PathPattern::Exact(path) => Matcher::Regex(format!("^{}$", quote::escape_regex(path)), true),
        PathPattern::Begin(path) => Matcher::Regex(format!("^{}", quote::escape_regex(path)), true),
        PathPattern::Prefix(path) => {
            let elements = quote::escape_regex(path.trim_end_matches('/'));
            Matcher::Regex(format!("^{elements}(?:/|$)"), true)
        }
        PathPattern::Regex(regex) => Matcher::Regex(anchored(regex), false),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::objects::ObjectKey;
    use crate::plan::ingress::{Options, Source};

    fn location(path: PathPattern, n: usize) -> Location {
        let source = Source { ingress: ObjectKey::new("default", "a"), field: n.to_string() };
        Location { path, backend: n.to_string(), options: Options::default(), source }
    }

    /// What nginx does with locations that are no regular expressions.
    fn nginx<'a>(ways: &[Way<'a>], path: &str) -> Option<&'a Location> {
        let exact = ways.iter().find(|(m, _)| *m == Matcher::Exact(path.to_owned()));
        let begins = |way: &&Way<'_>| match &way.0 {
            Matcher::Begin(begin) => path.starts_with(begin.as_str()),
            matcher => *matcher == Matcher::Rest,
        };
        let length = |way: &&Way<'_>| if let Matcher::Begin(begin) = &way.0 { begin.len() } else { 0 };
        exact.or_else(|| ways.iter().filter(begins).max_by_key(length)).and_then(|way| way.1)
    }

    fn fits(pattern: &PathPattern, path: &str) -> bool {
        match pattern {
            PathPattern::Exact(p) => p == path,
            PathPattern::Begin(p) => path.starts_with(p.as_str()),
            PathPattern::Prefix(p) => {
                let p = p.trim_end_matches('/');
                path.strip_prefix(p).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            PathPattern::Regex(_) => false,
        }
    }

    fn path() -> impl Strategy<Value = String> {
        "/([ab]/?){0,3}"
    }

    fn pattern() -> impl Strategy<Value = PathPattern> {
        (path(), 0..3u8).prop_map(|(path, kind)| match kind {
            0 => PathPattern::Exact(path),
            1 => PathPattern::Prefix(path),
            _ => PathPattern::Begin(path),
        })
    }

    proptest! {
        /// In whatever order locations stand.
        #[test]
        fn nginx_chooses_the_first_that_fits(patterns in prop::collection::vec(pattern(), 0..6), asked in path()) {
            let all: Vec<Location> = patterns.into_iter().enumerate().map(|(n, p)| location(p, n)).collect();
            let ways = ways(&all);
            let expected = all.iter().find(|l| fits(&l.path, &asked));
            prop_assert_eq!(nginx(&ways, &asked), expected, "{:?}", ways);
            for (n, (matcher, _)) in ways.iter().enumerate() {
                prop_assert!(!ways[..n].iter().any(|(m, _)| m == matcher), "nginx refuses one that is there twice");
            }
        }
    }

    #[test]
    fn one_regular_expression_makes_all_of_them_so() {
        let regex = |text: &str| Matcher::Regex(text.to_owned(), true);
        let patterns = [
            PathPattern::Regex("/a|/b".to_owned()),
            PathPattern::Exact("/a.b".to_owned()),
            PathPattern::Prefix("/c/".to_owned()),
        ];
        let all: Vec<Location> = patterns.into_iter().enumerate().map(|(n, p)| location(p, n)).collect();
        let matchers: Vec<Matcher> = ways(&all).into_iter().map(|way| way.0).collect();
        let first = Matcher::Regex("^(?:/a|/b)".to_owned(), false);
        assert_eq!(matchers, [first, regex("^/a\\.b$"), regex("^/c(?:/|$)"), Matcher::Rest]);
    }
}
