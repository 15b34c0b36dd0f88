// One unit: found under the cursor and marked in every group's map, its values under the maps; pinned by a click, its
// values per group over the steps.

const pinned = () => state.pins[state.layer] ?? null;

function pin(unit) {
  set({ pins: { ...state.pins, [state.layer]: unit }, hover: null });
}

const unitAt = ([x, y]) => nearestUnit(mapsView.layout, layerNow().units, x, y);

// Where on a map an event is, in map coordinates.
function placeUnder(frame, event) {
  const box = frame.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, 1 - (event.clientY - box.top) / box.height];
}

function followPointer(frame, group) {
  frame.addEventListener("pointermove", (event) => event.pointerType !== "touch" && set({ hover: unitAt(placeUnder(frame, event)), hoverGroup: group }));
  frame.addEventListener("pointerleave", () => set({ hover: null, hoverGroup: null }));
  frame.addEventListener("click", (event) => state.tool === "unit" && togglePin(unitAt(placeUnder(frame, event))));
}

const togglePin = (unit) => pin(unit === pinned() ? null : unit);

function drawUnits() {
  if (!run.layers.length) return;
  view(["hover", "hoverGroup", "pins", "layer", "step", "quantity", "layout", "places", "difference", "otherStep", "otherGroup", "tool", "drawing"], markUnit);
  const root = document.getElementById("unit");
  let chart = null;
  const rebuild = () => {
    chart = pinned() === null ? null : unitChart(root);
    if (!chart) root.replaceChildren();
  };
  view(["pins", "layer", "quantity", "width"], rebuild);
  view(["step"], () => chart && chart.show());
  markUnit();
  rebuild();
  drawPeek();
}

// Rings in all maps and the numbers under them.
function markUnit() {
  const layer = layerNow();
  const unit = state.hover ?? pinned();
  const style = mapsView.grid.style;
  for (const [name, marked] of [["hover", state.hover], ["pin", pinned()]]) {
    mapsView.grid.classList.toggle(`has-${name}`, marked !== null);
    if (marked === null) continue;
    const [x, y] = placeOf(mapsView.layout, marked);
    style.setProperty(`--${name}-x`, `${(x * 100).toFixed(2)}%`);
    style.setProperty(`--${name}-y`, `${((1 - y) * 100).toFixed(2)}%`);
  }
  const index = mapsView.index;
  for (const figure of mapsView.figures) {
    figure.value.replaceChildren(...(unit === null || index < 0 ? ["\u00a0"] : unitValue(layer, index, figure.group, unit)));
  }
  const text = mapsView.readout;
  if (unit === null) text.replaceChildren(state.tool === "unit" ? "Point at a map to read a unit in every group; click or tap to pin it." : toolText());
  else {
    const how = state.tool !== "unit" ? null : state.hover === null ? "pinned" : unit === pinned() ? "pinned; click to unpin" : "click to pin";
    const constant = index >= 0 && isConstant(layer, index, unit);
    text.replaceChildren(
      make("strong", {}, `${layerTitle(layer.name)}, unit ${unit}`),
      constant ? make("strong", { class: "flag" }, " · constant over the probe, laid out apart") : "",
      ` · ${[how, `under each map: ${readText()}; in grey: its mean activation${layer.error && !MANY ? " ± standard error" : ""}`, MANY ? pointedText(layer, index, unit) : layer.sparsity && "active: share of inputs that activate it"].filter(Boolean).join(" · ")}`,
    );
  }
}

// The standard error and the share of a unit in the group whose map is pointed at.
function pointedText(layer, index, unit) {
  const group = state.hoverGroup;
  if (group === null || whyNoMap(index, group)) return null;
  const [error, share] = [errorOf(layer, index, group, unit), shareOf(layer, index, group, unit)];
  return [`here, group ${run.groups[group]}: ${format(activationOf(layer, index, group, unit))}${Number.isNaN(error) ? "" : ` ± ${format(error, 2)}`}`, !Number.isNaN(share) && `active ${percent(share)}`].filter(Boolean).join(", ");
}

function readText() {
  const contrast = { none: "its contrast", step: `its change since ${nameOfStep(steps[state.otherStep])}`, group: `its difference to group ${run.groups[state.otherGroup]}` };
  return `${contrast[state.difference]} in ${state.quantity === "sd" ? "sd" : "activation"}`;
}

const valueText = (value) => (Number.isNaN(value) ? "–" : state.quantity === "sd" ? `${signed(value)} sd` : signed(value));
const MANY = groupCount > 12; // then the maps are small, and the line above them tells the error and the share of the one pointed at
const percent = (share) => (Number.isNaN(share) ? "–" : `${share > 0 && share < 0.005 ? "< 1" : (share * 100).toFixed(0)} %`);

function unitValue(layer, index, group, unit) {
  if (whyNoMap(index, group)) return ["\u00a0"];
  const value = shownValue(layer, index, group, unit);
  const raw = activationOf(layer, index, group, unit);
  if (Number.isNaN(raw) && Number.isNaN(value)) return ["not a number"];
  const [error, share] = [errorOf(layer, index, group, unit), shareOf(layer, index, group, unit)];
  const plain = [make("b", {}, valueText(value)), make("span", {}, format(raw), Number.isNaN(error) || MANY ? "" : ` ± ${format(error, 2)}`)];
  return MANY || Number.isNaN(share) ? plain : [...plain, make("span", {}, `active ${percent(share)}`)];
}

// The share of all inputs that activate a unit, over the groups that have any.
function shareOverall(layer, index, unit) {
  let [sum, inputs] = [0, 0];
  for (let group = 0; group < groupCount; group++) {
    const [share, count] = [shareOf(layer, index, group, unit), countOf(index, group)];
    if (!Number.isNaN(share) && count) [sum, inputs] = [sum + share * count, inputs + count];
  }
  return inputs ? sum / inputs : NaN;
}

// The pinned unit's contrast with the mean of the groups, per group over the steps.
function unitChart(root) {
  const layer = layerNow();
  const unit = pinned();
  const observed = steps.map((_, i) => i).filter((i) => layer.at[i] >= 0);
  const here = Math.max(mapsView.index, 0);
  const strength = (group) => Math.abs(contrastOf(layer, here, group, unit, "raw")) || 0;
  const ranked = run.groups.map((_, group) => group).sort((a, b) => strength(b) - strength(a));
  const coloured = new Set(groupCount <= 10 ? ranked : ranked.slice(0, 8));
  const series = run.groups.map((name, group) => ({
    name,
    tone: coloured.has(group) ? groupTone(groupCount <= 10 ? group : ranked.indexOf(group)) : "#c3c8d0",
    steps: observed.map((i) => steps[i]),
    values: observed.map((i) => contrastOf(layer, i, group, unit, state.quantity)),
    strong: () => coloured.has(group),
  }));
  const number = make("input", {
    type: "number", min: 0, max: layer.units - 1, value: unit, "aria-label": "Pinned unit",
    change: (event) => {
      const wanted = Number(event.target.value);
      if (Number.isInteger(wanted) && wanted >= 0 && wanted < layer.units) pin(wanted);
      else event.target.value = unit;
    },
  });
  const what = state.quantity === "sd" ? "contrast in standard deviations of the layer" : "contrast in activation";
  const width = Math.min(root.clientWidth || 700, 900);
  const chart = lineChart({ series, width, height: Math.max(210, Math.min(groupCount, 10) * 14 + 90), label: `${layerTitle(layer.name)}, unit ${unit}, ${what} per group`, zero: true });
  const facts = make("div", { class: "unit-facts" });
  const card = unitCard(layer, unit);
  const focused = root.contains(document.activeElement) && document.activeElement.type === "number";
  root.replaceChildren(
    make(
      "div", { class: "unit-head" },
      make("h4", {}, `${layerTitle(layer.name)}, unit `, number),
      make("button", { type: "button", click: () => pin(null) }, "Unpin"),
    ),
    card.node,
    make(
      "div", { class: "unit-head" },
      make("h5", {}, "What it tells apart"),
      make("p", { class: "hint" }, `${what}, per group over the ${unitOfStep}s${groupCount > 10 ? "; the 8 groups it answers most at this step are coloured" : ""}`),
    ),
    chart.node,
    facts,
  );
  if (focused) number.focus();
  const show = () => {
    chart.show();
    card.show();
    facts.replaceChildren(...unitFacts(layer, mapsView.index, unit));
  };
  show();
  return { show };
}

// What else is known of a unit at a step: whether it is constant, how many inputs activate it.
function unitFacts(layer, index, unit) {
  if (index < 0) return [];
  const share = shareOverall(layer, index, unit);
  const said = [
    isConstant(layer, index, unit) && "constant over the probe, so laid out apart from the others",
    !Number.isNaN(share) && `activated by ${percent(share)} of the inputs`,
  ].filter(Boolean);
  return [said.length ? make("p", { class: "hint" }, `At ${nameOfStep(steps[index])}: ${said.join("; ")}.`) : ""];
}
