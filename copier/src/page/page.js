
// Follows /events and asks for what it lacks of /history. Everything that others named goes in as text.

const byId = (id) => document.getElementById(id);
const make = (name, options = {}, ...children) => {
  const { text, classes, ...attributes } = options;
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  if (classes) element.className = classes;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
};
const draw = (name, attributes, text) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
};
/** Puts children in place of what was there, unless they look the same: what is selected stays selected. */
const fill = (element, ...children) => {
  const next = make(element.tagName, {}, ...children);
  const same = element.childNodes.length === next.childNodes.length
    && [...next.childNodes].every((child, place) => child.isEqualNode(element.childNodes[place]));
  if (!same) element.replaceChildren(...next.childNodes);
};

// Figures in words.
const THOUSANDS = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const count = (value) => THOUSANDS.format(value ?? 0);
/** Three digits that mean something. */
const digits = (value) => String(Number(Math.abs(value) >= 1000 ? value.toFixed(0) : value.toPrecision(3)));
const scaled = (value, steps, names) => {
  let step = 0;
  while (step + 1 < names.length && Math.abs(value) >= steps) [value, step] = [value / steps, step + 1];
  return `${digits(value)} ${names[step]}`.trim();
};
const rate = (value) => `${scaled(value ?? 0, 1000, ["", "k", "M"])}/s`;
const bytes = (value) => `${scaled(value ?? 0, 1000, ["B", "kB", "MB", "GB"])}/s`;
const milliseconds = (value) =>
  value == null ? "none" : value >= 1000 ? `${digits(value / 1000)} s` : `${digits(value)} ms`;
/** Never rounded up: one lost byte shows. */
const ratio = (value) => (Math.floor((value ?? 0) * 1e6) / 1e6).toFixed(6);
const percent = (value) => `${digits((value ?? 0) * 100)}%`;
const duration = (seconds) => {
  for (const [length, name] of [[86400, "d"], [3600, "h"], [60, "min"]])
    if (seconds >= length) return `${digits(seconds / length)} ${name}`;
  return `${Math.round(seconds)} s`;
};

// The headline.
const CAUSES = {
  starting: ["wait", "Starting"],
  stopped: ["bad", "Stopped by a guard"],
  operator: ["wait", "Paused by the operator"],
  held_back: ["bad", "Held back"],
  interceptors: ["bad", "No interceptor"],
  router_agents: ["bad", "Responses are not diverted"],
  first_contact: ["bad", "No first contact with the target"],
  silence: ["wait", "Nothing captured"],
  refused: ["bad", "Refused"],
  stalled: ["bad", "The target acknowledges nothing"],
};
const STATES = { copying: ["good", "Copying"], idle: ["wait", "Waiting for clients"], not_copying: ["bad", "Not copying"] };

const showHeadline = ({ headline }) => {
  const [classes, state] = CAUSES[headline.cause] ?? STATES[headline.state] ?? ["wait", headline.state];
  say(classes, state, headline.sentence);
  byId("next").hidden = !headline.next;
  byId("next").textContent = `Next: ${headline.next ?? ""}`;
  byId("also").hidden = headline.also.length === 0;
  fill(byId("also"), ...headline.also.map((remark) => make("li", { text: remark.text })));
};
const say = (classes, state, sentence) => {
  byId("headline").className = classes;
  for (const [id, text] of [["state", state], ["sentence", sentence]])
    if (byId(id).textContent !== text) byId(id).textContent = text;
  document.title = `${state} · Millrace copier`;
};

// The way of a copy.
const hop = (name, figure, bad, ...lines) =>
  make("li", { classes: bad ? "bad" : "good" },
    make("h3", { text: name }),
    make("p", { classes: "figure", text: figure }),
    ...lines.map(([text, wrong]) => make("p", { classes: wrong ? "bad" : "quiet", text: wrong ? `▲ ${text}` : text })));

const showPath = (status, last) => {
  const { report, interceptors, router_agents: agents } = status;
  const { pressure, capture, intensity } = report;
  const links = interceptors.filter((link) => link.connected).length;
  const holds = agents.filter((agent) => agent.held).length;
  const open = report.targets.filter((target) => target.state === "open").length;
  const dropped = capture.dropped > 0;
  fill(byId("path"),
    hop("Live server", `${rate(last?.sessions)} sessions`, false,
      [`${bytes(last?.wanted_bytes)} from clients`], [`${count(report.sessions.open)} sessions held`]),
    hop("Copier (this host)", `${percent(intensity.now * intensity.factor)} copied`, dropped,
      [`lag ${milliseconds(pressure.lag_ms)}`], [`${digits(pressure.cpu_percent)}% of a core, ${scaled(pressure.memory, 1000, ["B", "kB", "MB", "GB"])} held`],
      [`${count(capture.dropped)} frames dropped`, dropped]),
    hop(report.targets.length > 1 ? `${report.targets.length} targets` : `Target ${report.targets[0]?.target ?? ""}`,
      `${rate(last?.copies)} copies`, open < report.targets.length,
      [`${bytes(last?.delivered_bytes)} acknowledged`], [`${count(report.replicas.open)} copies open`],
      // What the first lines say is not said again.
      ...report.targets.filter((target) => target.finding && target.state !== "open").map(({ target, finding }) =>
        [status.headline.sentence.includes(finding) ? "no probe has come back" : `${target}: ${finding}`, true])),
    hop("Responses", links === 0 && interceptors.length === 0 ? "caught here" : `${links} of ${interceptors.length} interceptors`,
      links < interceptors.length || holds < agents.length,
      [agents.length === 0 ? "no router-agent" : `${holds} of ${agents.length} router-agents keep them from clients`, holds < agents.length],
      ...(status.unguarded ? [["nobody vouches that they do not reach clients"]] : [])));
};

// Figures of the moment.
const tile = (name, value, small) =>
  [make("dt", { text: name }), make("dd", { text: value }, ...(small ? [make("small", { text: small })] : []))];
const tiles = (list) => list.map(([name, value, small]) => make("div", {}, ...tile(name, value, small)));
const sides = (values) => (values.count ? `${milliseconds(values.p50 / 1000)} / ${milliseconds(values.p99 / 1000)}` : "none yet");

const showTiles = ({ report }) => {
  const { bytes: all, sessions, replicas, latency } = report;
  fill(byId("tiles"), ...tiles([
    ["Fidelity", all.wanted ? ratio(report.fidelity) : "nothing yet", "bytes that the target acknowledged of all it should get"],
    ["Sessions", count(sessions.captured), `${count(sessions.unchosen)} left out by the intensity`],
    ["Copies", count(replicas.opened), `${count(replicas.completed)} complete, ${count(replicas.open)} open`],
    ["Latency live, p50 / p99", sides(latency.first_byte.live), "to the first byte of an answer"],
    ["Latency target, p50 / p99", sides(latency.first_byte.target), "the way back to the copier included"],
    ["Up", duration(report.duration_seconds), ""],
  ]));
};

const showIntensity = ({ report: { intensity } }) => {
  const { ramp, decisions } = intensity;
  const last = decisions[decisions.length - 1];
  fill(byId("ramp"), ...tiles([
    ["Copies for each session", percent(intensity.now * intensity.factor), intensity.mode],
    ["Ramp", ramp ? `${duration(ramp.position_seconds)} of ${duration(ramp.length_seconds)}` : "none", ramp?.stages ?? "the same all the time"],
    ["Last decision", last ? `at ${duration(last.at_seconds)}` : "none", last?.what ?? ""],
  ]));
  fill(byId("guards"), ...table("Guards", [["Rule"], ["Now", true], ["Events", true], ["State"]], intensity.guards.map((guard) => [
    guard.rule, guard.value == null ? "none" : digits(guard.value), count(guard.count), { text: guard.broken ? "▲ broken" : "kept", bad: guard.broken },
  ])));
};

const table = (caption, heads, rows) => {
  if (rows.length === 0) return [];
  const numbers = heads.map(([, number]) => (number ? "number" : ""));
  const cell = (value, place) => typeof value === "object"
    ? make("td", { classes: `${numbers[place]} ${value.bad ? "bad" : ""}`.trim(), text: value.text })
    : make("td", { classes: numbers[place], text: value });
  const head = make("tr", {}, ...heads.map(([name, number]) => make("th", { scope: "col", classes: number ? "number" : "", text: name })));
  const body = rows.map((row) => make("tr", {}, ...row.map(cell)));
  return [make("div", { classes: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    make("table", {}, make("caption", { text: caption }), make("thead", {}, head), make("tbody", {}, ...body)))];
};

const showReasons = ({ report, recent }) => {
  const rows = [];
  const add = (what, counts, lately) => {
    for (const [reason, number] of Object.entries(counts))
      rows.push([what, reason.replaceAll("_", " "), count(lately?.[reason]), count(number)]);
  };
  add("copy ended early", report.replicas.aborted, recent.aborted);
  add("copy refused", report.replicas.refused, recent.refused);
  add("session refused", report.sessions.refused, recent.refused);
  if (report.capture.dropped) rows.push(["frame", "dropped by capture", count(recent.dropped), count(report.capture.dropped)]);
  if (report.bytes.missing) rows.push(["byte", "missing from the capture", "", count(report.bytes.missing)]);
  const lost = table(`In the last ${Math.round(recent.seconds)} s, and since the start`,
    [["What"], ["Why"], ["Lately", true], ["All", true]], rows);
  fill(byId("reasons"), ...(lost.length ? lost : [make("p", { text: report.bytes.wanted ? "Nothing was lost." : "Nothing was copied yet." })]));
};

let before = null;
const showHosts = (status) => {
  const seconds = before ? status.report.duration_seconds - before.report.duration_seconds : 0;
  const headers = (link) => {
    const old = before?.interceptors.find((other) => other.address === link.address);
    return old && seconds > 0 && link.headers_in >= old.headers_in ? rate((link.headers_in - old.headers_in) / seconds) : "";
  };
  const links = table("Interceptors", [["Interceptor"], ["State"], ["Headers", true], ["Round trip", true]],
    status.interceptors.map((link) => [
      link.interceptor_id ? `${link.address} (${link.interceptor_id})` : link.address,
      { text: link.connected ? `connected for ${duration(link.since_seconds)}` : `▲ away: ${link.last_error}`, bad: !link.connected },
      headers(link), link.connected ? milliseconds(link.rtt_us / 1000) : "",
    ]));
  const agents = table("Router-agents", [["Router-agent"], ["State"], ["Mode"]],
    status.router_agents.map((agent) => [
      agent.agent_id ? `${agent.address} (${agent.agent_id})` : agent.address,
      { text: agent.held ? "keeps responses from clients" : `▲ does not hold: ${agent.trouble || agent.last_error || "no answer yet"}`, bad: !agent.held },
      agent.mode,
    ]));
  const all = [...links, ...agents];
  fill(byId("hosts"), ...(all.length ? all : [make("p", { text: "None are named: responses are caught on this host." })]));
  before = status;
};

// Charts: times on a logarithmic scale, since a target may be slower by any factor.
const CHARTS = [
  { name: "Sessions", unit: rate, lines: [["live", "sessions", "live"], ["copies", "copies", "target dashed"], ["lost", "lost", "lost"]] },
  { name: "Bytes of clients", unit: bytes, lines: [["wanted", "wanted_bytes", "live"], ["acknowledged", "delivered_bytes", "target dashed"]] },
  { name: "Latency to the first byte", unit: milliseconds, logarithmic: true, lines: [["live p50", "live_p50", "live"],
    ["live p99", "live_p99", "live dashed"], ["target p50", "target_p50", "target"], ["target p99", "target_p99", "target dashed"]] },
  { name: "Lag of the copier, p99", unit: milliseconds, logarithmic: true, lines: [["lag", "lag_p99", "lost"]] },
  { name: "Fidelity since the start", unit: ratio, most: 1, lines: [["fidelity", "fidelity", "target"]] },
  { name: "Intensity", unit: percent, lines: [["copies for each session", "intensity", "live"]] },
];
const HEIGHT = 152, TOP = 8, BOTTOM = 18, LEFT = 62;
let points = [], length = 1, span = 600;

const sample = (classes) => {
  const svg = draw("svg", { viewBox: "0 0 29 10", "aria-hidden": "true" });
  svg.append(draw("path", { class: classes, d: "M1 5H28" }));
  return svg;
};
for (const chart of CHARTS) {
  const keys = chart.lines.map(([name, , classes]) => make("span", { classes: "key" }, sample(classes), name));
  chart.svg = draw("svg", { class: "chart", role: "img", tabindex: "0", height: HEIGHT });
  chart.output = make("output");
  byId("charts").append(make("figure", {}, make("figcaption", {}, make("b", { text: chart.name }), ...keys), chart.svg, chart.output));
  chart.svg.addEventListener("pointermove", (event) => point(chart, placeAt(chart, event.offsetX)));
  chart.svg.addEventListener("pointerleave", () => point(chart, null));
  chart.svg.addEventListener("blur", () => point(chart, null));
  chart.svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (!step || points.length === 0) return;
    event.preventDefault();
    const from = chart.at ?? (step < 0 ? points.length : -1);
    point(chart, Math.min(points.length - 1, Math.max(0, from + step)));
  });
}
const width = (chart) => Math.max(200, chart.svg.clientWidth || 400);
const end = () => points[points.length - 1]?.at ?? 0;
const shown = () => Math.min(span, Math.max(60, end() - (points[0]?.at ?? 0) + length));
const across = (chart, at) => LEFT + (width(chart) - LEFT - 4) * (1 - (end() - at) / shown());
const placeAt = (chart, x) => {
  let best = null;
  points.forEach((each, place) => {
    if (best === null || Math.abs(across(chart, each.at) - x) < Math.abs(across(chart, points[best].at) - x)) best = place;
  });
  return best;
};
const point = (chart, place) => {
  chart.at = place;
  plot(chart);
};

const scale = (chart) => {
  const values = chart.lines.flatMap(([, field]) => points.map((each) => each[field])).filter((value) => value != null);
  let [least, most] = [Math.min(...values), Math.max(...values)];
  if (values.length === 0) [least, most] = [0, 1];
  if (chart.logarithmic) {
    const [low, high] = [Math.floor(Math.log10(Math.max(least, 0.01))), Math.ceil(Math.log10(Math.max(most, 0.1)))];
    const top = Math.max(high, low + 1);
    const ticks = Array.from({ length: top - low + 1 }, (_, step) => 10 ** (low + step));
    return { ticks, part: (value) => (Math.log10(Math.max(value, 10 ** low)) - low) / (top - low) };
  }
  if (chart.most !== undefined) {
    const low = Math.min(least, 0.999 * chart.most);
    return { ticks: [low, (low + chart.most) / 2, chart.most], part: (value) => (value - low) / (chart.most - low) };
  }
  const size = 10 ** Math.floor(Math.log10(Math.max(most, 1e-3)));
  const top = [1, 2, 5, 10].map((step) => step * size).find((step) => step >= most);
  return { ticks: [0, top / 2, top], part: (value) => value / top };
};

const plot = (chart) => {
  const { svg } = chart;
  const wide = width(chart);
  const { ticks, part } = scale(chart);
  const down = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - part(value));
  svg.setAttribute("viewBox", `0 0 ${wide} ${HEIGHT}`);
  const parts = ticks.flatMap((tick) => [
    draw("line", { class: "grid", x1: LEFT, x2: wide, y1: down(tick), y2: down(tick) }),
    draw("text", { x: LEFT - 6, y: down(tick) + 4, "text-anchor": "end" }, chart.unit(tick)),
  ]);
  for (const [part, anchor] of [[1, "start"], [0.5, "middle"]])
    parts.push(draw("text", { x: across(chart, end() - part * shown()), y: HEIGHT - 4, "text-anchor": anchor }, `${duration(part * shown())} ago`));
  parts.push(draw("text", { x: wide - 4, y: HEIGHT - 4, "text-anchor": "end" }, "now"));
  for (const [, field, classes] of chart.lines) {
    let path = "", pen = "M", previous = null;
    for (const each of points) {
      const gap = each[field] == null || (previous !== null && each.at - previous > 3 * length);
      if (gap) pen = "M";
      if (each[field] == null) continue;
      path += `${pen}${across(chart, each.at).toFixed(1)} ${down(each[field]).toFixed(1)}`;
      // A point without neighbours is a dot.
      if (pen === "M") path += "h.01";
      [pen, previous] = ["L", each.at];
    }
    if (path) parts.push(draw("path", { class: classes, d: path }));
  }
  const chosen = points[chart.at ?? points.length - 1];
  if (chart.at != null && chosen) {
    const x = across(chart, chosen.at);
    parts.push(draw("line", { class: "cursor", x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM }));
  }
  svg.replaceChildren(...parts);
  const values = chosen ? chart.lines.map(([name, field]) => `${name} ${chosen[field] == null ? "none" : chart.unit(chosen[field])}`).join(", ") : "nothing yet";
  svg.setAttribute("aria-label", `${chart.name}: ${values}`);
  const when = chart.at != null && chosen ? `${duration(end() - chosen.at)} ago: ` : "";
  chart.output.textContent = when + values;
};
const plotAll = () => CHARTS.forEach(plot);
new ResizeObserver(plotAll).observe(byId("charts"));

const loadHistory = async () => {
  const wanted = span;
  const after = points.length ? end() : 0;
  const answer = await fetch(`/history?span=${wanted}&after=${after}`);
  if (!answer.ok) throw new Error(`/history: ${answer.status}`);
  const more = await answer.json();
  if (wanted !== span) return;
  length = more.length;
  points = points.concat(more.points);
  points = points.filter((each) => each.at > end() - span);
  if (more.points.length) plotAll();
};
byId("spans").addEventListener("change", (event) => {
  [span, points] = [Number(event.target.value), []];
  CHARTS.forEach((chart) => (chart.at = null));
  loadHistory().catch(() => {});
});

// What comes in.
const show = async (status) => {
  // Another life of the copier.
  if (before && status.report.duration_seconds < before.report.duration_seconds) points = [];
  byId("services").textContent = status.services;
  byId("version").textContent = `version ${status.version}`;
  showHeadline(status);
  await loadHistory().catch(() => {});
  showPath(status, length === 1 ? points[points.length - 1] : recent(status));
  showTiles(status);
  showIntensity(status);
  showReasons(status);
  showHosts(status);
};
/** The rates of the last minute, where the history's last point is older. */
const recent = ({ recent: { seconds, sessions, established, wanted_bytes, delivered_bytes } }) => {
  const each = (value) => value / Math.max(seconds, 1);
  return { sessions: each(sessions), copies: each(established), wanted_bytes: each(wanted_bytes), delivered_bytes: each(delivered_bytes) };
};

const PATIENCE = 5000;
let heard = Date.now();
const events = () => {
  const source = new EventSource("/events");
  source.onmessage = (event) => {
    heard = Date.now();
    show(JSON.parse(event.data));
  };
  source.onerror = () => {
    // The browser tries again by itself unless the answer was an error.
    if (source.readyState === EventSource.CLOSED) setTimeout(events, PATIENCE);
  };
};
setInterval(() => {
  const since = Math.round((Date.now() - heard) / 1000);
  if (1000 * since < PATIENCE) return;
  say("bad", "Connection lost", `The copier has not answered for ${since} s: what is below is as old. It is tried again. Does the copier run (millrace-copier status)?`);
  for (const id of ["next", "also"]) byId(id).hidden = true;
}, 1000);
events();
plotAll();
