// What happened: marks at the events' steps, and all of them as a list that leads there.

// The place (index, perhaps between two) of an event among the observed steps, and the observed step (index) to look at.
function placeOfEvent(event) {
  const after = steps.findIndex((step) => step >= event.step);
  if (after <= 0) return after ? { at: steps.length - 1, look: steps.length - 1 } : { at: 0, look: 0 };
  return { at: after - (steps[after] - event.step) / (steps[after] - steps[after - 1]), look: after };
}

const inItsLayer = ({ sentence, layer }) => (layer && !sentence.includes(layer) ? `${sentence} (${layerTitle(layer)})` : sentence);

const whenAndWhat = (event) => `${nameOfStep(event.step)}: ${event.sentence}`;

// Goes to the step of an event, and to its layer where it is of one.
function goToEvent(event) {
  const layer = run.layers.findIndex(({ name }) => name === event.layer);
  set({ step: placeOfEvent(event).look, playing: false, ...(layer >= 0 ? { layer } : {}) });
}

function drawHappened() {
  const root = document.getElementById("happened");
  root.append(make("h2", { id: "happened-title" }, "What happened"));
  if (manifest.stopped) root.append(make("p", { class: "notice" }, make("strong", {}, "The training was stopped "), String(manifest.stopped)));
  root.append(...lookHere());
  if (!run.events.length) return root.append(make("p", { class: "hint" }, nothingHappened()));
  const list = make("ol", { class: "happened" });
  const rows = run.events.map((event) => {
    const jump = make("button", { type: "button", class: "link", "aria-label": `Go to ${whenAndWhat(event)}`, click: () => goToEvent(event) }, nameOfStep(event.step));
    const row = make("li", {}, jump, make("span", {}, inItsLayer(event)), make("span", { class: "told-by" }, `${event.analysis} / ${event.kind}`));
    list.append(row);
    return { row, look: placeOfEvent(event).look };
  });
  root.append(list);
  const show = () => rows.forEach(({ row, look }) => (look === state.step ? row.setAttribute("aria-current", "step") : row.removeAttribute("aria-current")));
  view(["step"], show);
  show();
}

// What is most unusual, whether it made an event or not: 1 is one.
function lookHere() {
  if (!run.looks.length) return [];
  const list = make("ol", { class: "happened looks" });
  for (const place of run.looks.slice(0, 12)) {
    const jump = make("button", { type: "button", class: "link", "aria-label": `Look at ${whenAndWhat(place)}`, click: () => goToEvent(place) }, nameOfStep(place.step));
    const where = make("span", {}, inItsLayer(place));
    list.append(make("li", {}, jump, where, make("span", { class: "told-by" }, `${place.kind}, ${(Math.floor(10 * place.unusual) / 10).toFixed(1)}${place.unusual < 1 ? " of an event" : ""}`)));
  }
  return [make("details", { class: "looks" }, make("summary", {}, `Look here: ${run.looks.length === 1 ? "one place" : `${run.looks.length} places`}, the most unusual first`), list)];
}

function nothingHappened() {
  if (run.telling.length) return `Nothing that ${run.telling.join(" and ")} would tell of.`;
  return "No analysis of this run tells of events. Those that do: changes, of what leaves its course, and fairness, of alarms.";
}
