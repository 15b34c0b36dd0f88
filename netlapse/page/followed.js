// One input over the steps: what is predicted, how sure, and its maps by every method wherever they were recorded, be it among
// the fixed inputs or among those chosen at a step.

// Of each input of the probe that has maps where these are: its place in the panel, and (step, entry, picture) among the chosen.
const mapped = (() => {
  const data = run.saliency;
  const of = new Map();
  const at = (input) => of.get(input) || of.set(input, { panel: -1, chosen: new Map(), picture: -1 }).get(input);
  if (data) data.inputs.forEach((input, place) => (at(input).panel = place));
  if (data && data.chosen) {
    let entry = 0;
    const indices = data.chosen.at.map((_, index) => index).filter((index) => data.chosen.at[index] >= 0);
    data.chosen.steps.forEach(({ picture }, row) => {
      for (const one of picture) {
        const found = at(data.chosen.inputs[one]);
        found.picture = one;
        found.chosen.set(indices[row], entry++);
      }
    });
  }
  return of;
})();

const hasMaps = (input) => mapped.has(input);

function drawFollowed(root) {
  const title = make("h3", {}, "One input over the steps".replace("steps", `${unitOfStep}s`));
  const options = [...mapped.keys()].sort((a, b) => a - b).map((input) => [input, inputName(input)]);
  const select = make("select", { "aria-label": "Follow an input that has maps", change: () => select.value !== "" && set({ followed: Number(select.value) }) });
  select.append(make("option", { value: "" }, options.length ? `one of ${options.length} with maps` : "no input has maps"), ...options.map(([input, name]) => make("option", { value: input }, name)));
  select.disabled = !options.length;
  const note = make("p", { class: "hint" });
  const grid = make("div", { class: "epochs" });
  root.append(title, make("div", { class: "controls" }, make("label", { class: "choice" }, make("span", {}, "input"), select)), note, grid);
  let drawn = null;
  const columnsNow = () => {
    const size = grid.clientWidth < 480 ? EPOCHS.narrow : EPOCHS.wide;
    const all = steps.map((_, i) => i).filter((i) => predicted.at[i] >= 0 || (run.saliency && run.saliency.at[i] >= 0));
    return { size, all, columns: thinned(all, Math.max(1, Math.floor((grid.clientWidth - size.names) / (size.least + size.gap))), heldStep(predicted.at, state.step)) };
  };
  const rebuild = () => {
    select.value = state.followed !== null && hasMaps(state.followed) ? state.followed : "";
    drawn = null;
    grid.replaceChildren();
    note.replaceChildren(...followedNote());
    if (state.followed === null) return;
    const { size, columns } = columnsNow();
    const side = Math.min(EPOCHS.most, Math.floor((grid.clientWidth - size.names) / columns.length) - size.gap);
    for (const [name, value] of [["columns", columns.length], ["names", `${size.names}px`], ["gap", `${size.gap}px`], ["side", `${side}px`]]) grid.style.setProperty(`--${name}`, value);
    drawn = followedTable(state.followed, columns);
    grid.replaceChildren(drawn.node);
    drawn.mark(heldStep(predicted.at, state.step));
  };
  view(["followed", "width"], rebuild);
  view(["strength"], () => drawn && drawn.paint());
  view(["step"], () => {
    if (!drawn) return;
    const inside = grid.contains(document.activeElement) ? document.activeElement.dataset.step : undefined;
    if (String(columnsNow().columns) !== String(drawn.columns)) rebuild();
    else drawn.mark(heldStep(predicted.at, state.step));
    const again = inside !== undefined && grid.querySelector(`[data-step="${inside}"]`);
    if (again) again.focus();
  });
  rebuild();
}

// What there is of the input, and how to have more.
function followedNote() {
  const input = state.followed;
  if (input === null) return ["Press an input of a list above, or choose one that has maps."];
  const command = make("code", {}, `./run explain run=${manifest.run_id || "<id>"} input=${input}`);
  const found = mapped.get(input);
  if (!run.saliency) return ["No maps: this run recorded no saliency. Of saved checkpoints they are drawn by ", command, "."];
  if (!found) return [`No maps: they were recorded of ${plural(run.saliency.inputs.length, "fixed input")}${run.saliency.chosen ? " and of those chosen at each " + unitOfStep : ""}, and this is none of them. Of saved checkpoints they are drawn by `, command, "."];
  if (found.panel >= 0) return ["One of the fixed inputs: its maps were recorded at every observed ", `${unitOfStep}.`];
  return [`Chosen at ${plural(found.chosen.size, unitOfStep)}: at these its maps were recorded. All of them are drawn by `, command, "."];
}

// Where the maps of an input at a step (index) are: what `mapTile` shows, and the picture under it; null where there are none.
function mapOf(input, methodIndex, index) {
  const [data, found] = [run.saliency, mapped.get(input)];
  const method = data.methods[methodIndex];
  const label = `${method.name} of ${inputName(input)} at ${nameOfStep(steps[index])}`;
  if (found.panel >= 0 && method.at[index] >= 0) {
    const [inputs, h, w] = method.density.shape.slice(1);
    const row = method.at[index];
    return { label, why: whyBlank(method.mean[row][found.panel]), density: unpack(method.density), from: (row * inputs + found.panel) * h * w };
  }
  const entry = found.chosen.get(index);
  if (entry === undefined) return { label, why: found.panel >= 0 ? "not observed" : "no map" };
  const { density, mean, seen } = data.chosen.methods[methodIndex];
  const [h, w] = density.shape.slice(1);
  return { label, why: seen[entry] ? whyBlank(mean[entry]) : "not observed", density: unpack(density), from: entry * h * w };
}

function underOf(input) {
  const [data, found] = [run.saliency, mapped.get(input)];
  const [packed, at] = found.panel >= 0 ? [data.panel, found.panel] : [data.chosen.pictures, found.picture];
  return pictured(packed, at, isDark(packed), inputName(input));
}

function followedTable(input, columns) {
  const { inColumn, headed, answered, mark } = stepColumns(columns);
  const tiles = [];
  const under = hasMaps(input) ? underOf(input) : null;
  const methodRows = (under ? run.saliency.methods : []).map((method, m) => {
    const shape = (mapped.get(input).panel >= 0 ? method.density : run.saliency.chosen.methods[m].density).shape.slice(-2);
    return make(
      "tr", {}, make("th", { scope: "row" }, methodName(method.name)),
      columns.map((index) => {
        const tile = mapTile(shape, under);
        tiles.push(() => tile.show(mapOf(input, m, index)));
        return inColumn("td", index, {}, tile.node);
      }),
    );
  });
  const label = labelIn(input);
  const said = (index) => make("div", { class: "said" }, predicted.at[index] < 0 ? "not observed" : answer(label, saidOf(index, input), sureOf(index, input)));
  const number = pageNumberOf(input);
  const picture = under ? under.canvas : number >= 0 && pictureOf(number) && make("img", { class: "input-tile", src: pictureOf(number), alt: inputName(input) });
  const node = make(
    "table", { class: "epoch-table by-input" },
    make("caption", {}, `${inputName(input)}${label === null ? "" : `, label ${classOf(label)}`}`),
    headed(picture && make("div", { class: "tile" }, picture)),
    make("tbody", {}, methodRows),
    answered(said),
  );
  const paint = () => tiles.forEach((show) => show());
  paint();
  return { node, columns, paint, mark };
}
