// Every metric of the run as small multiples: metrics that belong together share a chart, layers keep their tone.

// The title of a chart, what it shows, and what its dashed lines are: what the same number is worth nothing at.
const KNOWN_CURVES = {
  "nap/drift": ["Drift", "change since the step before; 0 none, 2 opposite"],
  "nap/drift_from_start": ["Drift from the start", "change since the first step; 0 none, 2 opposite"],
  "nap/separability": ["Separability", "share of the responses’ variance that lies between groups"],
  "nap/sparsity": ["Sparsity", "mean share of the inputs that activate a unit"],
  "nap/dead_units": ["Dead units", "units with one and the same activation at every position of every probe input"],
  "nap/nonfinite_units": ["Units that are not finite", "NaN or infinite for some probe input; the network diverges"],
  "nap/nonfinite_input": ["First input that gives no number", "its place in the probe; by then the network diverges"],
  "layout/trustworthiness": ["Layout trustworthiness", "are neighbours on the map alike? 1 is perfect"],
  "layout/motion": ["Layout motion", "how far units moved on the map since the step before"],
  "layout/continuity": ["Layout continuity", "are units that respond alike neighbours on the map? 1 is perfect"],
  "layout/neighbour_preservation": ["Neighbours kept", "share of a unit’s most alike that are its nearest on the map"],
  "layout/morans_i": ["Smoothness of the maps", "Moran’s I: how alike neighbours’ contrasts are; 1 smooth, 0 chance"],
  "layout/resize_error": ["Resize error", "what a map loses when it is drawn small; 0 is nothing"],
  "layout/blur_error": ["Blur error", "what a map loses when it is blurred; 0 is nothing"],
  "layout/hull_coverage": ["Coverage", "share of the picture that the map covers"],
  "layout/components": ["Components", "regions of one sign that a map has on average"],
  "samples/same_group": ["Inputs among their own group", "share of an input’s nearest in the layer that are of its group", "neighbours that have nothing to do with groups"],
  "samples/same_group_map": ["The same on the map of inputs", "what the map shows of it"],
  "samples/motion": ["Motion of inputs", "how far inputs moved on their map since the step before"],
  "saliency/deletion": ["Deletion", "the class’s probability as the most salient positions are hidden, area under the curve; low is faithful", "random maps"],
  "saliency/insertion": ["Insertion", "the same as they are shown; high is faithful", "random maps"],
  "saliency/average_drop": ["Average drop", "share of the probability lost where only what the map shows is seen; low is faithful", "random maps"],
  "saliency/faithfulness": ["Faithfulness", "correlation of what a map says with what hiding does; 1 is faithful", "random maps"],
  "saliency/sensitivity": ["Sensitivity to noise", "how far small noise on the input moves the map; 0 not at all", "the distance to other inputs’ maps"],
  "saliency/similarity_first": ["Likeness to the start", "to the maps of the first step; near 1, what is learnt has no part in them"],
  "saliency/similarity": ["Likeness to the step before", "correlation with the map of the same input at the step before", "the same with other inputs’ maps"],
  "saliency/agreement": ["Agreement of methods", "correlation of two methods’ maps of the same input", "the same of two inputs"],
  "saliency/mass_inside": ["Saliency on the object", "share of a map inside the mask", "an even spread"],
  "saliency/concentration": ["Saliency concentration", "share held by the strongest tenth of the positions", "an even spread"],
  "saliency/entropy": ["Saliency entropy", "how widely a map is spread; 0 is one position", "an even spread"],
  "saliency/blank": ["Blank saliency", "share of maps that are zero everywhere"],
  "receptive_field/diameter": ["Width of fields", "pixels; the disc as large as what holds 95 % of a field, median over the units"],
  "receptive_field/area": ["Peak of fields", "square pixels where a field is at least half as high as its highest place, median"],
  "receptive_field/ratio": ["Fields beside theory", "share of where covering can touch what a unit sees that its field fills, median; small fields exceed 1, as they are interpolated"],
  "receptive_field/offset": ["Offset of fields", "pixels from the unit’s own place to its field’s centre of mass, median"],
  "receptive_field/eccentricity": ["Eccentricity of fields", "0 is round, near 1 drawn out, median"],
  "receptive_field/dead": ["Units that respond to nothing", "share of units with one activation everywhere, which have no field"],
  "receptive_field/purity": ["Purity of top inputs", "share of a unit’s top inputs that have their commonest label, mean; 1 is one class alone", "inputs drawn at random"],
  "receptive_field/stability": ["Stability of top inputs", "share of a unit’s top inputs that were among them at the step before, mean", "inputs drawn at random"],
  "cost": ["Cost", "seconds per analysis"],
  "cost/overhead": ["Overhead", "time spent observing over time spent training"],
};
const FAMILIES = ["training", "nap", "layout", "samples", "similarity", "fairness", "receptive_field", "cost", "saliency"];
const RANDOM_LAYOUT = "a random layout of the same units";
// What is known beforehand of an even spread.
const EVEN_SPREAD = { "saliency/concentration": 0.1, "saliency/entropy": 1 };

// Of the layouts' quality these are always open, the rest on request.
const MAIN_OF_LAYOUT = ["trustworthiness", "motion"];

// Layouts made afterwards have metrics of their own, in charts beside those of the observed one.
const relaid = new Map(run.layouts.map((layout) => [layout.analysis, layout]));

// The chart a metric belongs to, and its name in it.
function placed(name) {
  const [family, ...rest] = name.split("/");
  if (relaid.has(family)) return ["layout", `${family}/${rest[0]}`, rest.slice(1).join("/")];
  if (!rest.length) return ["other", name, name];
  const line = rest.join("/");
  if (family === "training") return [family, `training/${line.replace(/^(train|val|valid|validation|test)[_/ ]/, "")}`, line];
  if (family === "cost") return [family, line === "overhead" ? name : "cost", line];
  return rest.length > 1 ? [family, `${family}/${rest[0]}`, rest.slice(1).join("/")] : [family, name, rest[0]];
}

function chartsOfRun() {
  const charts = new Map();
  for (const [name, curve] of Object.entries(run.curves)) {
    const [family, key, line] = placed(name);
    if (run.layouts.some(({ analysis, fixed }) => fixed && key === `${analysis}/motion`)) continue; // it rests
    const chance = key.endsWith("_null") && `${key.slice(0, -5)}/${line}`;
    const beside = chance && chance in run.curves ? key.slice(0, -5) : key;
    if (!charts.has(beside)) charts.set(beside, { key: beside, family, lines: [] });
    charts.get(beside).lines.push({ line, curve, chance: beside !== key });
  }
  const rank = (chart) => (FAMILIES.indexOf(chart.family) + 100) % 100 + (FAMILIES.includes(chart.family) ? 0 : 50);
  const order = Object.keys(KNOWN_CURVES);
  const place = ({ key }) => (relaid.has(key.split("/")[0]) ? order.length : order.indexOf(key));
  return [...charts.values()].sort((a, b) => rank(a) - rank(b) || place(a) - place(b) || (a.key < b.key ? -1 : 1));
}

function relaidTitle(key) {
  const [analysis, metric] = key.split("/");
  const known = KNOWN_CURVES[`layout/${metric}`];
  return relaid.has(analysis) && known ? [known[0], `layout: ${relaid.get(analysis).words}`] : null;
}

// A chart is in the detail of a layout: its title, or null for those that are always open.
function detailOf({ key, family }) {
  const [analysis, measure] = key.split("/");
  if (family !== "layout" || MAIN_OF_LAYOUT.includes(measure)) return null;
  return relaid.has(analysis) ? `Quality of the layout “${relaid.get(analysis).words}” in detail` : "Quality of the layout in detail";
}

function drawCurves() {
  const root = document.getElementById("curves");
  const charts = chartsOfRun();
  const seen = new Set(charts.map((chart) => chart.family));
  const missing = [["training", "the training’s own loss and accuracy"], ["nap", "profiles"], ["layout", "layouts"], ["cost", "cost"]].filter(([family]) => !seen.has(family)).map(([, text]) => text);
  root.append(make("h2", { id: "curves-title" }, "Curves"));
  root.append(make("p", { class: "hint" }, charts.length ? "The line marks the step shown above; click or drag to go to another." : "No metric was recorded in this run.", missing.length && charts.length ? ` Not recorded: ${missing.join(", ")}.` : ""));
  if (charts.some((chart) => chart.key in EVEN_SPREAD || chart.lines.some(({ chance }) => chance))) root.append(make("p", { class: "hint" }, "Thin dashed lines are what chance gives, and the number is worth nothing at, or what bounds it; each chart says of what they are."));
  if (steps.length === 1 && charts.length) root.append(make("p", { class: "notice" }, `One ${unitOfStep} was observed, so each curve is a point.`));
  const open = charts.filter((chart) => detailOf(chart) === null);
  const sections = [curveSection(root, open.filter((chart) => !headingOf(chart)), () => true)];
  for (const heading of new Set(CURVES_OF.map(([, text]) => text))) {
    const below = [...(heading === OF_FIELDS ? spreadCharts() : []), ...open.filter((chart) => headingOf(chart) === heading)];
    if (!below.length) continue;
    root.append(make("h3", { class: "curves-of" }, heading));
    sections.push(curveSection(root, below, () => true));
  }
  for (const title of new Set(charts.map(detailOf).filter(Boolean))) {
    const inside = charts.filter((chart) => detailOf(chart) === title);
    const details = make("details", { class: "more-curves", toggle: () => section.rebuild() }, make("summary", {}, `${title} (${plural(inside.length, "curve")})`));
    const section = curveSection(details, inside, () => details.open);
    root.append(details);
    sections.push(section);
  }
  view(["width", "layer"], () => sections.forEach((section) => section.rebuild())); // the chosen layer keeps its label where there is no room for all
  view(["step"], () => sections.forEach((section) => section.show()));
  sections.forEach((section) => section.rebuild());
}

// What has a heading of its own, and under which.
const OF_FIELDS = "Receptive fields: how far units look";
const CURVES_OF = [
  [/^receptive_field\/(purity|stability)/, "What units respond to: how pure and how steady"],
  [/^receptive_field\//, OF_FIELDS],
  [/^saliency\//, "Saliency: whether to believe the maps, and how they change"],
];
const headingOf = ({ key }) => (CURVES_OF.find(([known]) => known.test(key)) || [])[1];

// Of each layer how the widths of its fields are spread over the units.
function spreadCharts() {
  const having = run.layers.filter(({ responds }) => responds && responds.quartiles && responds.quartiles.some(([, median]) => median !== null));
  return having.map((layer) => ({ key: `receptive_field/diameter/${layer.name}`, family: RESPONSES, layer, most: Math.max(...having.map(highest)) }));
}

const highest = ({ responds: { quartiles, bound } }) => Math.max(...quartiles.map(([, , high]) => high || 0), bound || 0);

function spreadCurve({ key, layer, most }, width) {
  const { at, quartiles, bound, theory, occluder } = layer.responds;
  const having = steps.map((_, i) => i).filter((i) => at[i] >= 0);
  const of = (which) => having.map((i) => quartiles[at[i]][which]);
  const [name, tone] = [layerTitle(layer.name), layerTone(layerIndex.get(layer.name))];
  const seen = having.map((i) => steps[i]);
  const series = [{ name: "median", tone, steps: seen, values: of(1) }];
  if (bound !== null) series.push({ name: "theory", tone: SHARED_TONE, steps: seen, values: seen.map(() => bound), chance: BOUND });
  const said = [`pixels, median and middle half of ${plural(layer.responds.units.shape[0], "unit")}`, bound !== null && `dashed: ${BOUND} where ${theory[0][0]} × ${theory[1][0]} px are seen`].filter(Boolean);
  const chart = lineChart({ series, width, height: 176, label: `width of fields in ${name}`, bounds: [0, most], band: { name: "the middle half of the units", tone, steps: seen, low: of(0), high: of(2) } });
  return { figure: make("figure", { class: "curve", "data-key": key }, make("figcaption", {}, make("strong", {}, `Width of fields in ${name}`), make("span", {}, said.join("; "))), chart.node), show: chart.show };
}

// Charts side by side, drawn while they are to be seen.
function curveSection(root, charts, seen) {
  const grid = make("div", { class: "curve-grid" });
  root.append(grid);
  let drawn = [];
  const rebuild = () => {
    drawn = [];
    if (!seen()) return grid.replaceChildren();
    const across = Math.max(1, Math.floor((grid.clientWidth + 28) / (330 + 28)));
    const width = Math.floor((grid.clientWidth - 28 * (across - 1)) / across);
    grid.style.setProperty("--across", across);
    // Names of pairs are long.
    drawn = charts.map((chart) => (across > 1 && chart.key === "saliency/agreement" ? drawnCurve(chart, 2 * width + 28, "wide") : drawnCurve(chart, width)));
    grid.replaceChildren(...drawn.map((chart) => chart.figure));
  };
  return { rebuild, show: () => drawn.forEach((chart) => chart.show()) };
}

const layerIndex = new Map(run.layers.map((layer, index) => [layer.name, index]));

const methodIndex = new Map(((run.saliency || {}).methods || []).map((method, index) => [method.name, index]));

function drawnCurve(chart, width, shape = "") {
  if (chart.layer) return spreadCurve(chart, width);
  const [title, hint, known] = KNOWN_CURVES[chart.key] || relaidTitle(chart.key) || [capital(chart.key.split("/").slice(chart.family === "training" ? 1 : 0).join(" ").replace(/_/g, " ")), ""];
  const chance = known || (chart.family === "layout" ? RANDOM_LAYOUT : "what chance gives");
  const series = seriesOf(chart, chance);
  const made = lineChart({ series, width, height: 176, label: title, zero: /drift|motion|dead|cost|overhead|loss/.test(chart.key) });
  const dashed = series.some((one) => one.chance) && `${hint ? "; " : ""}dashed: ${chance}`;
  return { figure: make("figure", { class: `curve ${shape}`, "data-key": chart.key }, make("figcaption", {}, make("strong", {}, title), (hint || dashed) && make("span", {}, hint, dashed)), made.node), show: made.show };
}

// The lines of a chart, those of chance in the tone of what they belong to; one that is the same for all is drawn once.
function seriesOf(chart, chance) {
  const ordered = chart.lines.map((entry) => ({ ...entry, layer: layerIndex.get(entry.line) })).sort((a, b) => (a.layer ?? 1e9) - (b.layer ?? 1e9) || a.chance - b.chance);
  const byLayer = ordered.some((entry) => entry.layer !== undefined);
  const names = ordered.filter((entry) => !entry.chance).map((entry) => entry.line);
  const tone = ({ line, layer }) => (layer !== undefined ? layerTone(layer) : groupTone(methodIndex.get(line) ?? names.indexOf(line)));
  const all = ordered.map((entry) => ({
    name: entry.layer === undefined ? entry.line : layerTitle(entry.line),
    tone: tone(entry),
    steps: entry.curve.steps,
    values: entry.curve.values,
    chance: entry.chance && chance,
    strong: byLayer ? () => entry.layer === state.layer : undefined,
  }));
  const ofChance = all.filter((one) => one.chance);
  const shared = chart.key in EVEN_SPREAD ? { steps, values: steps.map(() => EVEN_SPREAD[chart.key]) } : ofChance.length > 1 && new Set(ofChance.map(({ steps, values }) => JSON.stringify([steps, values]))).size === 1 && ofChance[0];
  if (!shared) return all;
  return [...all.filter((one) => !one.chance), { name: "all", tone: SHARED_TONE, steps: shared.steps, values: shared.values, chance }];
}

const SHARED_TONE = "#5b6675";
