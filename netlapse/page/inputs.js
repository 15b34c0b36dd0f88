// The probe's inputs by name and picture: a unit's top inputs, and those of the maps of inputs.

const inputs = run.inputs;
const pictures = new Map();

// The address of an input's picture, drawn once; null where the page has none.
function pictureOf(input) {
  if (!inputs || !inputs.pictures || inputs.pictures.row[input] < 0) return null;
  if (!pictures.has(input)) pictures.set(input, drawnPicture(inputs.pictures.data, inputs.pictures.row[input]));
  return pictures.get(input);
}

function drawnPicture(packed, row) {
  const [h, w, channels] = packed.shape.slice(1);
  const pixels = unpack(packed);
  const { canvas, context } = tileCanvas(h, w, "");
  const image = context.createImageData(w, h);
  for (let i = 0, from = row * h * w * channels; i < h * w; i++, from += channels) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = pixels[from + (channels === 3 ? c : 0)];
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return canvas.toDataURL();
}

// "input 17, label 3": its id, its label, and its group where that is not the label.
function inputText(input, index) {
  const place = inputs.at[input];
  const id = inputs.ids ? inputs.ids[input] : String(place);
  const label = labelOf(input);
  const group = groupOfInput(input, index);
  return [`input ${id}`, label !== null && `label ${className(label)}`, group !== null && group !== (label === null ? null : className(label)) && `group ${group}`].filter(Boolean).join(", ");
}

function labelOf(input) {
  if (inputs.labels) return inputs.labels[input];
  const at = run.samples && run.samples.labels ? run.samples.inputs.indexOf(input) : -1;
  return at < 0 ? null : run.samples.labels[at];
}

// The name of an input's group at a step (index), where the run tells.
function groupOfInput(input, index) {
  const row = run.samples && index >= 0 ? run.samples.at[index] : -1;
  const at = row === undefined || row < 0 ? -1 : run.samples.inputs.indexOf(input);
  if (at >= 0) return run.samples.names[run.samples.groups[row][at]];
  return inputs.groups && inputs.groups[input] !== null ? run.groups[inputs.groups[input]] : null;
}

// An input as a picture, or in words where it is none.
function inputTile(input, index) {
  const text = inputText(input, index);
  const picture = pictureOf(input);
  if (picture) return make("img", { class: "input-tile", src: picture, alt: text, title: text });
  return make("span", { class: "input-name", title: text }, text.replace(/^input /, "#"));
}

// The inputs that a unit answers most at a step (index), the strongest first; null where that was not recorded.
function topOf(layer, index, unit) {
  if (!layer.top || layer.at[index] === undefined || layer.at[index] < 0) return null;
  const many = layer.top.shape[2];
  const from = (layer.at[index] * layer.units + unit) * many;
  return [...unpack(layer.top).subarray(from, from + many)].filter((input) => input < inputs.at.length);
}

// The same as pictures, or in words.
function topInputs(layer, index, unit) {
  const top = topOf(layer, index, unit);
  return top && make("span", { class: `top-inputs${top.some(pictureOf) ? "" : " in-words"}` }, top.length ? top.map((input) => inputTile(input, index)) : "none");
}
