// Where the network looks. The fixed inputs at the step of the slider, one column per input, one row per method; in other
// cuts, one input or one method over the steps (epochs.js); and the inputs chosen at the step (chosen.js).

const CUTS = [
  ["step", `at this ${unitOfStep}`],
  ["input", `one input over the ${unitOfStep}s`],
  ["method", `one method over the ${unitOfStep}s`],
];

function drawSaliency() {
  const root = document.getElementById("saliency");
  const data = run.saliency;
  const title = make("h2", { id: "saliency-title" }, "Where the network looks");
  if (!data || !data.methods.length) {
    if (!run.analyses.saliency && !whyMissing("saliency").includes("failed")) return root.remove();
    root.append(title, make("p", { class: "notice" }, `No saliency maps: ${whyMissing("saliency").replace("was not part of this run", "recorded no panel of inputs")}.`));
    return;
  }
  const limit = run.limits.density;
  const slider = make("input", { type: "range", min: 0, max: 100, value: state.strength * 100, input: (event) => set({ strength: event.target.value / 100 }) });
  const bar = colourBar(SEQUENTIAL, ["0", "1", "2", "3", "4", "5", `≥ ${limit}`], "saliency, times an even spread");
  const cuts = switches("What the grid shows", CUTS, state.cut, (cut) => set({ cut }));
  const panes = { step: make("div", {}), input: make("div", {}), method: make("div", {}) };
  root.append(
    make(
      "div", { class: "section-head" },
      make("div", {}, title, make("p", { class: "hint" }, panelHint(data))),
      bar,
      make("label", { class: "choice" }, make("span", {}, "map over input"), slider),
    ),
    make("div", { class: "controls" }, cuts),
    ...Object.values(panes),
  );
  // First, so that what is drawn next finds its pane open, and can be measured.
  const show = () => {
    cuts.show(state.cut);
    for (const [cut, node] of Object.entries(panes)) node.hidden = cut !== state.cut;
  };
  view(["cut"], show);
  show();
  const panel = panelOf(data);
  drawAtStep(panes.step, data, panel);
  drawOverEpochs(panes.input, data, panel, "input");
  drawOverEpochs(panes.method, data, panel, "method");
  drawChosen(panes.step, data);
}

function panelHint(data) {
  const sizes = data.methods.map((m) => m.size).concat([data.size]).filter(([h, w]) => Math.max(h, w) > data.side);
  const explained = data.explained ? `the ${data.explained} class` : "the network’s answer";
  return [
    `${plural(data.inputs.length, "fixed input")} of the probe, the same at every ${unitOfStep}. A map says how strongly each pixel bears on ${explained}, as a multiple of the map’s own mean: one scale for all maps, methods and ${unitOfStep}s.`,
    sizes.length && ` Large maps are averaged down to at most ${data.side} pixels a side.`,
    data.left_out.length && ` To keep this page small it holds ${observedSteps(data).length} of the ${plural(observedSteps(data).length + data.left_out.length, unitOfStep)} that were recorded.`,
  ].filter(Boolean);
}

// The fixed inputs, ready to be drawn: of each the grey values, and its map by a method at a step (index).
function panelOf(data) {
  const dark = isDark(data.panel);
  const unders = data.inputs.map((_, input) => pictured(data.panel, input, dark, inputTitle(data, input)));
  return {
    picture: (input) => pictured(data.panel, input, dark, inputTitle(data, input)).canvas,
    tile: (method, input) => mapTile(method.density.shape.slice(2), unders[input]),
    map(method, input, index) {
      const row = index < 0 ? -1 : method.at[index];
      const label = `${method.name} of ${inputTitle(data, input)}${index < 0 ? "" : ` at ${nameOfStep(steps[index])}`}`;
      const why = row < 0 ? "not observed" : whyBlank(method.mean[row][input]);
      const [inputs, h, w] = method.density.shape.slice(1);
      return { label, why, density: unpack(method.density), from: (row * inputs + input) * h * w };
    },
  };
}

const inputTitle = (data, input) => `input ${data.inputs[input]}${data.labels[input] === null ? "" : `, label ${className(data.labels[input])}`}`;
const observedSteps = (data) => steps.map((_, i) => i).filter((i) => data.at[i] >= 0);

// A notice where the step's maps are not on the page; what is drawn then is the last one before.
const missingStep = (what, data) => unobserved(what, data.at, state.step, data.left_out);

function drawAtStep(root, data, panel) {
  const notices = make("div", { class: "notices" });
  const rows = make("div", { class: "panel-rows" });
  root.append(notices, rows);
  const columns = data.inputs.map((_, input) => panelColumn(data, panel, input));
  const arrange = () => {
    if (state.cut !== "step") return;
    const { perRow, side } = tilesInRow(rows.clientWidth, columns.length);
    rows.style.setProperty("--side", `${side}px`);
    const chunks = [];
    for (let from = 0; from < columns.length; from += perRow) {
      chunks.push(make("div", { class: "panel-row" }, methodNames(data), columns.slice(from, from + perRow).map((column) => column.node)));
    }
    rows.replaceChildren(...chunks);
  };
  const update = () => {
    if (state.cut !== "step") return;
    const index = heldStep(data.at, state.step);
    notices.replaceChildren(...[missingStep("Saliency", data)].filter(Boolean));
    rows.classList.toggle("held", data.at[state.step] < 0);
    for (const column of columns) column.show(index);
  };
  view(["width", "cut"], arrange);
  view(["step", "strength", "cut"], update);
  arrange();
  update();
}

// Rows of nearly equal length, tiles as large as fit.
function tilesInRow(width, many, between = 0) {
  const narrow = width < 480;
  const room = width - (narrow ? 74 : 80) - between;
  const fitting = Math.max(1, Math.floor((room + 8) / (narrow ? 72 : 112)));
  const perRow = Math.max(1, Math.ceil(many / Math.ceil(many / fitting)));
  return { fitting, perRow, side: Math.min(132, Math.floor((room + 8) / perRow) - 8) };
}

// The names beside the rows; one that is pressed shows that method over the steps.
function methodNames(data) {
  return make(
    "div", { class: "panel-names" },
    make("span", {}, "input"),
    data.methods.map((m, method) => make("span", {}, overEpochs(methodName(m.name), `${m.name} over the ${unitOfStep}s`, { cut: "method", panelMethod: method }))),
    make("div", { class: "said", "aria-hidden": "true" }, make("span", {}, "label"), make("span", {}, "answer"), make("span", { class: "sure" }, "confidence")),
  );
}

// A button that leads to another cut, to its own switch.
function overEpochs(content, label, changes) {
  const go = () => {
    set({ ...changes, playing: false });
    document.querySelector(`#saliency .switches [data-key="${changes.cut}"]`).focus();
  };
  return make("button", { type: "button", class: "over-epochs", title: label, "aria-label": label, click: go }, content);
}

function panelColumn(data, panel, input) {
  const tiles = data.methods.map((method) => panel.tile(method, input));
  const said = make("div", { class: "said" });
  const picture = overEpochs(panel.picture(input), `${inputTitle(data, input)}: over the ${unitOfStep}s`, { cut: "input", panelInput: input });
  return {
    node: make("figure", { class: "panel-column" }, make("div", { class: "tile" }, picture), tiles.map((tile) => tile.node), said),
    show(index) {
      const row = index < 0 ? -1 : data.at[index];
      said.replaceChildren(...(row < 0 ? ["not observed"] : verdict(data.labels[input], data.predictions[row][input], data.confidence[row][input])));
      tiles.forEach((tile, i) => tile.show(panel.map(data.methods[i], input, index)));
    },
  };
}
