
// The player: which step is shown, and its text beside the picture.

/** Milliseconds from one step to the next. */
const PACE = 1400;

const MEANS = {
  tap: "seen at the device by a packet socket",
  rules: "told by the rules (nftrace)",
  conntrack: "told by connection tracking",
  "drop-reason": "told by the kernel, which gave a reason",
  counter: "a counter went up",
  program: "told by a program",
  state: "follows from what the kernel holds",
  plan: "follows from the plan",
};

const byId = (id) => document.getElementById(id);

/** An element with text or elements in it. Text is never read as markup. */
function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** `laughingCow` as `laughing cow`. */
function words(name) {
  return name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}

/** `10.244.1.2:41234 > 10.96.0.10:53 udp, TTL 64`. */
function headerText(h) {
  const end = (ip, port) => {
    if (h.protocol === "icmp" || h.protocol === "other") return ip;
    return ip.includes(":") ? `[${ip}]:${port}` : `${ip}:${port}`;
  };
  const ends = `${end(h.source, h.sourcePort)} > ${end(h.destination, h.destinationPort)}`;
  return `${ends} ${h.protocol}, TTL ${h.ttl}`;
}

function more(h) {
  const macs = h.macs ? `, ${h.macs[0]} > ${h.macs[1]}` : "";
  return `${h.length} bytes${h.dontFragment ? ", not to be fragmented" : ""}${macs}`;
}

/** What a value of a step says. */
function said(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "boolean") return value ? "yes" : "no";
  return typeof value === "object" && "source" in value ? headerText(value) : String(value);
}

function isInferred(step) {
  return step.knownBy.every((means) => ["state", "plan", "counter"].includes(means));
}

function ended(packet) {
  return { delivered: `delivered to ${packet.fate.to}`, dropped: "dropped", refused: "refused", lost: "lost here" }[packet.fate.how];
}

/** The rows of a step's table: what is named, and its value. */
function facts({ step, packet, isLast }) {
  const rows = [];
  const { kind, ...rest } = step.what;
  for (const [name, value] of Object.entries(rest)) rows.push([words(name), said(value)]);
  if (step.header) rows.push([step.layer > 0 ? "outer header" : "header", headerText(step.header)], ["", more(step.header)]);
  rows.push(["known by", step.knownBy.map((means) => MEANS[means] ?? means).join("; ")]);
  if (step.at !== undefined) rows.push(["at", `${(step.at / 1e6).toFixed(3)} ms`]);
  if (isLast) rows.push(["end", ended(packet)]);
  return rows.filter(([, value]) => value !== "");
}

function playTrace(trace) {
  const state = { all: [], at: 0, timer: null };
  const isDrop = (entry) => entry.step.what.kind === "dropped" || entry.step.what.kind === "refused";
  const end = (e) => (e.name ? `${e.name} (${e.ip})` : e.ip) + (e.port ? `:${e.port}` : "");
  const where = (step) => (step.dev ? `${step.place} · ${step.dev}` : step.place);
  const title = (packet) => `Packet ${packet.number}, ${packet.direction}: ${packet.kind}`;

  function section(heading, items) {
    if (items.length > 0) byId("more").append(make("h2", {}, heading), make("ul", {}, ...items));
  }

  function tell() {
    const { asked, verdict } = trace;
    const tried = asked.tried && asked.tried !== asked.to ? ` (${asked.tried})` : "";
    byId("asked").textContent = `${asked.from} asked ${asked.to}${tried} over ${asked.kind}: ${asked.seen}`;
    byId("verdict").textContent = verdict.says;
    byId("verdict").classList.toggle("failed", !asked.answered);
    const item = (text) => make("li", {}, text);
    if (verdict.fault) {
      const { cause, place, object, evidence, remedy } = verdict.fault;
      section(`Fault: ${cause} at ${place}`, [item(object), ...evidence.map(item)]);
      section("What would mend it", remedy.map((r) => (r.command ? make("li", {}, `${r.says}: `, make("code", {}, r.command)) : item(r.says))));
      boxes.get(drawn(place, object))?.classList.add("fault");
    }
    if (trace.parting) {
      const { packet, predicted, observed } = trace.parting;
      section(`Packet ${packet} left the predicted way`, [item(`predicted: ${predicted}`), item(`observed: ${observed}`)]);
    }
    section("Notes", (trace.notes ?? []).map(item));
  }

  function option(value, text) {
    return make("option", { value }, text);
  }

  function offerFlows() {
    const flows = trace.flows.map((flow, n) => option(n, `${words(flow.role)}: ${flow.protocol} ${end(flow.source)} > ${end(flow.destination)}`));
    byId("flow").replaceChildren(option("", "All flows"), ...flows);
    offerPackets();
  }

  function chosenFlows() {
    const chosen = byId("flow").value;
    return chosen === "" ? trace.flows : [trace.flows[Number(chosen)]];
  }

  /** Of many packets most go the way of one before; those that do not are shown first. */
  function offerPackets() {
    const packets = chosenFlows().flatMap((flow) => flow.packets);
    const own = packets.filter(hasOwnWay).length;
    const few = own < packets.length ? [option("own", `${own} of ${packets.length} packets: the others went the same ways`)] : [];
    byId("packet").replaceChildren(...few, option("", "All packets"), ...packets.map((p) => option(p.number, title(p))));
    choose();
  }

  function hasOwnWay(packet) {
    return DATA.own.includes(packet.number);
  }

  function choose() {
    pause();
    const chosen = byId("packet").value;
    const packets = chosenFlows().flatMap((flow) => flow.packets);
    const isPlayed = (p) => chosen === "" || (chosen === "own" ? hasOwnWay(p) : String(p.number) === chosen);
    const played = packets.filter(isPlayed);
    const entries = (packet) => packet.steps.map((step, n) => ({ step, packet, isLast: n === packet.steps.length - 1, isFirst: n === 0 }));
    state.all = played.flatMap(entries);
    byId("slider").max = Math.max(0, state.all.length - 1);
    listSteps();
    show(0, false);
  }

  /** The steps below the heading of their packet, by which they are folded away. */
  function listSteps() {
    const items = [];
    let group = null;
    state.all.forEach((entry, n) => {
      const { step, packet, isFirst } = entry;
      if (isFirst) {
        group = { head: make("button", { type: "button" }, title(packet)), items: [] };
        const mine = group;
        mine.head.addEventListener("click", () => unfold(mine, mine.head.getAttribute("aria-expanded") !== "true"));
        items.push(make("li", { class: "head" }, mine.head));
      }
      const what = make("span", { class: isInferred(step) ? "what inferred" : "what" }, `${where(step)}: ${step.says}`);
      const kind = `${step.layer > 0 ? "wrapped " : ""}${isDrop(entry) ? "dropped" : ""}`;
      const button = make("button", { type: "button", class: kind }, make("span", { class: "n" }, `${n + 1}`), what);
      button.addEventListener("click", () => { pause(); show(n, true); });
      entry.button = button;
      entry.group = group;
      group.items.push(make("li", {}, button));
      items.push(group.items.at(-1));
    });
    for (const entry of state.all) if (entry.isFirst) unfold(entry.group, false);
    byId("steps").replaceChildren(...items);
  }

  function unfold(group, isOpen) {
    group.head.setAttribute("aria-expanded", isOpen);
    for (const item of group.items) item.hidden = !isOpen;
  }

  /** Show a step: its text, its line in the list, and the packet at its place. */
  function show(n, smoothly) {
    if (state.all.length === 0) return byId("step").replaceChildren("No packet was seen.");
    const before = state.all[state.at];
    state.at = Math.min(state.all.length - 1, Math.max(0, n));
    const entry = state.all[state.at];
    before?.button.removeAttribute("aria-current");
    entry.button.setAttribute("aria-current", "step");
    unfold(entry.group, true);
    reveal(entry.button);
    byId("slider").value = state.at;
    byId("slider").setAttribute("aria-valuetext", `step ${state.at + 1}: ${entry.step.says}`);
    byId("count").textContent = `${state.at + 1} of ${state.all.length}`;
    describe(entry);
    drawTrail();
    const id = drawn(entry.step.place, entry.step.dev);
    dress(entry);
    if (id) move(id, smoothly && before?.packet === entry.packet);
    // On a small screen picture and text are in sight together once the head of the page is not.
    if (smoothly && byId("step").getBoundingClientRect().top > innerHeight - 100) document.querySelector("main").scrollIntoView();
  }

  /** Scroll the list, and nothing else, so that a step's line can be seen. */
  function reveal(button) {
    const list = byId("list");
    const [inner, outer] = [button.getBoundingClientRect(), list.getBoundingClientRect()];
    if (inner.top < outer.top + 30) list.scrollTop -= outer.top + 30 - inner.top;
    if (inner.bottom > outer.bottom - 8) list.scrollTop += inner.bottom - outer.bottom + 8;
  }

  function describe(entry) {
    const { step, packet } = entry;
    const rows = facts(entry).flatMap(([name, value]) => [make("dt", {}, name), make("dd", { class: "mono" }, value)]);
    const sure = isInferred(step) ? " (inferred)" : "";
    byId("step").replaceChildren(
      make("div", { class: "at" }, `${title(packet)}${step.layer > 0 ? ", in an outer packet" : ""}`),
      make("h2", {}, where(step)),
      make("p", { class: `says ${isDrop(entry) ? "dropped" : ""} ${isInferred(step) ? "inferred" : ""}` }, step.says + sure),
      make("dl", {}, ...rows),
    );
  }

  /** The marker's look: which packet, which way, wrapped or dropped. */
  function dress(entry) {
    const { step, packet } = entry;
    const { node } = marker;
    node.querySelector("text").textContent = packet.number;
    node.classList.toggle("back", packet.direction === "back");
    node.classList.toggle("wrapped", step.layer > 0);
    node.classList.toggle("dropped", isDrop(entry));
  }

  /** Mark the lines that the packet has come along, and the box where it is. */
  function drawTrail() {
    for (const node of SVG.querySelectorAll(".seen, .here")) node.classList.remove("seen", "here", "back", "dropped");
    const entry = state.all[state.at];
    const back = entry.packet.direction === "back";
    let last = null;
    for (const { step } of state.all.slice(0, state.at + 1).filter((e) => e.packet === entry.packet)) {
      const id = drawn(step.place, step.dev);
      if (last && id && last !== id) linesBetween(last, id)?.forEach((way) => { way.classList.add("seen"); way.classList.toggle("back", back); });
      last = id ?? last;
    }
    const here = boxes.get(drawn(entry.step.place, entry.step.dev));
    here?.classList.add("here");
    here?.classList.toggle("back", back);
    here?.classList.toggle("dropped", isDrop(entry));
  }

  function pause() {
    clearInterval(state.timer);
    state.timer = null;
    byId("play").textContent = "▶ Play";
    byId("play").setAttribute("aria-label", "Play");
  }

  function toggle() {
    if (state.timer) return pause();
    if (state.at === state.all.length - 1) show(0, true);
    byId("play").textContent = "❚❚ Pause";
    byId("play").setAttribute("aria-label", "Pause");
    state.timer = setInterval(() => {
      show(state.at + 1, true);
      if (state.at === state.all.length - 1) pause();
    }, PACE);
  }

  function go(n) {
    pause();
    show(n, true);
  }

  const keys = {
    ArrowRight: () => go(state.at + 1),
    ArrowLeft: () => go(state.at - 1),
    Home: () => go(0),
    End: () => go(state.all.length - 1),
    " ": toggle,
  };
  document.addEventListener("keydown", (event) => {
    const owns = event.target.closest("select, input, summary, #view") || (event.key === " " && event.target.closest("button"));
    if (owns || event.ctrlKey || event.altKey || event.metaKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  byId("first").addEventListener("click", keys.Home);
  byId("previous").addEventListener("click", keys.ArrowLeft);
  byId("next").addEventListener("click", keys.ArrowRight);
  byId("play").addEventListener("click", toggle);
  byId("slider").addEventListener("input", (event) => go(Number(event.target.value)));
  byId("flow").addEventListener("change", offerPackets);
  byId("packet").addEventListener("change", choose);
  tell();
  offerFlows();
}

if (DATA.trace) playTrace(DATA.trace);
