// The picture: its size, where its devices are, and the marker that stands for a packet.

const SVG = document.getElementById("lab");
const VIEW = document.getElementById("view");
const DATA = JSON.parse(document.getElementById("data").textContent);
const STILL = window.matchMedia("(prefers-reduced-motion: reduce)");
/** Milliseconds that the marker takes from one place to the next. */
const TRAVEL = 450;

const boxes = new Map([...SVG.querySelectorAll("[data-id]")].map((g) => [g.dataset.id, g]));
const ways = [...SVG.querySelectorAll("[data-from]")].filter((way) => !way.classList.contains("tunnel"));
const size = { width: SVG.viewBox.baseVal.width, scale: 1 };

function resize(scale) {
  size.scale = Math.min(3, Math.max(0.1, scale));
  SVG.setAttribute("width", Math.round(size.width * size.scale));
  SVG.setAttribute("height", Math.round(SVG.viewBox.baseVal.height * size.scale));
}

function fitting() {
  return (VIEW.clientWidth - 2) / size.width;
}

/** The name in the picture of a device, or of its namespace where it is not drawn. */
function drawn(place, dev) {
  const known = (id) => DATA.folded[id] ?? id;
  const device = dev ? known(`${place}#${dev}`) : null;
  if (device && boxes.has(device)) return device;
  const namespace = known(place);
  return boxes.has(namespace) ? namespace : null;
}

/** Where the marker stands at a box: at the right of a device, beside a namespace's name. */
function spot(id) {
  const box = boxes.get(id);
  const rect = box.querySelector("rect:last-of-type");
  const [x, y, w, h] = ["x", "y", "width", "height"].map((name) => Number(rect.getAttribute(name)));
  if (box.classList.contains("device")) return [x + w + 8, y + h / 2];
  const name = box.querySelector("text.name");
  return [x + 12, name ? Number(name.getAttribute("y")) - 4 : y + 12];
}

/** The lines from one device to another, by way of at most two others; nothing where there are none. */
function linesBetween(from, to) {
  let found = [[from, []]];
  for (let hops = 0; hops < 3; hops += 1) {
    const further = [];
    for (const [at, lines] of found) {
      for (const way of ways) {
        const { from: a, to: b } = way.dataset;
        if (lines.includes(way) || (a !== at && b !== at)) continue;
        const next = [a === at ? b : a, [...lines, way]];
        if (next[0] === to) return next[1];
        further.push(next);
      }
    }
    found = further;
  }
  return null;
}

/** The corners of the way along lines, beginning at `from`. */
function corners(from, lines) {
  const points = [];
  let at = from;
  for (const way of lines) {
    const all = way.getAttribute("d").slice(1).split(" L").map((point) => point.split(" ").map(Number));
    const forward = way.dataset.from === at;
    // A line between devices of one row has no order of its own.
    const near = (p) => { const [x, y] = spot(at); return Math.hypot(p[0] - x, p[1] - y); };
    const turned = way.classList.contains("carrier") ? near(all[0]) > near(all[all.length - 1]) : !forward;
    points.push(...(turned ? all.reverse() : all));
    at = forward ? way.dataset.to : way.dataset.from;
  }
  return points;
}

const marker = { node: document.getElementById("marker"), at: null, position: null, run: 0 };

function put([x, y]) {
  marker.position = [x, y];
  marker.node.setAttribute("transform", `translate(${x} ${y})`);
  marker.node.setAttribute("visibility", "visible");
}

/** The point at a share of the length of a way of several points. */
function along(points, share) {
  const lengths = points.slice(1).map((p, i) => Math.hypot(p[0] - points[i][0], p[1] - points[i][1]));
  let left = share * lengths.reduce((sum, length) => sum + length, 0);
  for (let i = 0; i < lengths.length; i += 1) {
    if (left <= lengths[i] && lengths[i] > 0) {
      const part = left / lengths[i];
      return [0, 1].map((k) => points[i][k] + part * (points[i + 1][k] - points[i][k]));
    }
    left -= lengths[i];
  }
  return points[points.length - 1];
}

/** Move the marker to a box, along the lines where `smoothly`; `data-at` names the box once it is there. */
function move(id, smoothly) {
  const end = spot(id);
  // It is on its way there already.
  if (smoothly && marker.at === id && !("at" in marker.node.dataset)) return;
  const run = (marker.run += 1);
  const arrive = () => {
    put(end);
    marker.node.dataset.at = id;
  };
  const from = marker.at;
  marker.at = id;
  delete marker.node.dataset.at;
  look(end, smoothly);
  if (!smoothly || !from || from === id || STILL.matches) return arrive();
  const points = [marker.position, ...corners(from, linesBetween(from, id) ?? []), end];
  const began = performance.now();
  const frame = (now) => {
    if (run !== marker.run) return;
    const share = (now - began) / TRAVEL;
    if (share >= 1) return arrive();
    put(along(points, Math.max(0, share)));
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}

/** Scroll so that a point of the picture can be seen. */
function look([x, y], smoothly) {
  const [left, top] = [x * size.scale, y * size.scale];
  const margin = 60;
  const inside = (at, from, room) => at > from + margin && at < from + room - margin;
  if (inside(left, VIEW.scrollLeft, VIEW.clientWidth) && inside(top, VIEW.scrollTop, VIEW.clientHeight)) return;
  const behavior = smoothly && !STILL.matches ? "smooth" : "instant";
  VIEW.scrollTo({ left: left - VIEW.clientWidth / 2, top: top - VIEW.clientHeight / 2, behavior });
}

for (const [id, factor] of [["smaller", 0.8], ["larger", 1.25]]) {
  document.getElementById(id).addEventListener("click", () => resize(size.scale * factor));
}
document.getElementById("fit").addEventListener("click", () => resize(fitting()));
VIEW.addEventListener("click", (event) => {
  const box = event.target.closest("[data-id]");
  if (box) document.getElementById("about").textContent = box.querySelector("title").textContent;
});
// Letters smaller than this are not readable; what does not fit is scrolled to.
resize(Math.min(1.2, Math.max(0.8, fitting())));
