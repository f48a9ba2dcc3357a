// The controls of <endolens-explain>: what can be chosen, and what is.
import { VIEWS, methodName, percent } from "./explain-views.js";

export class Controls {
  #form;

  constructor(form) {
    this.#form = form;
  }

  // What a model can be asked.
  offer({ layers, stages, methods }) {
    this.#form.elements.layer.max = layers.length - 1;
    this.#fill(".stages", stages.map((layer, index) => button("stage", layer, String(index + 1))));
    this.#fill(".methods", methods.map(({ name }) => button("method", name, methodName(name))));
    this.#fill(".views", VIEWS.map(({ name, title }) => button("view", name, title)));
    for (const stage of this.#form.querySelectorAll(".stages button"))
      stage.setAttribute("aria-label", `the last layer of block ${stage.textContent}, ${stage.value}`);
  }

  // The classes, in this order, with their probabilities.
  list(classes, probabilities) {
    this.#fill(
      ".classes",
      classes.map((name) => {
        const made = button("label", name, name);
        const bar = Object.assign(document.createElement("i"), { className: "bar" });
        bar.style.width = `${100 * probabilities[name]}%`;
        made.append(Object.assign(document.createElement("span"), { textContent: percent(probabilities[name]) }), bar);
        return made;
      }),
    );
  }

  // The probabilities of another frame must not stand beside one that is not predicted yet, or cannot be.
  forget() {
    for (const one of this.#form.querySelectorAll(".classes button")) {
      one.setAttribute("aria-pressed", "false");
      one.querySelector("span").textContent = "…";
      one.querySelector(".bar").style.width = 0;
    }
  }

  // What is chosen; of a model and a label only once they are known.
  reflect({ label, layer, method, view, why, regions, artifacts, opacity }, model, walking) {
    const { elements } = this.#form;
    elements.opacity.value = opacity;
    elements.regions.checked = regions;
    elements.artifacts.checked = artifacts;
    elements.why.setAttribute("aria-pressed", String(why));
    elements.walk.setAttribute("aria-pressed", String(walking));
    elements.walk.textContent = walking ? "Stop" : "Walk the layers";
    if (!model || !label) return;
    elements.layer.value = model.layers.indexOf(layer);
    elements.layer.setAttribute("aria-valuetext", layer);
    elements["layer-name"].value = layer;
    const chosen = { label, stage: layer, method, view };
    for (const one of this.#form.querySelectorAll(".row button, .classes button"))
      one.setAttribute("aria-pressed", String(chosen[one.name] === one.value));
    const { of_layer: ofLayer, of_class: ofClass } = model.methods.find(({ name }) => name === method);
    this.#form.querySelector(".classes").classList.toggle("idle", !ofClass);
    this.#form.querySelector(".stages").classList.toggle("idle", !ofLayer);
  }

  #fill(place, buttons) {
    this.#form.querySelector(place).replaceChildren(...buttons);
  }
}

function button(name, value, textContent) {
  return Object.assign(document.createElement("button"), { type: "button", name, value, textContent });
}
