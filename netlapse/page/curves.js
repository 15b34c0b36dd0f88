// Every metric of the run as small multiples: metrics that belong together share a chart, layers keep their tone.

const KNOWN_CURVES = {
  "nap/drift": ["Drift", "change since the step before; 0 none, 2 opposite"],
  "nap/drift_from_start": ["Drift from the start", "change since the first step; 0 none, 2 opposite"],
  "nap/separability": ["Separability", "share of the responses’ variance that lies between groups"],
  "nap/dead_units": ["Dead units", "units with one and the same activation at every position of every probe input"],
  "nap/nonfinite_units": ["Units that are not finite", "NaN or infinite for some probe input; the network diverges"],
  "layout/trustworthiness": ["Layout trustworthiness", "are neighbours on the map alike? 1 is perfect"],
  "layout/motion": ["Layout motion", "how far units moved on the map since the step before"],
  "saliency/similarity": ["Saliency likeness", "how like the maps are to those of the step before"],
  "saliency/concentration": ["Saliency concentration", "share held by the strongest tenth; 0.1 is an even spread"],
  "saliency/blank": ["Blank saliency", "share of maps that are zero everywhere"],
  "cost": ["Cost", "seconds per analysis"],
  "cost/overhead": ["Overhead", "time spent observing over time spent training"],
};
const FAMILIES = ["training", "nap", "layout", "saliency", "similarity", "fairness", "receptive_field", "cost"];

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
    if (!charts.has(key)) charts.set(key, { key, family, lines: [] });
    charts.get(key).lines.push({ line, curve });
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

function drawCurves() {
  const root = document.getElementById("curves");
  const charts = chartsOfRun();
  const seen = new Set(charts.map((chart) => chart.family));
  const missing = [["training", "the training’s own loss and accuracy"], ["nap", "profiles"], ["layout", "layouts"], ["cost", "cost"]].filter(([family]) => !seen.has(family)).map(([, text]) => text);
  root.append(make("h2", { id: "curves-title" }, "Curves"));
  root.append(make("p", { class: "hint" }, charts.length ? "The line marks the step shown above; click or drag to go to another." : "No metric was recorded in this run.", missing.length && charts.length ? ` Not recorded: ${missing.join(", ")}.` : ""));
  if (steps.length === 1 && charts.length) root.append(make("p", { class: "notice" }, `One ${unitOfStep} was observed, so each curve is a point.`));
  const layerIndex = new Map(run.layers.map((layer, index) => [layer.name, index]));
  const grid = make("div", { class: "curve-grid" });
  root.append(grid);
  let drawn = [];
  const rebuild = () => {
    const across = Math.max(1, Math.floor((grid.clientWidth + 28) / (330 + 28)));
    const width = Math.floor((grid.clientWidth - 28 * (across - 1)) / across);
    grid.style.setProperty("--across", across);
    drawn = [];
    grid.replaceChildren(
      ...charts.map((chart) => {
        const ordered = chart.lines.map((entry) => ({ ...entry, layer: layerIndex.get(entry.line) })).sort((a, b) => (a.layer ?? 1e9) - (b.layer ?? 1e9));
        const byLayer = ordered.some((entry) => entry.layer !== undefined);
        const series = ordered.map(({ line, curve, layer }, i) => ({
          name: layer === undefined ? line : layerTitle(line),
          tone: layer === undefined ? groupTone(i) : layerTone(layer),
          steps: curve.steps,
          values: curve.values,
          strong: byLayer ? () => layer === state.layer : undefined,
        }));
        const [title, hint] = KNOWN_CURVES[chart.key] || relaidTitle(chart.key) || [capital(chart.key.split("/").slice(chart.family === "training" ? 1 : 0).join(" ").replace(/_/g, " ")), ""];
        const made = lineChart({ series, width, height: 176, label: title, zero: /drift|motion|dead|cost|overhead|loss/.test(chart.key) });
        drawn.push(made);
        return make("figure", { class: "curve" }, make("figcaption", {}, make("strong", {}, title), hint && make("span", {}, hint)), made.node);
      }),
    );
  };
  view(["width", "layer"], rebuild); // the chosen layer keeps its label where there is no room for all
  view(["step"], () => drawn.forEach((chart) => chart.show()));
  rebuild();
}
