//! Where everything of a picture stands. The router lies on top, below each of its bridges the network that
//! is its switch, hosts and clients in columns on it, and pods in rows below their host's bridge.
//!
//! All lengths are pixels at which letters are 11 to 13 pixels high. A box lies in its parent, and boxes of
//! one parent do not touch. How lines run is `ways`', what stands in a machine `machine`'s.

mod machine;
mod ways;

use super::model::{Device, Graph, Link, LinkKind, Machine, MachineKind, Network};

use machine::Inside;

/// Around the picture, and around what stands in a box.
const MARGIN: i32 = 12;
/// A device's height.
const DEVICE: i32 = 22;
/// Between two boxes beside each other.
const GAP: i32 = 10;
/// Between two lines that run in parallel.
const TRACK: i32 = 7;
/// From the top of a network to its first tunnel.
const HEAD: i32 = 46;
/// Between two machines below each other, for lines to the lower one.
const BETWEEN: i32 = 34;
/// From the router's top to its bridges.
const ROUTER_HEAD: i32 = 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rect {
    pub x: i32,
    pub y: i32,
    pub w: i32,
    pub h: i32,
}

impl Rect {
    pub fn right(&self) -> i32 {
        self.x + self.w
    }

    pub fn bottom(&self) -> i32 {
        self.y + self.h
    }

    pub fn middle(&self) -> i32 {
        self.x + self.w / 2
    }

    pub fn centre(&self) -> i32 {
        self.y + self.h / 2
    }

    pub fn intersects(&self, other: &Rect) -> bool {
        self.x < other.right() && other.x < self.right() && self.y < other.bottom() && other.y < self.bottom()
    }

    pub fn contains(&self, other: &Rect) -> bool {
        self.x <= other.x && self.y <= other.y && other.right() <= self.right() && other.bottom() <= self.bottom()
    }
}

/// A box of the picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    pub id: String,
    /// What it is, in words that a style sheet has: `host`, `device vxlan`.
    pub class: String,
    pub rect: Rect,
    /// Index into [`Layout::boxes`].
    pub parent: Option<usize>,
    pub texts: Vec<Text>,
    /// What there is to say of it, a line each, its name first.
    pub says: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Text {
    pub x: i32,
    /// The line that the letters stand on.
    pub y: i32,
    pub class: &'static str,
    /// Whether `x` is its middle; otherwise it is where the text begins.
    pub is_centred: bool,
    pub text: String,
}

/// A line of the picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Way {
    pub kind: LinkKind,
    /// The devices that it joins; nothing where it joins many.
    pub ends: Option<(String, String)>,
    pub points: Vec<(i32, i32)>,
}

/// A picture's boxes, parents before what is in them, and lines.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Layout {
    pub width: i32,
    pub height: i32,
    pub boxes: Vec<Placed>,
    pub ways: Vec<Way>,
    /// Words beside lines.
    pub captions: Vec<Text>,
}

/// The letters of a kind that fit into `width`, as far as that can be known without the font.
pub(super) fn fitting(text: &str, class: &str, width: i32) -> String {
    let most = usize::try_from(width * 10 / letter(class)).unwrap_or_default();
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(std::iter::once('…')).collect()
}

/// Pixels that a text takes, in the widest of the usual fonts.
pub fn width(text: &str, class: &str) -> i32 {
    i32::try_from(text.chars().count()).unwrap_or(i32::MAX / 100) * letter(class) / 10 + 1
}

/// Tenths of a pixel that a letter takes.
fn letter(class: &str) -> i32 {
    match class {
        "name" => 78,
        _ => 67,
    }
}

/// Machines below each other, with what is in each.
struct Column<'g> {
    machines: Vec<(&'g Machine, Inside)>,
    width: i32,
}

impl<'g> Column<'g> {
    fn of(machines: Vec<&'g Machine>) -> Column<'g> {
        let machines: Vec<(&Machine, Inside)> = machines.into_iter().map(|m| (m, Inside::of(m))).collect();
        let width = machines.iter().map(|(_, inside)| inside.width).max().unwrap_or_default();
        Column { machines, width }
    }

    /// Room beside it for the lines to all machines but the uppermost.
    fn gutter(&self) -> i32 {
        GAP + TRACK * (count(self.machines.len()) - 1).max(0)
    }
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX / 1000)
}

/// Hosts side by side, in several rows where they are many; clients in columns behind them.
fn columns(network: &Network) -> Vec<Column<'_>> {
    let of = |kind: MachineKind| -> Vec<&Machine> { network.machines.iter().filter(|m| m.kind == kind).collect() };
    let (hosts, clients) = (of(MachineKind::Host), of(MachineKind::Client));
    let beside = if hosts.len() <= 4 { hosts.len() } else { (2..).find(|n| n * n * 5 >= hosts.len() * 8).unwrap_or(1) };
    let mut columns: Vec<Column> =
        (0..beside).map(|c| Column::of(hosts.iter().skip(c).step_by(beside).copied().collect())).collect();
    let below = 3.max(2 * hosts.len().div_ceil(beside.max(1)));
    columns.extend(clients.chunks(below).map(|chunk| Column::of(chunk.to_vec())));
    columns
}

/// Place everything of `graph`.
pub fn of(graph: &Graph) -> Layout {
    let lanes: Vec<Vec<Column>> = graph.networks.iter().map(columns).collect();
    let deepest = lanes.iter().flatten().map(|c| c.machines.len()).max().unwrap_or_default();
    let router = Rect { x: MARGIN, y: MARGIN, w: 0, h: ROUTER_HEAD + DEVICE + 8 + count(deepest) * (DEVICE + 6) + GAP };
    let tracks = match &graph.tunnel {
        None => 0,
        Some(tunnel) if tunnel.is_mesh => 1,
        Some(_) => count(graph.links.iter().filter(|l| l.kind == LinkKind::Tunnel).count()),
    };
    let mut place =
        Place { layout: Layout::default(), graph, lane_top: router.bottom() + 24, tracks, stacks: Vec::new() };
    place.push(None, Placed::new("router", "router", router, &["router".to_owned()]));
    let mut x = MARGIN;
    for (network, columns) in graph.networks.iter().zip(&lanes) {
        x = place.lane(network, columns, x) + GAP;
    }
    place.finish(x - GAP)
}

impl Placed {
    fn new(id: &str, class: &str, rect: Rect, says: &[String]) -> Placed {
        Placed {
            id: id.to_owned(),
            class: class.to_owned(),
            rect,
            parent: None,
            texts: Vec::new(),
            says: says.to_vec(),
        }
    }

    /// Write `text` into it, as much of it as fits.
    fn write(&mut self, x: i32, y: i32, class: &'static str, text: &str) {
        let text = fitting(text, class, self.rect.w - x - 2);
        self.texts.push(Text { x: self.rect.x + x, y: self.rect.y + y, class, is_centred: false, text });
    }

    fn write_centred(&mut self, y: i32, class: &'static str, text: &str) {
        let text = fitting(text, class, self.rect.w - 8);
        self.texts.push(Text { x: self.rect.middle(), y: self.rect.y + y, class, is_centred: true, text });
    }

    /// A device with its name in it.
    fn device(device: &Device, rect: Rect) -> Placed {
        let mut placed = Placed::new(&device.id, &format!("device {}", device.kind.word()), rect, &device.says());
        placed.write_centred(15, "mono", &device.label().replace('\n', "  "));
        placed
    }
}

/// A device's width, where nothing else says.
fn device_width(device: &Device) -> i32 {
    (width(&device.name, "mono") + 16).max(54)
}

/// The picture as far as it is placed.
struct Place<'g> {
    layout: Layout,
    graph: &'g Graph,
    lane_top: i32,
    tracks: i32,
    /// Each machine's place in its column.
    stacks: Vec<Stack>,
}

/// A machine's place in its column: how many stand above it, and the column's sides.
struct Stack {
    machine: String,
    above: i32,
    top: i32,
    left: i32,
    right: i32,
}

impl Place<'_> {
    /// Add a box; the answer is its index.
    fn push(&mut self, parent: Option<usize>, placed: Placed) -> usize {
        self.layout.boxes.push(Placed { parent, ..placed });
        self.layout.boxes.len() - 1
    }

    /// A network from `x` on; the answer is its right side.
    fn lane(&mut self, network: &Network, columns: &[Column], x: i32) -> i32 {
        let lane = self.layout.boxes.len();
        let says = [network.name.clone(), network.says.clone()];
        let top = self.lane_top;
        self.push(
            None,
            Placed::new(&format!("network/{}", network.name), "network", Rect { x, y: top, w: 0, h: 0 }, &says),
        );
        let first = top + HEAD + self.tracks * TRACK + BETWEEN / 2;
        let (mut at, mut bottom) = (x, first);
        for column in columns {
            at += column.gutter();
            let mut y = first;
            for (above, (machine, inside)) in column.machines.iter().enumerate() {
                let rect = Rect { x: at, y, w: column.width, h: inside.height };
                let above = count(above);
                self.stacks.push(Stack { machine: machine.id.clone(), above, top: y, left: at, right: rect.right() });
                let eth0 = self.machine(lane, machine, inside, rect);
                self.port(machine, eth0, (above, count(column.machines.len())));
                y = rect.bottom() + BETWEEN;
            }
            bottom = bottom.max(y - BETWEEN);
            at += column.width + column.gutter();
        }
        // Behind the cable of the first machine.
        let title = columns.first().map(Column::gutter).unwrap_or_default() + 62;
        let w = (at - x).max(title + width(&network.name, "name").max(width(&network.says, "small")) + MARGIN);
        self.layout.boxes[lane].rect = Rect { x, y: top, w, h: bottom + MARGIN - top };
        let placed = &mut self.layout.boxes[lane];
        placed.write(title, 20, "name", &network.name);
        placed.write(title, 35, "small", &network.says);
        if let Some(bridge) = &network.bridge {
            let rect = Rect { x: x + 6, y: MARGIN + ROUTER_HEAD, w: w - 12, h: DEVICE };
            self.push(Some(0), Placed::device(bridge, rect));
        }
        x + w
    }

    /// The router's end of a machine's cable, above the middle of its eth0. The uppermost machine of a
    /// column has the lowest one.
    fn port(&mut self, machine: &Machine, eth0: i32, (above, all): (i32, i32)) {
        let Some(port) = &machine.port else { return };
        let w = device_width(port);
        let y = MARGIN + ROUTER_HEAD + DEVICE + 8 + (all - 1 - above) * (DEVICE + 6) + 6;
        let rect = Rect { x: eth0 - w / 2, y, w, h: DEVICE };
        self.push(Some(0), Placed::device(port, rect));
    }

    /// Give the router and the lanes their sizes, and draw the lines.
    fn finish(mut self, right: i32) -> Layout {
        let bottom = self.layout.boxes.iter().map(|b| b.rect.bottom()).max().unwrap_or_default();
        for placed in self.layout.boxes.iter_mut().filter(|b| b.class == "network") {
            placed.rect.h = bottom - placed.rect.y;
        }
        if let Some(router) = self.layout.boxes.first_mut() {
            router.rect.w = right - MARGIN;
            router.write(MARGIN, 20, "name", "router");
        }
        ways::add(&mut self);
        self.layout.width = right + MARGIN;
        self.layout.height = bottom + MARGIN;
        self.layout
    }
}

/// The links of a kind.
fn links_of(graph: &Graph, kind: LinkKind) -> impl Iterator<Item = &Link> {
    graph.links.iter().filter(move |l| l.kind == kind)
}
