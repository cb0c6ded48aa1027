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
/** Makes these the children of an element. What is there already stays, so that focus, selection and scrolling do. */
const fill = (element, ...children) => {
  children.forEach((child, place) => {
    const old = element.childNodes[place];
    if (!old) element.append(child);
    else if (!renew(old, child)) old.replaceWith(child);
  });
  while (element.childNodes.length > children.length) element.lastChild.remove();
};
/** Makes a node like another one of its kind. */
const renew = (old, next) => {
  if (old.nodeName !== next.nodeName) return false;
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== next.data) old.data = next.data;
    return true;
  }
  for (const { name } of [...old.attributes]) if (!next.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of next.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  fill(old, ...next.childNodes);
  return true;
};

// Figures in words.
const THOUSANDS = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const count = (value) => THOUSANDS.format(value ?? 0);
/** Three digits that mean something. */
const digits = (value) => String(Number(Math.abs(value) >= 1000 ? value.toFixed(0) : value.toPrecision(3)));
const scaled = (value, names) => {
  let step = 0;
  // What is rounded to 1000 is 1 of the next.
  while (step + 1 < names.length && Math.abs(value) >= 999.5) [value, step] = [value / 1000, step + 1];
  return `${digits(value)} ${names[step]}`.trim();
};
const plain = (value) => scaled(value ?? 0, ["", "k", "M"]);
const rate = (value) => `${plain(value)}/s`;
const size = (value) => scaled(value ?? 0, ["B", "kB", "MB", "GB"]);
const bytes = (value) => `${size(value)}/s`;
const WARNING = "▲ ";
const milliseconds = (value) =>
  value == null ? "none" : value >= 1000 ? `${digits(value / 1000)} s` : `${digits(value)} ms`;
/** Never rounded up: one lost byte shows. */
const ratio = (value) => (Math.floor((value ?? 0) * 1e6) / 1e6).toFixed(6);
const percent = (value) => `${digits((value ?? 0) * 100)}%`;
const duration = (seconds) => {
  for (const [length, name] of [[86400, "d"], [3600, "h"], [60, "min"]])
    if (seconds >= 0.9995 * length) return `${digits(seconds / length)} ${name}`;
  return `${Math.round(seconds)} s`;
};

// The headline.
const CAUSES = {
  starting: ["wait", "Starting"],
  stopped: ["bad", "Stopped"],
  operator: ["wait", "No new session is copied"],
  held_back: ["wait", "Held back"],
  interceptors: ["bad", "No interceptor"],
  router_agents: ["bad", "Responses are not diverted"],
  share: ["bad", "No share of its own"],
  plan: ["bad", "The cluster's plan is not known"],
  pods: ["bad", "Pods are not known"],
  first_contact: ["bad", "No first contact with the target"],
  silence: ["wait", "Nothing captured"],
  refused: ["bad", "Refused"],
  stalled: ["bad", "The target acknowledges nothing"],
};
const STATES = { copying: ["good", "Copying"], idle: ["wait", "Nothing to copy"], not_copying: ["bad", "Not copying"] };

const showHeadline = ({ headline, report }) => {
  const [classes, known] = CAUSES[headline.cause] ?? STATES[headline.state] ?? ["wait", headline.state];
  const held = headline.cause === "stopped" && report.intensity.mode === "held";
  const stopped = headline.cause === "operator" && report.intensity.plan?.mode === "stopped";
  say(classes, held ? "Held by a guard" : stopped ? "Stopped" : known, headline.sentence);
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
    ...lines.map(([text, wrong]) => make("p", { classes: wrong ? "bad" : "quiet", text: wrong ? WARNING + text : text })));

const showPath = (status) => {
  const { report, recent, interceptors, router_agents: agents } = status;
  const { pressure, intensity } = report;
  const last = rates(status);
  // An interceptor may have several links.
  const places = [...new Set(interceptors.map((link) => link.address))];
  const away = places.filter((place) => interceptors.some((link) => link.address === place && !link.connected)).length;
  const loose = agents.filter((agent) => !agent.held).length;
  const wrong = report.targets.filter(({ state }) => state === "failed" || state === "misdirected");
  fill(byId("path"),
    hop("Live server", `${plain(last.sessions)} sessions/s`, false,
      [`${bytes(last.wanted_bytes)} from clients`], [`${count(report.sessions.open)} sessions held`]),
    hop("Copier (this host)", `${percent(intensity.now * intensity.factor)} copied`, recent.dropped > 0,
      [`lag ${milliseconds(pressure.lag_ms)}`],
      [`${digits(pressure.cpu_percent)}% of a core, ${size(pressure.memory)} held`],
      [`frames dropped lately: ${count(recent.dropped)}`, recent.dropped > 0]),
    hop(report.targets.length > 1 ? `${report.targets.length} targets` : `Target ${report.targets[0]?.target ?? ""}`,
      `${plain(last.copies)} copies/s`, wrong.length > 0,
      [`${bytes(last.delivered_bytes)} acknowledged`], [`${count(report.replicas.open)} copies open`],
      // What the first lines say is not said again.
      ...wrong.map(({ target, finding }) =>
        [!finding || status.headline.sentence.includes(finding) ? "no probe has come back" : `${target}: ${finding}`, true])),
    hop("Responses", places.length ? `${places.length - away} of ${places.length} interceptors` : "caught here", away + loose > 0,
      ...(away ? [[`interceptors away: ${away}`, true]] : []),
      ...(loose ? [[`router-agents that do not hold: ${loose}`, true]] : []),
      [agents.length ? `${agents.length - loose} of ${agents.length} router-agents keep them from clients`
        : "no router-agent keeps them from clients"]));
};
/** The rates of the last second, or of the last minute where the history is coarser. */
const rates = ({ recent: { seconds, sessions, established, wanted_bytes, delivered_bytes } }) => {
  if (length === 1 && points.length && now() - end() < 5) return points[points.length - 1];
  const each = (value) => value / Math.max(seconds, 1);
  return { sessions: each(sessions), copies: each(established), wanted_bytes: each(wanted_bytes), delivered_bytes: each(delivered_bytes) };
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
  const { ramp, decisions, blind, scale: left } = intensity;
  const waits = ramp?.waiting ? ` (waits until ${blind ? "guards can judge" : "something can be sent"})` : "";
  const last = decisions[decisions.length - 1];
  fill(byId("ramp"), ...tiles([
    ["Copies for each session", percent(intensity.now * intensity.factor),
      left == null ? intensity.mode : `${intensity.mode}; guards have left ${percent(left)} of it`],
    ["Ramp", ramp ? `${duration(ramp.position_seconds)} of ${duration(ramp.length_seconds)}` : "none", (ramp?.stages ?? "the same all the time") + waits],
    ["Last decision", last ? `at ${duration(last.at_seconds)}` : "none", last?.what ?? ""],
  ]));
  fill(byId("guards"), ...table("Guards", [["Rule"], ["Now", true], ["Events", true], ["State"]], intensity.guards.map((guard) => [
    guard.rule,
    guard.value == null ? "none" : guard.rule.includes("%") ? percent(guard.value) : digits(guard.value),
    count(guard.count),
    { text: guard.broken ? `${WARNING}broken` : blind ?? (guard.lacks_live ? "too few live answers to judge by" : "kept"), bad: guard.broken },
  ])));
};

// The cluster, where this copier takes part in one.
const SILENT = "no word for 15 s";
const showCluster = ({ cluster, report: { intensity: { plan } } }) => {
  byId("fleet").hidden = !cluster;
  if (!cluster) return;
  const last = plan?.changes[plan.changes.length - 1];
  fill(byId("plan"), ...tiles([
    ["Cluster", cluster.cluster, cluster.registration.registered ? "this copier is registered" : `${WARNING}not registered: ${cluster.registration.trouble}`],
    ["Plan", !plan ? "not followed" : plan.edition ? percent(plan.now) : "none yet",
      plan?.edition ? `${plan.mode}, edition ${plan.edition}` : plan ? "nothing new is copied" : "--follow-plan"],
    ["Last change", last ? last.by : "none", last?.what ?? ""],
  ]));
  const silent = (copier) => copier.standing === "silent";
  fill(byId("copiers"),
    ...(cluster.doubt ? [make("p", { classes: "bad", text: `${WARNING}as it was known last: ${cluster.doubt}` })] : []),
    ...table("Copiers", [["Copier"], ["Node"], ["Share"], ["What it says"]], cluster.copiers.map((copier) => [
      copier.id, copier.node, copier.share,
      { text: silent(copier) ? `${WARNING}${SILENT}: ${copier.said}` : copier.said, bad: copier.standing !== "well" },
    ])),
    ...table("Changes of the plan", [["When"], ["Who"], ["What"], ["Intensity", true]], (plan?.changes ?? []).slice(-10).reverse().map((change) => [
      new Date(change.at * 1000).toLocaleString(), change.by, change.what, percent(change.intensity),
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

const showReasons = ({ report, recent, interceptors }) => {
  const { sessions, replicas, capture, send, bytes: all } = report;
  const rows = [];
  const add = (what, counts, lately) => {
    for (const [reason, number] of Object.entries(counts))
      if (number) rows.push([what, reason.replaceAll("_", " "), lately ? count(lately[reason]) : "", count(number)]);
  };
  const refused = { ...sessions.refused };
  for (const [reason, number] of Object.entries(replicas.refused)) refused[reason] = (refused[reason] ?? 0) + number;
  add("copies that ended early", replicas.aborted, recent.aborted);
  add("sessions and copies refused", refused, recent.refused);
  add("frames", { dropped_by_capture: capture.dropped }, { dropped_by_capture: recent.dropped });
  add("connections", { lost_by_capture: capture.syns_lost });
  add("bytes", { missing_from_the_capture: all.missing, set_aside_under_pressure: all.set_aside });
  add("packets not sent", send.errors);
  add("headers", { dropped_by_interceptors: interceptors.reduce((sum, link) => sum + link.headers_dropped, 0) });
  const lost = table(`In the last ${Math.round(recent.seconds)} s, and since the start`,
    [["What"], ["Why"], ["Lately", true], ["All", true]], rows);
  fill(byId("reasons"), ...(lost.length ? lost : [make("p", { text: all.wanted ? "No copy ended early, and nothing was refused." : "Nothing was copied yet." })]));
};

let before = null;
const showHosts = (status) => {
  const seconds = before ? status.report.duration_seconds - before.report.duration_seconds : 0;
  const lately = (link, figure) => {
    const old = before?.interceptors.find((other) => other.address === link.address && other.link === link.link);
    return old && seconds > 0 && link[figure] >= old[figure] ? rate((link[figure] - old[figure]) / seconds) : "";
  };
  // What each real server got: its interceptor is the one through which it answers.
  const connected = status.interceptors.reduce((sum, link) => sum + link.copies_connected, 0);
  const share = (link) => (connected ? `${count(link.copies_connected)} (${percent(link.copies_connected / connected)})` : "");
  const links = table("Interceptors", [["Interceptor"], ["State"], ["Copies", true], ["New copies", true], ["Headers", true], ["Round trip", true]],
    status.interceptors.map((link) => [
      link.interceptor_id ? `${link.address} (${link.interceptor_id})` : link.address,
      { text: link.connected ? `connected for ${duration(link.since_seconds)}` : `${WARNING}away: ${link.last_error}`, bad: !link.connected },
      share(link), lately(link, "copies_connected"), lately(link, "headers_in"), link.connected ? milliseconds(link.rtt_us / 1000) : "",
    ]));
  const agents = table("Router-agents", [["Router-agent"], ["State"], ["Mode"]],
    status.router_agents.map((agent) => [
      agent.agent_id ? `${agent.address} (${agent.agent_id})` : agent.address,
      { text: agent.held ? "keeps responses from clients" : `${WARNING}does not hold: ${agent.trouble || agent.last_error || "no answer yet"}`, bad: !agent.held },
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
  // Spoken only while somebody moves through the chart by keyboard.
  chart.output = make("p", { classes: "values" });
  byId("charts").append(make("figure", {}, make("figcaption", {}, make("b", { text: chart.name }), ...keys), chart.svg, chart.output));
  chart.svg.addEventListener("pointermove", (event) => point(chart, placeAt(chart, event.offsetX)));
  chart.svg.addEventListener("pointerleave", () => point(chart, null));
  chart.svg.addEventListener("blur", () => {
    chart.output.removeAttribute("aria-live");
    point(chart, null);
  });
  chart.svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (!step || points.length === 0) return;
    event.preventDefault();
    chart.output.setAttribute("aria-live", "polite");
    const from = chosen(chart) ?? (step < 0 ? points.length : -1);
    point(chart, Math.min(points.length - 1, Math.max(0, from + step)));
  });
}
const width = (chart) => Math.max(200, chart.svg.clientWidth || 400);
/** The copier's time, in seconds since its start, and that of the last point. */
const now = () => before?.report.duration_seconds ?? end();
const end = () => points[points.length - 1]?.at ?? 0;
const shown = () => Math.min(span, Math.max(60, now() - (points[0]?.at ?? now()) + length));
const across = (chart, at) => LEFT + (width(chart) - LEFT - 4) * (1 - (now() - at) / shown());
const placeAt = (chart, x) => {
  let best = null;
  points.forEach((each, place) => {
    if (best === null || Math.abs(across(chart, each.at) - x) < Math.abs(across(chart, points[best].at) - x)) best = place;
  });
  return best;
};
/** A cursor stays at its moment while the chart moves on. */
const point = (chart, place) => {
  chart.at = points[place]?.at ?? null;
  plot(chart);
};
const chosen = (chart) => {
  const place = chart.at == null ? -1 : points.findIndex((each) => each.at >= chart.at);
  return place < 0 ? null : place;
};

const scale = (chart) => {
  let [least, most] = [Infinity, -Infinity];
  for (const each of points)
    for (const [, field] of chart.lines)
      if (each[field] != null) [least, most] = [Math.min(least, each[field]), Math.max(most, each[field])];
  if (least > most) [least, most] = [0, 1];
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
  const power = 10 ** Math.floor(Math.log10(Math.max(most, 1)));
  const top = [1, 2, 5, 10].map((step) => step * power).find((step) => step >= most);
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
  for (const [back, anchor] of [[shown(), "start"], [shown() / 2, "middle"]])
    parts.push(draw("text", { x: across(chart, now() - back), y: HEIGHT - 4, "text-anchor": anchor }, `${duration(back)} ago`));
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
  const place = chosen(chart);
  const each = points[place ?? points.length - 1];
  if (place != null) {
    const x = across(chart, each.at);
    parts.push(draw("line", { class: "cursor", x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM }));
  }
  svg.replaceChildren(...parts);
  const value = (field) => (each[field] == null ? "none" : chart.unit(each[field]));
  const values = each ? chart.lines.map(([name, field]) => `${name} ${value(field)}`).join(", ") : "nothing yet";
  svg.setAttribute("aria-label", `${chart.name}: ${values}`);
  chart.output.textContent = (place == null ? "" : `${duration(now() - each.at)} ago: `) + values;
};

/** Moments of the table beside the charts: it is made while it is open. */
const ROWS = 12;
const tabulate = () => {
  if (!byId("as-table").open) return;
  const step = Math.max(1, Math.ceil(points.length / ROWS));
  const some = points.filter((_, place) => (points.length - 1 - place) % step === 0).reverse();
  const columns = CHARTS.flatMap(({ name, unit, lines }) =>
    lines.map(([line, field]) => ({ name: lines.length > 1 ? `${name}: ${line}` : name, unit, field })));
  const rows = some.map((each) => [`${duration(now() - each.at)} ago`,
    ...columns.map(({ unit, field }) => (each[field] == null ? "" : unit(each[field])))]);
  fill(byId("table"), ...table("What the charts show", [["When"], ...columns.map(({ name }) => [name, true])], rows));
};
byId("as-table").addEventListener("toggle", tabulate);

const plotAll = () => {
  CHARTS.forEach(plot);
  tabulate();
};
new ResizeObserver(plotAll).observe(byId("charts"));

// The history: one request at a time, and what it brings is dropped if another span or life has begun meanwhile.
let loading = null;
const loadHistory = async () => {
  if (loading) return;
  const mine = (loading = new AbortController());
  const timer = setTimeout(() => mine.abort(), PATIENCE);
  try {
    const answer = await fetch(`/history?span=${span}&after=${end()}`, { signal: mine.signal });
    if (!answer.ok) return;
    const more = await answer.json();
    if (loading !== mine) return;
    length = more.length;
    const last = end();
    points = points.concat(more.points.filter((each) => each.at > last)).filter((each) => each.at > now() - span);
  } catch {
    // The next event asks again.
  } finally {
    clearTimeout(timer);
    if (loading === mine) loading = null;
    plotAll();
  }
};
const startHistory = () => {
  loading?.abort();
  [loading, points] = [null, []];
  CHARTS.forEach((chart) => (chart.at = null));
  plotAll();
  loadHistory();
};
byId("spans").addEventListener("change", (event) => {
  span = Number(event.target.value);
  startHistory();
});

// What comes in.
const show = (status) => {
  const another = before !== null && before.started_at !== status.started_at;
  if (another && before.version !== status.version) location.reload();
  if (another) before = null;
  byId("services").textContent = status.services;
  byId("version").textContent = `version ${status.version}`;
  showHeadline(status);
  showPath(status);
  showTiles(status);
  showIntensity(status);
  showReasons(status);
  showCluster(status);
  showHosts(status);
  if (another) startHistory();
  else loadHistory();
};

// The connection: closed while nobody looks, and made anew when it says nothing.
const PATIENCE = 5000;
const LONGEST_PATIENCE = 60_000;
let source = null, heard = null, waits = Date.now(), tried = Date.now(), patience = PATIENCE, refusal = "";
const listen = () => {
  source?.close();
  [tried, refusal] = [Date.now(), ""];
  const mine = (source = new EventSource("/events"));
  source.onmessage = (event) => {
    [heard, waits, patience] = [Date.now(), Date.now(), PATIENCE];
    try {
      show(JSON.parse(event.data));
    } catch (error) {
      say("bad", "This page fails", `Load it again. (${error.message})`);
    }
  };
  source.onerror = async () => {
    if (mine.readyState !== EventSource.CLOSED) return;
    // An answer that is no stream says why.
    const why = new AbortController();
    const answer = await fetch("/events", { signal: why.signal }).catch(() => null);
    const text = answer && !answer.ok ? (await answer.text()).trim() : "";
    if (mine === source) refusal = text;
    why.abort();
  };
};
setInterval(() => {
  if (document.hidden || Date.now() - waits < PATIENCE) return;
  const old = heard ? `The copier answered at ${new Date(heard).toLocaleTimeString()} for the last time, and what is below is as old. ` : "";
  say("bad", "Connection lost", old + (refusal
    ? `It does not let this page listen: ${refusal}`
    : "Does the copier run (millrace-copier status)?"));
  for (const id of ["next", "also"]) byId(id).hidden = true;
  if (Date.now() - tried < patience) return;
  patience = Math.min(2 * patience, LONGEST_PATIENCE);
  listen();
}, 1000);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return source?.close();
  [waits, patience] = [Date.now(), PATIENCE];
  say("wait", "Connecting", "What is below is from before this page was hidden.");
  listen();
});
if (!document.hidden) listen();
plotAll();
