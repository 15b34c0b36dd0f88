// From values at units to pixels. The geometry is worked out once per size: for each pixel inside the map three units and
// their weights; after that a map is one pass over its pixels. Pixel centres are at (i + 0.5) / r, y points up.

const DISC = 0.12; // radius of a unit drawn as a disc, in widths of the map
const rasters = new Map();

function rasterOf(geometry, r) {
  const key = `${geometry.key}/${r}`;
  let made = rasters.get(key);
  if (!made) {
    made = geometry.triangles.length ? fieldRaster(geometry, r) : discRaster(geometry, r);
    rasters.set(key, made);
    if (rasters.size > 24) rasters.delete(rasters.keys().next().value);
  }
  return made;
}

function fieldRaster({ x, y, triangles }, r) {
  const owner = new Int32Array(r * r).fill(-1);
  const first = new Float32Array(r * r);
  const second = new Float32Array(r * r);
  let inside = 0;
  for (let t = 0; t < triangles.length; t += 3) {
    const [a, b, c] = [triangles[t], triangles[t + 1], triangles[t + 2]];
    const [ax, ay, bx, by, cx, cy] = [x[a], y[a], x[b], y[b], x[c], y[c]].map((v) => v * r - 0.5);
    const area = (by - cy) * (ax - cx) + (cx - bx) * (ay - cy);
    if (Math.abs(area) < 1e-9) continue;
    const left = Math.max(Math.ceil(Math.min(ax, bx, cx)), 0);
    const right = Math.min(Math.floor(Math.max(ax, bx, cx)), r - 1);
    const low = Math.max(Math.ceil(Math.min(ay, by, cy)), 0);
    const high = Math.min(Math.floor(Math.max(ay, by, cy)), r - 1);
    for (let py = low; py <= high; py++) {
      for (let px = left; px <= right; px++) {
        const u = ((by - cy) * (px - cx) + (cx - bx) * (py - cy)) / area;
        const v = ((cy - ay) * (px - cx) + (ax - cx) * (py - cy)) / area;
        if (u < -1e-6 || v < -1e-6 || u + v > 1 + 1e-6) continue;
        const pixel = (r - 1 - py) * r + px;
        if (owner[pixel] < 0) inside++;
        owner[pixel] = t;
        first[pixel] = u;
        second[pixel] = v;
      }
    }
  }
  const pixels = new Uint32Array(inside);
  const corners = new Uint32Array(3 * inside);
  const weights = new Float32Array(3 * inside);
  for (let pixel = 0, i = 0; pixel < r * r; pixel++) {
    const t = owner[pixel];
    if (t < 0) continue;
    pixels[i] = pixel;
    for (let k = 0; k < 3; k++) corners[3 * i + k] = triangles[t + k];
    weights[3 * i] = first[pixel];
    weights[3 * i + 1] = second[pixel];
    weights[3 * i + 2] = 1 - first[pixel] - second[pixel];
    i++;
  }
  return { pixels, corners, weights, edges: boundary(triangles) };
}

// Edges that belong to one triangle only: the outline of the map.
function boundary(triangles) {
  const seen = new Map();
  for (let t = 0; t < triangles.length; t += 3) {
    for (let k = 0; k < 3; k++) {
      const [a, b] = [triangles[t + k], triangles[t + ((k + 1) % 3)]];
      const key = a < b ? a * 65536 * 64 + b : b * 65536 * 64 + a;
      if (seen.has(key)) seen.set(key, null);
      else seen.set(key, [a, b]);
    }
  }
  return [...seen.values()].filter(Boolean);
}

// Units that span no area: every pixel within `radius` of a unit takes the value of the nearest.
function discRaster({ x, y, silent, radius = DISC }, r) {
  const owner = new Int32Array(r * r).fill(-1);
  const distance = new Float32Array(r * r).fill(Infinity);
  for (let unit = 0; unit < x.length; unit++) {
    if (silent.has(unit)) continue;
    const [cx, cy] = [x[unit] * r - 0.5, y[unit] * r - 0.5];
    const reach = Math.max(radius * r, 0.71);
    for (let py = Math.max(Math.ceil(cy - reach), 0); py <= Math.min(Math.floor(cy + reach), r - 1); py++) {
      for (let px = Math.max(Math.ceil(cx - reach), 0); px <= Math.min(Math.floor(cx + reach), r - 1); px++) {
        const away = Math.hypot(px - cx, py - cy);
        const pixel = (r - 1 - py) * r + px;
        if (away > reach || away >= distance[pixel]) continue;
        distance[pixel] = away;
        owner[pixel] = unit;
      }
    }
  }
  const pixels = Uint32Array.from([...owner.keys()].filter((pixel) => owner[pixel] >= 0));
  const corners = new Uint32Array(3 * pixels.length);
  const weights = new Float32Array(3 * pixels.length);
  pixels.forEach((pixel, i) => {
    corners.fill(owner[pixel], 3 * i, 3 * i + 3);
    weights[3 * i] = 1;
  });
  return { pixels, corners, weights, edges: [], discs: radius };
}

// One map. `values` are per point of the geometry; where a corner has no value, the pixel is hatched grey.
function paint(context, raster, geometry, values, limit) {
  const r = context.canvas.width;
  const image = context.createImageData(r, r);
  const out = new Uint32Array(image.data.buffer);
  const { pixels, corners, weights } = raster;
  const middle = (LEVELS - 1) / 2;
  const gain = middle / limit;
  for (let i = 0, j = 0; i < pixels.length; i++, j += 3) {
    const value = values[corners[j]] * weights[j] + values[corners[j + 1]] * weights[j + 1] + values[corners[j + 2]] * weights[j + 2];
    const pixel = pixels[i];
    if (value !== value) {
      out[pixel] = ((pixel % r) + ((pixel / r) | 0)) % 8 < 2 ? 0xffcfcfcf : 0xfff1f1f1;
      continue;
    }
    const level = value * gain;
    out[pixel] = divergingPixels[level >= middle ? LEVELS - 1 : level <= -middle ? 0 : Math.round(level + middle)];
  }
  context.putImageData(image, 0, 0);
  context.strokeStyle = "#b9bec6";
  context.lineWidth = Math.max(1, r / 220);
  context.beginPath();
  for (const [a, b] of raster.edges) {
    context.moveTo(geometry.x[a] * r, (1 - geometry.y[a]) * r);
    context.lineTo(geometry.x[b] * r, (1 - geometry.y[b]) * r);
  }
  if (raster.discs) {
    for (let unit = 0; unit < geometry.x.length; unit++) {
      if (geometry.silent.has(unit)) continue;
      const [cx, cy] = [geometry.x[unit] * r, (1 - geometry.y[unit]) * r];
      context.moveTo(cx + raster.discs * r, cy);
      context.arc(cx, cy, raster.discs * r, 0, 2 * Math.PI);
    }
  }
  context.stroke();
  // What does one and the same for all inputs is there to be counted, with no part in the map.
  context.fillStyle = "#7d8794";
  context.beginPath();
  for (const point of geometry.silent) {
    context.moveTo(geometry.x[point] * r, (1 - geometry.y[point]) * r);
    context.arc(geometry.x[point] * r, (1 - geometry.y[point]) * r, Math.max(1, r / 75), 0, 2 * Math.PI);
  }
  context.fill();
}

// ---------------------------------------------------------------------------------------------------- layouts

const geometries = run.geometries.map((packed, index) => {
  let made = null;
  return () => {
    if (!made) {
      const numbers = unpack(packed.points);
      const coordinate = (offset) => Float32Array.from({ length: numbers.length / 2 }, (_, i) => numbers[2 * i + offset] / 65535);
      made = { key: index, numbers, x: coordinate(0), y: coordinate(1), triangles: unpack(packed.triangles), silent: new Set(unpack(packed.silent)) };
    }
    return made;
  };
});

// Units in the order of their index, for a layer nobody laid out.
function cells(units) {
  const side = Math.ceil(Math.sqrt(units));
  const rows = Math.ceil(units / side);
  const x = Float32Array.from({ length: units }, (_, i) => ((i % side) + 0.5) / side);
  const y = Float32Array.from({ length: units }, (_, i) => 0.5 + (rows / 2 - Math.floor(i / side) - 0.5) / side);
  return { key: `cells ${units}`, x, y, triangles: [], silent: new Set(), radius: Math.min(0.44 / side, DISC) };
}

// Where the layer's units are at a step (index) in the chosen layout: the geometry, each unit's point in it, and the step
// it is made from (null where it is made from all of them); `key` tells the layer's layouts apart, null is none, and
// `found` is the step (index) at which it was recorded.
function layoutAt(layer, index) {
  const { at } = layer.laid_out[state.layout];
  const wanted = state.places >= 0 ? state.places : index;
  let found = heldStep(at, wanted);
  if (found < 0) found = nextStep(at, wanted);
  if (found < 0) return { geometry: (layer.cells = layer.cells || cells(layer.units)), vertex: null, step: null, key: null, found: -1 };
  const layout = layer.layouts[at[found]];
  return { geometry: geometries[layout.geometry](), vertex: unpack(layout.vertex), step: layout.step, key: at[found], found };
}

const layoutText = ({ vertex, step }) => (!vertex ? "no layout for this layer" : `places of units: ${step === null ? `one layout for all ${unitOfStep}s` : `layout of ${nameOfStep(step)}`}`);

// Values per point of the geometry: units that share a point are averaged.
function atPoints({ geometry, vertex }, values) {
  if (!vertex) return values;
  const out = new Float32Array(geometry.x.length);
  if (out.length === values.length) {
    for (let unit = 0; unit < values.length; unit++) out[vertex[unit]] = values[unit];
    return out;
  }
  const sharing = new Float32Array(out.length);
  for (let unit = 0; unit < values.length; unit++) {
    out[vertex[unit]] += values[unit];
    sharing[vertex[unit]]++;
  }
  return out.map((sum, point) => sum / sharing[point]);
}

const placeOf = ({ geometry, vertex }, unit) => {
  const point = vertex ? vertex[unit] : unit;
  return [geometry.x[point], geometry.y[point]];
};

// The same as it travelled, without the rounding to a float32.
const exactPlaceOf = ({ geometry, vertex }, unit) => (vertex ? [0, 1].map((axis) => geometry.numbers[2 * vertex[unit] + axis] / 65535) : [geometry.x[unit], geometry.y[unit]]);

function nearestUnit(layout, units, x, y) {
  let [best, least] = [-1, Infinity];
  for (let unit = 0; unit < units; unit++) {
    const [ux, uy] = placeOf(layout, unit);
    const away = (ux - x) ** 2 + (uy - y) ** 2;
    if (away < least) [best, least] = [unit, away];
  }
  return best;
}
