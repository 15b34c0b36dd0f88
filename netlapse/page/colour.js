// Colours and numbers: one diverging scale with white at zero, one sequential scale from white, tones for groups and layers.

// The colours of netlapse/render.py, so that the page and the logged pictures can be compared.
const DIVERGING = ["#08306b", "#2166ac", "#5c9bd6", "#a9ceee", "#ffffff", "#f6bdad", "#e17a69", "#b82c33", "#71001a"];
const SEQUENTIAL = ["#ffffff", "#fdd49e", "#ec843e", "#ac381e", "#3e0c1c"];
const GROUP_TONES = ["#332288", "#cc6677", "#117733", "#c8a600", "#88ccee", "#aa4499", "#44aa99", "#882255", "#777777", "#e08214"];
const LAYER_RAMP = ["#f0a35e", "#d9704f", "#b5476b", "#7d3a85", "#46388a", "#1d2f6b"];

const parts = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

function between(stops, share) {
  const at = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const low = Math.min(Math.floor(at), stops.length - 2);
  const [a, b] = [parts(stops[low]), parts(stops[low + 1])];
  return a.map((value, i) => Math.round(value + (b[i] - value) * (at - low)));
}

const css = ([red, green, blue]) => `rgb(${red},${green},${blue})`;

// 511 colours as canvas pixels (little-endian alpha, blue, green, red): the middle one is exactly white.
const LEVELS = 511;
const divergingPixels = Uint32Array.from({ length: LEVELS }, (_, i) => {
  const [red, green, blue] = between(DIVERGING, i / (LEVELS - 1));
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
});
const sequentialTable = Array.from({ length: 256 }, (_, i) => between(SEQUENTIAL, i / 255));

// A tone dark enough to be read as text on white.
function inked(tone) {
  const [red, green, blue] = tone[0] === "#" ? parts(tone) : tone.match(/\d+/g).map(Number);
  const light = (0.3 * red + 0.59 * green + 0.11 * blue) / 255;
  return css([red, green, blue].map((value) => Math.round(value * Math.min(1, 0.42 / light))));
}

const layerTone = (index) => css(between(LAYER_RAMP, run.layers.length > 1 ? index / (run.layers.length - 1) : 1));
const groupTone = (index) => GROUP_TONES[index % GROUP_TONES.length];

// Three significant digits with a true minus; plain where that is short, with an exponent where it is not.
function format(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  let text;
  if (size >= 1e5 || size < 1e-3) text = value.toExponential(Math.max(digits - 2, 0)).replace("e+", "e");
  else if (size >= 10 ** (digits - 1)) text = String(Math.round(value));
  else text = String(Number(value.toPrecision(digits)));
  return text.replace(/-/g, "\u2212");
}

const signed = (value, digits = 2) =>
  Number.isNaN(value) ? "–" : (value > 0 ? "+" : value < 0 ? "\u2212" : "") + (Math.abs(value) < 1e-3 && value !== 0 ? format(Math.abs(value), 2) : Math.abs(value).toFixed(digits));

// At most `count` round numbers that lie in [low, high].
function ticks(low, high, count) {
  const span = high - low || 1;
  const power = 10 ** Math.floor(Math.log10(span / count));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => span / s <= count) || 10 * power;
  const out = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) out.push(k === 0 ? 0 : Number((k * step).toPrecision(12)));
  return out;
}

// A horizontal colour bar with numbers under it; `arrows` says that values beyond the ends are drawn like the ends.
function colourBar(stops, numbers, label, beyond) {
  const gradient = `linear-gradient(to right, ${stops.join(",")})`;
  return make(
    "div",
    { class: "colourbar", role: "img", "aria-label": `colour scale: ${label}, from ${numbers[0]} to ${numbers[numbers.length - 1]}` },
    make("div", { class: "colourbar-label" }, label),
    make("div", { class: "colourbar-strip", style: `background:${gradient}` }),
    make("div", { class: "colourbar-numbers" }, numbers.map((text, i) => make("span", {}, (beyond && i === 0 && beyond[0]) || (beyond && i === numbers.length - 1 && beyond[1]) || text))),
  );
}
