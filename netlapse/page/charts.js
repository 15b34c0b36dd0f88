// Line charts over the steps: axis numbers, labels at the lines themselves, a cursor at the current step; a click or a drag
// goes to the nearest step. Drawn once, then only the cursor and the numbers move.

const CHART = { left: 46, top: 10, bottom: 22, line: 13 };
let chartFont = null;

function textWidth(text) {
  chartFont = chartFont || Object.assign(document.createElement("canvas").getContext("2d"), { font: "600 11px system-ui, sans-serif" });
  return chartFont.measureText(text).width;
}

function shortened(text, room) {
  if (textWidth(text) <= room) return text;
  let keep = text.length;
  while (keep > 3 && textWidth(text.slice(0, keep) + "…") > room) keep--;
  return text.slice(0, keep) + "…";
}

// series: [{name, tone, steps, values, strong, chance}], `chance` what a thin dashed line without a label is of; `band` {name, tone, steps, low, high}
// is a ground between two courses; `zero` keeps zero on the axis. -> {node, show()}
function lineChart({ series, width, height, label, zero = false, bounds = null, digits = 3, band = null }) {
  const finite = series.flatMap((s) => s.values.filter((v) => v !== null && !Number.isNaN(v)));
  if (!finite.length) return { node: make("p", { class: "missing" }, "undefined at every step"), show() {} };
  const room = Math.min(Math.max(...series.map((s) => textWidth(s.name))), width * 0.26);
  const right = room + 52;
  const [x0, x1] = [CHART.left, Math.max(width - right, CHART.left + 40)];
  const [y0, y1] = [height - CHART.bottom, CHART.top];
  let low = Math.min(...finite, zero ? 0 : Infinity);
  let high = Math.max(...finite, zero ? 0 : -Infinity);
  if (bounds) [low, high] = [Math.min(low, bounds[0]), Math.max(high, bounds[1])];
  if (high === low) [low, high] = low === 0 ? [0, 1] : [Math.min(low * 0.9, low * 1.1), Math.max(low * 0.9, low * 1.1)];
  const yTicks = ticks(low, high, Math.max(2, Math.floor((y0 - y1) / 36)));
  const pad = (high - low) * 0.04;
  if (low !== 0 && !(bounds && low === bounds[0])) low -= pad;
  if (!(bounds && high === bounds[1])) high += pad;
  const first = steps[0];
  const span = steps[steps.length - 1] - first;
  const px = (step) => (span ? x0 + ((step - first) / span) * (x1 - x0) : (x0 + x1) / 2);
  const py = (value) => y0 - ((value - low) / (high - low)) * (y0 - y1);

  const node = draw("svg", { class: "chart", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": described(label, series) });
  for (const value of yTicks) {
    node.append(draw("line", { class: value === 0 ? "axis" : "grid", x1: x0, x2: x1, y1: py(value), y2: py(value) }));
    node.append(draw("text", { x: x0 - 7, y: py(value) + 3.5, "text-anchor": "end" }, format(value, digits)));
  }
  const xTicks = span ? ticks(first, first + span, Math.max(2, Math.floor((x1 - x0) / 48))).filter(Number.isInteger) : [first];
  for (const value of xTicks) node.append(draw("text", { x: px(value), y: y0 + 16, "text-anchor": "middle" }, String(value)));
  for (const event of run.events) {
    const at = px(Math.min(Math.max(event.step, first), first + span));
    node.append(draw("path", { class: "event", d: `M${at - 4},${y1 - 8}h8l-4,6zM${at},${y1 - 2}V${y0}` }, draw("title", {}, whenAndWhat(event))));
  }
  const cursor = draw("line", { class: "cursor", y1: y1 - 4, y2: y0 });
  node.append(cursor);

  if (band) node.append(drawnBand(band, px, py));
  const lines = series.map((s) => drawnLine(node, s, px, py));
  placeLabels(lines, y1, y0, height);
  for (const line of lines) {
    if (line.labelAt === null) continue;
    line.value = draw("tspan", { class: "value", dx: 5 });
    const name = draw("tspan", {}, shortened(line.series.name, room));
    line.label = draw("text", { class: "label", x: x1 + 9, y: line.labelAt + 3.5, style: `color:${inked(line.series.tone)}` }, name, line.value);
    node.append(line.label);
  }
  const hit = draw("rect", { class: "hit", x: x0 - 8, y: 0, width: x1 - x0 + 16, height });
  const jump = (event) => {
    const at = ((event.clientX - node.getBoundingClientRect().left - x0) / (x1 - x0)) * span + first;
    set({ step: nearestStep(at), playing: false });
  };
  hit.addEventListener("pointerdown", jump);
  hit.addEventListener("pointermove", (event) => event.buttons && jump(event));
  node.append(hit);

  function show() {
    const step = steps[state.step];
    cursor.setAttribute("x1", px(step));
    cursor.setAttribute("x2", px(step));
    for (const line of lines) {
      const at = line.series.steps.indexOf(step);
      const value = at < 0 ? NaN : line.series.values[at];
      const seen = value !== null && !Number.isNaN(value);
      line.dot.setAttribute("visibility", seen ? "visible" : "hidden");
      if (seen) {
        line.dot.setAttribute("cx", px(step));
        line.dot.setAttribute("cy", py(value));
      }
      const strong = line.series.strong ? line.series.strong() : true;
      for (const part of [line.path, line.label]) if (part) part.classList.toggle("weak", !strong);
      if (line.value) line.value.textContent = seen ? format(value, digits) : "–";
    }
  }
  show();
  return { node, show };
}

function described(label, series) {
  const ends = series.slice(0, 12).map((s) => {
    const finite = s.values.filter((v) => v !== null && !Number.isNaN(v));
    return finite.length ? `${s.name}${s.chance ? `, ${s.chance},` : ""} from ${format(finite[0])} to ${format(finite[finite.length - 1])}` : `${s.name} undefined`;
  });
  return `${label}: ${ends.join("; ")}`;
}

// In pieces, where steps have no values.
function drawnBand({ name, tone, steps: at, low, high }, px, py) {
  const pieces = [[]];
  at.forEach((_, i) => (low[i] === null ? pieces.push([]) : pieces[pieces.length - 1].push(i)));
  const place = (i, values) => `${px(at[i]).toFixed(1)},${py(values[i]).toFixed(1)}`;
  const outline = (piece) => `M${[...piece.map((i) => place(i, high)), ...[...piece].reverse().map((i) => place(i, low))].join("L")}Z`;
  return draw("path", { class: "band", d: pieces.filter((piece) => piece.length).map(outline).join("") || "M0,0", fill: tone, stroke: tone }, draw("title", {}, name));
}

function drawnLine(node, series, px, py) {
  let path = "";
  let pen = "M";
  let last = null;
  let alone = [];
  series.values.forEach((value, i) => {
    if (value === null || Number.isNaN(value)) {
      pen = "M";
      return;
    }
    const next = series.values[i + 1];
    if (pen === "M" && (next === undefined || next === null || Number.isNaN(next))) alone.push([px(series.steps[i]), py(value)]);
    path += `${pen}${px(series.steps[i]).toFixed(1)},${py(value).toFixed(1)}`;
    pen = "L";
    last = py(value);
  });
  const drawn = draw("path", { class: series.chance ? "line chance" : "line", d: path || "M0,0", stroke: series.tone }, draw("title", {}, series.chance ? `${series.name}, ${series.chance}` : series.name));
  const dot = draw("circle", { class: "dot", r: 3, fill: series.tone, visibility: "hidden" });
  node.append(drawn, ...alone.map(([cx, cy]) => draw("circle", { cx, cy, r: 2, fill: series.tone })), dot);
  return { series, path: drawn, dot, end: last, labelAt: null, label: null, value: null };
}

// Labels beside the line ends, pushed apart; where there is no room for all, the strong ones and the outermost stay.
function placeLabels(lines, top, bottom, height) {
  let shown = lines.filter((line) => line.end !== null && !line.series.chance);
  const capacity = Math.min(Math.floor((height - 4) / CHART.line), shown.length > 10 ? 8 : 10);
  if (shown.length > capacity) {
    const strong = shown.filter((line) => line.series.strong && line.series.strong());
    const rest = shown.filter((line) => !strong.includes(line)).sort((a, b) => a.end - b.end);
    const keep = new Set(strong.slice(0, capacity));
    for (let i = 0; keep.size < capacity && i < rest.length; i++) keep.add(rest[Math.round((i * (rest.length - 1)) / Math.max(capacity - strong.length - 1, 1))] || rest[0]);
    shown = shown.filter((line) => keep.has(line));
  }
  shown.sort((a, b) => a.end - b.end);
  let at = -Infinity;
  for (const line of shown) at = line.labelAt = Math.max(line.end, at + CHART.line, 6);
  at = shown.length * CHART.line < bottom - top ? bottom + 2 : height - 5;
  for (const line of shown.reverse()) {
    line.labelAt = Math.min(line.labelAt, at);
    at = line.labelAt - CHART.line;
  }
}

function nearestStep(value) {
  let best = 0;
  steps.forEach((step, i) => {
    if (Math.abs(step - value) < Math.abs(steps[best] - value)) best = i;
  });
  return best;
}
