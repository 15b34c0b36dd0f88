// The recording, decoded when first asked for; the state of the page; and small helpers to build elements.

const run = JSON.parse(document.getElementById("recording").textContent);
const manifest = run.manifest;
const steps = run.steps;
const unitOfStep = manifest.step_unit || "step";

const TYPES = { int8: Int8Array, uint8: Uint8Array, int16: Int16Array, int32: Int32Array, uint16: Uint16Array, uint32: Uint32Array, float32: Float32Array };
const MISSING = -32768;

function unpack(packed) {
  if (!packed.values) {
    const binary = atob(packed.data);
    const bytes = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
    packed.values = new TYPES[packed.type](bytes.buffer);
    packed.data = null;
  }
  return packed.values;
}

// ---------------------------------------------------------------------------------------------------- elements

// Made by the parser, so that no namespace address has to be written here.
const SVG = (() => {
  const template = document.createElement("template");
  template.innerHTML = "<svg></svg>";
  return template.content.firstChild.namespaceURI;
})();

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) if (child !== null && child !== undefined && child !== false) node.append(child);
  return node;
}

const make = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const draw = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// `spoken` names a choice that shows no label of its own.
function choice(label, options, value, onchange, spoken) {
  const select = make("select", { "aria-label": spoken, change: () => onchange(select.value) });
  for (const [key, text] of options) select.append(make("option", { value: key }, text));
  select.value = value;
  return make("label", { class: "choice" }, label && make("span", {}, label), select);
}

// Buttons of which exactly one is pressed.
function switches(label, options, value, onchange) {
  const group = make("div", { class: "switches", role: "group", "aria-label": label });
  for (const [key, text, title] of options) {
    group.append(make("button", { type: "button", "aria-pressed": String(key === value), title, "data-key": key, click: () => onchange(key) }, text));
  }
  group.show = (key) => {
    for (const button of group.children) button.setAttribute("aria-pressed", String(button.dataset.key === key));
  };
  return group;
}

const plural = (count, word, many) => `${count.toLocaleString("en")} ${count === 1 ? word : many || word + "s"}`;
const nameOfStep = (step) => `${unitOfStep} ${step}`;

// ------------------------------------------------------------------------------------------------------- state

const state = {
  step: steps.length - 1, // an index into `steps`
  layer: 0,
  quantity: "sd",
  difference: "none", // "none" | "step" | "group"
  otherStep: 0, // an index into `steps`
  otherGroup: 0,
  layout: 0, // which of the run's layouts the units are placed by; 0 is the one observed
  places: -1, // the step (index) whose layout is used for all steps, or -1: each step its own
  hover: null, // a unit of the current layer
  hoverGroup: null, // the group on whose map it is pointed at
  pins: {}, // layer index -> unit
  tool: "unit", // what a click or a drag on a map chooses: "unit" | "disc" | "polygon"
  regions: {}, // layer index -> the units chosen together, see regions.js
  drawing: null, // the region being drawn: {kind, points}
  cursor: null, // the place on the maps that the keyboard moves: [x, y]
  order: "given", // of the groups: "given" | "now" (clustered at the step) | "last" (clustered at the last one)
  sampleGroup: null, // the group that the map of inputs shows alone
  input: null, // the input pointed at on the map of inputs, by its place among them
  strength: 0.85,
  cut: "step", // of the saliency maps: "step" | "input" | "method", see saliency.js
  panelInput: 0, // the fixed input whose maps are shown over the steps
  panelMethod: 0, // the method whose maps are
  kept: null, // the steps (indices) whose predictions stand beside those of the slider's, see predictions.js
  classes: null, // those whose curves over thresholds are shown
  kind: "errors", // of the inputs that are listed, see histories.js
  cell: null, // of the confusion matrix: [label, prediction]
  followed: null, // the input of the probe whose maps are shown over the steps, see followed.js
  playing: false,
};

const views = [];
let changed = new Set();
let scheduled = false;

// `keys` are the parts of the state whose change makes `update` run, at most once per frame.
function view(keys, update) {
  views.push({ keys, update });
}

function set(changes) {
  for (const [key, value] of Object.entries(changes)) {
    if (state[key] === value) continue;
    state[key] = value;
    changed.add(key);
  }
  if (!changed.size || scheduled) return;
  scheduled = true;
  requestAnimationFrame(refresh);
}

function refresh() {
  scheduled = false;
  const keys = changed;
  changed = new Set();
  for (const { keys: wanted, update } of views) if (wanted.some((key) => keys.has(key))) update(keys);
}

// ------------------------------------------------------------------------------------------------------ access

// The latest step (index) at or before `index` at which something was stored, or -1.
function heldStep(at, index) {
  while (index >= 0 && at[index] < 0) index--;
  return index;
}

function nextStep(at, index) {
  for (let i = index; i < at.length; i++) if (at[i] >= 0) return i;
  return -1;
}

// "7" alone would read as a number among numbers.
const layerTitle = (name) => (/^[\d.]+$/.test(name) ? `layer ${name}` : name);
const groupCount = run.groups.length;

// A group's number of inputs at a step (index); null where counts were not recorded.
const countOf = (index, group) => (run.counts[index] ? run.counts[index][group] : null);

// Contrasts (u) of one group at one step (index), as Float32Array; in the layer's standard deviations or raw.
function contrasts(layer, index, group, quantity) {
  const out = new Float32Array(layer.units);
  const row = layer.at[index];
  const by = quantity === "sd" ? layer.sd[row] : 1;
  if (row < 0 || !by) return out.fill(NaN);
  const numbers = unpack(layer.contrast);
  const from = (row * groupCount + group) * layer.units;
  const scale = layer.scale[row] / by;
  for (let unit = 0; unit < layer.units; unit++) {
    const number = numbers[from + unit];
    out[unit] = number === MISSING ? NaN : number * scale;
  }
  return out;
}

function contrastOf(layer, index, group, unit, quantity) {
  const row = layer.at[index];
  const by = quantity === "sd" && row >= 0 ? layer.sd[row] : 1;
  if (row < 0 || !by) return NaN;
  const number = unpack(layer.contrast)[(row * groupCount + group) * layer.units + unit];
  return number === MISSING ? NaN : (number * layer.scale[row]) / by;
}

// The mean activation of a unit over a group's inputs.
function activationOf(layer, index, group, unit) {
  const row = layer.at[index];
  return row < 0 ? NaN : contrastOf(layer, index, group, unit, "raw") + unpack(layer.mean)[row * layer.units + unit];
}

const NO_SHARE = 255;

// The share of a group's inputs that activate a unit, and the standard error of its mean; NaN where there is none.
function shareOf(layer, index, group, unit) {
  return layer.sparsity && layer.at[index] >= 0 ? shareIn(layer.sparsity, layer.at[index], group, unit, layer) : NaN;
}

function errorOf(layer, index, group, unit) {
  const row = layer.at[index];
  return layer.error && row >= 0 ? shareIn(layer.error, row, group, unit, layer) ** 2 * layer.largest_error[row] : NaN;
}

function shareIn(packed, row, group, unit, layer) {
  const number = unpack(packed)[(row * groupCount + group) * layer.units + unit];
  return number === NO_SHARE ? NaN : number / 254;
}

const isConstant = (layer, index, unit) => Boolean(layer.constant && layer.at[index] >= 0 && unpack(layer.constant)[layer.at[index] * layer.units + unit]);

// Why a group has no map at a step (index), or null.
function whyNoMap(index, group) {
  const count = index < 0 ? null : countOf(index, group);
  if (index < 0) return "not observed";
  if (count === 0) return "no inputs";
  return count !== null && count < run.min_inputs ? `too few inputs: ${count} of at least ${run.min_inputs}` : null;
}

// What the maps show of one unit in one group.
function shownValue(layer, index, group, unit) {
  const value = contrastOf(layer, index, group, unit, state.quantity);
  if (state.difference === "step") return value - contrastOf(layer, state.otherStep, group, unit, state.quantity);
  return state.difference === "group" ? value - contrastOf(layer, index, state.otherGroup, unit, state.quantity) : value;
}

// What the maps show: contrasts, or their difference to another step or group.
function shownValues(layer, index, group) {
  const values = contrasts(layer, index, group, state.quantity);
  if (state.difference === "none") return values;
  const other =
    state.difference === "step" ? contrasts(layer, state.otherStep, group, state.quantity) : contrasts(layer, index, state.otherGroup, state.quantity);
  for (let unit = 0; unit < values.length; unit++) values[unit] -= other[unit];
  return values;
}

const limitOf = (layer) => (state.quantity === "sd" ? run.limits.sd : layer.limit || 1);
