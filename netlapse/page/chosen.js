// The inputs chosen at each step: those whose prediction just changed, is wrong, or is right, beside the fixed ones.

const WHY = { changed: "Prediction just changed", wrong: "Wrong", right: "Right" };

function drawChosen(root, data) {
  const title = make("h3", {}, "Chosen inputs");
  const hint = make("p", { class: "hint" });
  const rows = make("div", { class: "chosen" });
  root.append(make("div", { class: "chosen-head" }, title, hint));
  const chosen = data.chosen;
  if (!chosen) {
    title.remove();
    const asked = ["Inputs whose prediction just changed, is wrong or is right are shown here where they are asked for: ", make("code", {}, "analyses.saliency.chosen=3"), "."];
    const tooMany = ["Inputs were chosen at each checkpoint; they are left out here, as this page would be too large."];
    hint.append(...(run.left_out.some((text) => text.includes("chosen")) ? tooMany : asked));
    return;
  }
  root.append(rows);
  const dark = chosen.inputs.length > 0 && isDark(chosen.pictures);
  const first = []; // of each stored step its first entry
  chosen.steps.reduce((entry, { picture }) => (first.push(entry), entry + picture.length), 0);
  const update = () => {
    if (state.cut !== "step") return;
    const row = chosen.at[state.step];
    title.textContent = `Chosen at ${nameOfStep(steps[state.step])}`;
    hint.textContent = chosenHint(data, chosen);
    rows.replaceChildren(...(row < 0 ? [unobserved("The choice of inputs", chosen.at, state.step, chosen.left_out, false)] : chosenGroups(data, chosen, chosen.steps[row], first[row], dark, rows)));
  };
  view(["step", "strength", "cut", "width"], update);
  update();
}

function chosenHint(data, chosen) {
  const many = chosen.at.filter((row) => row >= 0).length;
  return [
    `Other inputs at each ${unitOfStep}, none of the fixed ones: at most ${chosen.asked} for each reason, the classes in turn.`,
    chosen.left_out.length && `To keep this page small it holds those of ${many} of the ${plural(many + chosen.left_out.length, unitOfStep)} that were recorded.`,
    chosen.side < data.side && `Their maps are averaged down to at most ${chosen.side} pixels a side.`,
  ].filter(Boolean).join(" ");
}

function chosenGroups(data, chosen, here, first, dark, root) {
  const groups = chosen.why.map((why, at) => ({ why, of: here.of[at], entries: here.why.map((_, i) => i).filter((i) => here.why[i] === at) }));
  // Side by side where all tiles have room in one row, else one group below the other.
  const GAP = 22;
  const width = root.clientWidth;
  const columns = groups.reduce((sum, { entries }) => sum + Math.max(entries.length, 1), 0);
  const abreast = tilesInRow(width, columns, GAP * (groups.length - 1));
  const together = columns <= abreast.fitting;
  const { perRow, side } = together ? { perRow: columns, side: abreast.side } : tilesInRow(width, chosen.asked);
  root.style.setProperty("--side", `${Math.min(side, 96)}px`);
  root.classList.toggle("together", together);
  const column = (i) => chosenColumn(data, chosen, here, i, first + i, dark);
  return groups.map(({ why, of, entries }, at) => {
    const name = WHY[why] || why;
    const since = here.before === null ? "" : `${why === "changed" ? "" : "unchanged "}since ${nameOfStep(steps[here.before])}`;
    const lines = [];
    for (let from = 0; from < entries.length; from += perRow) lines.push(make("div", { class: "panel-row" }, (!together || at === 0) && methodNames(data), entries.slice(from, from + perRow).map(column)));
    if (!entries.length) lines.push(make("div", { class: "panel-row" }, together && at === 0 && methodNames(data), make("p", { class: "none-chosen" }, whyNone(why, of, here, data))));
    return make(
      "section", { class: "chosen-group", "data-why": why, "aria-label": name },
      make("h4", {}, name, make("span", { class: "count" }, entries.length && of !== null ? ` ${entries.length} of ${of}` : "")),
      make("p", { class: "hint" }, since),
      lines,
    );
  });
}

// Why a group is empty.
function whyNone(why, of, here, data) {
  if (why === "changed" && here.before === null) return `This is the first ${unitOfStep} at which inputs were chosen: nothing can have changed.`;
  const others = `apart from the ${plural(data.inputs.length, "fixed input")}`;
  if (why === "changed") return `No prediction changed since ${nameOfStep(steps[here.before])}, ${others}.`;
  const still = here.before === null ? "" : " that was so before";
  return { wrong: `No prediction${still} is wrong, ${others}.`, right: `No prediction${still} is right, ${others}.` }[why] || "None.";
}

function chosenColumn(data, chosen, here, i, entry, dark) {
  const input = chosen.inputs[here.picture[i]];
  const label = here.label ? here.label[i] : null;
  const title = `input ${input}${label === null ? "" : `, label ${className(label)}`}`;
  const under = pictured(chosen.pictures, here.picture[i], dark, title);
  const tiles = data.methods.map((method, m) => {
    const { density, mean, seen } = chosen.methods[m];
    const [h, w] = density.shape.slice(1);
    const tile = mapTile([h, w], under);
    tile.show({ label: `${method.name} of ${title}`, why: seen[entry] ? whyBlank(mean[entry]) : "not observed", density: unpack(density), from: entry * h * w });
    return tile.node;
  });
  const said = here.prediction ? here.prediction[i] : null;
  const was = here.was ? here.was[i] : null;
  return make(
    "figure", { class: "panel-column" },
    make("div", { class: "tile", title }, under.canvas), tiles,
    make("div", { class: "said" }, verdict(label, said, here.confidence ? here.confidence[i] : null), was !== null && was !== said && make("span", { class: "was" }, `before: ${className(was)}`)),
  );
}
