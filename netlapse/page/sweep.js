// The runs of a sweep under one slider: their maps on the layout they share, their curves, and how alike they are.

Object.assign(state, { group: -1, metric: null, marked: -1 }); // a group, or -1 for all; a metric without its layer; a run

const layerOfSweep = () => run.layers[state.layer];
const runTone = (index) => css(between(LAYER_RAMP, run.runs.length > 1 ? index / (run.runs.length - 1) : 1));
const endings = run.layers.map((layer) => `/${layer.name}`);

// Metrics without the layers they end in: which layer is shown is chosen apart.
const metrics = (() => {
  const names = Object.keys(run.curves).map((name) => name.slice(0, name.length - (endings.find((ending) => name.endsWith(ending)) || "").length));
  return [...new Set(names)].filter((name) => !name.endsWith("_null"));
})();

const curvesNow = () => run.curves[`${state.metric}/${(layerOfSweep() || {}).name}`] || run.curves[state.metric] || null;

function curveAt(curve, index) {
  const at = curve ? curve.steps.indexOf(steps[index]) : -1;
  return at < 0 || curve.values[at] === null ? NaN : curve.values[at];
}

// ------------------------------------------------------------------------------------------------- what the bar asks

function ownLayouts() {
  return run.layers.some(({ reference }) => reference === null);
}

function barNote(last) {
  const out = [];
  if (!last) out.push(make("span", {}, `One ${unitOfStep} was observed: there is nothing to play.`));
  const layer = layerOfSweep();
  if (layer) out.push(make("span", {}, `units ${layer.by}${layer.reference === null ? "" : `, on the layout of ${layer.reference}`}`));
  return out;
}

function escaped() {
  set({ marked: -1 });
}

// ---------------------------------------------------------------------------------------------------------- header

function drawSweepHeader() {
  const failed = run.runs.filter(({ state: how }) => how !== "FINISHED").length;
  const facts = [
    ["Runs", `${run.runs.length}${failed ? `, ${failed} of them not finished` : ""}`],
    ["Observed", `${plural(steps.length, unitOfStep)}${steps.length > 1 ? `, ${steps[0]} to ${steps[steps.length - 1]}` : ""}`],
    ["Layers", run.layers.length ? `${run.layers.length} shared` : "none shared"],
  ];
  document.getElementById("header").append(
    make("p", { class: "eyebrow" }, "netlapse · networks learning, side by side"),
    make("h1", {}, manifest.title || "A sweep"),
    make("dl", { class: "facts" }, facts.map(([name, text]) => make("div", {}, make("dt", {}, name), make("dd", {}, text)))),
    run.layers.length
      ? make("p", { class: "lede" }, make("strong", {}, "How to read it: "), "each map is one layer of one run while it looks at one group of inputs; ", ownLayouts() ? "each run has a layout of its own, so only within a row does the same place mean the same. " : "units lie where their counterparts in the run of reference do, so the same place means the same in all rows. ", make("b", { class: "red" }, "Red"), " units respond more to this group than to the average group, ", make("b", { class: "blue" }, "blue"), " ones less.")
      : make("p", { class: "notice" }, "No layer of two runs could be compared, so there are no maps here."),
  );
  if (run.left_out.length) document.getElementById("header").append(make("p", { class: "notice" }, make("strong", {}, "Left out: "), `${run.left_out.join(", ")}, because with them this page would be too large to be shown. They are in the runs.`));
}

function drawSweepFooter() {
  const lines = [
    manifest.run_id && ["Parent", manifest.run_id],
    manifest.command && ["Made with", manifest.command],
    run.not_matched.length && ["Not compared", `${run.not_matched.join(", ")}; not_compared.txt beside this page says why`],
    ["Numbers", "rounded for this page; the exact arrays are in the runs, under findings/"],
    ["Keys", `← → ${unitOfStep} · Home End first and last · space plays · L G M the next layer, group and metric, with shift the one before · Esc unmarks a run`],
  ].filter(Boolean);
  document.getElementById("footer").append(make("dl", {}, lines.map(([name, text]) => make("div", {}, make("dt", {}, name), make("dd", {}, text)))));
}

// ------------------------------------------------------------------------------------------------------------ runs

const selects = {};

function drawControls(root) {
  const controls = make("div", { class: "controls", id: "controls" });
  const add = (key, label, options, value) => {
    const node = choice(label, options, value, (chosen) => set({ [key]: key === "metric" ? chosen : Number(chosen) }));
    selects[key] = node.querySelector("select");
    controls.append(node);
  };
  if (run.layers.length) add("layer", "Layer", run.layers.map((layer, i) => [i, layerTitle(layer.name)]), state.layer);
  if (run.layers.length) add("group", "Group", [[-1, "all"], ...run.groups.map((name, i) => [i, name])], state.group);
  if (metrics.length) add("metric", "Metric", metrics.map((name) => [name, name]), state.metric);
  if (run.layers.length) controls.append(colourBar(DIVERGING, ["−2", "0", "2"].map((text) => text), "contrast, standard deviations of the layer", ["≤ −2", "≥ 2"]));
  root.append(controls);
  view(Object.keys(selects), () => Object.entries(selects).forEach(([key, select]) => (select.value = state[key])));
}

function drawRuns() {
  const root = document.getElementById("runs");
  drawControls(root);
  const list = make("div", { class: "run-list" });
  root.append(list);
  const rows = run.runs.map((one, index) => {
    const note = make("p", {});
    const metric = make("p", { class: "metric" });
    const maps = make("div", { class: "run-maps" });
    const bad = one.state !== "FINISHED";
    const head = make(
      "div",
      { class: "run-head" },
      make("div", { class: "run-name" }, make("i", { style: `background:${runTone(index)}` }), one.name),
      make("p", {}, make("span", { class: bad ? "run-state bad" : "run-state" }, one.state.toLowerCase()), one.why && `: ${one.why.split("\n")[0].slice(0, 160)}`),
      note,
      metric,
    );
    const node = make("article", { class: "run", title: one.run, click: () => set({ marked: state.marked === index ? -1 : index }) }, head, maps);
    list.append(node);
    return { index, node, note, metric, maps, canvases: [], seen: true };
  });
  // Of a hundred runs those are drawn that are to be seen.
  const watching = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const row = rows.find(({ node }) => node === entry.target);
      row.seen = entry.isIntersecting;
      if (row.seen) paintRow(row);
    }
  }, { rootMargin: "200px" });
  rows.forEach(({ node }) => watching.observe(node));

  const arrange = () => {
    list.classList.toggle("one", state.group >= 0);
    for (const row of rows) arrangeRow(row);
    show();
  };
  const show = () => rows.forEach((row) => row.seen && paintRow(row));
  const say = () =>
    rows.forEach(({ index, metric, node }) => {
      const curves = curvesNow();
      metric.textContent = curves ? `${state.metric}: ${format(curveAt(curves[index], state.step))}` : "";
      node.classList.toggle("marked", state.marked === index);
    });
  view(["layer", "group", "width"], arrange);
  view(["step"], show);
  view(["step", "metric", "layer", "marked"], say);
  arrange();
  say();
}

function arrangeRow(row) {
  const layer = layerOfSweep();
  row.canvases = [];
  row.maps.replaceChildren();
  if (!layer) return;
  row.note.textContent = layer.cells[row.index] ? layer.notes[row.index] : "";
  if (!layer.cells[row.index]) return row.maps.append(make("p", { class: "missing" }, `no map: ${layer.notes[row.index] || "not compared"}`));
  const groups = state.group >= 0 ? [state.group] : run.groups.map((_, i) => i);
  for (const group of groups) {
    const canvas = make("canvas", { role: "img", "aria-label": `${run.runs[row.index].name}, ${run.groups[group]}` });
    row.canvases.push({ canvas, group });
    row.maps.append(make("figure", {}, canvas, make("figcaption", {}, run.groups[group])));
  }
}

function paintRow({ index, maps, canvases }) {
  const cell = canvases.length && layerOfSweep().cells[index];
  if (!cell) return;
  const held = heldStep(cell.at, state.step);
  maps.classList.toggle("held", cell.at[state.step] < 0);
  for (const { canvas, group } of canvases) {
    const side = Math.round(Math.max(canvas.clientWidth || 80, 40) * Math.min(window.devicePixelRatio || 1, 2));
    if (canvas.width !== side) canvas.width = canvas.height = side;
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, side, side);
    if (held < 0) continue;
    const layout = layoutAt(cell, held);
    paint(context, rasterOf(layout.geometry, side), layout.geometry, atPoints(layout, contrasts(cell, held, group, "sd")), run.limits.sd);
  }
}

// ---------------------------------------------------------------------------------------------- curves and likeness

function drawCourse() {
  const root = document.getElementById("course");
  let chart = null;
  const rebuild = () => {
    const curves = curvesNow();
    const series = (curves || []).map((curve, i) => curve && { name: run.runs[i].name, tone: runTone(i), steps: curve.steps, values: curve.values, strong: () => state.marked < 0 || state.marked === i }).filter(Boolean);
    const of = curves && run.curves[`${state.metric}/${(layerOfSweep() || {}).name}`] ? ` of ${layerTitle(layerOfSweep().name)}` : "";
    chart = series.length ? lineChart({ series, width: root.clientWidth, height: 280, label: state.metric }) : null;
    const text = metrics.length ? "The line marks the step shown above; click or drag to go to another. Click a run above to mark it." : "No metric was recorded in these runs.";
    root.replaceChildren(make("h2", {}, state.metric ? `${state.metric}${of}` : "Curves"), make("p", { class: "hint" }, text), chart ? chart.node : make("p", { class: "missing" }, state.metric ? "not recorded of this layer" : ""));
  };
  view(["metric", "layer", "width"], rebuild);
  view(["step", "marked"], () => chart && chart.show());
  rebuild();
}

function drawLikeness() {
  const root = document.getElementById("likeness");
  const show = () => {
    const layer = layerOfSweep();
    const known = layer && layer.alike;
    const title = make("h2", {}, layer ? `How alike the runs are in ${layerTitle(layer.name)}` : "How alike the runs are");
    if (!known) return root.replaceChildren(title, make("p", { class: "missing" }, "not known: it takes analyses=similarity, and one probe in all runs"));
    const before = known.steps.filter((step) => step <= steps[state.step]);
    const row = Math.max(before.length - 1, 0);
    const value = likenessAt(known, row);
    const size = known.members.length;
    const cell = size <= 12 ? 80 : 1; // with room for numbers, or enlarged by the browser
    const canvas = make("canvas", { class: cell === 1 && "fine", width: size * cell, height: size * cell, role: "img", "aria-label": `CKA of ${size} runs` });
    paintLikeness(canvas.getContext("2d"), value, size, cell);
    const written = known.members.map((member) => run.runs[member].name);
    const numbered = Math.max(...written.map((name) => name.length)) > 8; // there is room for it in a row, not over a column
    const names = numbered ? written.map((name, i) => `${i + 1} ${name}`) : written;
    const legible = size <= 20;
    root.replaceChildren(
      title,
      make("p", { class: "hint" }, `CKA at ${nameOfStep(known.steps[row])}, debiased: 1 where two runs hold the same inputs to be alike, about 0 where they have nothing in common.`),
      make(
        "div",
        { class: "matrix" },
        make("div", { class: "down" }, legible && names.map((name) => make("span", { title: name }, name))),
        canvas,
        make("div", {}),
        make("div", { class: "across" }, legible && names.map((name, i) => make("span", { title: name }, numbered ? String(i + 1) : name))),
      ),
      colourBar(SEQUENTIAL, ["0", "0.5", "1"], "CKA", ["≤ 0", "1"]),
    );
  };
  view(["step", "layer"], show);
  show();
}

function likenessAt(known, row) {
  const size = known.members.length;
  const numbers = unpack(known.cka);
  return (a, b) => {
    const number = numbers[(row * size + a) * size + b];
    return number === MISSING ? NaN : number * known.scale[row];
  };
}

function paintLikeness(context, value, size, cell) {
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.font = "20px system-ui, sans-serif";
  for (let a = 0; a < size; a++) {
    for (let b = 0; b < size; b++) {
      const here = value(a, b);
      context.fillStyle = Number.isNaN(here) ? "#ededed" : css(between(SEQUENTIAL, here));
      context.fillRect(b * cell, a * cell, cell, cell);
      if (cell === 1) continue;
      context.fillStyle = here > 0.6 ? "#fff" : "#1c2430";
      context.fillText(Number.isNaN(here) ? "–" : here.toFixed(2), (b + 0.5) * cell, (a + 0.5) * cell);
    }
  }
}

// ----------------------------------------------------------------------------------------------------------- start

document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.target.tagName === "SELECT") return;
  const key = { l: "layer", g: "group", m: "metric" }[event.key.toLowerCase()];
  if (!key || !selects[key]) return;
  const { options, selectedIndex } = selects[key];
  const value = options[(selectedIndex + (event.shiftKey ? options.length - 1 : 1)) % options.length].value;
  set({ [key]: key === "metric" ? value : Number(value) });
});

const PREFERRED = ["training/val_accuracy", "training/accuracy", "nap/separability", "nap/drift"];
state.metric = PREFERRED.find((name) => metrics.includes(name)) || metrics[0] || null;
drawSweepHeader();
drawBar();
drawRuns();
drawCourse();
drawLikeness();
drawSweepFooter();

let widthBefore = document.documentElement.clientWidth;
window.addEventListener("resize", () => {
  const width = document.documentElement.clientWidth;
  if (width === widthBefore) return;
  widthBefore = width;
  set({ width });
});
