//! The picture as SVG: one file that needs nothing beside it, light or dark as its reader likes it.

use std::fmt::Write;

use crate::xml::whole;

use super::layout::{self, Layout, Placed, Text, Way};
use super::model::Graph;

/// The colours and lines of the picture, for the page as well.
pub const STYLE: &str = include_str!("page/picture.css");

/// The picture as a file of its own.
pub fn write(graph: &Graph) -> String {
    let layout = layout::of(graph);
    let (width, height) = (layout.width, layout.height);
    let title = whole(&format!("Lab {}", graph.lab));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"lab\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n\
         <rect class=\"paper\" width=\"{width}\" height=\"{height}\"/>\n{}</svg>\n",
        drawing(&layout)
    )
}

/// What stands between the picture's tags: boxes from the outside in, lines between them.
pub fn drawing(layout: &Layout) -> String {
    let mut svg = String::new();
    let is_device = |placed: &&Placed| placed.class.starts_with("device");
    layout.boxes.iter().filter(|b| !is_device(b)).for_each(|b| placed(&mut svg, b));
    layout.ways.iter().for_each(|w| way(&mut svg, w));
    layout.boxes.iter().filter(is_device).for_each(|b| placed(&mut svg, b));
    layout.captions.iter().for_each(|t| text(&mut svg, t));
    svg
}

fn placed(svg: &mut String, placed: &Placed) {
    let layout::Rect { x, y, w, h } = placed.rect;
    let (id, class, says) = (whole(&placed.id), whole(&placed.class), whole(&placed.says.join(", ")));
    // Writing into a string cannot fail.
    let _ = writeln!(svg, "<g class=\"{class}\" data-id=\"{id}\"><title>{says}</title>");
    if placed.class == "pod many" {
        let _ = writeln!(
            svg,
            "<rect class=\"behind\" x=\"{}\" y=\"{}\" width=\"{w}\" height=\"{h}\" rx=\"6\"/>",
            x + 4,
            y + 4
        );
    }
    let _ = writeln!(svg, "<rect x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" rx=\"6\"/>");
    placed.texts.iter().for_each(|t| text(svg, t));
    svg.push_str("</g>\n");
}

fn text(svg: &mut String, text: &Text) {
    let anchor = if text.is_centred { " text-anchor=\"middle\"" } else { "" };
    let (x, y, class, words) = (text.x, text.y, text.class, whole(&text.text));
    let _ = writeln!(svg, "<text class=\"{class}\" x=\"{x}\" y=\"{y}\"{anchor}>{words}</text>");
}

fn way(svg: &mut String, way: &Way) {
    let mut path = String::new();
    for (n, (x, y)) in way.points.iter().enumerate() {
        let _ = write!(path, "{}{x} {y}", if n == 0 { "M" } else { " L" });
    }
    let ends = way.ends.as_ref();
    let ends = ends.map(|(a, b)| format!(" data-from=\"{}\" data-to=\"{}\"", whole(a), whole(b))).unwrap_or_default();
    let _ = writeln!(svg, "<path class=\"way {}\" d=\"{path}\"{ends}/>", way.kind.word());
}
