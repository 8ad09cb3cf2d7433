//! `get rules`: a host's rules of kube-proxy as a tree that a person can follow.

use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Value, json};

use crate::daemon::client::Client;
use crate::diag::{Problem, codes};
use crate::objects::ObjectKey;
use crate::plan::proxy::explain::{Branch, Tree};
use crate::spec::edit::ObjectKind;

use super::args::GetArgs;
use super::output::{self, count};
use super::{Done, find_lab, kube, named};

/// The width that a tree is folded to where the terminal has more: longer lines are hard to follow.
const WIDEST: usize = 100;
/// And the least that is left for words, however deep the tree is.
const NARROWEST: usize = 30;

/// A host with its rules.
#[derive(Serialize)]
struct OfHost {
    host: String,
    rules: Vec<Tree>,
}

/// `names` are a host and a service; where the host is left out, every host is shown.
pub fn run(args: &GetArgs, names: &[&str]) -> Done {
    let client = find_lab(args.lab())?;
    let hosts: Vec<String> = kube::items(&client, "/api/v1/nodes")?.iter().map(|h| name_of(h).to_owned()).collect();
    let (chosen, service) = match *names {
        [] => return Err(without_host(&hosts).into()),
        [host] if hosts.iter().any(|h| host == h) => (vec![host.to_owned()], None),
        [word] => match key_of_service(&client, args, word)? {
            Some(key) => (hosts, Some(key)),
            None => (vec![word.to_owned()], None),
        },
        [host, service] => {
            let key = named::key(service, Some(&args.scope.namespace));
            kube::one(&client, ObjectKind::Service, &key)?;
            (vec![host.to_owned()], Some(key))
        }
        [.., more] => {
            let problem = Problem::error(codes::TARGET_UNKNOWN, format!("`{more}` is one name too many"));
            return Err(Box::new(problem.help("name a host and a service: `labctl get rules HOST [SERVICE]`")).into());
        }
    };
    let one = |host: String| -> Result<OfHost, Box<Problem>> {
        let service = service.as_ref().map(|key| format!("&service={key}")).unwrap_or_default();
        Ok(OfHost { rules: client.get(&format!("/labctl/v1/inspect/rules?target={host}{service}"))?, host })
    };
    let several = names.len() == 1 && service.is_some();
    let all = chosen.into_iter().map(one).collect::<Result<Vec<OfHost>, _>>()?;
    let value = match all.as_slice() {
        [only] if !several => json!(only.rules),
        all => json!(all),
    };
    output::print(args.format.output, &value, |wide| {
        let parts = all.iter().map(|of| {
            let heading = if several { format!("host {}\n", of.host) } else { String::new() };
            heading + &of_host(of, service.as_ref(), wide)
        });
        parts.collect::<Vec<_>>().join("\n")
    });
    Ok(ExitCode::SUCCESS)
}

fn name_of(object: &Value) -> &str {
    output::text(object, "/metadata/name")
}

fn without_host(hosts: &[String]) -> Box<Problem> {
    let problem = Problem::error(codes::TARGET_UNKNOWN, "rules are those of a host");
    Box::new(problem.help(format!("name one with `labctl get rules HOST [SERVICE]`: {}", hosts.join(", "))))
}

/// The service that is meant where a host was to be named.
fn key_of_service(client: &Client, args: &GetArgs, word: &str) -> Result<Option<ObjectKey>, Box<Problem>> {
    let key = named::key(word, Some(&args.scope.namespace));
    let all = kube::list(client, ObjectKind::Service, Some(&key.namespace))?;
    Ok(all.iter().any(|service| name_of(service) == key.name).then_some(key))
}

fn of_host(of: &OfHost, service: Option<&ObjectKey>, wide: bool) -> String {
    if of.rules.is_empty() {
        let what = service.map_or("of kube-proxy".to_owned(), |s| format!("for {s}"));
        return format!("host {} has no rules {what}\n", of.host);
    }
    of.rules.iter().map(|tree| text(tree, wide)).collect::<Vec<_>>().join("\n")
}

fn text(tree: &Tree, wide: bool) -> String {
    let mut out = format!("{} {}: {}\n", tree.table, tree.chain, tree.meaning);
    branches(&tree.rules, "", wide, &mut out);
    out
}

fn branches(all: &[Branch], indent: &str, wide: bool, out: &mut String) {
    for (n, branch) in all.iter().enumerate() {
        let last = n + 1 == all.len();
        let (first, rest) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        let below = if branch.below.is_empty() { "   " } else { "│  " };
        let packets = count(usize::try_from(branch.packets).unwrap_or(usize::MAX), "packet");
        let target = branch.target.as_ref().map(|t| format!(" → {t}")).unwrap_or_default();
        let words = format!("{}{target} ({packets})", branch.meaning);
        let start = indent.chars().count() + 3;
        let room = output::width().min(WIDEST).saturating_sub(start).max(NARROWEST);
        for (line, words) in fold(&words, room).iter().enumerate() {
            let mark = if line == 0 { first.to_owned() } else { format!("{rest}{below}") };
            out.push_str(&format!("{indent}{mark}{words}\n"));
        }
        if wide {
            out.push_str(&format!("{indent}{rest}{below}{}\n", branch.rule));
        }
        branches(&branch.below, &format!("{indent}{rest}"), wide, out);
    }
}

/// Words in lines of at most `room` letters; those behind the first stand three letters further in.
fn fold(words: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in words.split(' ') {
        let room = if lines.len() == 1 { room } else { room.saturating_sub(3) };
        let Some(line) = lines.last_mut() else { break };
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= room {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deep_tree_fits_into_eighty_columns() {
        let leaf = |meaning: &str| Branch {
            packets: 12,
            bytes: 720,
            meaning: meaning.to_owned(),
            target: Some("KUBE-SEP-ABCDEFGHIJKLMNOP".to_owned()),
            rule: String::new(),
            below: Vec::new(),
        };
        let long =
            "endpoint 1 of 3: kube-system/a-long-name-of-a-pod-1 10.244.100.200:30080, chosen with probability 1/3";
        let mut branch = leaf(long);
        for _ in 0..4 {
            branch = Branch { below: vec![leaf(long), branch], ..leaf(long) };
        }
        let tree = Tree {
            table: "nat".to_owned(),
            chain: "KUBE-SERVICES".to_owned(),
            meaning: "all".to_owned(),
            rules: vec![branch],
        };
        let drawn = text(&tree, false);
        let widest = drawn.lines().map(|l| l.chars().count()).max();
        assert!(widest.is_some_and(|w| w <= output::width().min(WIDEST)), "{drawn}");
        assert_eq!(fold("a bc def", 4), ["a bc", "def"]);
    }
}
