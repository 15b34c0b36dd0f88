// The chosen layer's maps, one per group, all on one colour scale: what is shown, the controls for it, and the drawing.

const mapsView = { figures: [], grid: null, layout: null, index: -1 };

const layerNow = () => run.layers[state.layer];

function drawMaps() {
  const root = document.getElementById("maps");
  if (!run.layers.length) {
    document.getElementById("network").classList.add("empty");
    root.append(make("h3", {}, "Maps"), make("p", { class: "notice" }, `No maps: ${whyMissing("nap")}.`));
    return;
  }
  const title = make("h3", {});
  const about = make("p", { class: "hint" });
  const bar = make("div", { class: "bar-slot" });
  const notices = make("div", { class: "notices", "aria-live": "polite" });
  mapsView.readout = make("p", { class: "readout" });
  mapsView.grid = make("div", { class: groupCount > 12 ? "map-grid many" : "map-grid" });
  mapsView.figures = run.groups.map(mapFigure);
  const tree = make("div", { class: "tree" });
  root.append(make("div", { class: "maps-head" }, make("div", {}, title, about), bar), controls(), regionControls(), notices, tree, mapsView.readout, mapsView.grid);
  root.append(neverSeen());
  root.append(make("p", { id: "region-said", class: "spoken", role: "status" }), make("div", { id: "region" }), make("div", { id: "unit" }));
  mapsView.showTools();

  const update = () => {
    const layer = layerNow();
    const index = heldStep(layer.at, state.step);
    mapsView.index = index;
    mapsView.layout = layoutAt(layer, Math.max(index, 0));
    title.textContent = layerTitle(layer.name);
    about.textContent = [layer.kind, Array.isArray(layer.shape) ? `output ${layer.shape.join(" × ")}` : null, plural(layer.units, "unit"), silentText(layer, index), shownText()].filter(Boolean).join(" · ");
    bar.replaceChildren(contrastBar(layer));
    notices.replaceChildren(...mapNotices(layer, index).filter(Boolean));
    mapsView.grid.classList.toggle("held", layer.at[state.step] < 0);
    paintMaps(layer, index);
    arrangeGroups(layer, index);
    tree.replaceChildren(...dendrogram(layer, index, root.clientWidth));
    mapsView.places.hidden = run.layouts[state.layout].fixed || !layer.laid_out[state.layout].at.some((at) => at >= 0);
  };
  mapsView.update = update;
  view(["width"], () => {
    arrangeMaps();
    update();
  });
  view(["step", "layer", "quantity", "difference", "otherStep", "otherGroup", "layout", "places", "order"], update);
}

// Of many groups, as the cells of a confusion matrix, those that have inputs at no step are named instead of drawn.
function neverSeen() {
  const never = run.groups.map((_, group) => group).filter((group) => groupCount > 12 && steps.every((_, i) => !run.counts[i] || run.counts[i][group] === 0));
  const hidden = never.length < groupCount && run.counts.some(Boolean) ? never : [];
  for (const group of hidden) mapsView.figures[group].node.hidden = true;
  if (!hidden.length) return "";
  return make("details", { class: "hint never" }, make("summary", {}, `${plural(hidden.length, "group has", "groups have")} no inputs at any ${unitOfStep}`), hidden.map((group) => run.groups[group]).join(", "));
}

// As many maps in a row as fit, in rows of nearly equal length.
function arrangeMaps() {
  const width = mapsView.grid.clientWidth;
  const smallest = width < 480 ? 100 : groupCount <= 4 ? 190 : groupCount <= 12 ? 150 : groupCount <= 30 ? 118 : 90;
  const fitting = Math.max(1, Math.min(groupCount, Math.floor((width + 18) / (smallest + 18))));
  const across = groupCount > 30 ? fitting : Math.ceil(groupCount / Math.ceil(groupCount / fitting));
  mapsView.grid.style.setProperty("--across", across);
}

function silentText(layer, index) {
  if (!layer.constant || index < 0) return null;
  const from = layer.at[index] * layer.units;
  const constant = unpack(layer.constant).subarray(from, from + layer.units).reduce((sum, one) => sum + one, 0);
  return constant && constant < layer.units ? `${constant} of them constant over the probe: grey dots` : null;
}

function shownText() {
  if (state.difference === "step") return `change since ${nameOfStep(steps[state.otherStep])}`;
  if (state.difference === "group") return `difference to group ${run.groups[state.otherGroup]}`;
  return null;
}

function contrastBar(layer) {
  const limit = limitOf(layer);
  const sd = state.quantity === "sd";
  const what = { none: state.quantity === "sd" ? "of the layer, from the groups’ mean" : "minus the groups’ mean", step: `minus the same at ${nameOfStep(steps[state.otherStep])}`, group: `minus group ${run.groups[state.otherGroup]}` }[state.difference];
  const numbers = [-1, -0.5, 0, 0.5, 1].map((share) => format(share * limit, sd ? 2 : 3));
  const beyond = sd || state.difference !== "none" ? [`≤ ${numbers[0]}`, `≥ ${numbers[4]}`] : null;
  return colourBar(DIVERGING, numbers, `${sd ? "standard deviations" : "mean activation"} ${what}`, beyond);
}

function controls() {
  const quantity = switches(
    "Quantity",
    [
      ["sd", "standard deviations", "contrast divided by the standard deviation of the layer at this step; the same scale for all layers and steps"],
      ["raw", "activation", "contrast in the layer’s own numbers; one scale for all groups and steps of the layer"],
    ],
    state.quantity,
    (key) => set({ quantity: key }),
  );
  const stepOptions = steps.map((step, i) => [i, nameOfStep(step)]);
  const difference = switches(
    "Difference",
    [
      ["none", "as it is"],
      ["step", "minus a step"],
      ["group", "minus a group"],
    ],
    state.difference,
    (key) => set({ difference: key }),
  );
  for (const button of difference.children) if ((button.dataset.key === "step" && steps.length < 2) || (button.dataset.key === "group" && groupCount < 2)) button.disabled = true;
  const other = make("span", {});
  const places = choice("Places", [[-1, "each step its own"], ...stepOptions.map(([i, text]) => [i, `as at ${text}`])], String(state.places), (value) => set({ places: Number(value) }));
  mapsView.places = places;
  const layouts = run.layouts.length > 1 && choice("Layout", run.layouts.map(({ words }, i) => [i, words]), String(state.layout), (value) => set({ layout: Number(value) }));
  const show = () => {
    quantity.show(state.quantity);
    difference.show(state.difference);
    other.replaceChildren();
    if (state.difference === "step") other.append(choice("", stepOptions, String(state.otherStep), (value) => set({ otherStep: Number(value) }), "step to subtract"));
    if (state.difference === "group") other.append(choice("", run.groups.map((name, i) => [i, name]), String(state.otherGroup), (value) => set({ otherGroup: Number(value) }), "group to subtract"));
  };
  view(["quantity", "difference"], show);
  show();
  return make("div", { class: "controls" }, quantity, difference, other, layouts, places);
}

function mapNotices(layer, index) {
  const out = [unobserved("This layer", layer.at, state.step)];
  const note = (...text) => out.push(make("p", { class: "notice" }, ...text));
  if (index < 0) return out;
  const sd = layer.sd[layer.at[index]];
  const broken = brokenUnits(layer, index);
  if (broken) note(broken === layer.units ? "The activations of this layer are not numbers at this step (NaN or infinity): the network has diverged." : `${plural(broken, "unit")} of this layer ${broken === 1 ? "has an activation that is" : "have activations that are"} not a number at this step; hatched on the maps.`);
  else if (state.quantity === "sd" && sd === null) note("The standard deviation of this layer was not recorded at this step. Its maps can be shown ", rawButton(), ".");
  else if (state.quantity === "sd" && sd === 0) note("This layer gives the same response to every probe input at this step, so its standard deviation is 0 and nothing can be measured in it. Its maps can be shown ", rawButton(), ".");
  const layout = mapsView.layout;
  if (!layout.vertex) note(`${capital(layer.laid_out[state.layout].missing || "no layout")}${run.analyses[run.layouts[state.layout].analysis] ? "" : ` (${whyMissing("topomap")})`}: units are drawn in the order of their index, and neighbours mean nothing.`);
  else if (!layout.geometry.triangles.length && layout.geometry.silent.size) note(`So many of the units are constant over the probe that the others span no area: each of these is a disc, and the constant ones are dots.`);
  else if (!layout.geometry.triangles.length) note(`${layer.units < 3 ? `A layer of ${plural(layer.units, "unit")}` : "This layer’s layout lies on one line and"} spans no area, so there is no field to draw: each unit is a disc.`);
  if (state.difference === "step" && layer.at[state.otherStep] < 0) note(`Nothing to subtract: this layer was not observed at ${nameOfStep(steps[state.otherStep])}.`);
  if (state.difference === "step" && state.otherStep === index) note("A step minus itself is zero everywhere; choose another step to subtract.");
  if (state.difference === "group" && countOf(index, state.otherGroup) === 0) note(`Nothing to subtract: group ${run.groups[state.otherGroup]} has no inputs at this step.`);
  if (state.difference === "group" && (countOf(index, state.otherGroup) ?? run.min_inputs) < run.min_inputs && countOf(index, state.otherGroup) > 0) note(`Nothing to subtract: group ${run.groups[state.otherGroup]} has too few inputs at this step.`);
  if (state.order !== "given" && !clustersOf(layer, index)) note(`The groups are in the order given: there is no clustering at ${state.order === "last" ? `the last ${unitOfStep}` : "this step"} (it takes 2 to 64 groups with inputs, and numbers).`);
  if (groupCount === 1) note("There is one group, so its contrast with the mean of the groups is zero by definition.");
  return out;
}

// How many units have no number in a group that has inputs.
function brokenUnits(layer, index) {
  const group = run.groups.findIndex((_, g) => countOf(index, g) !== null && !whyNoMap(index, g));
  if (group < 0) return 0;
  return contrasts(layer, index, group, "raw").reduce((sum, value) => sum + (value !== value), 0);
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);
const rawButton = () => make("button", { type: "button", class: "link", click: () => set({ quantity: "raw" }) }, "in activation");

function mapFigure(name, group) {
  const canvas = make("canvas", { role: "img" });
  const nothing = make("div", { class: "nothing", hidden: true });
  const value = make("span", { class: "value" }, "\u00a0");
  const count = make("span", { class: "count" });
  const marks = make("canvas", { class: "marks", "aria-hidden": "true", hidden: true });
  const keys = { role: "group", "aria-label": `map of group ${name}; arrow keys move a mark, Enter chooses there, plus and minus size a disc, Escape cancels` };
  const frame = make("div", { class: "map", ...keys }, canvas, marks, nothing, make("i", { class: "ring pin" }), make("i", { class: "ring hover" }));
  const node = make("figure", {}, frame, make("figcaption", {}, make("span", { class: "group-name", title: name }, name), count, value));
  followPointer(frame, group);
  chooseByPointer(frame);
  chooseByKeys(frame, group);
  return { node, frame, canvas, marks, context: canvas.getContext("2d"), nothing, value, count, name, group };
}

// As many pixels as the screen shows, but never more than can be painted between two frames.
function mapResolution() {
  const shown = Math.max(...mapsView.figures.map((figure) => figure.frame.clientWidth)) || 150;
  const budget = Math.sqrt(3.2e6 / groupCount);
  return Math.max(48, Math.min(Math.round(shown * Math.min(window.devicePixelRatio || 1, 2)), 480, Math.floor(budget)));
}

function paintMaps(layer, index) {
  const r = mapResolution();
  const raster = rasterOf(mapsView.layout.geometry, r);
  const limit = limitOf(layer);
  for (const figure of mapsView.figures) {
    const count = index < 0 ? null : countOf(index, figure.group);
    figure.count.textContent = count === null ? "" : count === 0 ? "no inputs" : plural(count, "input");
    const why = whyNoMap(index, figure.group);
    const itself = state.difference === "group" && figure.group === state.otherGroup;
    figure.node.classList.toggle("reference", itself);
    figure.frame.classList.toggle("mapless", why !== null);
    figure.nothing.hidden = why === null;
    figure.nothing.textContent = why || "";
    figure.canvas.hidden = why !== null;
    figure.canvas.setAttribute("aria-label", why ? `group ${figure.name}: ${why}` : `map of ${layerTitle(layer.name)} for group ${figure.name} at ${nameOfStep(steps[index])}`);
    if (why) continue;
    if (figure.canvas.width !== r) figure.canvas.width = figure.canvas.height = r;
    paint(figure.context, raster, mapsView.layout.geometry, atPoints(mapsView.layout, shownValues(layer, index, figure.group)), limit);
  }
}
