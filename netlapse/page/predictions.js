// What the network says of the probe: confusion matrices, curves and scores of a few steps side by side, and what became of
// each input (histories.js). A step that is kept stays beside the one of the slider.

const predicted = run.predictions;
const MOST = { kept: 4, classes: 6, cells: 20 };

const labelIn = (input) => (predicted.labels ? unpack(predicted.labels)[input] : null);
const placeIn = (index, input) => predicted.at[index] * predicted.inputs + input;

// The class that an input is said to be at a step (index), null for none, and how sure the network is.
function saidOf(index, input) {
  const said = unpack(predicted.said)[placeIn(index, input)];
  return said < 0 ? null : said;
}

function sureOf(index, input) {
  const sure = unpack(predicted.confidence)[placeIn(index, input)];
  return Number.isNaN(sure) ? null : sure;
}

function scoreOf(index, name, k) {
  const [, names, classes] = predicted.scores.shape;
  return unpack(predicted.scores)[(predicted.at[index] * names + predicted.score_names.indexOf(name)) * classes + k];
}

function drawPredictions() {
  const root = document.getElementById("predictions");
  const title = make("h2", { id: "predictions-title" }, "What it predicts");
  if (!predicted) return root.append(title, make("p", { class: "hint" }, `No predictions: ${whyMissing("predictions")}.`, !whyMissing("predictions").includes("failed") && [" For them, of a network with an output for each class: ", make("code", {}, `./run reanalyse run=${manifest.run_id || "<id>"} +analyses.predictions._target_=netlapse.analysis.predictions.predictions +analyses.predictions._partial_=true`)]));
  const seen = steps.map((_, i) => i).filter((i) => predicted.at[i] >= 0);
  state.kept = seen.length > 1 ? [seen[0]] : [];
  state.classes = hardest(seen[seen.length - 1]);
  const choices = make("div", { class: "controls few" });
  const notices = make("div", { class: "notices" });
  const columns = make("div", { class: "abreast" });
  const scores = make("div", {});
  root.append(
    make(
      "div", { class: "section-head" },
      make("div", {}, title, make("p", { class: "hint" }, `Of the ${plural(predicted.inputs, "input")} of the probe, at the ${unitOfStep} of the slider and at those kept beside it. Rows are labels and columns predictions; press a number for its inputs.`)),
      colourBar(SEQUENTIAL, ["0", "0.5", "1"], "share of the label’s inputs"),
    ),
    choices, notices, columns, scores,
  );
  const update = () => {
    const shown = stepsBeside();
    notices.replaceChildren(...[unobserved("What is predicted", predicted.at, state.step, predicted.left_out)].filter(Boolean));
    replacedKeepingFocus(choices, [fewSteps(seen, shown), fewClasses()]);
    replacedKeepingFocus(columns, shown.map((index) => atStep(index, (root.clientWidth - 28 * (shown.length - 1)) / shown.length)));
    replacedKeepingFocus(scores, [scoreTable(shown)]);
  };
  view(["step", "kept", "classes", "cell", "width"], update);
  update();
  drawHistories(root);
}

// The steps (indices) shown side by side, ascending: those kept and the one of the slider.
function stepsBeside() {
  const now = heldStep(predicted.at, state.step);
  return [...new Set([...state.kept, ...(now < 0 ? [] : [now])])].sort((a, b) => a - b);
}

// The classes that are told apart worst.
function hardest(index) {
  const f1 = predicted.classes.map((_, k) => scoreOf(index, "f1", k) || 0);
  return f1.map((_, k) => k).sort((a, b) => f1[a] - f1[b]).slice(0, 3).sort((a, b) => a - b);
}

// Redrawn, and the focus where it was: on what has the same key.
function replacedKeepingFocus(root, children) {
  const key = root.contains(document.activeElement) ? document.activeElement.dataset.focus : undefined;
  root.replaceChildren(...children.filter(Boolean));
  if (key === undefined) return;
  const again = [...root.querySelectorAll("[data-focus]")].find((node) => node.dataset.focus === key) || root.querySelector("[data-focus]");
  if (again) again.focus();
}

// What was chosen as buttons that take it away, and a choice of what may be added.
function few(label, what, chosen, options, most, add, name) {
  const left = options.filter(([key]) => !chosen.includes(key));
  const adding = make("select", { "data-focus": `add ${what}`, "aria-label": `Add ${what}`, disabled: !left.length || chosen.length >= most, change: (event) => add([...chosen, Number(event.target.value)]) });
  adding.append(make("option", { value: "" }, chosen.length >= most ? `${most} at most` : `add ${what}`), ...left.map(([key, text]) => make("option", { value: key }, text)));
  const chips = chosen.map((key) => make("button", { type: "button", "data-focus": `${what} ${key}`, "aria-label": `Take ${name(key)} away`, title: "take away", click: () => add(chosen.filter((other) => other !== key)) }, swatchOf(what, key), `${name(key)} `, make("span", { "aria-hidden": "true" }, "×")));
  return make("div", { class: "choice", role: "group", "aria-label": label }, make("span", {}, label), chips, adding);
}

const swatchOf = (what, key) => (what === "a class" ? classSwatch(key) : null);
const classOf = (k) => (k === null ? "none" : predicted.classes[k]);

function fewSteps(seen, shown) {
  const now = heldStep(predicted.at, state.step);
  const options = seen.filter((i) => i !== now).map((i) => [i, nameOfStep(steps[i])]);
  const article = /^[aeiou]/.test(unitOfStep) ? "an" : "a";
  return few(`beside ${shown.includes(now) ? nameOfStep(steps[now]) : "the slider"}`, `${article} ${unitOfStep}`, state.kept, options, MOST.kept, (kept) => set({ kept: kept.sort((a, b) => a - b) }), (i) => nameOfStep(steps[i]));
}

function fewClasses() {
  return few("curves of", "a class", state.classes, predicted.classes.map((name, k) => [k, name]), MOST.classes, (classes) => set({ classes: classes.sort((a, b) => a - b) }), classOf);
}

function atStep(index, width) {
  const now = index === heldStep(predicted.at, state.step);
  const room = Math.max(Math.min(width, 460), 260);
  return make(
    "section", { class: now ? "beside now" : "beside", "data-step": steps[index], "aria-label": nameOfStep(steps[index]) },
    make("h4", {}, nameOfStep(steps[index]), now && make("span", { class: "count" }, " the slider’s")),
    confusionTable(index),
    thresholdCharts(index, room),
  );
}

// ------------------------------------------------------------------------------------------------ confusion matrices

// The classes with a row of their own: all, or where these are too many those whose curves are shown.
const ownRows = () => (predicted.classes.length <= MOST.cells ? predicted.classes.map((_, k) => k) : state.classes);

// How many inputs of each label are said to be of each class; the last row and column are of all other classes, if there are.
function confusionAt(index) {
  const own = ownRows();
  const others = own.length < predicted.classes.length;
  const side = own.length + others;
  const place = predicted.classes.map((_, k) => own.indexOf(k)).map((at) => (at < 0 ? own.length : at));
  const counts = Array.from({ length: side }, () => new Array(side).fill(0));
  let [right, answered] = [0, 0];
  for (let input = 0; input < predicted.inputs; input++) {
    const [label, said] = [labelIn(input), saidOf(index, input)];
    if (said === null) continue;
    answered++;
    right += label === said;
    counts[place[label]][place[said]]++;
  }
  return { own, others, counts, right, answered };
}

function confusionTable(index) {
  if (!predicted.labels) return make("p", { class: "notice" }, "No confusion matrix: this run kept no probe, so that the labels of its inputs are not known.");
  const { own, others, counts, right, answered } = confusionAt(index);
  const names = [...own.map(classOf), ...(others ? ["others"] : [])];
  const sums = counts.map((row) => row.reduce((sum, count) => sum + count, 0));
  const none = predicted.inputs - answered;
  const cells = [];
  const open = (row, column) => row < own.length && column < own.length && set({ kind: "cell", cell: [own[row], own[column]] });
  const cellAt = (row, column, count) => {
    const share = sums[row] ? count / sums[row] : 0;
    const chosen = state.cell && own[row] === state.cell[0] && own[column] === state.cell[1];
    const said = `label ${names[row]}, predicted ${names[column]}: ${count} of ${sums[row]}`;
    const cell = make(
      "td",
      {
        style: sums[row] ? `background:${css(between(SEQUENTIAL, share))};color:${share > 0.45 ? "#fff" : "#1c2430"}` : "background:#ededed",
        class: [row === column && "hit-cell", chosen && "chosen-cell"].filter(Boolean).join(" ") || null,
        tabindex: -1, "data-focus": `${index} ${row} ${column}`, "aria-label": said, title: said, click: () => open(row, column),
        keydown: (event) => {
          const [down, across] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] || [0, 0];
          const other = cells[row + down] && cells[row + down][column + across];
          if (event.key === "Enter") open(row, column);
          else if ((down || across) && !event.altKey && !event.ctrlKey && !event.metaKey) {
            if (other) other.focus();
          } else return;
          event.preventDefault();
          event.stopPropagation(); // the arrows are the slider's elsewhere
        },
      },
      count ? String(count) : "",
    );
    return cell;
  };
  counts.forEach((row, r) => cells.push(row.map((count, c) => cellAt(r, c, count))));
  // One of them is reached by Tab, the others from there by arrows.
  const [r, c] = state.cell && own.includes(state.cell[0]) && own.includes(state.cell[1]) ? state.cell.map((k) => own.indexOf(k)) : [0, 0];
  if (cells[r]) cells[r][c].tabIndex = 0;
  return make(
    "div", { class: "confusion-frame" },
    make(
      "table", { class: "confusion" },
      make("caption", {}, answered ? `${(right / answered).toFixed(3)} right of ${plural(answered, "input")}${none ? `, ${none} without a prediction` : ""}` : "nothing was predicted: no output is a number"),
      make("thead", {}, make("tr", {}, make("th", { scope: "col", class: "corner" }, "label"), names.map((name) => make("th", { scope: "col", title: `predicted ${name}` }, make("span", {}, name))))),
      make("tbody", {}, cells.map((row, at) => make("tr", {}, make("th", { scope: "row", title: names[at] }, names[at]), row))),
    ),
  );
}

// ------------------------------------------------------------------------------------------------------------ scores

const SCORE_WORDS = { precision: ["precision", "share of what is said to be of the class that is"], recall: ["recall", "share of the class that is said to be"], f1: ["F1", "the harmonic mean of precision and recall"], auc: ["AUC", "the probability that an input of the class scores above one that is not"] };

function scoreTable(shown) {
  const rows = predicted.classes.length <= 40 ? predicted.classes.map((_, k) => k) : state.classes;
  const names = Object.keys(SCORE_WORDS);
  const value = (number) => make("td", {}, Number.isNaN(number) ? "–" : number.toFixed(3));
  const mean = (index, name) => {
    const told = predicted.classes.map((_, k) => scoreOf(index, name, k)).filter((number) => !Number.isNaN(number));
    return told.length ? told.reduce((sum, number) => sum + number, 0) / told.length : NaN;
  };
  const toggled = (k) => set({ classes: state.classes.includes(k) ? state.classes.filter((other) => other !== k) : [...state.classes, k].slice(-MOST.classes).sort((a, b) => a - b) });
  const head = (k) => make("button", { type: "button", class: "link", "data-focus": `row ${k}`, "aria-pressed": String(state.classes.includes(k)), title: "its curves", click: () => toggled(k) }, classSwatch(k), classOf(k));
  const perStep = (cells) => shown.map((index) => names.map((name) => cells(index, name)));
  return make(
    "div", { class: "region-table score-table", tabindex: 0, role: "region", "aria-label": "Scores of each class" },
    make(
      "table", {},
      make("caption", {}, `Each class against all others${rows.length < predicted.classes.length ? `; ${rows.length} of ${predicted.classes.length} classes, those whose curves are shown` : ""}. A dash: nothing to be a share of.`),
      make(
        "thead", {},
        make("tr", {}, make("td", {}), shown.map((index) => make("th", { scope: "colgroup", colspan: names.length }, nameOfStep(steps[index])))),
        make("tr", {}, make("th", { scope: "col" }, "class"), perStep((_, name) => make("th", { scope: "col", title: SCORE_WORDS[name][1] }, SCORE_WORDS[name][0]))),
      ),
      make(
        "tbody", {},
        rows.map((k) => make("tr", {}, make("th", { scope: "row" }, head(k)), perStep((index, name) => value(scoreOf(index, name, k))))),
        make("tr", { class: "mean" }, make("th", { scope: "row" }, "mean"), perStep((index, name) => value(mean(index, name)))),
      ),
    ),
  );
}
