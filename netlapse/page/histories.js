// What became of each input up to the step of the slider: lists by kind, the most confident first, with what was predicted.

const LISTED = 12; // see netlapse/report_predictions.py
const KINDS = {
  errors: ["Most confident errors", () => "wrong now, the most confident first"],
  stuck: ["Stuck", () => `one and the same wrong class at the last ${predicted.patience || "few"} observed ${unitOfStep}s`],
  forgotten: ["Just forgotten", () => `wrong now, right at the ${unitOfStep} observed before`],
  learned: ["Just learned", () => `right now, wrong at the ${unitOfStep} observed before`],
  always_wrong: ["Always wrong", () => `wrong at every observed ${unitOfStep} since training began`],
  always_right: ["Always right", () => `right at every observed ${unitOfStep} since training began`],
  cell: ["Of one number", () => (state.cell ? `label ${classOf(state.cell[0])}, predicted ${classOf(state.cell[1])}` : "press a number of a confusion matrix, or Enter on it, for its inputs")],
};

const listsView = { more: false };

// The inputs of a kind at a step (index), in the order in which they are listed.
function inputsOf(kind, index) {
  const every = Array.from({ length: predicted.inputs }, (_, input) => input);
  if (kind === "errors") {
    const rank = (input) => unpack(predicted.rank)[placeIn(index, input)];
    return every.filter((input) => rank(input) < predicted.inputs).sort((a, b) => rank(a) - rank(b));
  }
  const sure = (input) => sureOf(index, input) ?? -1;
  const bit = 1 << predicted.kind_names.indexOf(kind);
  const of = kind === "cell" ? (input) => state.cell && labelIn(input) === state.cell[0] && saidOf(index, input) === state.cell[1] : (input) => unpack(predicted.kinds)[placeIn(index, input)] & bit;
  return every.filter(of).sort((a, b) => sure(b) - sure(a));
}

// The page's number of an input of the probe, or -1: only some have a picture or an id.
const pageNumberOf = (input) => (inputs ? inputs.at.indexOf(input) : -1);

// By its place in the probe, and its id where that says something else.
function inputName(input) {
  const number = pageNumberOf(input);
  const id = number >= 0 && inputs.ids ? inputs.ids[number] : String(input);
  return `input ${input}${id === String(input) ? "" : ` (${id})`}`;
}

function drawHistories(root) {
  const title = make("h3", {});
  const hint = make("p", { class: "hint", "aria-live": "polite" });
  const kinds = make("div", { class: "legend", role: "group", "aria-label": "Which inputs are listed" });
  const list = make("ul", { class: "history" });
  const more = make("button", { type: "button", class: "link", click: () => ((listsView.more = !listsView.more), update()) });
  const followed = make("div", { id: "followed" });
  root.append(make("div", { class: "histories" }, title, kinds, hint, list, more, followed));
  const update = () => {
    const index = heldStep(predicted.at, state.step);
    title.textContent = index < 0 ? "What became of inputs" : `What became of inputs up to ${nameOfStep(steps[index])}`;
    const found = Object.fromEntries(Object.keys(KINDS).map((kind) => [kind, index < 0 ? [] : inputsOf(kind, index)]));
    replacedKeepingFocus(kinds, Object.entries(KINDS).map(([kind, [name]]) => make("button", { type: "button", "data-focus": kind, "data-kind": kind, "aria-pressed": String(state.kind === kind), click: () => set({ kind }) }, `${name} `, make("span", { class: "count" }, found[kind].length))));
    const here = found[state.kind];
    const shown = listsView.more ? here.slice(0, 200) : here.slice(0, LISTED);
    hint.textContent = historyHint(index, here, shown);
    replacedKeepingFocus(list, shown.map((input) => make("li", {}, listedInput(input, index))));
    more.hidden = here.length <= LISTED;
    more.textContent = listsView.more ? "fewer" : `show ${here.length > 200 ? "200" : `all ${here.length}`}`;
  };
  view(["step", "kind", "cell"], update);
  view(["followed"], () => {
    for (const button of list.querySelectorAll("button")) button.setAttribute("aria-pressed", String(Number(button.dataset.input) === state.followed));
  });
  update();
  drawFollowed(followed);
}

function historyHint(index, here, shown) {
  if (index < 0) return `Nothing was predicted at ${nameOfStep(steps[state.step])} or before.`;
  const words = KINDS[state.kind][1]();
  if (!here.length) return `None: ${words}.`;
  return `${words[0].toUpperCase()}${words.slice(1)}: ${here.length} of ${plural(predicted.inputs, "input")}${shown.length < here.length ? `, ${shown.length} shown, the most confident first` : ""}. Press one to follow it over the ${unitOfStep}s; a dot says that maps of it were recorded.`;
}

function listedInput(input, index) {
  const number = pageNumberOf(input);
  const picture = number >= 0 && pictureOf(number);
  const mapped = hasMaps(input);
  const label = labelIn(input);
  const name = `${inputName(input)}${label === null ? "" : `, label ${classOf(label)}`}${mapped ? ", with maps" : ""}`;
  return make(
    "button", { type: "button", "data-focus": input, "data-input": input, "aria-pressed": String(state.followed === input), title: name, click: () => set({ followed: state.followed === input ? null : input }) },
    picture ? make("img", { class: "input-tile", src: picture, alt: "" }) : make("span", { class: "input-tile in-words", "aria-hidden": "true" }, `#${input}`),
    make("span", { class: "spoken" }, `${name}: `),
    make("span", { class: "said" }, label === null ? answer(null, saidOf(index, input), sureOf(index, input)) : verdict(label, saidOf(index, input), sureOf(index, input))),
    mapped && make("span", { class: "mapped", "aria-hidden": "true" }),
  );
}
