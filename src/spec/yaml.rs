//! From text to a [`Node`] tree, in bounded time and memory.
//!
//! The grammar is `saphyr-parser`'s. Here are the bounds (size, depth, number of values after
//! aliases are followed), the core schema of YAML 1.2 for plain scalars, merge keys as
//! Kubernetes' own reader knows them, and the discovery of duplicate keys. Every problem carries
//! its place.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};

use super::node::{Entry, Key, Node, Value};
use super::scan::{Offsets, in_plain_words, misplaced_tab, scalar};
use crate::diag::{Place, Problem, Problems, codes};

/// The largest text that is read, in bytes. A lab of a thousand pods needs a hundredth of it.
pub const LARGEST_FILE: usize = 32 << 20;
/// How deep lists and maps may be nested.
const DEEPEST: usize = 64;
/// How many values a text may have once its aliases are followed: the "billion laughs" bound. The
/// largest lab that makes sense has a tenth of them.
const MOST_VALUES: usize = 1_000_000;
/// After so many problems of one text the rest is left for the next run.
const MOST_PROBLEMS: usize = 50;

/// Read all documents of `text`, which is source number `source`. Documents before a fault of
/// grammar are returned, the fault is reported.
pub fn read(text: &str, source: u16, problems: &mut Problems) -> Vec<Node> {
    let mut builder = Builder::new(text, source);
    let mut documents = Vec::new();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let outcome = match event {
            Ok((event, span)) => builder.take(event, span, &mut documents),
            Err(fault) => Err(Box::new(builder.scan_error(&fault))),
        };
        if let Err(problem) = outcome {
            builder.problems.push(*problem);
            break;
        }
        if builder.problems.iter().count() >= MOST_PROBLEMS {
            break;
        }
    }
    problems.extend(builder.problems);
    documents
}

type Outcome = Result<(), Box<Problem>>;

/// A list or map whose end has not been seen yet.
struct Open {
    anchor: usize,
    start: u32,
    items: Items,
}

enum Items {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, seen: HashMap<String, Place>, key: Option<Key>, merged: Vec<Node> },
}

struct Builder<'t> {
    text: &'t str,
    source: u16,
    offsets: Offsets,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    values: usize,
    next_id: u32,
    problems: Problems,
}

impl<'t> Builder<'t> {
    fn new(text: &'t str, source: u16) -> Self {
        Builder {
            text,
            source,
            offsets: Offsets::new(text),
            open: Vec::new(),
            anchors: HashMap::new(),
            values: 0,
            next_id: 0,
            problems: Problems::default(),
        }
    }

    fn place(&self, start: u32, end: u32) -> Place {
        Place { source: self.source, start, end: end.max(start) }
    }

    fn span(&mut self, span: Span) -> Place {
        let start = self.offsets.byte(self.text, span.start.index());
        let end = self.offsets.byte(self.text, span.end.index());
        self.trimmed(start, end)
    }

    /// The parser's spans may reach to the next token; a value's own text ends before the blanks.
    fn trimmed(&self, start: u32, end: u32) -> Place {
        let written = self.text.get(start as usize..end as usize).unwrap_or("").trim_end();
        self.place(start, start + u32::try_from(written.len()).unwrap_or(0))
    }

    fn id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id
    }

    fn take(&mut self, event: Event<'_>, span: Span, documents: &mut Vec<Node>) -> Outcome {
        let place = self.span(span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let tagged = tag.is_some_and(|t| t.is_yaml_core_schema() && t.suffix == "str");
                let plain = style == ScalarStyle::Plain && !tagged;
                let value = if plain { scalar(&text) } else { Value::Text(text.into_owned()) };
                let node = Node { id: self.id(), place, value };
                self.finish(node, anchor, documents)
            }
            Event::SequenceStart(anchor, _) => self.begin(anchor, place, Items::List(Vec::new())),
            Event::MappingStart(anchor, _) => {
                let (entries, seen, merged) = Default::default();
                self.begin(anchor, place, Items::Map { entries, seen, key: None, merged })
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => self.end(open, place, documents),
                None => Ok(()),
            },
            Event::Alias(anchor) => self.alias(anchor, place, documents),
            Event::DocumentEnd => {
                self.anchors.clear();
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) => Ok(()),
        }
    }

    fn begin(&mut self, anchor: usize, place: Place, items: Items) -> Outcome {
        if self.open.len() >= DEEPEST {
            return Err(Box::new(self.too_deep(place)));
        }
        self.open.push(Open { anchor, start: place.start, items });
        Ok(())
    }

    fn too_deep(&self, place: Place) -> Problem {
        Problem::error(codes::YAML_TOO_DEEP, format!("lists and maps are nested more than {DEEPEST} deep"))
            .at(self.place(place.start, place.start + 1), "one level too many")
            .help("a lab file needs a dozen levels at most; look for brackets that are never closed")
    }

    fn end(&mut self, open: Open, end: Place, documents: &mut Vec<Node>) -> Outcome {
        let place = self.trimmed(open.start, end.end);
        let value = match open.items {
            Items::List(items) => Value::List(items),
            Items::Map { entries, merged, .. } => Value::Map(merge(entries, merged)),
        };
        let node = Node { id: self.id(), place, value };
        self.finish(node, open.anchor, documents)
    }

    fn alias(&mut self, anchor: usize, place: Place, documents: &mut Vec<Node>) -> Outcome {
        let Some(target) = self.anchors.get(&anchor) else {
            return Err(Box::new(
                Problem::error(codes::YAML_SYNTAX, "an alias stands inside the value that it names")
                    .at(place, "this would never end")
                    .help("write the value out, or move the anchor"),
            ));
        };
        self.values += target.count();
        if self.open.len() + target.depth() > DEEPEST {
            return Err(Box::new(self.too_deep(place)));
        }
        let mut copy = target.clone();
        copy.place = place;
        self.renumber(&mut copy);
        self.finish(copy, 0, documents)
    }

    /// Ids stay unique when an alias copies a value.
    fn renumber(&mut self, node: &mut Node) {
        node.id = self.id();
        match &mut node.value {
            Value::List(items) => items.iter_mut().for_each(|n| self.renumber(n)),
            Value::Map(entries) => {
                for entry in entries {
                    entry.key.id = self.id();
                    self.renumber(&mut entry.value);
                }
            }
            _ => {}
        }
    }

    fn finish(&mut self, node: Node, anchor: usize, documents: &mut Vec<Node>) -> Outcome {
        self.values += 1;
        if self.values > MOST_VALUES {
            return Err(Box::new(
                Problem::error(codes::YAML_TOO_MANY_VALUES, format!("the file has more than {MOST_VALUES} values"))
                    .at(node.place, "the bound is passed here")
                    .help("aliases that repeat aliases grow without measure; write the values out"),
            ));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
            self.values += node.count();
        }
        let Some(open) = self.open.last_mut() else {
            documents.push(node);
            return Ok(());
        };
        match &mut open.items {
            Items::List(items) => items.push(node),
            Items::Map { entries, seen, key, merged } => match key.take() {
                None => *key = Some(into_key(node)?),
                Some(key) if key.text == "<<" => merged.push(node),
                Some(key) => match seen.get(&key.text) {
                    Some(first) => {
                        self.problems.push(duplicate(*first, &key));
                        join(entries, key, node);
                    }
                    None => {
                        seen.insert(key.text.clone(), key.place);
                        entries.push(Entry { key, value: node });
                    }
                },
            },
        }
        Ok(())
    }

    fn scan_error(&mut self, fault: &ScanError) -> Problem {
        let start = self.offsets.byte(self.text, fault.marker().index());
        let before = self.text.get(..start as usize).unwrap_or(self.text);
        if let Some(tab) = misplaced_tab(self.text, before.len(), fault.info()) {
            let at = u32::try_from(tab.at).unwrap_or(u32::MAX);
            return Problem::error(codes::YAML_TAB, tab.message)
                .at(self.place(at, at + 1), "here is the tab")
                .help(tab.help);
        }
        if fault.info().starts_with("recursion limit") {
            return self.too_deep(self.place(start, start));
        }
        let end = (start + 1).min(u32::try_from(self.text.len()).unwrap_or(u32::MAX));
        let (message, help) = in_plain_words(fault.info());
        Problem::error(codes::YAML_SYNTAX, message)
            .at(self.place(start.min(end), end), "reading stopped here")
            .help(help)
    }
}

fn duplicate(first: Place, second: &Key) -> Problem {
    Problem::error(codes::YAML_DUPLICATE_KEY, format!("`{}` is written twice", second.text))
        .at(second.place, "again here")
        .at(first, "first here")
        .help("keep one of them")
}

/// Where both values of a key are maps, what the second one adds is kept for the checks to come,
/// so that a host in a second `hosts:` is not found missing as well.
fn join(entries: &mut [Entry], key: Key, second: Node) {
    let first = entries.iter_mut().find(|e| e.key.text == key.text).map(|e| &mut e.value.value);
    if let (Some(Value::Map(first)), Value::Map(more)) = (first, second.value) {
        let have: HashSet<String> = first.iter().map(|e| e.key.text.clone()).collect();
        first.extend(more.into_iter().filter(|e| !have.contains(&e.key.text)));
    }
}

fn into_key(node: Node) -> Result<Key, Box<Problem>> {
    let text = match node.value {
        Value::Text(text) => text,
        Value::Int(n) => n.to_string(),
        Value::Float(n) => n.to_string(),
        Value::Bool(b) => b.to_string(),
        Value::Null => "null".to_owned(),
        Value::List(_) | Value::Map(_) => {
            return Err(Box::new(
                Problem::error(codes::YAML_KEY, "a list or map is used as a key")
                    .at(node.place, "a key is a word")
                    .help("quote it where braces or brackets are meant as text"),
            ));
        }
    };
    Ok(Key { id: node.id, place: node.place, text })
}

/// `<<: *base` adds the entries of `base` that the map does not have itself.
fn merge(mut entries: Vec<Entry>, merged: Vec<Node>) -> Vec<Entry> {
    if merged.is_empty() {
        return entries;
    }
    let mut have: HashSet<String> = entries.iter().map(|e| e.key.text.clone()).collect();
    let mut waiting: Vec<Node> = merged.into_iter().rev().collect();
    while let Some(node) = waiting.pop() {
        match node.value {
            Value::Map(more) => entries.extend(more.into_iter().filter(|e| have.insert(e.key.text.clone()))),
            Value::List(nodes) => waiting.extend(nodes.into_iter().rev()),
            _ => {}
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Node {
        let mut problems = Problems::default();
        let mut nodes = read(text, 0, &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        nodes.remove(0)
    }

    fn faults(text: &str) -> Vec<&'static str> {
        let mut problems = Problems::default();
        read(text, 0, &mut problems);
        problems.iter().map(|p| p.code.as_str()).collect()
    }

    #[test]
    fn every_key_and_value_knows_its_bytes_also_behind_letters_of_more_than_one() {
        let text = "name: café\nhosts:\n  ü1: { network: \"räck\" }\n";
        let node = one(text);
        let host = node.get("hosts").and_then(|h| h.get("ü1")).expect("host");
        let network = host.get("network").expect("network");
        assert_eq!(&text[network.place.start as usize..network.place.end as usize], "\"räck\"");
        assert_eq!(&text[host.place.start as usize..host.place.end as usize], "{ network: \"räck\" }");
    }

    #[test]
    fn plain_scalars_follow_the_core_schema_and_quoted_ones_are_text() {
        let node = one("[80, \"80\", 0x10, 1.5, yes, true, ~, 1.2.3.4, 10.0.0.0/8, -x, .5, 1e3]");
        let Value::List(items) = node.value else { panic!("a list") };
        let values: Vec<_> = items.into_iter().map(|n| n.value).collect();
        let text = |t: &str| Value::Text(t.to_owned());
        assert_eq!(
            values,
            [
                Value::Int(80),
                text("80"),
                Value::Int(16),
                Value::Float(1.5),
                text("yes"),
                Value::Bool(true),
                Value::Null,
                text("1.2.3.4"),
                text("10.0.0.0/8"),
                text("-x"),
                Value::Float(0.5),
                Value::Float(1000.0),
            ]
        );
    }

    #[test]
    fn a_duplicate_key_is_found_and_reading_goes_on() {
        assert_eq!(faults("a: 1\na: 2\nb: { c: 1, c: 2 }\n"), ["yaml-duplicate-key"; 2]);
    }

    #[test]
    fn a_bomb_of_aliases_stops_at_the_bound() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..12 {
            let inner = vec![format!("*a{}", i - 1); 10].join(", ");
            text.push_str(&format!("a{i}: &a{i} [{inner}]\n"));
        }
        assert_eq!(faults(&text), ["yaml-too-many-values"]);
    }

    #[test]
    fn depth_tabs_and_strange_keys_have_their_own_codes() {
        assert_eq!(faults(&"[".repeat(100)), ["yaml-too-deep"]);
        for tab in ["hosts:\n\tnode1: {}\n", "description: words\n\tmore\n", "hosts: { a: { network:\tlan } }\n"] {
            assert_eq!(faults(tab), ["yaml-tab"], "{tab:?}");
        }
        assert_eq!(faults("name: x\t# good\nhosts:\n  a:\t{}\t\n"), [""; 0]);
        assert_eq!(faults("? [a, b]\n: c\n"), ["yaml-key"]);
        assert_eq!(faults("a: [1, 2\nb: 3\n"), ["yaml-syntax"]);
    }

    #[test]
    fn merge_keys_add_what_is_missing() {
        let node = one("base: &b { x: 1, y: 2 }\nuse: { <<: *b, y: 3 }\n");
        let map = node.get("use").expect("use");
        assert_eq!(map.get("x").map(|n| &n.value), Some(&Value::Int(1)));
        assert_eq!(map.get("y").map(|n| &n.value), Some(&Value::Int(3)));
    }
}
