// <endolens-explain api="…/api/v1" image="SOP Instance UID" frame="1">: any layer and class of a network on one frame.
// It asks the server for maps and words, and computes nothing itself.

const percent = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 1 });
const STEP_MILLISECONDS = 900;

const TEMPLATE = `
<style>
  :host { display: grid; grid-template-columns: minmax(0, 1fr) 22rem; gap: 1rem; color-scheme: dark; }
  @media (max-width: 60rem) { :host { grid-template-columns: 1fr; } }
  .stages { display: flex; gap: .6rem; }
  figure { margin: 0; flex: 1; min-width: 0; }
  figcaption { padding-top: .3rem; }
  .stage { position: relative; background: #000; }
  .stage img { display: block; width: 100%; max-height: 70vh; object-fit: contain; }
  .stage .map { position: absolute; inset: 0; height: 100%; }
  .stage.failed img { visibility: hidden; }
  fieldset { border: 0; margin: 0 0 .8rem; padding: 0; }
  legend, label.field { display: block; font-weight: 600; padding: 0 0 .2rem; }
  .class { display: grid; grid-template-columns: auto 1fr 4rem; gap: .4rem; align-items: center; position: relative; }
  .class span:last-child { text-align: right; font-variant-numeric: tabular-nums; }
  .class meter { grid-column: 2 / 4; width: 100%; height: .45rem; }
  select, input[type="range"], button { width: 100%; box-sizing: border-box; font: inherit; }
  .field { margin-bottom: .6rem; }
  .buttons { display: flex; gap: .4rem; }
  .sentence { min-height: 3em; margin: .6rem 0 0; }
  .warning { margin: .4rem 0 0; padding: .4rem .6rem; background: #5a3d00; color: #ffe6b0; border-radius: .3rem; }
  .error { color: #ff9d9d; }
</style>
<div>
  <div class="stages">
    <figure data-role="predicted" hidden><div class="stage"><img class="picture" alt=""><img class="map" alt=""></div><figcaption></figcaption></figure>
    <figure data-role="chosen"><div class="stage"><img class="picture" alt=""><img class="map" alt=""></div><figcaption></figcaption></figure>
  </div>
  <p class="sentence" role="status" aria-live="polite"></p>
  <div class="warnings" role="alert"></div>
</div>
<form>
  <fieldset class="classes"><legend>Class</legend></fieldset>
  <label class="field">Method <select name="method"></select></label>
  <label class="field"><span>Layer <output name="layer-name"></output></span><input type="range" name="layer" min="0" step="1"></label>
  <label class="field">Opacity of the map <input type="range" name="opacity" min="0" max="1" step="0.05" value="0.6"></label>
  <p class="buttons">
    <button type="button" name="walk" aria-pressed="false">Walk the layers</button>
    <button type="button" name="why" aria-pressed="false">Why not …?</button>
  </p>
</form>`;

async function ask(address, signal) {
  const response = await fetch(address, { signal });
  const content = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(content.detail ?? `the server answered ${response.status}`);
  return content;
}

class EndolensExplain extends HTMLElement {
  static observedAttributes = ["image", "frame"];
  #model;
  #prediction;
  #running = new AbortController();
  #timer;

  constructor() {
    super();
    this.attachShadow({ mode: "open" }).innerHTML = TEMPLATE;
    const form = this.shadowRoot.querySelector("form");
    form.addEventListener("input", ({ target }) => {
      if (target.name === "opacity") this.#setOpacity();
      else this.#show();
    });
    form.walk.addEventListener("click", () => this.#walk());
    form.why.addEventListener("click", () => this.#toggleComparison());
  }

  connectedCallback() {
    this.#setOpacity();
    this.#open();
  }

  disconnectedCallback() {
    this.#running.abort();
    this.#stopWalking();
  }

  attributeChangedCallback(name, before, after) {
    if (this.isConnected && this.#model && before !== after) queueMicrotask(() => this.#open());
  }

  get #form() {
    return this.shadowRoot.querySelector("form");
  }

  get #frame() {
    return `${this.getAttribute("api")}/images/${encodeURIComponent(this.getAttribute("image"))}/frames/${this.getAttribute("frame")}`;
  }

  get #label() {
    return this.#form.querySelector("input[name=class]:checked")?.value ?? this.#prediction.predicted;
  }

  // A frame: its picture, the classes by probability, and the map of the predicted one.
  async #open() {
    const signal = this.#begin();
    try {
      const frame = this.#frame;
      if (!this.#model) this.#prepare((await ask(`${this.getAttribute("api")}/models`, signal))[0]);
      for (const picture of this.shadowRoot.querySelectorAll(".picture")) {
        picture.src = `${frame}/picture.jpg`;
        picture.alt = "the frame";
      }
      this.#prediction = await ask(`${frame}/prediction`, signal);
      this.#listClasses();
      await this.#show();
    } catch (error) {
      this.#fail(error);
    }
  }

  #begin() {
    this.#running.abort();
    this.#running = new AbortController();
    return this.#running.signal;
  }

  #prepare(model) {
    this.#model = model;
    const { method, layer } = this.#form.elements;
    method.replaceChildren(...model.methods.map(({ name }) => new Option(name)));
    layer.max = model.layers.length - 1;
    layer.value = model.layers.indexOf(model.target_layer);
  }

  #listClasses() {
    const { predicted, probabilities } = this.#prediction;
    const rows = Object.entries(probabilities)
      .sort(([, one], [, other]) => other - one)
      .map(([name, probability]) => {
        const row = Object.assign(document.createElement("label"), { className: "class" });
        const choice = Object.assign(document.createElement("input"), { type: "radio", name: "class", value: name });
        choice.defaultChecked = name === predicted;
        const words = [name, percent.format(probability)].map((text) =>
          Object.assign(document.createElement("span"), { textContent: text }),
        );
        const bar = Object.assign(document.createElement("meter"), { value: probability });
        bar.setAttribute("aria-hidden", "true");
        row.append(choice, ...words, bar);
        return row;
      });
    const list = this.shadowRoot.querySelector(".classes");
    list.replaceChildren(list.querySelector("legend"), ...rows);
  }

  async #show() {
    const signal = this.#begin();
    const { method, layer, why } = this.#form.elements;
    const layerName = this.#model.layers[layer.value];
    const { of_layer: ofLayer, of_class: ofClass } = this.#model.methods.find(({ name }) => name === method.value);
    layer.disabled = !ofLayer;
    this.shadowRoot.querySelector(".classes").disabled = !ofClass;
    this.#form.elements["layer-name"].value = layerName;
    const predicted = this.#prediction.predicted;
    const comparing = why.getAttribute("aria-pressed") === "true" && this.#label !== predicted && ofClass;
    const figure = (role) => this.shadowRoot.querySelector(`figure[data-role=${role}]`);
    figure("predicted").hidden = !comparing;
    try {
      const chosen = { method: method.value, layer: layerName, class: this.#label };
      const maps = [this.#draw(figure("chosen"), comparing ? { ...chosen, compared_with: predicted } : chosen, signal)];
      if (comparing) {
        const other = { ...chosen, class: predicted, compared_with: this.#label };
        maps.push(this.#draw(figure("predicted"), other, signal));
      }
      const query = new URLSearchParams({ layer: layerName, class: this.#label });
      const [said] = await Promise.all([ask(`${this.#frame}/evidence?${query}`, signal), ...maps]);
      this.#say(said.sentence, said.warnings);
    } catch (error) {
      this.#fail(error);
    }
  }

  async #draw(figure, chosen, signal) {
    const address = `${this.#frame}/explanation.png?${new URLSearchParams(chosen)}`;
    const response = await fetch(address, { signal });
    if (!response.ok) throw new Error((await response.json()).detail);
    const map = figure.querySelector(".map");
    URL.revokeObjectURL(map.src);
    map.src = URL.createObjectURL(await response.blob());
    map.alt = `${chosen.method} of ${chosen.layer} for ${chosen.class}`;
    map.dataset.shown = new URL(address, document.baseURI).search;
    figure.querySelector("figcaption").textContent = `${chosen.class} ${percent.format(this.#prediction.probabilities[chosen.class])}`;
    await map.decode();
  }

  #say(sentence, warnings) {
    const place = this.shadowRoot.querySelector(".sentence");
    place.classList.remove("error");
    place.textContent = sentence;
    for (const stage of this.shadowRoot.querySelectorAll(".stage")) stage.classList.remove("failed");
    this.shadowRoot.querySelector(".warnings").replaceChildren(
      ...warnings.map((text) => Object.assign(document.createElement("p"), { className: "warning", textContent: text })),
    );
  }

  #fail(error) {
    if (error.name === "AbortError") return;
    this.#say(`Not shown: ${error.message}`, []);
    this.shadowRoot.querySelector(".sentence").classList.add("error");
    // A map of another choice must not stand beside this one's words.
    for (const map of this.shadowRoot.querySelectorAll(".map")) map.removeAttribute("src");
  }

  #setOpacity() {
    for (const map of this.shadowRoot.querySelectorAll(".map")) map.style.opacity = this.#form.opacity.value;
  }

  #toggleComparison() {
    const { why } = this.#form;
    const pressed = why.getAttribute("aria-pressed") !== "true";
    why.setAttribute("aria-pressed", String(pressed));
    const choices = [...this.#form.querySelectorAll("input[name=class]")];
    if (pressed && this.#label === this.#prediction.predicted && choices.length > 1) choices[1].checked = true;
    this.#show();
  }

  #walk() {
    if (this.#timer) return this.#stopWalking();
    const { layer, walk } = this.#form.elements;
    const stages = this.#model.stages.map((name) => this.#model.layers.indexOf(name));
    let step = 0;
    walk.setAttribute("aria-pressed", "true");
    const next = async () => {
      layer.value = stages[step++];
      await this.#show();
      if (step === stages.length) this.#stopWalking();
      else if (this.#timer) this.#timer = setTimeout(next, STEP_MILLISECONDS);
    };
    this.#timer = setTimeout(next, 0);
  }

  #stopWalking() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#form.walk.setAttribute("aria-pressed", "false");
  }
}

customElements.define("endolens-explain", EndolensExplain);
