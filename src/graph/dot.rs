//! The picture in DOT, the language of Graphviz.

use std::fmt::Write;

use super::model::{Device, DeviceKind, Graph, LinkKind, Machine, PodBox};

/// The lab as an undirected graph, with a cluster for each namespace and network.
pub fn write(graph: &Graph) -> String {
    let mut out = Dot { text: String::new(), depth: 0 };
    out.open(&format!("graph {}", quoted(&graph.lab)));
    out.line("compound=true; rankdir=TB; fontname=\"sans-serif\";");
    out.line("node [shape=box, style=rounded, fontname=\"sans-serif\", fontsize=10];");
    out.cluster("router", "router");
    for network in &graph.networks {
        network.bridge.iter().for_each(|d| out.device(d));
        network.machines.iter().filter_map(|m| m.port.as_ref()).for_each(|d| out.device(d));
    }
    out.close();
    for network in &graph.networks {
        out.cluster(&format!("network/{}", network.name), &format!("{}\n{}", network.name, network.says));
        network.machines.iter().for_each(|m| out.machine(m));
        out.close();
    }
    for link in &graph.links {
        let more = match link.kind {
            LinkKind::Plug => "",
            LinkKind::Cable => " [style=bold]",
            // They need not stand below each other.
            LinkKind::Carrier | LinkKind::Tunnel => " [style=dashed, constraint=false]",
        };
        out.line(&format!("{} -- {}{more};", quoted(&link.from), quoted(&link.to)));
    }
    if let Some(tunnel) = graph.tunnel.as_ref().filter(|t| t.is_mesh) {
        out.line(&format!("mesh [label={}, shape=ellipse];", quoted(&tunnel.says)));
        tunnel.ends.iter().for_each(|end| out.line(&format!("{} -- mesh [style=dashed];", quoted(end))));
    }
    out.close();
    out.text
}

struct Dot {
    text: String,
    depth: usize,
}

impl Dot {
    fn line(&mut self, text: &str) {
        // Writing into a string cannot fail.
        let _ = writeln!(self.text, "{:width$}{text}", "", width = 2 * self.depth);
    }

    fn open(&mut self, what: &str) {
        self.line(&format!("{what} {{"));
        self.depth += 1;
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.line("}");
    }

    fn cluster(&mut self, id: &str, label: &str) {
        self.open(&format!("subgraph {}", quoted(&format!("cluster_{id}"))));
        self.line(&format!("label={};", quoted(label)));
    }

    fn device(&mut self, device: &Device) {
        let shape = match device.kind {
            DeviceKind::Bridge => ", style=filled",
            DeviceKind::Program => ", shape=ellipse",
            _ => "",
        };
        self.line(&format!("{} [label={}{shape}];", quoted(&device.id), quoted(&device.label())));
    }

    fn machine(&mut self, machine: &Machine) {
        self.cluster(&machine.id, &format!("{}\n{}", machine.name, machine.says()));
        machine.devices.iter().chain(&machine.bridge).for_each(|d| self.device(d));
        for pod in &machine.pods {
            pod.port.iter().for_each(|d| self.device(d));
            self.pod(pod);
        }
        self.close();
    }

    fn pod(&mut self, pod: &PodBox) {
        self.cluster(&pod.id, &format!("{}\n{}", pod.name, pod.says()));
        pod.devices.iter().for_each(|d| self.device(d));
        self.close();
    }
}

/// Text between DOT's quotes, in which a backslash has a meaning of its own.
fn quoted(text: &str) -> String {
    let escaped = text.chars().map(|c| match c {
        '\n' => "\\n".to_owned(),
        '"' => "\\\"".to_owned(),
        '\\' => "\\\\".to_owned(),
        c if c.is_control() => " ".to_owned(),
        c => c.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_ends_the_quotes() {
        assert_eq!(quoted("a\"\\\n"), "\"a\\\"\\\\\\n\"");
    }
}
