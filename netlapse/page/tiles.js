// Tiles of the saliency panel: an input, or a map drawn over it as a density, times its own mean, so that maps of all
// methods, inputs and steps share one scale: 1 is an even spread.

function tileCanvas(height, width, label) {
  const canvas = make("canvas", { role: "img", "aria-label": label, width, height });
  return { canvas, context: canvas.getContext("2d") };
}

const className = (k) => (k === null || k === undefined ? "unknown" : String((manifest.class_names || [])[k] ?? k));
const methodName = (name) => name.replace(/_/g, " ");

// White strokes on black would grey the white of the maps: such inputs lie inverted under them.
function isDark(packed) {
  const values = unpack(packed).slice().sort();
  return packed.shape[3] === 1 && values[values.length >> 1] < 64;
}

// One of the inputs (m, h, w, c) as a canvas, and as grey values to draw a map over.
function pictured(packed, input, dark, label) {
  const [h, w, channels] = packed.shape.slice(1);
  const pixels = unpack(packed).subarray(input * h * w * channels, (input + 1) * h * w * channels);
  const { canvas, context } = tileCanvas(h, w, label);
  const image = context.createImageData(w, h);
  const grey = new Float32Array(h * w);
  for (let i = 0; i < h * w; i++) {
    for (let c = 0; c < 3; c++) {
      const value = pixels[i * channels + (channels >= 3 ? c : 0)];
      image.data[4 * i + c] = value;
      grey[i] += value / 3;
    }
    image.data[4 * i + 3] = 255;
    if (dark) grey[i] = 255 - grey[i];
  }
  context.putImageData(image, 0, 0);
  return { canvas, grey, h, w };
}

// A map over an input. `show` takes {label, why} where there is none, or {label, density, from}: the values (h, w) from there on.
function mapTile([h, w], under) {
  const [height, width] = [Math.max(h, under.h), Math.max(w, under.w)];
  const { canvas, context } = tileCanvas(height, width, "");
  const nothing = make("div", { class: "nothing", hidden: true });
  const image = context.createImageData(width, height);
  const show = ({ label, why = null, density, from }) => {
    nothing.hidden = why === null;
    nothing.textContent = why || "";
    canvas.setAttribute("aria-label", `${label}${why ? `: ${why}` : ""}`);
    canvas.hidden = why !== null;
    if (why) return;
    const keep = 1 - state.strength;
    for (let y = 0, i = 0; y < height; y++) {
      const mapRow = from + Math.floor(((y + 0.5) * h) / height) * w;
      const inputRow = Math.floor(((y + 0.5) * under.h) / height) * under.w;
      for (let x = 0; x < width; x++, i += 4) {
        const colour = sequentialTable[density[mapRow + Math.floor(((x + 0.5) * w) / width)]];
        const below = under.grey[inputRow + Math.floor(((x + 0.5) * under.w) / width)] * keep;
        for (let c = 0; c < 3; c++) image.data[i + c] = below + colour[c] * state.strength;
        image.data[i + 3] = 255;
      }
    }
    context.putImageData(image, 0, 0);
  };
  return { node: make("div", { class: "tile" }, canvas, nothing), show };
}

const whyBlank = (mean) => (mean === null ? "not a number" : mean === 0 ? "zero everywhere" : null);

// "89 %"; what is nearly sure is not quite sure.
const sureness = (sure) => (sure < 1 && sure >= 0.995 ? "> 99 %" : `${(sure * 100).toFixed(0)} %`);

// What the network says, right or wrong by a mark and by words, and how sure it is.
function answer(label, said, sure) {
  const right = said !== null && said === label;
  const words = said === null ? "no prediction" : right ? "right" : "wrong";
  return [
    make(
      "span", { class: right ? "right" : "wrong", title: `${words}: the network says ${className(said)}` },
      make("span", { "aria-hidden": "true" }, said === null ? "– " : right ? "✓ " : "✗ "), make("span", { class: "spoken" }, `${words}, says `), said === null ? "" : className(said),
    ),
    sure !== null && make("span", { class: "sure" }, make("i", { style: `width:${(sure * 100).toFixed(1)}%` }), make("span", { class: "spoken" }, "confidence "), sureness(sure)),
  ].filter(Boolean);
}

// The same after what the input is.
const verdict = (label, said, sure) => [make("span", { class: "is", title: `label: ${className(label)}` }, className(label)), ...answer(label, said, sure)];
