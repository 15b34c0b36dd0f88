// What is said under the step bar, the address, and the start.

function barNote(last) {
  const out = [];
  const here = run.events.filter((event) => event.step === steps[state.step]).map((event) => event.sentence);
  if (here.length) out.push(make("span", { class: "event-text" }, here.join("; ")));
  if (!last) out.push(make("span", {}, `One ${unitOfStep} was observed: there is nothing to play.`));
  if (run.layers.length) {
    const layer = layerNow();
    out.push(make("span", {}, layoutText(layoutAt(layer, Math.max(heldStep(layer.at, state.step), 0)))));
  }
  return out;
}

function escaped() {
  if (run.layers.length) state.drawing ? set({ drawing: null }) : pin(null);
}

// The address may carry the step, the layer and the layout; in a sandboxed frame it may be unreadable or read-only.
function readAddress() {
  try {
    const wanted = new URLSearchParams(window.location.hash.slice(1));
    const step = wanted.has("step") ? steps.indexOf(Number(wanted.get("step"))) : -1;
    const layer = run.layers.findIndex((l) => l.name === wanted.get("layer"));
    const layout = run.layouts.findIndex((l) => l.analysis === wanted.get("layout"));
    if (step >= 0) state.step = step;
    if (layer >= 0) state.layer = layer;
    if (layout >= 0) state.layout = layout;
  } catch {
    // The page needs no address.
  }
}

let addressTimer = null;
function writeAddress() {
  clearTimeout(addressTimer);
  addressTimer = setTimeout(() => {
    try {
      const parts = { step: steps[state.step], ...(run.layers.length ? { layer: layerNow().name } : {}), ...(state.layout ? { layout: run.layouts[state.layout].analysis } : {}) };
      window.history.replaceState(null, "", `#${new URLSearchParams(parts)}`);
    } catch {
      // The page needs no address.
    }
  }, 400);
}

readAddress();
drawHeader();
drawLayers();
drawMaps();
drawBar();
drawUnits();
drawRegions();
drawSamples();
drawSaliency();
drawPredictions();
drawHappened();
drawCurves();
drawFooter();
if (mapsView.update) {
  arrangeMaps();
  mapsView.update();
}
if (run.layers.length) markUnit();
view(["step", "layer", "layout"], writeAddress);

let widthBefore = document.documentElement.clientWidth;
let resizing = null;
window.addEventListener("resize", () => {
  clearTimeout(resizing);
  resizing = setTimeout(() => {
    const width = document.documentElement.clientWidth;
    if (width === widthBefore) return;
    widthBefore = width;
    set({ width });
  }, 120);
});
