// One unit: found under the cursor and marked in every group's map, its values under the maps; pinned by a click, its
// values per group over the steps.

const pinned = () => state.pins[state.layer] ?? null;

function pin(unit) {
  set({ pins: { ...state.pins, [state.layer]: unit }, hover: null });
}

function followPointer(frame) {
  const unitUnder = (event) => {
    const box = frame.getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) / box.width, 1 - (event.clientY - box.top) / box.height];
    return nearestUnit(mapsView.layout, layerNow().units, x, y);
  };
  frame.addEventListener("pointermove", (event) => event.pointerType !== "touch" && set({ hover: unitUnder(event) }));
  frame.addEventListener("pointerleave", () => set({ hover: null }));
  frame.addEventListener("click", (event) => {
    const unit = unitUnder(event);
    pin(unit === pinned() ? null : unit);
  });
}

function drawUnits() {
  if (!run.layers.length) return;
  view(["hover", "pins", "layer", "step", "quantity", "layout", "places", "difference", "otherStep", "otherGroup"], markUnit);
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
  if (unit === null) text.replaceChildren("Point at a map to read a unit in every group; click or tap to pin it.");
  else {
    const how = state.hover === null ? "pinned" : unit === pinned() ? "pinned; click to unpin" : "click to pin";
    text.replaceChildren(make("strong", {}, `${layerTitle(layer.name)}, unit ${unit}`), ` · ${how} · under each map: ${readText()} and, in grey, its mean activation`);
  }
}

function readText() {
  const contrast = { none: "its contrast", step: `its change since ${nameOfStep(steps[state.otherStep])}`, group: `its difference to group ${run.groups[state.otherGroup]}` };
  return `${contrast[state.difference]} in ${state.quantity === "sd" ? "sd" : "activation"}`;
}

function unitValue(layer, index, group, unit) {
  let value = contrastOf(layer, index, group, unit, state.quantity);
  if (state.difference === "step") value -= contrastOf(layer, state.otherStep, group, unit, state.quantity);
  if (state.difference === "group") value -= contrastOf(layer, index, state.otherGroup, unit, state.quantity);
  const raw = activationOf(layer, index, group, unit);
  if (Number.isNaN(raw) && Number.isNaN(value)) return [countOf(index, group) === 0 ? "\u00a0" : "not a number"];
  return [make("b", {}, state.quantity === "sd" ? `${signed(value)} sd` : signed(value)), make("span", {}, format(raw))];
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
  const focused = root.contains(document.activeElement) && document.activeElement.type === "number";
  root.replaceChildren(
    make(
      "div", { class: "unit-head" },
      make("h4", {}, `${layerTitle(layer.name)}, unit `, number),
      make("p", { class: "hint" }, `${what}, per group over the ${unitOfStep}s${groupCount > 10 ? "; the 8 groups it answers most at this step are coloured" : ""}`),
      make("button", { type: "button", click: () => pin(null) }, "Unpin"),
    ),
    chart.node,
  );
  if (focused) number.focus();
  return chart;
}
