// The fixed inputs and where the network looks: one column per input, one row per method. A map is drawn as a density,
// times its own mean, so that maps of all methods and steps share one scale: 1 is an even spread.

function drawSaliency() {
  const root = document.getElementById("saliency");
  const data = run.saliency;
  const title = make("h2", { id: "saliency-title" }, "Where the network looks");
  if (!data || !data.methods.length) {
    if (!run.analyses.saliency && !whyMissing("saliency").includes("failed")) return root.remove();
    root.append(title, make("p", { class: "notice" }, `No saliency maps: ${whyMissing("saliency").replace("was not part of this run", "recorded no panel of inputs")}.`));
    return;
  }
  const limit = run.limits.density;
  const slider = make("input", { type: "range", min: 0, max: 100, value: state.strength * 100, input: (event) => set({ strength: event.target.value / 100 }) });
  const bar = colourBar(SEQUENTIAL, ["0", "1", "2", "3", "4", "5", `≥ ${limit}`], "saliency, times an even spread");
  const notices = make("div", { class: "notices" });
  const rows = make("div", { class: "panel-rows" });
  const sizes = data.methods.map((m) => m.size).concat([data.size]).filter(([h, w]) => Math.max(h, w) > 112);
  root.append(
    make(
      "div", { class: "section-head" },
      make("div", {}, title, make("p", { class: "hint" }, `${plural(data.inputs.length, "fixed input")} of the probe, the same at every ${unitOfStep}. A map says how strongly each pixel bears on ${data.explained ? `the ${data.explained} class` : "the network’s answer"}, as a multiple of the map’s own mean.${sizes.length ? " Large maps are averaged down to at most 112 pixels a side." : ""}`)),
      bar,
      make("label", { class: "choice" }, make("span", {}, "map over input"), slider),
    ),
    notices, rows,
  );
  // White strokes on black would grey the white of the maps: such inputs lie inverted under them.
  const values = unpack(data.panel).slice().sort();
  const inverted = data.panel.shape[3] === 1 && values[values.length >> 1] < 64;
  const columns = data.inputs.map((_, input) => panelColumn(data, input, inverted));
  const arrange = () => {
    // Rows of nearly equal length, tiles as large as fit.
    const room = rows.clientWidth - (rows.clientWidth < 480 ? 60 : 80);
    const fitting = Math.max(1, Math.floor((room + 8) / (rows.clientWidth < 480 ? 72 : 112)));
    const perRow = Math.max(1, Math.ceil(columns.length / Math.ceil(columns.length / fitting)));
    rows.style.setProperty("--side", `${Math.min(132, Math.floor((room + 8) / perRow) - 8)}px`);
    const chunks = [];
    for (let from = 0; from < columns.length; from += perRow) {
      const names = make("div", { class: "panel-names", "aria-hidden": "true" }, make("span", {}, "input"), data.methods.map((m) => make("span", { title: m.name }, m.name.replace(/_/g, " "))));
      chunks.push(make("div", { class: "panel-row" }, names, columns.slice(from, from + perRow).map((column) => column.node)));
    }
    rows.replaceChildren(...chunks);
  };
  const update = () => {
    const index = heldStep(data.at, state.step);
    notices.replaceChildren(...[unobserved("Saliency", data.at, state.step)].filter(Boolean));
    rows.classList.toggle("held", data.at[state.step] < 0);
    for (const column of columns) column.show(index);
  };
  view(["width"], arrange);
  view(["step", "strength"], update);
  arrange();
  update();
}

function panelColumn(data, input, inverted) {
  const [h, w, channels] = data.panel.shape.slice(1);
  const pixels = unpack(data.panel).subarray(input * h * w * channels, (input + 1) * h * w * channels);
  const picture = tileCanvas(h, w, `input ${input}`);
  const image = picture.context.createImageData(w, h);
  const grey = new Float32Array(h * w);
  for (let i = 0; i < h * w; i++) {
    for (let c = 0; c < 3; c++) {
      const value = pixels[i * channels + (channels >= 3 ? c : 0)];
      image.data[4 * i + c] = value;
      grey[i] += value / 3;
    }
    image.data[4 * i + 3] = 255;
    if (inverted) grey[i] = 255 - grey[i];
  }
  picture.context.putImageData(image, 0, 0);
  const tiles = data.methods.map((method) => mapTile(method, input, grey, h, w));
  const said = make("div", { class: "said" });
  const node = make("figure", { class: "panel-column" }, make("div", { class: "tile" }, picture.canvas), tiles.map((tile) => tile.node), said);
  return {
    node,
    show(index) {
      const row = index < 0 ? -1 : data.at[index];
      said.replaceChildren(...(row < 0 ? ["not observed"] : verdict(data, input, row)));
      tiles.forEach((tile) => tile.show(index));
    },
  };
}

function tileCanvas(height, width, label) {
  const canvas = make("canvas", { role: "img", "aria-label": label, width, height });
  return { canvas, context: canvas.getContext("2d") };
}

const className = (k) => (k === null || k === undefined ? "unknown" : String((manifest.class_names || [])[k] ?? k));

// What it is, what the network says, right or wrong by a mark and by words, and how sure it is.
function verdict(data, input, row) {
  const [label, said, sure] = [data.labels[input], data.predictions[row][input], data.confidence[row][input]];
  const right = said !== null && said === label;
  const percent = sure === null ? null : `${(sure * 100).toFixed(0)} %`;
  const words = said === null ? "no prediction" : right ? "right" : "wrong";
  return [
    make("span", { class: "is", title: `label: ${className(label)}` }, className(label)),
    make(
      "span", { class: right ? "right" : "wrong", title: `${words}: the network says ${className(said)}` },
      make("span", { "aria-hidden": "true" }, said === null ? "– " : right ? "✓ " : "✗ "), make("span", { class: "spoken" }, `${words}, says `), said === null ? "" : className(said),
    ),
    percent && make("span", { class: "sure" }, make("i", { style: `width:${(sure * 100).toFixed(1)}%` }), make("span", { class: "spoken" }, "confidence "), percent),
  ].filter(Boolean);
}

function mapTile(method, input, grey, inputHeight, inputWidth) {
  const [h, w] = method.density.shape.slice(2);
  const [height, width] = [Math.max(h, inputHeight), Math.max(w, inputWidth)];
  const { canvas, context } = tileCanvas(height, width, "");
  const nothing = make("div", { class: "nothing", hidden: true });
  const node = make("div", { class: "tile" }, canvas, nothing);
  const image = context.createImageData(width, height);
  const show = (index) => {
    const row = index < 0 ? -1 : method.at[index];
    const mean = row < 0 ? null : method.mean[row][input];
    const why = row < 0 ? "not observed" : mean === null ? "not a number" : mean === 0 ? "zero everywhere" : null;
    nothing.hidden = why === null;
    nothing.textContent = why || "";
    canvas.setAttribute("aria-label", `${method.name} of input ${input}${why ? `: ${why}` : ""}`);
    canvas.hidden = why !== null;
    if (why) return;
    const from = (row * method.density.shape[1] + input) * h * w;
    const density = unpack(method.density);
    const keep = 1 - state.strength;
    for (let y = 0, i = 0; y < height; y++) {
      const mapRow = from + Math.floor(((y + 0.5) * h) / height) * w;
      const inputRow = Math.floor(((y + 0.5) * inputHeight) / height) * inputWidth;
      for (let x = 0; x < width; x++, i += 4) {
        const colour = sequentialTable[density[mapRow + Math.floor(((x + 0.5) * w) / width)]];
        const under = grey[inputRow + Math.floor(((x + 0.5) * inputWidth) / width)] * keep;
        for (let c = 0; c < 3; c++) image.data[i + c] = under + colour[c] * state.strength;
        image.data[i + 3] = 255;
      }
    }
    context.putImageData(image, 0, 0);
  };
  return { node, show };
}
