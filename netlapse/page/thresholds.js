// Each class against all others at every threshold: ROC and precision-recall curves. A class has its tone and its dashes, in the
// order of the classes, so that it is told apart in any kind of colour vision and in print.

const DASHES = ["", "7 3", "2 2", "9 3 2 3", "5 5", "12 4"];
const THRESHOLDS = {
  roc: { name: "ROC", x: "false-positive rate", y: "true-positive rate", chance: true, beside: "auc", short: "AUC" },
  precision_recall: { name: "Precision and recall", x: "recall", y: "precision", chance: false, beside: "average_precision", short: "AP" },
};

const dashOf = (k) => DASHES[Math.max(state.classes.indexOf(k), 0) % DASHES.length];

function classSwatch(k) {
  if (!state.classes.includes(k)) return null;
  return draw("svg", { class: "swatch", width: 26, height: 8, "aria-hidden": "true" }, draw("line", { x1: 0, x2: 26, y1: 4, y2: 4, stroke: groupTone(k), "stroke-width": 2.4, "stroke-dasharray": dashOf(k) }));
}

// The values (101) of a class' curve at a step (index).
function curveOf(name, index, k) {
  const [, classes, points] = predicted.thresholds[name].shape;
  const from = (predicted.at[index] * classes + k) * points;
  return [...unpack(predicted.thresholds[name]).subarray(from, from + points)].map((number) => (number === NO_SHARE ? NaN : number / 254));
}

function thresholdCharts(index, width) {
  if (!predicted.thresholds) return make("p", { class: "hint" }, `The curves of ${plural(predicted.classes.length, "class", "classes")} over ${plural(steps.length, unitOfStep)} are left out, as this page would be too large.`);
  if (!state.classes.length) return make("p", { class: "hint" }, "No class is chosen: add one for its curves.");
  return make("div", { class: "pair" }, Object.keys(THRESHOLDS).map((name) => thresholdChart(name, index, width)));
}

function thresholdChart(kind, index, width) {
  const { name, x, y, chance, beside, short } = THRESHOLDS[kind];
  const [left, top, bottom, right] = [30, 8, 32, 66];
  const side = Math.min(width - left - right, 176);
  const [w, h] = [left + side + right, top + side + bottom];
  const px = (value) => left + value * side;
  const py = (value) => top + (1 - value) * side;
  const area = (k) => scoreOf(index, beside, k);
  const told = state.classes.map((k) => `${classOf(k)} ${Number.isNaN(area(k)) ? "undefined" : area(k).toFixed(3)}`);
  const node = draw("svg", { class: "chart threshold", "data-kind": kind, width: w, height: h, viewBox: `0 0 ${w} ${h}`, role: "img", "aria-label": `${name} at ${nameOfStep(steps[index])}; ${short} ${told.join(", ")}` });
  for (const value of [0, 0.5, 1]) {
    node.append(draw("line", { class: value ? "grid" : "axis", x1: px(0), x2: px(1), y1: py(value), y2: py(value) }), draw("line", { class: value ? "grid" : "axis", x1: px(value), x2: px(value), y1: py(0), y2: py(1) }));
    node.append(draw("text", { x: left - 6, y: py(value) + 3.5, "text-anchor": "end" }, String(value)), draw("text", { x: px(value), y: py(0) + 14, "text-anchor": "middle" }, String(value)));
  }
  node.append(draw("text", { x: px(0.5), y: py(0) + 27, "text-anchor": "middle" }, x));
  if (chance) node.append(draw("line", { class: "line chance", x1: px(0), y1: py(0), x2: px(1), y2: py(1), stroke: "#777" }));
  state.classes.forEach((k, at) => {
    const values = curveOf(kind, index, k);
    const path = values.map((value, i) => `${i ? "L" : "M"}${px(i / (values.length - 1)).toFixed(1)},${py(value).toFixed(1)}`).join("");
    const known = !values.some(Number.isNaN);
    if (known) node.append(draw("path", { class: "line", d: path, stroke: groupTone(k), "stroke-dasharray": dashOf(k), "data-class": k }, draw("title", {}, told[at])));
    const text = draw("text", { class: "label", x: px(1) + 8, y: top + 10 + at * 14, style: `color:${inked(groupTone(k))}` }, shortened(classOf(k), right - 44), draw("tspan", { class: "value", dx: 4 }, known ? area(k).toFixed(3) : "–"));
    node.append(text);
  });
  return make("figure", { class: "curve" }, make("figcaption", {}, make("strong", {}, name), make("span", {}, `${y} over ${x}; ${short} beside`)), node);
}
