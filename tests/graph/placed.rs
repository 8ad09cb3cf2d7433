//! Where everything of a picture stands: nothing lies on anything else.

use std::collections::BTreeMap;

use labctl::graph::layout::{self, Layout, Placed, Rect};
use labctl::graph::model::LinkKind;

use super::labs;

crate::tests![&[];
    boxes_of_one_parent_do_not_touch,
    boxes_lie_in_their_parents_and_in_the_picture,
    lines_end_at_what_they_join,
    lines_pass_no_box_that_is_not_theirs,
    words_fit_into_their_boxes,
];

/// Every lab, with its pods drawn as few and as many boxes.
fn pictures() -> impl Iterator<Item = (String, Layout)> {
    labs()
        .into_iter()
        .flat_map(|lab| [false, true].map(|all| (format!("{}, all: {all}", lab.name), layout::of(&lab.graph(all)))))
}

fn boxes_of_one_parent_do_not_touch() {
    for (name, picture) in pictures() {
        for (n, a) in picture.boxes.iter().enumerate() {
            for b in &picture.boxes[n + 1..] {
                let touch = a.parent == b.parent && a.rect.intersects(&b.rect);
                assert!(!touch, "{name}: {} and {}: {:?} {:?}", a.id, b.id, a.rect, b.rect);
            }
        }
    }
}

fn boxes_lie_in_their_parents_and_in_the_picture() {
    for (name, picture) in pictures() {
        let whole = Rect { x: 0, y: 0, w: picture.width, h: picture.height };
        for (n, placed) in picture.boxes.iter().enumerate() {
            assert!(placed.parent.is_none_or(|parent| parent < n), "{name}: {} comes before its parent", placed.id);
            let around = placed.parent.map_or(whole, |parent| picture.boxes[parent].rect);
            assert!(around.contains(&placed.rect), "{name}: {}: {:?} in {around:?}", placed.id, placed.rect);
            assert!(placed.rect.w > 0 && placed.rect.h > 0, "{name}: {placed:?}");
        }
    }
}

fn by_id(picture: &Layout) -> BTreeMap<&str, &Placed> {
    let found: BTreeMap<&str, &Placed> = picture.boxes.iter().map(|b| (b.id.as_str(), b)).collect();
    assert_eq!(found.len(), picture.boxes.len(), "two boxes have one name");
    found
}

fn touches(rect: Rect, (x, y): (i32, i32)) -> bool {
    (rect.x..=rect.right()).contains(&x) && (rect.y..=rect.bottom()).contains(&y)
}

fn lines_end_at_what_they_join() {
    for (name, picture) in pictures() {
        let boxes = by_id(&picture);
        for way in &picture.ways {
            let (Some((a, b)), [first, .., last]) = (&way.ends, way.points.as_slice()) else {
                assert!(way.ends.is_none() && way.kind == LinkKind::Tunnel, "{name}: {way:?}");
                continue;
            };
            let (a, b) = (boxes[a.as_str()].rect, boxes[b.as_str()].rect);
            let joined = touches(a, *first) && touches(b, *last) || touches(a, *last) && touches(b, *first);
            assert!(joined, "{name}: {way:?} joins {a:?} and {b:?}");
        }
    }
}

/// Whether the straight line, which is level or upright, passes through the inside.
fn passes(rect: Rect, (a, b): ((i32, i32), (i32, i32))) -> bool {
    assert!(a.0 == b.0 || a.1 == b.1, "{a:?} to {b:?} is aslant");
    let (left, right) = (a.0.min(b.0), a.0.max(b.0));
    let (top, bottom) = (a.1.min(b.1), a.1.max(b.1));
    left < rect.right() && right > rect.x && top < rect.bottom() && bottom > rect.y
}

fn lines_pass_no_box_that_is_not_theirs() {
    for (name, picture) in pictures() {
        let own = |id: &str| {
            let mut at = picture.boxes.iter().position(|b| b.id == id);
            let mut found = Vec::new();
            while let Some(n) = at {
                found.push(n);
                at = picture.boxes[n].parent;
            }
            found
        };
        for way in &picture.ways {
            let Some((a, b)) = &way.ends else { continue };
            let theirs = [own(a), own(b)].concat();
            for segment in way.points.windows(2) {
                for (n, placed) in picture.boxes.iter().enumerate() {
                    let is_ground = placed.class == "network" || placed.class == "router";
                    let hit = !is_ground && !theirs.contains(&n) && passes(placed.rect, (segment[0], segment[1]));
                    assert!(!hit, "{name}: {way:?} passes through {} at {:?}", placed.id, placed.rect);
                }
            }
        }
    }
}

fn words_fit_into_their_boxes() {
    for (name, picture) in pictures() {
        for placed in &picture.boxes {
            for text in &placed.texts {
                let width = layout::width(&text.text, text.class);
                let left = if text.is_centred { text.x - width / 2 } else { text.x };
                let fits = left >= placed.rect.x && left + width <= placed.rect.right() + 2;
                assert!(fits, "{name}: {:?} in {:?}", text, placed.rect);
                assert!(!text.text.is_empty() && text.y > placed.rect.y && text.y < placed.rect.bottom(), "{text:?}");
            }
        }
    }
}
