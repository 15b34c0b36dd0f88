// Saliency over the steps: one input by every method, or every input by one method, one column per step and one scale.
// A click on a step moves the slider there.

const EPOCHS = { wide: { names: 92, least: 70, gap: 6 }, narrow: { names: 72, least: 50, gap: 4 }, most: 112 };

function drawOverEpochs(root, data, panel, cut) {
  const picked = cut === "input" ? "panelInput" : "panelMethod";
  const picker = pickerOf(data, cut, picked);
  const notices = make("div", { class: "notices" });
  const note = make("p", { class: "hint epochs-note" });
  const grid = make("div", { class: "epochs" });
  root.append(picker.node, notices, note, grid);
  let drawn = null;
  const shown = () => epochsShown(data, grid.clientWidth);
  const rebuild = () => {
    drawn = null;
    if (state.cut !== cut) return grid.replaceChildren();
    picker.show();
    const { size, columns } = shown();
    const focused = grid.contains(document.activeElement) ? document.activeElement.dataset.step : undefined;
    const rows = cut === "input" ? data.methods.map((method) => ({ method, input: state.panelInput })) : data.inputs.map((_, input) => ({ method: data.methods[state.panelMethod], input }));
    drawn = epochTable(data, panel, cut, rows, columns);
    grid.style.setProperty("--columns", columns.length);
    grid.style.setProperty("--names", `${size.names}px`);
    grid.style.setProperty("--gap", `${size.gap}px`);
    grid.style.setProperty("--side", `${Math.min(EPOCHS.most, Math.floor((grid.clientWidth - size.names) / columns.length) - size.gap)}px`);
    grid.replaceChildren(drawn.node);
    const again = focused !== undefined && grid.querySelector(`[data-step="${focused}"]`);
    if (again) again.focus();
    note.textContent = epochsNote(data, columns);
    mark();
  };
  const mark = () => {
    if (!drawn) return;
    notices.replaceChildren(...[missingStep("Saliency", data)].filter(Boolean));
    drawn.mark(heldStep(data.at, state.step));
  };
  view(["cut", picked, "width"], rebuild);
  view(["strength"], () => drawn && drawn.paint());
  view(["step"], () => {
    if (drawn && String(shown().columns) !== String(drawn.columns)) rebuild();
    else mark();
  });
  rebuild();
}

// Before, the choice, and next; up and down do the same on the buttons.
function pickerOf(data, cut, picked) {
  const many = cut === "input" ? data.inputs.length : data.methods.length;
  const go = (to) => to >= 0 && to < many && set({ [picked]: to });
  const button = (text, label, by) => make("button", { type: "button", "aria-label": label, title: `${label} (${by < 0 ? "↑" : "↓"})`, click: () => go(state[picked] + by) }, text);
  const options = cut === "input" ? data.inputs.map((_, input) => [input, inputTitle(data, input)]) : data.methods.map((m, method) => [method, methodName(m.name)]);
  const chosen = choice("", options, state[picked], (value) => go(Number(value)), cut === "input" ? "Input shown over the steps" : "Method shown over the steps");
  const [back, next] = [button("‹", `Previous ${cut}`, -1), button("›", `Next ${cut}`, 1)];
  const node = make("div", { class: "controls picker", role: "group", "aria-label": `The ${cut} that is shown` }, back, chosen, next);
  node.addEventListener("keydown", (event) => {
    const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!by || event.target.tagName === "SELECT") return;
    go(state[picked] + by);
    event.preventDefault();
  });
  return {
    node,
    show() {
      chosen.querySelector("select").value = state[picked];
      for (const [button, end] of [[back, 0], [next, many - 1]]) button.setAttribute("aria-disabled", String(state[picked] === end));
    },
  };
}

// The steps (indices) that have room beside each other: evenly, with the one of the slider among them.
function epochsShown(data, width) {
  const size = width < 480 ? EPOCHS.narrow : EPOCHS.wide;
  const room = Math.max(1, Math.floor((width - size.names) / (size.least + size.gap)));
  return { size, columns: thinned(observedSteps(data), room, heldStep(data.at, state.step)) };
}

function thinned(all, room, current) {
  if (all.length <= room) return all;
  const kept = room === 1 ? [current < 0 ? all[0] : current] : Array.from({ length: room }, (_, i) => all[Math.round((i * (all.length - 1)) / (room - 1))]);
  if (current < 0 || kept.includes(current)) return kept;
  // It takes the place of its neighbour; the first and the last stay where there are others.
  const free = kept.map((_, i) => i).slice(room > 2 ? 1 : 0, room > 2 ? -1 : undefined);
  const nearest = free.reduce((best, i) => (Math.abs(kept[i] - current) < Math.abs(kept[best] - current) ? i : best));
  kept[nearest] = current;
  return kept;
}

function epochsNote(data, columns) {
  const all = observedSteps(data);
  if (all.length === 1) return `One ${unitOfStep} was observed: there is nothing to compare it with.`;
  const here = `Every column is ${unitOfStep === "epoch" ? "an" : "a"} ${unitOfStep}; press one to go there.`;
  return columns.length < all.length ? `${here} ${columns.length} of ${all.length} have room, evenly spread and always with the one of the slider.` : here;
}

// Columns of a table, one a step: their cells and heads go to the step when pressed, and `mark` shows which one it is at.
function stepColumns(columns) {
  const cells = new Map(columns.map((index) => [index, []]));
  const inColumn = (tag, index, attributes, ...children) => {
    const cell = make(tag, { ...attributes, class: "at-step", click: () => set({ step: index, playing: false }) }, ...children);
    cells.get(index).push(cell);
    return cell;
  };
  const heads = columns.map((index) => make("button", { type: "button", "data-step": index, title: `go to ${nameOfStep(steps[index])}` }, make("span", { class: "spoken" }, `${unitOfStep} `), String(steps[index])));
  return {
    inColumn,
    headed: (picture) => make("thead", {}, make("tr", {}, make("th", { scope: "row" }, picture, unitOfStep), columns.map((index, i) => inColumn("th", index, { scope: "col" }, heads[i])))),
    answered: (said) => make("tfoot", {}, make("tr", {}, make("th", { scope: "row", class: "said" }, make("span", {}, "answer"), make("span", { class: "sure" }, "confidence")), columns.map((index) => inColumn("td", index, {}, said(index))))),
    mark(current) {
      for (const [index, column] of cells) for (const cell of column) cell.classList.toggle("now", index === current);
      heads.forEach((head, i) => (columns[i] === current ? head.setAttribute("aria-current", "step") : head.removeAttribute("aria-current")));
    },
  };
}

function epochTable(data, panel, cut, rows, columns) {
  const { inColumn, headed, answered, mark } = stepColumns(columns);
  const tiles = [];
  const tileIn = (method, input, index) => {
    const tile = panel.tile(method, input);
    tiles.push(() => tile.show(panel.map(method, input, index)));
    return tile.node;
  };
  const said = (input, index) => make("div", { class: "said" }, answer(data.labels[input], data.predictions[data.at[index]][input], data.confidence[data.at[index]][input]));
  const named = ({ method, input }) =>
    cut === "input"
      ? overEpochs(methodName(method.name), `${method.name} over the ${unitOfStep}s`, { cut: "method", panelMethod: data.methods.indexOf(method) })
      : [overEpochs(panel.picture(input), `${inputTitle(data, input)}: over the ${unitOfStep}s`, { cut: "input", panelInput: input }), make("span", { class: "is" }, className(data.labels[input]))];
  const body = rows.map((row) =>
    make(
      "tr", {}, make("th", { scope: "row" }, named(row)),
      columns.map((index) => inColumn("td", index, {}, tileIn(row.method, row.input, index), cut === "method" && said(row.input, index))),
    ),
  );
  const input = state.panelInput;
  const picture = cut === "input" && make("div", { class: "tile" }, panel.picture(input));
  const node = make(
    "table", { class: `epoch-table by-${cut}` },
    make("caption", {}, cut === "input" ? `${inputTitle(data, input)}, by every method` : `${methodName(data.methods[state.panelMethod].name)}, of every input`),
    headed(picture),
    make("tbody", {}, body),
    cut === "input" && answered((index) => said(input, index)),
  );
  const paint = () => tiles.forEach((show) => show());
  paint();
  return { node, columns, paint, mark };
}
