// What this is: the run in a few facts, one sentence on how to read a map, what failed; and what it was made with.

function drawHeader() {
  const probe = manifest.probe || {};
  const grouped = groupCount ? plural(groupCount, "group") : null;
  const seen = stepsSeen();
  const facts = [
    ["Model", manifest.model],
    ["Data", manifest.data],
    ["Probe", probeText(probe, grouped)],
    ["Observed", `${plural(seen.length, unitOfStep)}${seen.length > 1 ? `, ${seen[0]} to ${seen[seen.length - 1]}` : ` (${seen[0]})`}`],
    ["Recorded", dateText(manifest.created)],
  ].filter(([, text]) => text);
  const header = document.getElementById("header");
  fill(header, {}, [
    make("p", { class: "eyebrow" }, "netlapse · a time-lapse of a neural network learning"),
    make("h1", {}, manifest.title || manifest.model || "A run without a title"),
    make("dl", { class: "facts" }, facts.map(([name, text]) => make("div", {}, make("dt", {}, name), make("dd", {}, text)))),
    manifest.command && make("p", { class: "command" }, make("span", {}, "Made with "), make("code", {}, manifest.command)),
  ]);
  if (run.layers.length) {
    header.append(
      make(
        "p",
        { class: "lede" },
        make("strong", {}, "How to read a map: "),
        "each map is one layer while it looks at one group of the probe’s inputs. Every place in it is a unit, and units that respond alike lie near each other; ",
        make("b", { class: "red" }, "red"),
        " units respond more to this group than to the average group, ",
        make("b", { class: "blue" }, "blue"),
        " ones less, white ones the same.",
      ),
    );
  }
  const left = stepsLeftOut();
  if (left.length) {
    header.append(
      make(
        "p",
        { class: "notice" },
        make("strong", {}, `${plural(left.length, unitOfStep)} not observed: `),
        `${left.slice(0, 12).join(", ")}${left.length > 12 ? ", …" : ""}. `,
        `Observing was to take at most ${Number((100 * manifest.thinned.max_overhead).toPrecision(3))} % of the training’s time. `,
        "Reanalysis fills them in from checkpoints.",
      ),
    );
  }
  const failures = manifest.failures || [];
  if (failures.length) {
    header.append(
      make(
        "details",
        { class: "notice", open: failures.length <= 3 },
        make("summary", {}, `${plural(failures.length, "part")} of this run failed and ${failures.length === 1 ? "is" : "are"} missing here`),
        make("ul", {}, failures.map((f) => make("li", {}, make("strong", {}, String(f.what ?? "something")), " – ", String(f.message ?? "")))),
      ),
    );
  }
}

// The steps at which an analysis found something: of others there are the training's own numbers.
function stepsSeen() {
  const at = new Set(Object.entries(run.analyses).flatMap(([name, found]) => (name === "training" || name === "cost" ? [] : found)));
  return at.size ? steps.filter((step) => at.has(step)) : steps;
}

// The steps that were left out to keep observing cheap, and that nobody filled in since.
function stepsLeftOut() {
  const seen = new Set(stepsSeen());
  return (manifest.thinned?.steps || []).filter((step) => !seen.has(step));
}

function probeText(probe, grouped) {
  const inputs = probe.inputs ? plural(probe.inputs, "input") : null;
  const by = probe.grouping ? ` (${String(probe.grouping).replace(/_/g, " ")})` : "";
  if (!inputs && !grouped) return null;
  return [inputs, grouped && grouped + by].filter(Boolean).join(" in ");
}

function dateText(created) {
  if (!created) return null;
  const date = new Date(created);
  return Number.isNaN(date.getTime()) ? String(created) : date.toLocaleString("en-GB", { dateStyle: "long", timeStyle: "short" });
}

function drawFooter() {
  const versions = Object.entries(manifest.versions || {}).map(([name, version]) => `${name} ${version}`);
  const lines = [
    manifest.run_id && ["Run", manifest.run_id],
    manifest.probe && manifest.probe.hash && ["Probe sha256", manifest.probe.hash],
    versions.length && ["Versions", versions.join(", ")],
    ["Numbers", "rounded for this page to 1 in 65,534 of each layer’s range and step; the exact arrays are the run’s artifacts under findings/"],
    run.left_out.length && ["Left out", `${run.left_out.join(", ")}: with them this page would be too large to be shown; they are in the findings`],
    ["Keys", "← → step · Home End first and last · space plays · hover a map, click to pin a unit, Esc unpins · with the focus on a map: arrows move a mark, Enter chooses there, + − size a disc · beside an input or a method of the saliency maps: ↑ ↓ the one before and the next"],
  ].filter(Boolean);
  document.getElementById("footer").append(make("dl", {}, lines.map(([name, text]) => make("div", {}, make("dt", {}, name), make("dd", {}, text)))));
}

// Why an analysis has nothing to show, as far as the run knows.
function whyMissing(analysis) {
  const failure = (manifest.failures || []).find((f) => String(f.what ?? "").includes(analysis));
  return failure ? `the analysis “${analysis}” failed: ${failure.message}` : `the analysis “${analysis}” was not part of this run`;
}

// A line that says a step was not observed, or is left out of this page, with ways to the nearest ones that are there; null
// where it is there. `held` says that the last one before is shown instead.
function unobserved(what, at, index, leftOut = [], held = true) {
  if (at[index] >= 0) return null;
  const [before, after] = [heldStep(at, index), nextStep(at, index)];
  const go = (i) => make("button", { type: "button", class: "link", click: () => set({ step: i, playing: false }) }, nameOfStep(steps[i]));
  return make(
    "p",
    { class: "notice" },
    make("strong", {}, leftOut.includes(index) ? `${what} of ${nameOfStep(steps[index])} is in the findings, and left out here to keep this page small. ` : `${what} was not observed at ${nameOfStep(steps[index])}. `),
    before >= 0 ? [held ? "Shown, faded: " : "The last one before: ", go(before), held ? ", the last one before. " : ". "] : "Nothing was observed before. ",
    after >= 0 && ["Next: ", go(after), "."],
  );
}
