// The views of <endolens-explain>: which maps stand side by side in each, and what is said of them.

const NAMES = {
  "grad-cam": "Grad-CAM",
  "hires-cam": "HiResCAM",
  saliency: "Saliency",
  "guided-backprop": "Guided backprop",
  "guided-grad-cam": "Guided Grad-CAM",
};

const SIDE_BY_SIDE = ["grad-cam", "guided-grad-cam", "saliency"];

// As report.language writes it: what is not all or nothing never reads so.
export function percent(share, decimal = ".") {
  const rounded = (100 * share).toFixed(1);
  const written = rounded === "100.0" && share < 1 ? "> 99.9" : rounded === "0.0" && share > 0 ? "< 0.1" : rounded;
  return `${written.replace(".", decimal)} %`;
}

export const methodName = (method) => NAMES[method] ?? method;

function pane({ method, layer, label }, { probabilities }, model, say = ["method", "layer", "label"]) {
  const { of_layer: ofLayer, of_class: ofClass } = model.methods.find(({ name }) => name === method);
  const words = {
    method: methodName(method),
    layer: ofLayer ? layer : "any layer",
    label: ofClass ? `${label} ${percent(probabilities[label])}` : "any class",
  };
  const caption = say.map((part) => words[part]).join(" · ");
  return { map: { method, layer, class: label }, caption, words: Object.values(words).join(", ") };
}

// Each: (what is chosen, prediction, model) → panes { map, caption, words }; a pane without a map is the plain frame.
export const VIEWS = [
  { name: "over", title: "Over", panes: (chosen, prediction, model) => [pane(chosen, prediction, model)] },
  {
    name: "beside",
    title: "Beside",
    panes: (chosen, prediction, model) => [{ caption: "The frame" }, pane(chosen, prediction, model)],
  },
  {
    name: "methods",
    title: "Methods",
    panes: (chosen, prediction, model) =>
      SIDE_BY_SIDE.map((method) => pane({ ...chosen, method }, prediction, model, ["method", "label"])),
  },
  {
    name: "blocks",
    title: "Blocks",
    panes: (chosen, prediction, model) =>
      model.stages.map((layer) => pane({ ...chosen, layer }, prediction, model, ["layer"])),
  },
];

// "Why not …?": the predicted class and the chosen one, on one scale.
export const COMPARING = {
  panes(chosen, prediction, model) {
    const { predicted } = prediction;
    return [
      ["Taken for", predicted, chosen.label],
      ["Why not", chosen.label, predicted],
    ].map(([asked, label, compared]) => {
      const { map, caption, words } = pane({ ...chosen, label }, prediction, model, ["label", "method", "layer"]);
      return { map: { ...map, compared_with: compared }, caption: `${asked}: ${caption}`, words, compared: true };
    });
  },
};

export function scaleInWords(panes) {
  if (panes.some(({ compared }) => compared))
    return "nothing to most, on one scale for both maps, so that their colours can be compared";
  return `nothing to most, ${panes.length > 2 ? "each map on its own scale" : "on this map's own scale"}`;
}
