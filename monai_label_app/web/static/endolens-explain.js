// <endolens-explain api="…/api/v1" image="SOP Instance UID" frame="1">: any layer and class of a network on one frame.
//
// It asks the server for maps and words and computes nothing itself. It stands alone: a page or a viewer gives it the
// three attributes, may pass key strokes on to press(), and hears of "endolens-asked" when something else is to be shown,
// of "endolens-shown" when it is, "last" where nothing else was asked for meanwhile. A viewer that shows the frame itself gives it the place over the frame, by over().
import { Controls } from "./explain-controls.js";
import { Panes } from "./explain-panes.js";
import { Server } from "./explain-server.js";
import { COMPARING, VIEWS, scaleInWords } from "./explain-views.js";

const STEP_MILLISECONDS = 900;
const RETRY_MILLISECONDS = 3000;

const TEMPLATE = `
<link rel="stylesheet" href="${new URL("endolens-explain.css", import.meta.url)}">
<div class="layout">
  <section class="seen" aria-label="What the network sees">
    <div class="panes"></div>
    <p class="scale"><span class="colours" aria-hidden="true"></span><span class="scale-words"></span></p>
    <div class="words" role="status"><p class="sentence"></p><div class="warnings"></div><p class="found"></p></div>
  </section>
  <form class="choices" aria-label="What is shown">
    <div role="group" aria-labelledby="class-head"><h3 id="class-head">Class</h3><div class="classes"></div>
      <button type="button" name="why" aria-pressed="false">Why not …?</button></div>
    <div role="group" aria-labelledby="layer-head"><h3 id="layer-head">Layer <output name="layer-name"></output></h3>
      <input type="range" name="layer" min="0" step="1" aria-labelledby="layer-head">
      <div class="row stages"></div>
      <button type="button" name="walk" aria-pressed="false">Walk the layers</button></div>
    <div role="group" aria-labelledby="method-head"><h3 id="method-head">Method</h3><div class="row methods"></div></div>
    <div role="group" aria-labelledby="view-head"><h3 id="view-head">View</h3><div class="row views"></div>
      <label>Opacity of the map <input type="range" name="opacity" min="0" max="1" step="0.05"></label>
      <label class="tick"><input type="checkbox" name="regions"> outline of the evidence</label>
      <label class="tick"><input type="checkbox" name="artifacts"> what was found on the frame</label></div>
  </form>
</div>`;

class EndolensExplain extends HTMLElement {
  static observedAttributes = ["image", "frame"];

  // Key strokes that press() knows, for a page's help.
  static keys = [
    ["↑ ↓", "another class"],
    [", .", "the layer before, the layer after"],
    ["1 – 5", "the last layer of a block"],
    ["w", "walk the layers"],
    ["n", "why not …? another class beside the predicted one"],
    ["m", "another method"],
    ["v", "another view: over, beside, all methods, all blocks"],
    ["- +", "opacity of the map"],
    ["o", "outline of the evidence"],
    ["a", "what was found on the frame"],
  ];

  #server;
  #panes;
  #controls;
  #model;
  #frame; // what is known of the one that is shown: address, prediction, size, artifacts
  // Without a layer it is the model's target layer, without a label the predicted class.
  #choice = {
    method: "grad-cam",
    layer: undefined,
    label: undefined,
    view: "over",
    why: false,
    regions: true,
    artifacts: true,
    opacity: 0.45,
  };
  #wanted = false;
  #running;
  #timer;
  #retry;

  constructor() {
    super();
    this.attachShadow({ mode: "open" }).innerHTML = TEMPLATE;
    this.#panes = new Panes(this.shadowRoot.querySelector(".panes"));
    const form = this.shadowRoot.querySelector("form");
    this.#controls = new Controls(form);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", ({ target }) => this.#take(target));
    form.addEventListener("click", ({ target }) => this.#click(target.closest("button")));
  }

  connectedCallback() {
    this.#server = new Server(this.getAttribute("api"));
    this.show();
  }

  disconnectedCallback() {
    this.#wanted = false;
    clearTimeout(this.#retry);
    this.#stopWalking();
  }

  attributeChangedCallback(name, before, after) {
    // Image and frame change one after the other; both are read once they have.
    if (this.isConnected && before !== after) queueMicrotask(() => this.show());
  }

  // Draw into this element from now on, which lies over a picture of the frame; there is one map at a time then.
  over(place) {
    this.toggleAttribute("over", true);
    this.#panes = new Panes(place, { pictured: false });
    this.#panes.opacity(this.#choice.opacity);
  }

  // Settled once all that was asked for is shown.
  get ready() {
    return this.#running ?? Promise.resolve();
  }

  // Show another choice; of several in quick succession, the last.
  show(changes = {}) {
    clearTimeout(this.#retry);
    Object.assign(this.#choice, changes);
    this.#wanted = true;
    this.#reflect();
    this.dispatchEvent(new CustomEvent("endolens-asked", { bubbles: true, composed: true }));
    this.#running ??= this.#work().finally(() => (this.#running = undefined));
    return this.#running;
  }

  // Do what a key stands for; whether it is one of ours.
  press(key) {
    if (!this.#frame?.prediction) return false;
    const { method, layer, view, regions, artifacts, opacity } = this.#choice;
    const stage = this.#model.stages[Number(key) - 1];
    const next = (names, name) => names[(names.indexOf(name) + 1) % names.length];
    const methods = this.#model.methods.map(({ name }) => name);
    const views = VIEWS.map(({ name }) => name);
    const actions = {
      ArrowUp: () => this.show({ label: neighbour(this.#classes, this.#label, -1) }),
      ArrowDown: () => this.show({ label: neighbour(this.#classes, this.#label, 1) }),
      ",": () => this.#choose(neighbour(this.#model.layers, layer, -1)),
      ".": () => this.#choose(neighbour(this.#model.layers, layer, 1)),
      w: () => this.#walk(),
      n: () => this.#toggleComparison(),
      m: () => this.show({ method: next(methods, method) }),
      v: () => this.show({ view: next(views, view), why: false }),
      "-": () => this.show({ opacity: Math.max(0, opacity - 0.1) }),
      "+": () => this.show({ opacity: Math.min(1, opacity + 0.1) }),
      o: () => this.show({ regions: !regions }),
      a: () => this.show({ artifacts: !artifacts }),
    };
    const action = stage ? () => this.#choose(stage) : Object.hasOwn(actions, key) ? actions[key] : undefined;
    action?.();
    return Boolean(action);
  }

  // By probability.
  get #classes() {
    const { probabilities } = this.#frame.prediction;
    return Object.keys(probabilities).sort((one, other) => probabilities[other] - probabilities[one]);
  }

  get #label() {
    return this.#choice.label ?? this.#frame.prediction.predicted;
  }

  async #work() {
    while (this.#wanted) {
      this.#wanted = false;
      this.setAttribute("aria-busy", "true");
      try {
        await this.#draw();
      } catch (error) {
        this.#fail(error);
      }
    }
    this.removeAttribute("aria-busy");
  }

  async #draw() {
    if (!this.getAttribute("image")) return;
    const address = this.#server.frame(this.getAttribute("image"), this.getAttribute("frame"));
    if (this.#frame?.address !== address || !this.#frame.prediction) await this.#open(address);
    if (this.#wanted) return;
    const state = { ...this.#choice, label: this.#label };
    const frame = this.#frame;
    const panes = this.#view(state).panes(state, frame.prediction, this.#model);
    const maps = await Promise.all(panes.map(({ map }) => map && this.#server.map(address, map)));
    await this.#panes.draw(frame, panes, maps);
    this.#panes.artifacts(frame, state.artifacts);
    this.shadowRoot.querySelector(".scale-words").textContent = scaleInWords(panes);
    const detail = { address, ...state, last: !this.#wanted };
    this.dispatchEvent(new CustomEvent("endolens-shown", { detail, bubbles: true, composed: true }));
    await this.#explain(panes, state);
  }

  // A frame: its picture at once, then what the network takes it for.
  async #open(address) {
    this.#frame = { address, number: this.getAttribute("frame"), picture: this.#server.absolute(`${address}/picture.jpg`) };
    this.#choice.label = undefined;
    this.#panes.clear(this.#frame);
    this.#controls.forget();
    this.#say([], [], "");
    const [prediction, about] = await Promise.all([this.#server.ask(`${address}/prediction`), this.#server.ask(address)]);
    if (this.#model?.version !== prediction.model) this.#prepare((await this.#server.ask("/models"))[0]);
    Object.assign(this.#frame, about, { prediction });
    this.removeAttribute("unknown");
    this.#controls.list(this.#classes, prediction.probabilities);
    this.#reflect();
  }

  #prepare(model) {
    this.#model = model;
    const { layer, method } = this.#choice;
    if (!model.layers.includes(layer)) this.#choice.layer = model.target_layer;
    if (!model.methods.some(({ name }) => name === method)) this.#choice.method = model.methods[0].name;
    this.#controls.offer(model);
  }

  // The controls show the choice at once, whatever still has to be fetched.
  #reflect() {
    this.#panes.opacity(this.#choice.opacity);
    const label = this.#frame?.prediction && this.#label;
    this.#controls.reflect({ ...this.#choice, label }, this.#model, Boolean(this.#timer));
  }

  #take({ name, value, checked }) {
    if (name === "layer") this.#choose(this.#model.layers[value]);
    if (name === "opacity") this.show({ opacity: Number(value) });
    if (name === "regions" || name === "artifacts") this.show({ [name]: checked });
  }

  #click(button) {
    if (!button || !this.#model) return;
    if (button.name === "walk") this.#walk();
    else if (button.name === "why") this.#toggleComparison();
    else if (button.name === "stage") this.#choose(button.value);
    else if (button.name === "view") this.show({ view: button.value, why: false });
    else this.show({ [button.name]: button.value });
  }

  #choose(layer) {
    this.#stopWalking();
    this.show({ layer });
  }

  #view({ view, why, label }) {
    const compares = why && label !== this.#frame.prediction.predicted;
    return compares ? COMPARING : VIEWS.find(({ name }) => name === view);
  }

  #toggleComparison() {
    const why = !this.#choice.why;
    const { predicted } = this.#frame.prediction;
    // Of the predicted class nobody asks why not: the next best is compared with it.
    const next = this.#classes.find((name) => name !== predicted);
    this.show({ why, label: why && this.#label === predicted ? next : this.#label });
  }

  #walk() {
    if (this.#timer) return this.#stopWalking();
    const stages = [...this.#model.stages];
    const next = async () => {
      await this.show({ layer: stages.shift() });
      if (!this.#timer) return;
      if (stages.length) this.#timer = setTimeout(next, STEP_MILLISECONDS);
      else this.#stopWalking();
    };
    this.#timer = setTimeout(next, 0);
    this.#reflect();
  }

  #stopWalking() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#reflect();
  }

  // The words come after the maps, and only for what is still shown.
  async #explain(panes, { layer, label, regions }) {
    this.shadowRoot.querySelector(".words").classList.add("old");
    const { predicted } = this.#frame.prediction;
    const labels = panes.some(({ compared }) => compared) ? [predicted, label] : [label];
    const found = [];
    for (const one of labels) {
      if (this.#wanted) return;
      found.push(await this.#server.evidence(this.#frame.address, { layer, class: one }));
    }
    if (this.#wanted) return;
    const evidenceOf = ({ map }) => found.find((one) => one.class === map?.class && one.layer === map.layer);
    this.#panes.regions(regions ? panes.map(evidenceOf) : []);
    const warnings = found.flatMap((one) => one.warnings);
    this.#say(found.map(({ sentence }) => sentence), warnings, this.#frame.sentence);
  }

  #say(sentences, warnings, about, failed = false) {
    const words = this.shadowRoot.querySelector(".words");
    words.classList.remove("old");
    words.querySelector(".sentence").textContent = sentences.join(" ");
    words.querySelector(".sentence").classList.toggle("error", failed);
    words.querySelector(".warnings").replaceChildren(
      ...warnings.map((textContent) => Object.assign(document.createElement("p"), { textContent, className: "warning" })),
    );
    words.querySelector(".found").textContent = about;
  }

  #fail(error) {
    this.#stopWalking();
    // A map of another choice must not stand beside this one's words.
    this.#panes.clear(this.#frame);
    this.#say([`Not shown: ${error.message}`], [], "", true);
    // Of another frame's probabilities nothing may be left.
    this.toggleAttribute("unknown", !this.#frame?.prediction);
    // A server that is down comes back.
    if (error.passing && this.isConnected) this.#retry = setTimeout(() => this.show(), RETRY_MILLISECONDS);
  }
}

function neighbour(names, name, step) {
  return names[Math.min(names.length - 1, Math.max(0, names.indexOf(name) + step))];
}

customElements.define("endolens-explain", EndolensExplain);
