//! The picture as a Mermaid flowchart, as Markdown takes it. A pod is one box here, with its device in its
//! words: Mermaid finds no good place for a box in a box in a box.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::model::{Device, Graph, LinkKind, Machine, PodBox};

/// The lab as a flowchart.
pub fn write(graph: &Graph) -> String {
    let mut out = Chart { text: "flowchart TB\n".to_owned(), nodes: BTreeMap::new(), boxes: 0 };
    out.open(1, "router");
    for network in &graph.networks {
        network.bridge.iter().for_each(|d| out.device(2, d));
        network.machines.iter().filter_map(|m| m.port.as_ref()).for_each(|d| out.device(2, d));
    }
    out.close(1);
    for network in &graph.networks {
        out.open(1, &format!("{} {}", network.name, network.says));
        network.machines.iter().for_each(|m| out.machine(m));
        out.close(1);
    }
    for link in &graph.links {
        match link.kind {
            LinkKind::Cable | LinkKind::Plug => out.link(&link.from, "---", &link.to),
            // Mermaid draws what stands in front above what stands behind.
            LinkKind::Carrier => out.link(&link.to, "-.-", &link.from),
            LinkKind::Tunnel => out.link(&link.from, "-.-", &link.to),
        }
    }
    if let Some(tunnel) = graph.tunnel.as_ref().filter(|t| t.is_mesh) {
        out.node(1, "mesh", &tunnel.says, ("([", "])"));
        tunnel.ends.iter().for_each(|end| out.link(end, "-.-", "mesh"));
    }
    out.text
}

struct Chart {
    text: String,
    /// The chart's name of each device.
    nodes: BTreeMap<String, String>,
    boxes: usize,
}

impl Chart {
    fn line(&mut self, depth: usize, text: &str) {
        // Writing into a string cannot fail.
        let _ = writeln!(self.text, "{:width$}{text}", "", width = 2 * depth);
    }

    fn open(&mut self, depth: usize, title: &str) {
        self.boxes += 1;
        let line = format!("subgraph s{}[\"{}\"]", self.boxes, quoted(title));
        self.line(depth, &line);
    }

    fn close(&mut self, depth: usize) {
        self.line(depth, "end");
    }

    fn node(&mut self, depth: usize, id: &str, label: &str, (open, close): (&str, &str)) {
        let name = format!("n{}", self.nodes.len() + 1);
        self.line(depth, &format!("{name}{open}\"{}\"{close}", quoted(label)));
        self.nodes.insert(id.to_owned(), name);
    }

    fn device(&mut self, depth: usize, device: &Device) {
        self.node(depth, &device.id, &device.label(), ("[", "]"));
    }

    fn machine(&mut self, machine: &Machine) {
        self.open(2, &machine.name);
        machine.devices.iter().chain(&machine.bridge).for_each(|d| self.device(3, d));
        machine.pods.iter().filter_map(|p| p.port.as_ref()).for_each(|d| self.device(3, d));
        machine.pods.iter().for_each(|p| self.pod(p));
        self.close(2);
    }

    fn pod(&mut self, pod: &PodBox) {
        let devices: Vec<&str> = pod.devices.iter().map(|d| d.name.as_str()).collect();
        let label = format!("{}\n{}\n{}", pod.name, pod.says(), devices.join(", "));
        self.node(3, &pod.id, &label, ("([", "])"));
        let Some(name) = self.nodes.get(&pod.id).cloned() else { return };
        self.nodes.extend(pod.devices.iter().map(|d| (d.id.clone(), name.clone())));
    }

    fn link(&mut self, from: &str, line: &str, to: &str) {
        let (Some(from), Some(to)) = (self.nodes.get(from), self.nodes.get(to)) else { return };
        let text = format!("{from} {line} {to}");
        self.line(1, &text);
    }
}

/// Text as it may stand between Mermaid's quotes: what has a meaning there or in HTML is written by its
/// number.
fn quoted(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' => "<br/>".to_owned(),
            '"' | '<' | '>' | '&' | '#' | ';' | '`' | '\\' => format!("#{};", u32::from(c)),
            c if c.is_control() => " ".to_owned(),
            c => c.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_ends_the_quotes() {
        assert_eq!(quoted("a\"]\n<b>#`"), "a#34;]<br/>#60;b#62;#35;#96;");
    }
}
