// The step bar that everything follows, and its keys. A page says with `barNote` what stands under it, and with `escaped` what Escape does.

function drawBar() {
  const bar = document.getElementById("bar");
  const last = steps.length - 1;
  const go = (index) => set({ step: Math.min(Math.max(index, 0), last), playing: false });
  const icon = (path) => draw("svg", { viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true" }, draw("path", { d: path, fill: "currentColor" }));
  const icons = { back: "M11 3v10L4 8z", next: "M5 3v10l7-5z", play: "M4 2v12l10-6z", pause: "M4 3h3v10H4zM9 3h3v10H9z" };
  const play = make("button", { type: "button", class: "play", "aria-label": "Play", title: "Play (space)", click: () => toggle() }, icon(icons.play));
  const back = make("button", { type: "button", "aria-label": "Step back", title: "Step back (←)", click: () => go(state.step - 1) }, icon(icons.back));
  const next = make("button", { type: "button", "aria-label": "Step on", title: "Step on (→)", click: () => go(state.step + 1) }, icon(icons.next));
  const number = make("strong", {});
  const slider = make("input", { type: "range", min: 0, max: last, step: 1, value: state.step, "aria-label": "Step", input: (event) => go(Number(event.target.value)) });
  const note = make("p", { class: "bar-note" });
  const track = make("div", { class: "track" }, slider, tickMarks(last), eventMarks(last));
  if (!last) [play, back, next, slider].forEach((control) => (control.disabled = true));
  bar.append(make("div", { class: "bar-inner" }, make("div", { class: "buttons" }, back, play, next), make("div", { class: "step-now" }, make("span", {}, unitOfStep), number), track, note));

  let timer = null;
  const calm = window.matchMedia && window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  const pace = Math.max(calm ? 1200 : 250, Math.min(800, 16000 / steps.length));
  function toggle() {
    if (!state.playing && state.step === last) set({ step: 0 });
    set({ playing: !state.playing && last > 0 });
  }
  view(["playing"], () => {
    clearInterval(timer);
    if (state.playing) timer = setInterval(() => (state.step < last ? set({ step: state.step + 1 }) : set({ playing: false })), pace);
    play.replaceChildren(icon(state.playing ? icons.pause : icons.play));
    play.setAttribute("aria-label", state.playing ? "Pause" : "Play");
  });
  const show = () => {
    slider.value = state.step;
    slider.style.setProperty("--done", `${last ? (state.step / last) * 100 : 0}%`);
    slider.setAttribute("aria-valuetext", `${nameOfStep(steps[state.step])}, ${state.step + 1} of ${steps.length}`);
    number.textContent = steps[state.step];
    back.disabled = state.step === 0;
    next.disabled = state.step === last;
    note.replaceChildren(...barNote(last));
  };
  view(["step", "layer", "layout", "places"], show);
  show();
  const measure = () => document.documentElement.style.setProperty("--bar", `${bar.offsetHeight}px`);
  view(["width"], measure);
  measure();

  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const tag = event.target.tagName;
    const typing = tag === "SELECT" || (tag === "INPUT" && event.target !== slider);
    if (event.key === "Escape") escaped();
    if (typing || (event.key === " " && (tag === "BUTTON" || tag === "SUMMARY"))) return;
    const to = { ArrowLeft: state.step - 1, ArrowRight: state.step + 1, Home: 0, End: last }[event.key];
    if (to !== undefined) go(to);
    else if (event.key === " ") toggle();
    else return;
    event.preventDefault();
  });
}

const alongTrack = (index, last) => `calc(9px + (100% - 18px) * ${last ? (index / last).toFixed(4) : 0})`;

function tickMarks(last) {
  const every = ticks(0, last || 1, 12).map((at, _, all) => (all.length > 1 ? all[1] - all[0] : 1))[0];
  const shown = steps.map((_, i) => i).filter((i) => i % Math.max(1, Math.ceil(every)) === 0);
  if (last && shown[shown.length - 1] !== last) {
    if (last - shown[shown.length - 1] < every / 2) shown.pop();
    shown.push(last);
  }
  const node = make("div", { class: "ticks", "aria-hidden": "true" });
  shown.forEach((i, k) => node.append(make("span", { class: k % 2 && i !== last ? "minor" : "", style: `left:${alongTrack(i, last)}` }, String(steps[i]))));
  return node;
}

// Marks where something happened, also between two observed steps.
function eventMarks(last) {
  const node = make("div", { class: "events" });
  for (const event of run.events) {
    const text = whenAndWhat(event);
    node.append(make("button", { type: "button", title: text, "aria-label": text, style: `left:${alongTrack(placeOfEvent(event).at, last)}`, click: () => goToEvent(event) }));
  }
  return node;
}
