// The order of the groups: as given, or by the clustering of what sets them apart, with its tree above the maps.

const TREE = { height: 46, name: 16, narrowest: 24 };

// The clustering that holds at a step (index), in the order chosen; null where there is none.
function clustersOf(layer, index) {
  if (state.order === "given" || index < 0) return null;
  const at = state.order === "last" ? heldStep(layer.at, steps.length - 1) : index;
  return layer.clusters[layer.at[at]] || null;
}

function groupOrder(layer, index) {
  const clusters = clustersOf(layer, index);
  return clusters ? clusters.order : run.groups.map((_, group) => group);
}

const ORDERS = [
  ["given", "as given"],
  ["now", "clustered as shown"],
  ["last", `clustered at ${nameOfStep(steps[steps.length - 1])}`],
];

const orderChoice = () => groupCount > 2 && choice("Groups", ORDERS, state.order, (value) => set({ order: value }));

// The maps in their order on the page, which is the order in which they are read out.
function arrangeGroups(layer, index) {
  const figures = groupOrder(layer, index).map((group) => mapsView.figures[group]);
  const nodes = figures.map((figure) => figure.node);
  // One map is reached by the keyboard: units lie at the same places on all of them.
  const first = figures.find((figure) => !figure.node.hidden && !figure.canvas.hidden) || figures[0];
  for (const figure of figures) figure.frame.tabIndex = figure === first ? 0 : -1;
  const now = mapsView.grid.children;
  if (nodes.every((node, i) => now[i] === node)) return;
  const focused = document.activeElement;
  mapsView.grid.append(...nodes);
  if (mapsView.grid.contains(focused)) focused.focus();
  set({ hover: null }); // a map that is moved away from under the pointer is not told that it leaves
}

// The tree with the groups' names, where these can be read; the higher two branches meet, the less alike what is below.
function dendrogram(layer, index, width) {
  const clusters = clustersOf(layer, index);
  if (!clusters) return [];
  const leaves = clusters.tree.length + 1;
  const each = Math.min(width / leaves, 110);
  const at = state.order === "last" ? steps[heldStep(layer.at, steps.length - 1)] : steps[index];
  const said = `How alike the groups are to ${layerTitle(layer.name)} at ${nameOfStep(at)}: the higher two branches meet, the less alike.`;
  if (each < TREE.narrowest) return [make("p", { class: "hint" }, `Groups in the order of their clustering at ${nameOfStep(at)}; ${leaves} are too many for a tree at this width.`)];
  const highest = Math.max(...clusters.tree.map(([, , height]) => height)) || 1;
  const names = clusters.order.slice(0, leaves).map((group) => run.groups[group]);
  const node = draw("svg", { class: "dendrogram", width: each * leaves, height: TREE.height + TREE.name, role: "img", "aria-label": `${said} From left to right: ${names.join(", ")}.` });
  const y = (height) => TREE.height - 2 - (height / highest) * (TREE.height - 6);
  for (const { left, right, height } of branches(clusters.tree, leaves)) {
    const [a, b] = [left, right].map((end) => ({ x: (end.x + 0.5) * each, y: y(end.height) }));
    node.append(draw("path", { class: "branch", d: `M${a.x},${a.y}V${y(height)}H${b.x}V${b.y}` }));
  }
  names.forEach((name, i) => node.append(draw("text", { x: (i + 0.5) * each, y: TREE.height + 12, "text-anchor": "middle" }, shortened(name, each - 4), draw("title", {}, name))));
  return [make("p", { class: "hint" }, said), node];
}

// Each joint of the tree with the places of its two ends; leaves are counted from the left, as the order has them.
function branches(tree, leaves) {
  const ends = new Array(leaves);
  let next = 0;
  const place = (cluster) => {
    if (cluster < leaves) ends[cluster] = { x: next++, height: 0 };
    else tree[cluster - leaves].slice(0, 2).forEach(place);
  };
  place(2 * leaves - 2);
  return tree.map(([a, b, height], row) => {
    const [left, right] = [ends[a], ends[b]];
    ends[leaves + row] = { x: (left.x + right.x) / 2, height };
    return { left, right, height };
  });
}
