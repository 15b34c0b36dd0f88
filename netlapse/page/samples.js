// The map of inputs: where the chosen layer puts them, near each other what it answers alike; coloured by group. It moves from
// one step to the next, so that an input can be followed.

const SHAPES = ["circle", "square", "triangle", "diamond", "cross"];
const samplesView = { shown: null, frame: 0, place: null };

function drawSamples() {
  const root = document.getElementById("samples");
  const data = run.samples;
  if (!data) return root.remove();
  const canvas = make("canvas", { tabindex: 0, role: "img" });
  const nothing = make("p", { class: "notice", hidden: true });
  const told = make("div", { class: "input-told", "aria-live": "polite" });
  const legend = make("div", { class: "legend" });
  const notices = make("div", { class: "notices" });
  const about = make("p", { class: "hint" });
  root.append(
    make("div", { class: "section-head" }, make("div", {}, make("h2", { id: "samples-title" }, "How it sorts the inputs"), about)),
    notices, nothing,
    make("div", { class: "samples" }, make("div", { class: "scatter" }, canvas), make("div", { class: "samples-side" }, told, legend)),
  );
  const update = () => {
    const layer = data.layers[layerNow() && layerNow().name];
    const index = heldStep(data.at, state.step);
    const found = layer ? heldStep(layer.at, state.step) : -1;
    about.textContent = `Each mark is one of ${plural(data.inputs.length, "input")} of the probe, placed by what ${layerNow() ? layerTitle(layerNow().name) : "the layer"} answers to it: near each other, answered alike. Colour and shape are its group. Point at a mark to see the input; with the focus here, ↑ and ↓ go from one to the next.`;
    const why = !layer ? "There is no map of inputs of this layer." : found < 0 ? `There is no map of inputs of this layer at ${nameOfStep(steps[state.step])} or before.` : null;
    nothing.hidden = why === null;
    nothing.textContent = why || "";
    canvas.parentNode.hidden = legend.hidden = why !== null;
    notices.replaceChildren(...[!why && unobserved("The map of inputs", layer.at, state.step)].filter(Boolean));
    if (why) return (samplesView.shown = null);
    legend.replaceChildren(...legendOf(data, index));
    canvas.setAttribute("aria-label", `map of ${plural(data.inputs.length, "input")} of ${layerTitle(layerNow().name)} at ${nameOfStep(steps[found])}, coloured by group`);
    moveTo(canvas, data, pointsOf(layer, found), data.groups[data.at[index]]);
    tell();
  };
  const tell = () => told.replaceChildren(...inputTold(data, state.input, heldStep(data.at, state.step)));
  const repaint = () => samplesView.shown && paintScatter(canvas, data, samplesView.shown);
  canvas.addEventListener("pointermove", (event) => set({ input: inputUnder(canvas, event) }));
  canvas.addEventListener("pointerdown", (event) => set({ input: inputUnder(canvas, event) }));
  canvas.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && set({ input: null }));
  canvas.addEventListener("blur", () => set({ input: null }));
  canvas.addEventListener("keydown", (event) => {
    const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!by || event.altKey || event.ctrlKey || event.metaKey) return;
    const many = data.inputs.length;
    set({ input: state.input === null ? (by > 0 ? 0 : many - 1) : (state.input + by + many) % many });
    event.preventDefault();
  });
  view(["step", "layer", "width"], update);
  view(["input", "sampleGroup"], () => {
    tell();
    repaint();
    legend.replaceChildren(...legendOf(data, heldStep(data.at, state.step)));
  });
  update();
}

function pointsOf(layer, index) {
  const { shape } = layer.points;
  const from = layer.at[index] * shape[1] * 2;
  return Float32Array.from(unpack(layer.points).subarray(from, from + shape[1] * 2), (number) => number / 65535);
}

// From where the marks are to where they belong, in a quarter of a second; at once where motion is not wanted.
function moveTo(canvas, data, points, groups) {
  const before = samplesView.shown;
  const calm = window.matchMedia && window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  const same = before && before.layer === state.layer && before.points.length === points.length;
  cancelAnimationFrame(samplesView.frame);
  const began = performance.now();
  const from = before && before.points;
  const frame = (now) => {
    const share = calm || !same ? 1 : Math.min(Math.max((now - began) / 260, 0), 1);
    const eased = share * share * (3 - 2 * share);
    const at = share === 1 ? points : points.map((to, i) => from[i] + (to - from[i]) * eased);
    samplesView.shown = { points: at, groups, layer: state.layer };
    paintScatter(canvas, data, samplesView.shown);
    if (share < 1) samplesView.frame = requestAnimationFrame(frame);
  };
  frame(began);
}

const EDGE = 12; // pixels around the map, so that no mark is cut

function paintScatter(canvas, data, { points, groups }) {
  const side = Math.min(canvas.parentNode.clientWidth || 480, 520);
  const ratio = Math.min(window.devicePixelRatio || 1, 2);
  if (canvas.width !== Math.round(side * ratio)) {
    canvas.width = canvas.height = Math.round(side * ratio);
    canvas.style.width = canvas.style.height = `${side}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, side, side);
  const size = groups.length > 1500 ? 2.2 : groups.length > 400 ? 3 : 4;
  const chosen = state.sampleGroup ?? null;
  const place = (i) => [EDGE + points[2 * i] * (side - 2 * EDGE), EDGE + (1 - points[2 * i + 1]) * (side - 2 * EDGE)];
  for (let i = 0; i < groups.length; i++) {
    const other = chosen !== null && groups[i] !== chosen;
    context.globalAlpha = other ? 0.25 : 0.9;
    mark(context, ...place(i), size, groups[i], other ? "#aab1bb" : sampleTone(data, groups[i]));
  }
  context.globalAlpha = 1;
  if (state.input !== null) {
    const [x, y] = place(state.input);
    for (const [tone, width] of [["#fff", 5], ["#111", 2]]) {
      context.strokeStyle = tone;
      context.lineWidth = width;
      context.beginPath();
      context.arc(x, y, size + 5, 0, 2 * Math.PI);
      context.stroke();
    }
  }
  samplesView.place = place;
}

// A group has the same tone everywhere on the page; more groups than tones differ in shape.
const sampleIndex = (data, group) => (run.groups.includes(data.names[group]) ? run.groups.indexOf(data.names[group]) : group);
const sampleTone = (data, group) => groupTone(sampleIndex(data, group));

function mark(context, x, y, size, group, tone) {
  const shape = SHAPES[Math.floor(sampleIndex(run.samples, group) / GROUP_TONES.length) % SHAPES.length];
  context.fillStyle = tone;
  context.strokeStyle = "#fff";
  context.lineWidth = 0.8;
  context.beginPath();
  if (shape === "circle") context.arc(x, y, size, 0, 2 * Math.PI);
  else if (shape === "square") context.rect(x - size * 0.9, y - size * 0.9, size * 1.8, size * 1.8);
  else {
    const corners = { triangle: [[0, -1.25], [1.15, 0.85], [-1.15, 0.85]], diamond: [[0, -1.35], [1.2, 0], [0, 1.35], [-1.2, 0]], cross: [[-0.4, -1.2], [0.4, -1.2], [0.4, -0.4], [1.2, -0.4], [1.2, 0.4], [0.4, 0.4], [0.4, 1.2], [-0.4, 1.2], [-0.4, 0.4], [-1.2, 0.4], [-1.2, -0.4], [-0.4, -0.4]] }[shape];
    corners.forEach(([dx, dy], i) => (i ? context.lineTo(x + dx * size, y + dy * size) : context.moveTo(x + dx * size, y + dy * size)));
    context.closePath();
  }
  context.fill();
  context.stroke();
}

function inputUnder(canvas, event) {
  if (!samplesView.shown) return null;
  const box = canvas.getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  let [best, least] = [null, 24 ** 2];
  for (let i = 0; i < samplesView.shown.groups.length; i++) {
    const [px, py] = samplesView.place(i);
    const away = (px - x) ** 2 + (py - y) ** 2;
    if (away < least) [best, least] = [i, away];
  }
  return best;
}

function inputTold(data, at, index) {
  if (at === null || index < 0) return [make("p", { class: "hint" }, "No input is pointed at.")];
  const input = data.inputs[at];
  const said = data.predictions[data.at[index]];
  const label = data.labels ? data.labels[at] : labelOf(input);
  const answer = said && said[at] !== null ? said[at] : null;
  const right = answer === label;
  return [
    pictureOf(input) ? inputTile(input, index) : "",
    make("p", {}, make("strong", {}, `input ${inputs.ids ? inputs.ids[input] : inputs.at[input]}`), label === null ? "" : ` · label ${className(label)}`),
    answer === null ? "" : make("p", { class: right ? "right" : "wrong" }, `${right ? "✓" : "✗"} the network says ${className(answer)}`),
    make("p", { class: "hint" }, `group ${data.names[data.groups[data.at[index]][at]]}`),
  ];
}

// The groups that have inputs here; pressing one shows it alone.
function legendOf(data, index) {
  if (index < 0) return [];
  const groups = data.groups[data.at[index]];
  const counts = new Map();
  for (const group of groups) counts.set(group, (counts.get(group) || 0) + 1);
  return [...counts.keys()].sort((a, b) => sampleIndex(data, a) - sampleIndex(data, b)).map((group) => {
    const swatch = make("canvas", { width: 28, height: 28, "aria-hidden": "true" });
    const context = swatch.getContext("2d");
    context.scale(2, 2);
    mark(context, 7, 7, 4.4, group, sampleTone(data, group));
    const pressed = state.sampleGroup === group;
    return make("button", { type: "button", "aria-pressed": String(pressed), title: "show this group alone", click: () => set({ sampleGroup: pressed ? null : group }) }, swatch, `${data.names[group]} `, make("span", { class: "count" }, counts.get(group)));
  });
}
