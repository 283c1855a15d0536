// The program of an explanation's page: reads the data that stands in the page, draws it, and redraws what depends on the step.
// Text becomes text nodes, never markup.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const last = data.steps.length - 1;
const state = { step: last, view: "final", token: null, kept: null, branch: data.branches.length - 1, scope: "mean", size: null, contrast: false };
const redraws = [];                                          // called whenever the state has changed

const byId = (id) => document.getElementById(id);
const finalPicture = byId("shown").src;

function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "line", "circle", "text", "g"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function change(values) {
  Object.assign(state, values);
  for (const redraw of redraws) redraw();
}

// A row of buttons of which one is pressed: options are [value, label].
function choices(parent, label, key, options) {
  if (options.length < 2) return;
  const row = make("div", { class: "choices", role: "group", "aria-label": label }, make("span", {}, label));
  const buttons = options.map(([value, text]) =>
    make("button", { type: "button", "data-value": String(value), onclick: () => change({ [key]: value }) }, text));
  row.append(...buttons);
  parent.append(row);
  redraws.push(() => buttons.forEach((button, k) => button.setAttribute("aria-pressed", String(state[key] === options[k][0]))));
}

function digits(value, count = 3) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e5 || size < 1e-3 ? value.toExponential(count - 1) : String(Number(value.toPrecision(count)));
}

const whole = (value) => value.toLocaleString("en-US");
const shape = (sides) => sides.join("×");
const sum = (values) => values.reduce((a, b) => a + b, 0);

// ---- the picture ----------------------------------------------------------------------------------------------

const how = data.decoded ? "as the decoder makes it" : "by the colours that the latent's channels stand for";
const VIEWS = {
  final: ["The picture", () => "What was made, after the last step and the decoder."],
  x0: ["Predicted clean", (s) => `x0, the clean picture as predicted at t = ${digits(s.t, 4)}, ${how}.`],
  latent: ["Noisy latent", () => `The latent after this step, scaled to its spread, ${how}.`],
  noise: ["Predicted noise", (s) => `The noise that the latent is thought to hold at t = ${digits(s.t, 4)}, ${how}.`],
};

function drawPicture() {
  const step = data.steps[state.step], [title, words] = VIEWS[state.view], image = byId("shown");
  image.src = state.view === "final" ? finalPicture : step.pictures[state.view];
  image.alt = title;
  image.classList.toggle("coarse", state.view !== "final" || data.size[0] < 200);
  byId("step-number").textContent = `${step.call} of ${step.calls}`;
  byId("step").value = state.step;
  byId("step").setAttribute("aria-valuetext", `step ${step.call} of ${step.calls}, timestep ${digits(step.t, 4)}`);
  byId("caption").textContent = words(step) + overlayWords();
}

function setUpPicture() {
  byId("step").max = last;
  byId("step").addEventListener("input", (event) => {
    stop();
    change({ step: Number(event.target.value), view: state.view === "final" ? "x0" : state.view });
  });
  choices(byId("views"), "Show", "view", Object.entries(VIEWS).map(([key, [title]]) => [key, title]));
  byId("play").addEventListener("click", () => (playing ? stop() : play()));
  redraws.push(drawPicture);
}

let playing = null;

function play() {
  byId("play").textContent = "Stop";
  byId("play").setAttribute("aria-pressed", "true");
  change({ step: state.step === last ? 0 : state.step, view: state.view === "final" ? "x0" : state.view });
  playing = setInterval(() => (state.step === last ? stop() : change({ step: state.step + 1 })), 250);
}

function stop() {
  clearInterval(playing);
  playing = null;
  byId("play").textContent = "Play";
  byId("play").setAttribute("aria-pressed", "false");
}

// ---- attention ------------------------------------------------------------------------------------------------

const unpacked = new Map();

function bytes(packed) {
  if (!unpacked.has(packed)) unpacked.set(packed, Uint8Array.from(atob(packed.bytes), (c) => c.charCodeAt(0)));
  return unpacked.get(packed);
}

// One token's map of one size, as shares: {h, w, values}.
function mapOf(packed, place) {
  const count = packed.h * packed.w, all = bytes(packed), scale = packed.most[place] / 255;
  return { h: packed.h, w: packed.w, values: Float32Array.from(all.subarray(place * count, (place + 1) * count), (b) => b * scale) };
}

function between(map, h, w) {                                // a map at another size, linear between positions
  if (map.h === h && map.w === w) return map.values;
  const out = new Float32Array(h * w);
  for (let i = 0; i < h; i++) {
    const y = Math.min(Math.max(((i + 0.5) * map.h) / h - 0.5, 0), map.h - 1), top = Math.floor(y), low = Math.min(top + 1, map.h - 1);
    for (let j = 0; j < w; j++) {
      const x = Math.min(Math.max(((j + 0.5) * map.w) / w - 0.5, 0), map.w - 1), left = Math.floor(x), right = Math.min(left + 1, map.w - 1);
      const at = (r, c) => map.values[r * map.w + c], fx = x - left, fy = y - top;
      out[i * w + j] = (at(top, left) * (1 - fx) + at(top, right) * fx) * (1 - fy) + (at(low, left) * (1 - fx) + at(low, right) * fx) * fy;
    }
  }
  return out;
}

const textNow = () => data.attention.steps[state.step].texts[state.branch];
const tokensNow = () => data.texts[textNow()];

// Where the maps in question are, and the place of each token in them.
function source() {
  const text = textNow();
  if (state.scope === "mean") {
    const entry = data.attention.mean.find((m) => m.branch === state.branch && m.text === text);
    return { maps: entry.maps, place: (k) => k, count: tokensNow().length };
  }
  const slots = data.attention.slots[text];
  return { maps: data.attention.steps[state.step].maps[state.branch], place: (k) => slots.findIndex((slot) => slot.includes(k)), count: slots.length };
}

// The share of a place at each position, the mean of the layers that are asked for.
function shares(maps, place) {
  const chosen = maps.map((_, k) => k).filter((k) => state.size === null || k === state.size);
  const h = Math.max(...chosen.map((k) => maps[k].h)), w = Math.max(...chosen.map((k) => maps[k].w));
  const weights = chosen.map((k) => data.attention.sizes[k][2]), total = sum(weights), values = new Float32Array(h * w);
  chosen.forEach((k, n) => between(mapOf(maps[k], place), h, w).forEach((v, i) => { values[i] += (v * weights[n]) / total; }));
  return { h, w, values };
}

function mean(values) { return sum(Array.from(values)) / values.length; }

// The map that lies over the picture, or null.
function currentMap() {
  if (state.token === null || !data.attention.sizes.length) return null;
  const { maps, place, count } = source(), own = shares(maps, place(state.token));
  if (!state.contrast) return own;
  const relative = (map) => { const m = mean(map.values) || 1; return map.values.map((v) => v / m); };
  const values = relative(own), all = new Float32Array(values.length);
  for (let k = 0; k < count; k++) relative(shares(maps, k)).forEach((v, i) => { all[i] += v / count; });
  return { h: own.h, w: own.w, values: values.map((v, i) => Math.max(0, v - all[i])) };
}

function overlayWords() {
  if (state.token === null) return "";
  const token = tokensNow()[state.token];
  return token ? ` Over it: where “${nameOf(token)}” is looked for; brightest is ${brightest}.` : "";
}

let brightest = "";

function drawOverlay() {
  const canvas = byId("overlay"), map = currentMap(), context = canvas.getContext("2d");
  if (map === null) {
    canvas.width = canvas.width;
    brightest = "";
    return;
  }
  canvas.width = map.w;
  canvas.height = map.h;
  const most = map.values.reduce((a, b) => Math.max(a, b), 0), pixels = context.createImageData(map.w, map.h);
  map.values.forEach((v, i) => {                             // from dark and nearly opaque to bright and clear
    const share = most ? v / most : 0;
    pixels.data.set([20 + 235 * share, 10 + 150 * share * share, 40 * (1 - share), 200 - 110 * share], 4 * i);
  });
  context.putImageData(pixels, 0, 0);
  brightest = state.contrast ? `${digits(most)} above the mean of all tokens` : `a share of ${digits(100 * most)} %`;
}

function nameOf(token) {
  if (token.kind === "word") return token.text;
  return { start: "start", end: "end", padding: "padding", none: "nothing" }[token.kind];
}

function setUpTokens() {
  const parent = byId("attention-choices"), sizes = data.attention.sizes;
  choices(parent, "Branch", "branch", data.branches.map((name, k) => [k, name]));
  choices(parent, "When", "scope", [["mean", "mean over steps"], ["step", "this step"]]);
  choices(parent, "Layers", "size", [[null, "all"], ...sizes.map(([h, w], k) => [k, `${h}×${w}`])]);
  choices(parent, "Value", "contrast", [[false, "share"], [true, "contrast"]]);
  let shown = null;
  redraws.push(() => {
    const text = textNow();
    if (text !== shown) drawTokens(text);
    shown = text;
    document.querySelectorAll("#token-list button").forEach((b) => b.setAttribute("aria-pressed", String(Number(b.dataset.place) === state.kept)));
    byId("pooling").textContent = poolingWords();
    drawOverlay();
  });
}

function drawTokens(text) {
  const list = make("div", { class: "tokens" });
  data.texts[text].forEach((token, place) => {
    const look = () => change({ token: place }), leave = () => change({ token: state.kept });
    const filling = token.kind === "padding" || token.kind === "none";
    const more = [token.id === null || filling ? "" : `${token.id}`, token.weight === 1 ? "" : `×${digits(token.weight)}`, token.chunk ? `chunk ${token.chunk + 1}` : ""];
    const second = token.second === null ? "" : `; the second text encoder reads “${token.second}”`;
    list.append(make("button", {
      type: "button", class: `token ${token.kind}`, "data-place": place, "aria-pressed": "false", onmouseenter: look, onfocus: look,
      onmouseleave: leave, onblur: leave, onclick: () => change({ kept: state.kept === place ? null : place, token: place }),
      title: `place ${place}, ${token.kind}, ${token.text} (id ${token.id === null ? "none" : token.id})${second}`,
    }, make("span", {}, filling ? "pad" : nameOf(token)), filling ? null : make("small", {}, more.filter(Boolean).join(" ") || "·")));
  });
  byId("token-list").replaceChildren(list);
  if (state.token !== null && state.token >= data.texts[text].length) Object.assign(state, { token: null, kept: null });
}

function poolingWords() {
  const sizes = data.attention.sizes;
  if (!sizes.length) return "This network has no cross-attention to the prompt.";
  const layers = state.size === null ? sum(sizes.map((s) => s[2])) : sizes[state.size][2];
  const when = state.scope === "mean" ? "over the steps kept on this page that read this text" : "at the step shown (all padding together, since it counts as one there)";
  const value = state.contrast
    ? "Contrast: each token's map divided by its own mean, less the mean of that over all tokens; below it is not shown."
    : "Shares of all tokens sum to 1 at each position.";
  return `Mean of all heads of ${layers} cross-attention layer${layers === 1 ? "" : "s"}, ${when}, stored in 8 bits. ${value}`;
}

// ---- the way --------------------------------------------------------------------------------------------------

// A plot of lines: {title, x, lines: [{name, y}], xlabel, log, marks, at: where the step stands}
function plot({ title, x, lines, xlabel, log = false, marks = null, at }) {
  const width = 320, height = 170, left = 44, right = 8, top = 8, bottom = 34;
  const values = lines.flatMap((l) => l.y).concat(marks ? marks.flatMap((m) => m.y) : []).filter((v) => v !== null && (!log || v > 0));
  if (!values.length) return null;
  const map = (v) => (log ? Math.log10(v) : v), low = Math.min(...values.map(map), log ? Infinity : 0), high = Math.max(...values.map(map));
  const x0 = Math.min(...x), x1 = Math.max(...x);
  const px = (v) => left + ((v - x0) / (x1 - x0 || 1)) * (width - left - right);
  const py = (v) => height - bottom - ((map(v) - low) / (high - low || 1)) * (height - top - bottom);
  const drawn = (xs, ys) => xs.map((v, k) => [v, ys[k]]).filter(([, y]) => y !== null && (!log || y > 0));
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title}: ${lines.map((l) => l.name).join(", ")}` });
  svg.append(make("path", { class: "axis", d: `M${left} ${top}V${height - bottom}H${width - right}` }));
  [low, (low + high) / 2, high].forEach((v) => svg.append(make("text", { x: left - 5, y: py(log ? 10 ** v : v) + 4, "text-anchor": "end" }, digits(log ? 10 ** v : v, 2))));
  [x0, x1].forEach((v, k) => svg.append(make("text", { x: px(v), y: height - bottom + 14, "text-anchor": k ? "end" : "start" }, digits(v, 4))));
  svg.append(make("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, xlabel));
  lines.forEach((l, k) => {
    const points = drawn(x, l.y).map(([a, b]) => `${px(a).toFixed(1)} ${py(b).toFixed(1)}`);
    if (points.length) svg.append(make("path", { class: `line c${k + 1}`, d: `M${points.join("L")}` }));
  });
  (marks || []).forEach((m, k) => drawn(m.x, m.y).forEach(([a, b]) => svg.append(make("circle", { class: `dot c${k + 1}`, cx: px(a), cy: py(b), r: 2.5 }))));
  const now = make("line", { class: "now", y1: top, y2: height - bottom });
  svg.append(now);
  redraws.push(() => { now.setAttribute("x1", px(at())); now.setAttribute("x2", px(at())); });
  const legend = make("div", { class: "legend" }, ...lines.map((l, k) =>
    make("span", {}, make("svg", { viewBox: "0 0 20 8", "aria-hidden": "true" }, make("path", { class: `line c${k + 1}`, d: "M0 4H20" })), l.name)));
  return make("figure", {}, make("figcaption", {}, title), svg, legend);
}

function setUpSteps() {
  const steps = data.steps, calls = steps.map((s) => s.call), here = () => steps[state.step], strip = byId("strip");
  steps.forEach((s, k) => strip.append(make("button", { type: "button", "aria-label": `step ${s.call}, timestep ${digits(s.t, 4)}`,
    onclick: () => { stop(); change({ step: k, view: "x0" }); } }, make("img", { src: s.pictures.x0, alt: "" }), String(s.call))));
  redraws.push(() => Array.from(strip.children).forEach((button, k) => {
    button.setAttribute("aria-pressed", String(k === state.step));
    if (k === state.step && playing) strip.scrollLeft = button.offsetLeft - strip.clientWidth / 2;
  }));
  const t = steps.map((s) => s.t), along = { x: data.schedule.t, xlabel: "timestep t", at: () => here().t };
  const marked = (...names) => names.map((name) => ({ x: t, y: steps.map((s) => s[name]) }));
  const over = { x: calls, xlabel: "call of the network", at: () => here().call }, rms = (name) => steps.map((s) => s.rms[name] ?? null);
  byId("plots").append(
    plot({ ...along, title: "How much of the picture (alpha) and of the noise (sigma) a latent is", marks: marked("alpha", "sigma"),
      lines: [{ name: "alpha", y: data.schedule.alpha }, { name: "sigma", y: data.schedule.sigma }] }),
    plot({ ...along, title: "Signal to noise, alpha² / sigma²", log: true, marks: marked("snr"), lines: [{ name: "signal to noise", y: data.schedule.snr }] }),
    plot({ ...over, title: "How far each step moves the latent (root mean square)", lines: [{ name: "change", y: rms("change") }] }) || "");
  if (steps[0].rms.without !== undefined) {
    byId("plots").append(plot({ ...over, title: "Guidance: sizes of the predictions (root mean square)",
      lines: ["without", "with", "difference", "result"].map((name) => ({ name, y: rms(name) })) }));
  }
  setUpGuidance();
}

function setUpGuidance() {
  const names = ["without", "with", "difference", "result"].filter((name) => name in data.steps[0].pictures);
  const kind = { epsilon: "noise", v_prediction: "v", sample: "the clean latent" }[data.predicts];
  const row = make("div", { class: "row" }), images = {}, numbers = {};
  for (const name of names) {
    images[name] = make("img", { alt: `the prediction: ${name}` });
    numbers[name] = make("figcaption", {});
    row.append(make("figure", {}, images[name], numbers[name]));
  }
  const words = data.guidance ? `Guidance, as arithmetic on what the network predicts (${kind}): ${data.guidance}.${data.branches.length > 2 ? " The last prompt's difference is shown." : ""}`
    : `What the network predicts (${kind}); guidance is off, so the result is what it says with the prompt.`;
  byId("guidance").append(make("h3", {}, "The prediction at this step"), make("p", {}, words), row);
  redraws.push(() => {
    const step = data.steps[state.step];
    for (const name of names) {
      images[name].src = step.pictures[name];
      numbers[name].textContent = `${name}, size ${digits(step.rms[name])}`;
    }
  });
}

// ---- the networks ---------------------------------------------------------------------------------------------

const times = sum(data.layers.map((l) => l.ms));
const TITLES = { text_encoder: "Text encoder", text_encoder_2: "Second text encoder", unet: "Unet", vae: "Decoder of the autoencoder" };
const titleOf = (network) => TITLES[network] || network;

function drawBox(block, panel) {
  const layers = block.layers.map((k) => data.layers[k]), ms = sum(layers.map((l) => l.ms)), share = ms / times;
  const moving = block.network === "unet" && data.steps.some((s) => s.blocks[block.name]);
  const still = layers.map((l) => l.features).filter(Boolean).pop();
  const image = moving || still ? make("img", { alt: "", src: still || null }) : make("span", { class: "blank" });
  if (moving) redraws.push(() => { image.src = data.steps[state.step].blocks[block.name] || still; });
  const box = make("button", { type: "button", class: `box ${block.side}`, "aria-expanded": "false", onclick: () => open(box, block, layers, panel) },
    image, make("b", {}, block.name),
    make("small", {}, `${shape(block.gives)} · ${whole(sum(layers.map((l) => l.parameters)))} parameters`),
    make("small", {}, `${digits(sum(layers.map((l) => l.gflop)))} GFLOP · ${digits(ms)} ms · ${digits(100 * share, 2)} %`));
  return box;
}

function open(box, block, layers, panel) {
  const shut = box.getAttribute("aria-expanded") === "true";
  panel.parentElement.querySelectorAll("[aria-expanded]").forEach((other) => other.setAttribute("aria-expanded", "false"));
  box.setAttribute("aria-expanded", String(!shut));
  panel.hidden = shut;
  const rows = layers.map((l) => make("div", { class: "layer" }, l.features ? make("img", { src: l.features, alt: "" }) : make("span", { class: "blank" }),
    make("div", {}, make("code", {}, l.name), ` ${l.operation}, ${l.served}`, make("br"),
      `${shape(l.takes)} → ${shape(l.gives)}; mean ${digits(l.mean)}, spread ${digits(l.std)}, largest ${digits(l.largest)}; ${digits(l.ms)} ms`)));
  panel.replaceChildren(make("h3", {}, `${titleOf(block.network)}: ${block.name}`), ...rows);
}

function setUpNetworks() {
  for (const network of [...new Set(data.blocks.map((b) => b.network))]) {
    const own = data.blocks.filter((b) => b.network === network), panel = make("div", { class: "panel", hidden: true, tabindex: 0, role: "region", "aria-label": `layers of ${titleOf(network)}` });
    const boxes = new Map(own.map((block) => [block, drawBox(block, panel)]));
    const levels = [...new Set(own.filter((b) => b.side === "down").map((b) => b.level))];
    let grid = make("div", { class: "chain" }, ...boxes.values());
    if (levels.length) {                                     // the U: what goes down at the left, what comes up at the right
      grid = make("div", { class: "u" });
      const wide = (block) => { boxes.get(block).classList.add("wide"); grid.append(boxes.get(block)); };
      own.filter((b) => b.level === null).forEach(wide);
      for (const level of levels) {
        for (const side of ["down", "up"]) own.filter((b) => b.side === side && b.level === level).forEach((b) => grid.append(boxes.get(b)));
      }
      own.filter((b) => b.name === "mid_block").forEach(wide);
    }
    byId("networks").append(make("h3", {}, titleOf(network)), grid, panel);
  }
}

// ---- the costs ------------------------------------------------------------------------------------------------

const COLUMNS = [
  ["network", "network", true], ["name", "layer", true], ["operation", "operation", true], ["served", "version", true], ["takes", "in", true],
  ["gives", "out", true], ["parameters", "parameters"], ["calls", "calls"], ["gflop", "GFLOP"], ["mb", "MB"], ["ms", "ms"], ["rate", "GFLOP/s"],
];

function setUpCosts() {
  const table = byId("cost-table"), body = make("tbody"), heads = [];
  const rows = data.layers.map((l) => ({ ...l, rate: l.gflop && l.ms ? l.gflop / (l.ms / 1000) : 0 }));
  let sorted = null, downwards = true;
  const cell = (row, key, text) => make("td", { class: text ? "text" : null },
    text ? (Array.isArray(row[key]) ? shape(row[key]) : row[key]) : key === "parameters" || key === "calls" ? whole(row[key]) : row[key] ? digits(row[key]) : "");
  const fill = (list) => body.replaceChildren(...list.map((row) => make("tr", {}, ...COLUMNS.map(([key, , text]) => cell(row, key, text)))));
  const sort = (column) => {
    const [key, , text] = COLUMNS[column];
    downwards = sorted === column ? !downwards : !text;
    sorted = column;
    const value = (row) => (Array.isArray(row[key]) ? row[key].reduce((a, b) => a * b, 1) : row[key]);
    const list = [...rows].sort((a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0));
    fill(downwards ? list.reverse() : list);
    heads.forEach((head, k) => head.setAttribute("aria-sort", k === sorted ? (downwards ? "descending" : "ascending") : "none"));
  };
  COLUMNS.forEach(([, title, text], k) => heads.push(make("th", { scope: "col", class: text ? "text" : null, "aria-sort": "none" },
    make("button", { type: "button", onclick: () => sort(k) }, title))));
  const total = (key) => sum(rows.map((row) => row[key]));
  const foot = ["all", `${rows.length} lines; ${digits(data.seconds, 3)} s with all else`, "", "", "", "", whole(total("parameters")), "",
    digits(total("gflop")), digits(total("mb")), digits(total("ms")), digits(total("gflop") / (total("ms") / 1000))];
  table.append(make("thead", {}, make("tr", {}, ...heads)), body,
    make("tfoot", {}, make("tr", {}, ...foot.map((value, k) => make("td", { class: COLUMNS[k][2] ? "text" : null }, value)))));
  sort(COLUMNS.findIndex(([key]) => key === "ms"));
}

// ---- code and facts -------------------------------------------------------------------------------------------

function folded({ name, file, line, text }) {
  return make("details", {}, make("summary", {}, make("code", {}, name), ` in ${file}, line ${line}`), make("pre", { tabindex: 0 }, text));
}

function setUpCode() {
  document.querySelectorAll(".code").forEach((parent) => {
    const found = data.sources[parent.dataset.section], many = !Array.isArray(found);
    parent.append(make("h3", {}, "The code that computed it"));
    if (!many) parent.append(...found.map(folded));
    else for (const [operation, versions] of Object.entries(found)) {
      parent.append(make("details", {}, make("summary", {}, make("code", {}, operation), `, ${versions.length === 1 ? "its definition" : "its definition and a fast version"}`),
        ...versions.map(folded)));
    }
  });
}

function setUpFacts() {
  const steps = data.steps[last].calls;
  byId("summary").textContent = `${shape(data.size)} pixels, ${steps} calls of the network, ${digits(data.seconds)} s` +
    (steps > data.steps.length ? `; ${data.steps.length} of the calls are kept on this page` : "");
  byId("again").textContent = data.again;
  byId("facts").append(...data.facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

setUpFacts();
setUpTokens();
setUpPicture();
setUpSteps();
setUpNetworks();
setUpCosts();
setUpCode();
change({});
