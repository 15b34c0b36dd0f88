// Units of a part of a map: a disc dragged or a polygon clicked on any map, or either by the keyboard. What is chosen are
// units, not a place: the same ones stay chosen at every step, wherever the layout puts them.

const BORDER = 1 / 65535; // places are known to half of this per axis; a border counts as inside
const CLICK = 0.015; // map widths within which a drag is a click
const CLOSING = 0.035; // map widths from its first corner at which a click closes a polygon
const MOST_ROWS = 40;
const MOST_COLUMNS = 12;
let usualRadius = 0.12;

const regionNow = () => state.regions[state.layer] ?? null;

function setRegion(region) {
  set({ regions: { ...state.regions, [state.layer]: region }, drawing: null });
}

// ------------------------------------------------------------------------------------------------------ geometry

// Whether a place lies in a region or on its border; polygons by the even-odd rule, as `netlapse.analysis.regions` defines it.
function holds(region, x, y) {
  if (region.kind === "disc") return Math.hypot(x - region.points[0][0], y - region.points[0][1]) <= region.radius + BORDER;
  let inside = false;
  for (let i = 0; i < region.points.length; i++) {
    const [ax, ay] = region.points[i];
    const [bx, by] = region.points[(i + 1) % region.points.length];
    const [dx, dy, length] = [bx - ax, by - ay, (bx - ax) ** 2 + (by - ay) ** 2];
    const along = length > 0 ? Math.min(Math.max(((x - ax) * dx + (y - ay) * dy) / length, 0), 1) : 0;
    if (Math.hypot(x - ax - along * dx, y - ay - along * dy) <= BORDER) return true;
    if (ay > y !== by > y && dx * (y - ay) - dy * (x - ax) > 0 === dy > 0) inside = !inside;
  }
  return inside;
}

function unitsIn(layout, units, region) {
  const found = [];
  for (let unit = 0; unit < units; unit++) if (holds(region, ...exactPlaceOf(layout, unit))) found.push(unit);
  return found;
}

// Four decimals are finer than a pixel, and make what is chosen the same as what is written below it.
const rounded = (value) => Math.round(value * 1e4) / 1e4;
const roundedPlace = ([x, y]) => [rounded(x), rounded(y)];
const apart = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);

function choose(shape) {
  const points = shape.points.map(roundedPlace);
  const region = { kind: shape.kind, points, radius: shape.kind === "disc" ? Math.max(rounded(shape.radius), 1e-4) : null };
  const units = unitsIn(mapsView.layout, layerNow().units, region);
  setRegion({ ...region, units, layout: mapsView.layout.key, step: mapsView.layout.step, analysis: run.layouts[state.layout].analysis, at: mapsView.layout.found < 0 ? mapsView.index : mapsView.layout.found, all: false });
}

// ------------------------------------------------------------------------------------------------------- drawing

const TOOLS = [
  ["unit", "a unit", "click a map to pin a unit"],
  ["disc", "a disc", "drag on a map, from the centre to the border, to choose the units in a disc"],
  ["polygon", "a polygon", "click corners on a map to choose the units in a polygon"],
];

function toolText() {
  const corners = state.drawing && state.drawing.kind === "polygon" ? state.drawing.points.length : 0;
  if (state.tool === "disc") return "drag on a map from the centre of a disc to its border; a click takes one of the last size";
  if (state.tool === "polygon") return corners ? `${plural(corners, "corner")}; ${corners < 3 ? "click the next one" : "click the first one again to close"}` : "click the corners of a polygon on a map";
  return "";
}

function regionControls() {
  const tools = switches("Choose on the maps", TOOLS, state.tool, (key) => set({ tool: key, drawing: null }));
  const close = make("button", { type: "button", click: closePolygon }, "Close polygon");
  const cancel = make("button", { type: "button", click: () => set({ drawing: null }) }, "Cancel");
  const clear = make("button", { type: "button", click: () => setRegion(null) }, "Clear region");
  const show = () => {
    tools.show(state.tool);
    const corners = state.drawing && state.drawing.kind === "polygon" ? state.drawing.points.length : 0;
    close.hidden = cancel.hidden = !corners;
    close.disabled = corners < 3;
    clear.hidden = !regionNow();
    mapsView.grid.classList.toggle("choosing", state.tool !== "unit");
  };
  view(["tool", "drawing", "regions", "layer"], show);
  mapsView.showTools = show;
  return make("div", { class: "controls tools" }, make("span", { class: "hint" }, "Choose"), tools, close, cancel, clear, orderChoice());
}

function closePolygon() {
  const { drawing } = state;
  if (drawing && drawing.kind === "polygon" && drawing.points.length >= 3) choose(drawing);
}

function addCorner(place) {
  const points = state.drawing && state.drawing.kind === "polygon" ? state.drawing.points : [];
  if (points.length >= 3 && apart(place, points[0]) <= CLOSING) closePolygon();
  else set({ drawing: { kind: "polygon", points: [...points, place] } });
}

// A disc from a press to its release, wherever that is; the corners of a polygon one by one.
function chooseByPointer(frame) {
  let from = null;
  const drawn = (event) => ({ kind: "disc", points: [from], radius: apart(from, placeUnder(frame, event)) });
  const move = (event) => set({ drawing: drawn(event) });
  const finish = (event) => {
    const disc = drawn(event);
    stop();
    if (disc.radius < CLICK) disc.radius = usualRadius;
    usualRadius = disc.radius;
    choose(disc);
  };
  const cancel = () => {
    stop();
    set({ drawing: null });
  };
  const stop = () => {
    from = null;
    window.removeEventListener("pointermove", move);
    window.removeEventListener("pointerup", finish);
    window.removeEventListener("pointercancel", cancel);
  };
  frame.addEventListener("pointerdown", (event) => {
    if (event.button || mapsView.index < 0 || state.tool !== "disc" || from) return;
    event.preventDefault();
    from = placeUnder(frame, event);
    set({ drawing: drawn(event) });
    window.addEventListener("pointermove", move);
    window.addEventListener("pointerup", finish);
    window.addEventListener("pointercancel", cancel);
  });
  frame.addEventListener("click", (event) => state.tool === "polygon" && mapsView.index >= 0 && addCorner(placeUnder(frame, event)));
}

// On a map that has the focus the arrows move a mark; Enter pins, takes a disc or sets a corner there.
function chooseByKeys(frame, group) {
  frame.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || mapsView.index < 0) return;
    const [x, y] = state.cursor || [0.5, 0.5];
    const by = event.shiftKey ? 0.005 : 0.025;
    const to = { ArrowLeft: [x - by, y], ArrowRight: [x + by, y], ArrowUp: [x, y + by], ArrowDown: [x, y - by] }[event.key];
    if (to) {
      const cursor = to.map((v) => Math.min(Math.max(v, 0), 1));
      set({ cursor, hover: unitAt(cursor), hoverGroup: group });
    } else if (event.key === "Enter") {
      if (state.tool === "unit") togglePin(unitAt([x, y]));
      else if (state.tool === "disc") choose({ kind: "disc", points: [[x, y]], radius: usualRadius });
      else addCorner([x, y]);
      set({ cursor: [x, y] });
    } else if (state.tool === "disc" && "+-=".includes(event.key)) {
      usualRadius = Math.min(Math.max(usualRadius * (event.key === "-" ? 0.8 : 1.25), 0.01), 0.75);
      set({ drawing: { kind: "disc", points: [[x, y]], radius: usualRadius }, cursor: [x, y] });
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });
  frame.addEventListener("blur", () => set({ cursor: null, hover: null, hoverGroup: null }));
}

// --------------------------------------------------------------------------------------------------------- marks

// Chosen units, the region's outline where they still lie as they did, what is being drawn: once, then copied to every map.
function paintMarks() {
  const region = regionNow();
  const canvases = mapsView.figures.filter((figure) => !figure.canvas.hidden && figure.canvas.clientWidth);
  const side = canvases.length ? canvases[0].canvas.clientWidth : 0;
  const anything = region || state.drawing || state.cursor;
  for (const { marks } of mapsView.figures) marks.hidden = !anything || !side;
  if (!anything || !side) return;
  const r = Math.round(side * Math.min(window.devicePixelRatio || 1, 2));
  const sheet = make("canvas", { width: r, height: r }).getContext("2d");
  if (region) {
    markUnits(sheet, region.units, r);
    if (region.layout === mapsView.layout.key) outline(sheet, region, r, true);
  }
  if (state.drawing) outline(sheet, state.drawing, r, state.drawing.kind === "disc");
  if (state.cursor) cross(sheet, state.cursor, r);
  for (const { marks } of canvases) {
    marks.width = marks.height = r;
    marks.getContext("2d").drawImage(sheet.canvas, 0, 0);
  }
}

// White under black, so that a line is seen on every colour of the scale.
function stroked(sheet, r, trace, dash) {
  for (const [tone, width, dashed] of [["rgba(255,255,255,0.9)", 3.4, []], ["#111", 1.5, dash ? [r / 40, r / 60] : []]]) {
    sheet.strokeStyle = tone;
    sheet.lineWidth = width * Math.max(r / 190, 0.4);
    sheet.setLineDash(dashed);
    sheet.beginPath();
    trace();
    sheet.stroke();
  }
}

function markUnits(sheet, units, r) {
  const size = Math.max(Math.min(r / 55, (0.3 * r) / Math.sqrt(layerNow().units)), r / 160);
  stroked(sheet, r, () => {
    for (const unit of units) {
      const [x, y] = placeOf(mapsView.layout, unit);
      sheet.moveTo(x * r + size, (1 - y) * r);
      sheet.arc(x * r, (1 - y) * r, size, 0, 2 * Math.PI);
    }
  });
}

function outline(sheet, { kind, points, radius }, r, closed) {
  const at = ([x, y]) => [x * r, (1 - y) * r];
  stroked(
    sheet, r,
    () => {
      if (kind === "disc") sheet.arc(...at(points[0]), radius * r, 0, 2 * Math.PI);
      else {
        points.forEach((point, i) => (i ? sheet.lineTo(...at(point)) : sheet.moveTo(...at(point))));
        if (closed) sheet.closePath();
      }
    },
    true,
  );
  if (!closed) stroked(sheet, r, () => points.map(at).forEach(([x, y]) => sheet.rect(x - r / 60, y - r / 60, r / 30, r / 30)));
}

function cross(sheet, [x, y], r) {
  stroked(sheet, r, () => {
    for (const [dx, dy] of [[1, 0], [0, 1]]) {
      sheet.moveTo((x - 0.05 * dx) * r, (1 - y - 0.05 * dy) * r);
      sheet.lineTo((x + 0.05 * dx) * r, (1 - y + 0.05 * dy) * r);
    }
  });
}

// --------------------------------------------------------------------------------------------------------- panel

function drawRegions() {
  if (!run.layers.length) return;
  const root = document.getElementById("region");
  // Told when units are chosen, and not again at every step.
  view(["regions"], () => (document.getElementById("region-said").textContent = regionNow() ? `${plural(regionNow().units.length, "unit")} chosen` : ""));
  view(["regions", "drawing", "cursor", "layer", "step", "layout", "places", "width", "order"], paintMarks);
  view(["regions", "layer", "step", "quantity", "difference", "otherStep", "otherGroup", "order", "layout", "places"], () => {
    root.replaceChildren(...regionPanel(layerNow(), mapsView.index, regionNow()));
  });
}

function regionPanel(layer, index, region) {
  if (!region || index < 0) return [];
  const shape = region.kind === "disc" ? "disc" : "polygon";
  const drawnOn = run.layouts.length > 1 || region.step === null ? ` (${run.layouts.find((l) => l.analysis === region.analysis).words})` : "";
  const head = make(
    "div", { class: "unit-head" },
    make("h4", {}, `Region of ${layerTitle(layer.name)}: ${plural(region.units.length, "unit")}`),
    make("p", { class: "hint" }, `in a ${shape} on the layout of ${nameOfStep(steps[region.at])}${drawnOn}. `, region.units.length ? "The units are chosen, not the place: at other steps the same units are marked, wherever they lie then." : ""),
    make("button", { type: "button", click: () => setRegion(null) }, "Clear region"),
  );
  if (!region.units.length) return [head, make("p", { class: "notice" }, "No unit lies in this region. Units are points: draw it larger, or around one of them.")];
  return [head, regionTable(layer, index, region), inPython(layer, region)];
}

function regionTable(layer, index, region) {
  const groups = columnsOf(layer, index, region);
  const shownUnits = region.all ? region.units : region.units.slice(0, MOST_ROWS);
  const limit = limitOf(layer);
  const values = (group) => region.units.map((unit) => shownValue(layer, index, group, unit));
  const hasTop = Boolean(layer.top);
  const hasShare = Boolean(layer.sparsity);
  const caption = `${capital(readText().replace(/^its /, ""))}, per group at ${nameOfStep(steps[index])}${groups.length === MOST_COLUMNS && groups.length < groupCount ? `; the ${groups.length} of ${groupCount} groups this region answers most` : groups.length < groupCount ? "; groups without a map have no column" : ""}`;
  const head = make("tr", {}, make("th", { scope: "col" }, "unit"), groups.map((group) => make("th", { scope: "col", title: run.groups[group] }, run.groups[group])), hasShare && make("th", { scope: "col" }, "active"), hasTop && make("th", { scope: "col", class: "wide" }, "inputs it answers most"));
  const mean = make("tr", { class: "mean" }, make("th", { scope: "row" }, "mean"), groups.map((group) => valueCell(meanOf(values(group)), limit)), hasShare && make("td", {}, percent(meanOf(region.units.map((unit) => shareOverall(layer, index, unit))))), hasTop && make("td", {}));
  const rows = shownUnits.map((unit) =>
    make(
      "tr", {},
      make("th", { scope: "row" }, make("button", { type: "button", class: "link", title: "pin this unit", click: () => pin(unit) }, String(unit)), isConstant(layer, index, unit) ? make("span", { class: "flag", title: "constant over the probe" }, " const.") : ""),
      groups.map((group) => valueCell(shownValue(layer, index, group, unit), limit)),
      hasShare && make("td", {}, percent(shareOverall(layer, index, unit))),
      hasTop && make("td", {}, topInputs(layer, index, unit)),
    ),
  );
  const more = region.units.length - shownUnits.length;
  return make(
    "div", { class: "region-table", tabindex: 0, role: "region", "aria-label": "Units of the region" },
    make("table", {}, make("caption", {}, caption), make("thead", {}, head), make("tbody", {}, region.units.length > 1 && mean, rows)),
    more > 0 && make("button", { type: "button", click: () => setRegion({ ...region, all: true }) }, `Show ${plural(more, "more unit")}`),
  );
}

// The groups of the table's columns: all in their order, or those in which the region's mean is largest in size.
function columnsOf(layer, index, region) {
  const ordered = groupOrder(layer, index).filter((group) => !whyNoMap(index, group));
  if (ordered.length <= MOST_COLUMNS) return ordered;
  const size = new Map(ordered.map((group) => [group, Math.abs(meanOf(region.units.map((unit) => shownValue(layer, index, group, unit)))) || 0]));
  const kept = new Set([...ordered].sort((a, b) => size.get(b) - size.get(a)).slice(0, MOST_COLUMNS));
  return ordered.filter((group) => kept.has(group));
}

const meanOf = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

function valueCell(value, limit) {
  if (Number.isNaN(value)) return make("td", {}, "–");
  const colour = between(DIVERGING, 0.5 + value / limit / 2);
  const dark = 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2] < 140;
  return make("td", { class: "shade", style: `background:${css(colour)};color:${dark ? "#fff" : "#1c2430"}` }, signed(value));
}

// What gives the same units in a notebook.
function inPython(layer, region) {
  const place = ([x, y]) => `(${x}, ${y})`;
  const shape = region.kind === "disc" ? `Disc(${place(region.points[0])}, ${region.radius})` : `Polygon([${region.points.map(place).join(", ")}])`;
  const known = region.layout !== null;
  return make(
    "details", { class: "hint" },
    make("summary", {}, "These units by number, and in Python"),
    make("p", {}, "Units ", make("code", { class: "unit-numbers" }, region.units.join(", "))),
    known ? make("p", {}, "With ", make("code", {}, "run = netlapse.load(…)"), ": ", make("code", { class: "python" }, `units_in(run.array("${region.analysis}", "positions/${layer.name}").at(${steps[region.at]}), ${shape})`), " of ", make("code", {}, "netlapse.analysis.regions"), ".") : make("p", {}, "This layer has no layout, so the region is one of this page only."),
  );
}
