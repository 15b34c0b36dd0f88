// The card of a unit: the inputs it responds to most, with its field outlined in each; the field; what the unit is for; and how
// both grew over the steps. A small one, of the inputs alone, tells of the unit that is pointed at.

// What is known at a step (index) of what a unit responds to: of `receptive_field`, else the inputs that `nap` found.
function respondsAt(layer, index, unit) {
  const responds = layer.responds;
  const row = responds && index >= 0 ? responds.at[index] : -1;
  if (row < 0) return null;
  const [units, k] = responds.top.shape.slice(1);
  const of = (name) => unpack(responds[name])[row * units + unit];
  const kind = of("class");
  const from = (row * units + unit) * k;
  const top = [...unpack(responds.top).subarray(from, from + k)].map((input, rank) => ({ input, rank })).filter(({ input }) => input < inputs.at.length);
  return { row, responds, kind, dead: kind < 0, top, since: of("since"), purity: of("purity"), stability: of("stability"), height: of("height"), field: fieldAt(responds, index, unit) };
}

function numbersAt(layer, index, unit) {
  const responds = layer.responds;
  const at = responds && responds.units ? unpack(responds.units).indexOf(unit) : -1;
  const row = responds && index >= 0 ? responds.at[index] : -1;
  if (at < 0 || row < 0) return null;
  const of = (name) => unpack(responds.numbers[name])[row * responds.units.shape[0] + at];
  return { diameter: of("diameter"), area: of("area"), ratio: of("ratio") };
}

// An input, with its field outlined where there is one, and its label under it; in words where it is no picture.
function topTile(found, { input, rank }, index) {
  const text = inputText(input, index);
  if (!pictureOf(input)) return make("figure", { class: "top-tile in-words", title: text }, inputTile(input, index));
  const label = labelOf(input);
  const region = found.field && found.responds.image ? regionAt(found, index, rank) : null;
  const caption = make("figcaption", { class: label !== null && label === found.kind ? "is" : "" }, label === null ? `#${inputs.at[input]}` : className(label));
  return make("figure", { class: "top-tile", title: text }, outlinedInput(input, region, `${text}${region ? ", its field outlined" : ""}`), caption);
}

function regionAt(found, index, rank) {
  const centre = centreOf(found.responds, found.row, found.unit, rank);
  return centre && regionOf(found.responds, found.field, centre);
}

// The inputs, or why there are none; nothing where they were not recorded.
function topTiles(layer, index, unit) {
  const found = respondsAt(layer, index, unit);
  if (found ? found.dead : isConstant(layer, mapsView.index, unit)) return make("p", { class: "dead" }, deadText(found ? index : mapsView.index));
  const top = found ? found.top : (topOf(layer, mapsView.index, unit) || []).map((input) => ({ input }));
  return top.length ? make("div", { class: "top-tiles" }, top.map((one) => topTile({ ...found, unit }, one, index))) : null;
}

const deadText = (index) => `Dead: at ${nameOfStep(steps[index])} it gives one and the same activation for every input, so that none is its top input.`;

// "class 7: 4 of its 5 top inputs"
const kindText = (found) => [make("b", {}, `class ${className(found.kind)}`), `: ${Math.round(found.purity * found.top.length)} of its ${plural(found.top.length, "top input")}`];

// ----------------------------------------------------------------------------------------------------- pointed at

// It lies over the column of layers: the maps, which are to be compared, stay uncovered, and nothing moves.
function drawPeek() {
  const peek = make("div", { class: "peek", "aria-hidden": "true", hidden: true });
  document.getElementById("maps").append(peek);
  const show = () => {
    const unit = state.hover;
    const layer = layerNow();
    const tiles = unit === null || unit === pinned() || state.tool !== "unit" ? null : topTiles(layer, state.step, unit);
    peek.hidden = !tiles;
    if (peek.hidden) return peek.replaceChildren();
    const found = respondsAt(layer, state.step, unit);
    peek.replaceChildren(make("p", {}, make("strong", {}, `unit ${unit}`), found && !found.dead ? [" · for ", kindText(found)] : ""), tiles);
  };
  view(["hover", "layer", "step", "pins", "tool"], show);
}

// --------------------------------------------------------------------------------------------------------- pinned

// The card of the pinned unit: `show` draws it for the step of the slider.
function unitCard(layer, unit) {
  const node = make("div", { class: "unit-card" });
  const show = () => {
    const focused = node.contains(document.activeElement) ? document.activeElement.dataset.step : undefined;
    const index = state.step;
    const found = respondsAt(layer, index, unit);
    node.replaceChildren(...[found ? cardNow(layer, { ...found, unit }, index) : cardOfNap(layer, unit, index), cardOverSteps(layer, unit, node.parentNode.clientWidth)].flat().filter(Boolean));
    const again = focused !== undefined && node.querySelector(`[data-step="${focused}"]`);
    if (again) again.focus();
  };
  return { node, show };
}

// Without `receptive_field` there are the inputs alone, of the highest mean activation.
function cardOfNap(layer, unit, index) {
  const responds = layer.responds;
  const tiles = topTiles(layer, index, unit);
  const failed = !responds && whyMissing(RESPONSES).includes("failed") && `No fields: ${whyMissing(RESPONSES)}.`;
  return [
    tiles && make("div", { class: "card-top" }, make("h5", {}, `What it responds to most at ${nameOfStep(steps[mapsView.index])}`), tiles, Array.isArray(layer.shape) && layer.shape.length === 3 && make("p", { class: "hint" }, "By its mean over all positions.")),
    responds && unobserved("What it responds to most", responds.at, index, [], false),
    failed && make("p", { class: "notice" }, failed),
  ];
}

const RESPONSES = "receptive_field";

function cardNow(layer, found, index) {
  const { responds } = found;
  const why = whyNoField(layer, found, index);
  const field = found.dead ? null : make(
    "figure", { class: "field-now" },
    make("h5", {}, "Its field"),
    why ? make("p", { class: "no-field" }, why) : make("div", { class: "field-map" }, fieldMap(responds, found.field, fieldText(layer, index, found.unit))),
    !why && colourBar(DIVERGING, ["\u2212100 %", "0", "100 %"], "of its activation that covering there takes; grey: unknown"),
  );
  return make(
    "div", { class: "card-now" },
    make("div", { class: "card-top" }, make("h5", {}, `What it responds to most at ${nameOfStep(steps[index])}`), topTiles(layer, index, found.unit), !found.dead && !why && make("p", { class: "hint" }, outlineText(responds))),
    field,
    !found.dead && make("dl", { class: "card-facts" }, cardFacts(layer, found, index).map(([name, ...text]) => make("div", {}, make("dt", {}, name), make("dd", {}, ...text)))),
  );
}

const outlineText = (responds) => `Outlined: where a square of ${responds.occluder} pixels that covers the input takes at least half of what it takes most.`;

function fieldText(layer, index, unit) {
  const numbers = numbersAt(layer, index, unit);
  return `field of unit ${unit} at ${nameOfStep(steps[index])}${numbers && !Number.isNaN(numbers.diameter) ? `, ${pixelsText(numbers.diameter)} wide` : ""}`;
}

const pixelsText = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} px`;

// Why a unit that is not dead has no field to show at a step, or null.
function whyNoField(layer, found, index) {
  const { responds, unit } = found;
  if (!responds.units) return "No fields: this run was asked for top inputs alone (fields=false).";
  const having = [...unpack(responds.units)];
  if (!having.includes(unit)) return ["No field: it was measured for ", `${having.length} of the ${plural(layer.units, "unit")}, spread evenly (limit_units). Nearest by index: `, nearby(having, unit)];
  if (!responds.fields) return "No field: the probe’s inputs are not known to be images.";
  const shown = [...unpack(responds.fields.units)];
  if (!shown.includes(unit)) return ["Its field is in the findings, and left out here to keep this page small. Nearest by index with one: ", nearby(shown, unit)];
  if (!found.field) return unobserved("The field", responds.fields.at, index, responds.fields.left_out, false);
  if (!(found.height > 0)) return "No field: its activation is nowhere above 0, so nothing can be taken from it.";
  const numbers = numbersAt(layer, index, unit);
  return Number.isNaN(numbers.diameter) ? "No field: wherever the input is covered, nothing is taken from its activation." : null;
}

const nearby = (having, unit) =>
  [...having].sort((a, b) => Math.abs(a - unit) - Math.abs(b - unit)).slice(0, 2).sort((a, b) => a - b)
    .map((other, i) => [i ? ", " : "", make("button", { type: "button", class: "link", click: () => pin(other) }, `unit ${other}`)]);

function cardFacts(layer, found, index) {
  const numbers = numbersAt(layer, index, found.unit);
  const { theory } = found.responds;
  const many = found.top.length;
  const before = found.responds.at.slice(0, index).reduce((last, row, i) => (row >= 0 ? i : last), -1);
  const facts = [["What it is for", ...kindText(found), make("span", { class: "soft" }, found.since === steps[found.responds.at.findIndex((row) => row >= 0)] ? " · from the start" : ` · since ${nameOfStep(found.since)}`)]];
  if (!Number.isNaN(found.stability)) facts.push(["How steady", `${Math.round(found.stability * many)} of ${many} were among them at ${nameOfStep(steps[before])}`]);
  if (!numbers || Number.isNaN(numbers.diameter)) return facts;
  facts.push(["Width of its field", make("b", {}, pixelsText(numbers.diameter)), make("span", { class: "soft" }, " · the disc as large as what holds 95 % of its field")]);
  facts.push(["Its strongest part", `${format(numbers.area)} px²`, make("span", { class: "soft" }, " · within the outline")]);
  if (theory) facts.push(["What it can see, by theory", `${theory[0][0]} × ${theory[1][0]} px`, Number.isNaN(numbers.ratio) ? "" : make("span", { class: "soft", title: `the places that hold 95 % of its field, beside all that could hold anything because the square touches what it can see` }, ` · its field fills ${percent(numbers.ratio)} of the places where the square touches that`)]);
  return facts;
}

// ------------------------------------------------------------------------------------------------------- over steps

// The unit's fields at every step side by side, and the course of their diameter.
function cardOverSteps(layer, unit, width) {
  const responds = layer.responds;
  if (!responds || !responds.units || !responds.fields || !unpack(responds.units).includes(unit)) return null;
  const abreast = width >= 720;
  const room = abreast ? width - 340 : width;
  const all = steps.map((_, i) => i).filter((i) => responds.fields.at[i] >= 0);
  const columns = thinned(all, Math.max(1, Math.floor((room + 6) / 62)), heldStep(responds.fields.at, state.step));
  const strip = make("div", { class: "field-strip" }, columns.map((index) => fieldButton(layer, index, unit)));
  const course = diameterChart(layer, unit, abreast ? 310 : width);
  const gone = responds.fields.left_out.length;
  const notes = [
    all.length === 1 ? `One ${unitOfStep} was observed: there is nothing to compare it with.` : `Press ${unitOfStep === "epoch" ? "an" : "a"} ${unitOfStep} to go there.`,
    columns.length < all.length && `${columns.length} of ${all.length} have room, evenly spread and always with the one of the slider.`,
    gone && `To keep this page small it holds fields of ${all.length} of the ${plural(all.length + gone, unitOfStep)} that were recorded.`,
  ].filter(Boolean);
  return make(
    "div", { class: "card-steps" },
    make("div", { class: "card-strip" }, make("h5", {}, `Its field over the ${unitOfStep}s`), strip, make("p", { class: "hint" }, notes.join(" "))),
    course && make("figure", { class: "card-course" }, make("h5", {}, "Width of its field, in pixels"), course),
  );
}

function fieldButton(layer, index, unit) {
  const found = { ...respondsAt(layer, index, unit), unit };
  const why = found.dead ? "dead" : whyNoField(layer, found, index) && "none";
  const current = heldStep(layer.responds.fields.at, state.step) === index;
  const tile = why ? make("span", { class: "no-field" }, why) : fieldMap(layer.responds, found.field, fieldText(layer, index, unit));
  return make(
    "button", { type: "button", "data-step": index, class: "field-step", "aria-current": current && "step", title: `${fieldText(layer, index, unit)}${why ? `: ${why}` : ""}`, click: () => set({ step: index, playing: false }) },
    tile, make("span", { class: "at" }, make("span", { class: "spoken" }, `${unitOfStep} `), String(steps[index])),
  );
}

function diameterChart(layer, unit, width) {
  const { at, bound, units, numbers } = layer.responds;
  const place = unpack(units).indexOf(unit);
  const having = steps.map((_, i) => i).filter((i) => at[i] >= 0);
  const values = having.map((i) => unpack(numbers.diameter)[at[i] * units.shape[0] + place]);
  if (values.every((value) => Number.isNaN(value))) return null;
  const tone = layerTone(state.layer);
  const series = [{ name: `unit ${unit}`, tone, steps: having.map((i) => steps[i]), values }];
  if (bound !== null) series.push({ name: "theory", tone: SHARED_TONE, steps: having.map((i) => steps[i]), values: having.map(() => bound), chance: BOUND });
  const chart = lineChart({ series, width, height: 124, label: `diameter of the field of unit ${unit}`, zero: true });
  return [chart.node, bound !== null && make("p", { class: "hint" }, `dashed: ${BOUND}`)];
}

const BOUND = "the most that theory allows";
