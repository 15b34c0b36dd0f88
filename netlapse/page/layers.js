// The column of layers: each with its units and a small curve of how much it still changes. One is chosen.

function drawLayers() {
  const nav = document.getElementById("layers");
  if (!run.layers.length) return;
  const drift = run.layers.map((layer) => run.curves[`nap/drift/${layer.name}`]);
  const top = Math.max(...drift.flatMap((curve) => (curve ? curve.values.filter((v) => v !== null) : [])), 0);
  nav.append(make("h3", {}, "Layers"));
  nav.append(make("p", { class: "hint" }, top > 0 ? "curve: drift since the step before, all on one scale" : "no drift: it needs two observed steps"));
  const list = make("div", { class: "layer-list" });
  const buttons = run.layers.map((layer, index) => {
    const spark = sparkline(drift[index], top, layerTone(index));
    const button = make(
      "button",
      { type: "button", click: () => set({ layer: index, hover: null }), title: layer.name },
      make("span", { class: "layer-name" }, make("i", { style: `background:${layerTone(index)}` }), layerTitle(layer.name)),
      make("span", { class: "layer-kind" }, [layer.kind, plural(layer.units, "unit")].filter(Boolean).join(" · ")),
      spark.node,
    );
    list.append(button);
    return { button, spark };
  });
  nav.append(list);
  const show = () => {
    buttons.forEach(({ button, spark }, index) => {
      button.setAttribute("aria-pressed", String(index === state.layer));
      spark.show();
    });
  };
  view(["step", "layer"], show);
  view(["layer"], () => buttons[state.layer].button.scrollIntoView({ block: "nearest", inline: "nearest" }));
  show();
}

function sparkline(curve, top, tone) {
  const [width, height] = [62, 30];
  const node = draw("svg", { class: "spark", viewBox: `0 0 ${width + 36} ${height}`, "aria-hidden": "true" });
  const text = draw("text", { x: width + 36, y: height - 8, "text-anchor": "end" });
  node.append(draw("line", { class: "axis", x1: 2, x2: width - 2, y1: height - 3, y2: height - 3 }));
  if (!curve || !(top > 0)) return { node, show() {} };
  const [first, span] = [steps[0], steps[steps.length - 1] - steps[0] || 1];
  const px = (step) => 3 + ((step - first) / span) * (width - 6);
  const py = (value) => height - 3 - (value / top) * (height - 7);
  let path = "";
  curve.values.forEach((value, i) => {
    if (value !== null) path += `${path && curve.values[i - 1] !== null ? "L" : "M"}${px(curve.steps[i]).toFixed(1)},${py(value).toFixed(1)}`;
  });
  const dot = draw("circle", { r: 2.6, fill: tone });
  node.append(draw("path", { class: "line", d: path || "M0,0", stroke: tone }), dot, text);
  return {
    node,
    show() {
      const at = curve.steps.indexOf(steps[state.step]);
      const value = at < 0 ? null : curve.values[at];
      dot.setAttribute("visibility", value === null ? "hidden" : "visible");
      if (value !== null) {
        dot.setAttribute("cx", px(steps[state.step]));
        dot.setAttribute("cy", py(value));
      }
      text.textContent = value === null ? "–" : format(value, 2);
    },
  };
}
