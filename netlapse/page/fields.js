// Receptive fields, drawn: where in an image a unit's field lies, and the field as the share of its activation that covering takes.
// A field lies on places that are multiples of the stride from the unit's centre; a pixel has what the nearest place has.

const OUTLINE = [255, 149, 0]; // of netlapse/montage.py
const UNKNOWN = -128;
const NO_FIELD = [237, 237, 237];

// The middle, in pixels of the image, of what a unit at a position sees; null where it cannot be told.
function centreOf(responds, row, unit, rank) {
  const k = responds.top.shape[2];
  const from = ((row * responds.top.shape[1] + unit) * k + rank) * 2;
  const position = unpack(responds.positions).subarray(from, from + 2);
  if (responds.theory) return [0, 1].map((axis) => responds.theory[axis][2] + position[axis] * responds.theory[axis][1] + (responds.theory[axis][0] - 1) / 2);
  if (!responds.image || !Array.isArray(responds.shape)) return null;
  return [0, 1].map((axis) => ((position[axis] + 0.5) * responds.image[axis]) / responds.shape[axis] - 0.5);
}

// For each pixel along an axis the nearest of n places, of which the one in the middle lies at the centre; -1 where none is near.
function nearestPlaces(size, centre, stride, n) {
  return Int32Array.from({ length: size }, (_, pixel) => {
    const place = Math.floor((pixel - centre) / stride + 0.5) + (n >> 1);
    return place >= 0 && place < n ? place : -1;
  });
}

// A field as it is stored: its row among the steps, its row among the units; null where this page has none.
function fieldAt(responds, index, unit) {
  const { fields } = responds;
  const row = fields && index >= 0 ? fields.at[index] : -1;
  const at = fields ? unpack(fields.units).indexOf(unit) : -1;
  return row < 0 || at < 0 ? null : { from: row * fields.share.shape[1] + at };
}

// Of the image's pixels (h w) 1 within the field's outline around a centre: `region` in netlapse/analysis/receptive_field.
function regionOf(responds, field, [y, x]) {
  const { fields, image: [h, w], stride } = responds;
  const [r, c] = fields.extent;
  const bits = unpack(fields.inside);
  const bytes = fields.inside.shape[2];
  const [rows, columns] = [nearestPlaces(h, y, stride, r), nearestPlaces(w, x, stride, c)];
  const out = new Uint8Array(h * w);
  for (let i = 0; i < h; i++) {
    for (let j = 0; j < w && rows[i] >= 0; j++) {
      const place = rows[i] * c + columns[j];
      if (columns[j] >= 0) out[i * w + j] = (bits[field.from * bytes + (place >> 3)] >> (place & 7)) & 1;
    }
  }
  return out;
}

// How an image is drawn: every so manyth of its pixels, as many times enlarged.
function drawnSize([h, w]) {
  const step = Math.max(1, Math.ceil(Math.max(h, w) / 132));
  return { step, factor: Math.max(1, Math.round((88 * step) / Math.max(h, w))), tall: Math.ceil(h / step), wide: Math.ceil(w / step) };
}

// An input with the field outlined where it lies; without an outline where `region` is null.
function outlinedInput(input, region, label) {
  const image = inputs.shape;
  const { step, factor, tall, wide } = drawnSize(image);
  const { canvas, context } = tileCanvas(tall * factor, wide * factor, label);
  const { data, row } = inputs.pictures;
  const [h, w, channels] = data.shape.slice(1);
  const pixels = unpack(data).subarray(row[input] * h * w * channels);
  const drawn = context.createImageData(canvas.width, canvas.height);
  const coarse = region && Uint8Array.from({ length: tall * wide }, (_, i) => region[Math.floor(i / wide) * step * image[1] + (i % wide) * step]);
  const within = (y, x) => coarse[Math.floor(y / factor) * wide + Math.floor(x / factor)];
  const [bottom, right] = [canvas.height - 1, canvas.width - 1];
  for (let y = 0, i = 0; y <= bottom; y++) {
    for (let x = 0; x <= right; x++, i += 4) {
      const from = (Math.floor(((y + 0.5) * h) / canvas.height) * w + Math.floor(((x + 0.5) * w) / canvas.width)) * channels;
      for (let c = 0; c < 3; c++) drawn.data[i + c] = pixels[from + (channels === 3 ? c : 0)];
      drawn.data[i + 3] = 255;
      if (!coarse) continue;
      // Both sides of its edge, so that it is seen on every ground.
      const here = within(y, x);
      const beside = [[y ? y - 1 : y, x], [y < bottom ? y + 1 : y, x], [y, x ? x - 1 : x], [y, x < right ? x + 1 : x]];
      if (beside.some(([v, u]) => within(v, u) !== here)) drawn.data.set(OUTLINE, i);
    }
  }
  context.putImageData(drawn, 0, 0);
  return canvas;
}

// A field with the unit in the middle, as large as an image.
function fieldMap(responds, field, label) {
  const { step, tall, wide } = drawnSize(responds.image);
  const { canvas, context } = tileCanvas(tall, wide, label);
  const [r, c] = responds.fields.share.shape.slice(2);
  const values = unpack(responds.fields.share).subarray(field.from * r * c);
  const [h, w] = responds.image;
  const [rows, columns] = [nearestPlaces(h, (h - 1) / 2, responds.stride, r), nearestPlaces(w, (w - 1) / 2, responds.stride, c)];
  const drawn = context.createImageData(wide, tall);
  const pixels = new Uint32Array(drawn.data.buffer);
  const [red, green, blue] = NO_FIELD;
  const unknown = ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  for (let i = 0; i < tall; i++) {
    for (let j = 0; j < wide; j++) {
      const [y, x] = [rows[i * step], columns[j * step]];
      const value = y < 0 || x < 0 ? UNKNOWN : values[y * c + x];
      pixels[i * wide + j] = value === UNKNOWN ? unknown : divergingPixels[Math.round((value / 127) * 255) + 255];
    }
  }
  context.putImageData(drawn, 0, 0);
  return canvas;
}
