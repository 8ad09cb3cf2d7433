//! The picture as one HTML page that needs nothing beside it and asks nobody for anything, and the player
//! that moves a packet of a trace along it.
//!
//! Text reaches the page in two ways: escaped between tags, and as JSON in which no sign has a meaning
//! in HTML; the page's script writes it as text alone. A policy in the page lets no other script run.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::trace::model::Trace;
use crate::trace::show;
use crate::xml::whole;

use super::layout;
use super::model::{Device, Graph, Machine};
use super::svg;

const PAGE: &str = include_str!("page/page.html");
const ASKED: &str = include_str!("page/asked.html");
const PLAYER: &str = include_str!("page/player.html");
const STYLE: &str = include_str!("page/page.css");
const PLAY: &str = include_str!("page/play.js");
const SCENE: &str = include_str!("page/scene.js");

/// What the page's script reads.
#[derive(Serialize)]
struct Data<'g> {
    /// What is drawn as a part of something else.
    folded: &'g std::collections::BTreeMap<String, String>,
    trace: Option<&'g Trace>,
    /// The numbers of packets with a way of their own, which the others went along with.
    own: Vec<u32>,
}

/// The page of a lab, with a player where there is a trace.
pub fn write(graph: &Graph, trace: Option<&Trace>) -> String {
    let layout = layout::of(graph);
    let style = format!("{}{STYLE}", svg::STYLE);
    let script = format!("\"use strict\";\n{SCENE}{PLAY}");
    let description = graph.description.iter().map(|text| format!("<p>{}</p>", whole(text)));
    let with_trace = |part: &str| trace.map(|_| part.to_owned()).unwrap_or_default();
    let values = [
        ("policy", policy(&style, &script)),
        ("lab", whole(&graph.lab)),
        ("description", description.collect()),
        ("width", layout.width.to_string()),
        ("height", layout.height.to_string()),
        ("drawing", svg::drawing(&layout)),
        ("asked", with_trace(ASKED)),
        ("player", with_trace(PLAYER)),
        ("kind", trace.map_or("still", |_| "plays").to_owned()),
        ("list", list(graph)),
        ("data", json(&Data { folded: &graph.folded, trace, own: trace.map(show::told).unwrap_or_default() })),
        ("style", style),
        ("script", script),
    ];
    fill(PAGE, &values)
}

/// `template` with each `{{name}}` replaced. What is put in is not looked at again.
fn fill(template: &str, values: &[(&str, String)]) -> String {
    let mut parts = template.split("{{");
    let mut page = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once("}}").unwrap_or((part, ""));
        let value = values.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str());
        page.push_str(value.unwrap_or_default());
        page.push_str(rest);
    }
    page
}

/// Nothing may be loaded, and no style or script but the page's own counts.
fn policy(style: &str, script: &str) -> String {
    let digest = |text: &str| STANDARD.encode(Sha256::digest(text.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        digest(style),
        digest(script)
    )
}

/// JSON that may stand in a `script` element: in strings, where alone these signs occur, each is written by
/// its number.
fn json(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value).unwrap_or_else(|_| "{}".to_owned());
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                // Writing into a string cannot fail.
                let _ = write!(safe, "\\u{:04x}", u32::from(c));
            }
            c => safe.push(c),
        }
    }
    safe
}

/// The lab in words, for those who do not see the picture.
fn list(graph: &Graph) -> String {
    let mut out = String::from("<ul>\n");
    for network in &graph.networks {
        let _ = writeln!(out, "<li>network {}: {}\n<ul>", whole(&network.name), whole(&network.says));
        network.bridge.iter().for_each(|d| item(&mut out, "router: ", d));
        network.machines.iter().for_each(|m| machine(&mut out, m));
        out.push_str("</ul></li>\n");
    }
    if let Some(tunnel) = &graph.tunnel {
        let _ = writeln!(out, "<li>between hosts: {}</li>", whole(&tunnel.says));
    }
    out + "</ul>"
}

fn machine(out: &mut String, machine: &Machine) {
    let _ = writeln!(out, "<li>{}: {}\n<ul>", whole(&machine.id), whole(&machine.says()));
    machine.port.iter().for_each(|d| item(out, "router: ", d));
    machine.devices.iter().chain(&machine.bridge).for_each(|d| item(out, "", d));
    for pod in &machine.pods {
        let _ = writeln!(out, "<li>pod {}: {}\n<ul>", whole(&pod.name), whole(&pod.says()));
        pod.port.iter().for_each(|d| item(out, "on the host: ", d));
        pod.devices.iter().for_each(|d| item(out, "", d));
        out.push_str("</ul></li>\n");
    }
    out.push_str("</ul></li>\n");
}

fn item(out: &mut String, before: &str, device: &Device) {
    let _ = writeln!(out, "<li>{before}{}</li>", whole(&device.says().join(", ")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_no_sign_that_html_knows_and_reads_back_as_it_was() {
        let hostile = "</script><!--&\u{2028}\"";
        let text = json(&hostile);
        assert!(!text.contains(['<', '>', '&', '\u{2028}']), "{text}");
        assert_eq!(serde_json::from_str::<String>(&text).expect("JSON"), hostile);
    }

    #[test]
    fn what_is_put_into_a_template_is_not_filled_again() {
        let values = [("a", "{{b}}".to_owned()), ("b", "B".to_owned())];
        assert_eq!(fill("<{{a}}{{b}}>", &values), "<{{b}}B>");
    }
}
