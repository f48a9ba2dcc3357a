// <endolens-correct api="…/api/v1" image="SOP Instance UID" frame="1">: "this is not a polyp, it is …", by whom, where and
// why; kept as a label of the MONAI Label datastore. Where an <endolens-explain> is on the page, it is of that one's frame.
// A viewer in which a region was drawn already gives a function, drawn(), that returns it.
import { ask } from "./ask.js";
import { READER } from "./evidence.js";
import { RegionDrawing } from "./region-drawing.js";


const TEMPLATE = `
<link rel="stylesheet" href="${new URL("endolens-correct.css", import.meta.url)}">
<button type="button" name="open">Correct …</button>
<dialog aria-labelledby="correct-head">
  <form method="dialog">
    <h2 id="correct-head">What does this frame show?</h2>
    <div class="drawing" data-tool=""><img alt="the frame"><svg aria-hidden="true"></svg></div>
    <div class="fields">
      <p class="network"></p>
      <label>It shows <select name="class" required></select></label>
      <label>Your name <input name="by" required maxlength="500" autocomplete="name"></label>
      <div class="tools" role="group" aria-label="Region, if only a part is meant">
        <button type="button" name="tool" value="rectangle" aria-pressed="false">Rectangle</button>
        <button type="button" name="tool" value="polygon" aria-pressed="false">Polygon</button>
        <button type="button" name="undo">Undo</button>
        <output name="region"></output>
      </div>
      <label>Comment <textarea name="comment" rows="3" maxlength="500"></textarea></label>
      <p class="said" role="status"></p>
      <div class="buttons"><button class="primary" name="save">Save</button> <button type="button" name="close">Close</button></div>
      <h3>Said so far</h3>
      <ol class="history"></ol>
    </div>
  </form>
</dialog>`;

class EndolensCorrect extends HTMLElement {
  #drawing;
  #model;
  #frame; // that the dialog was opened on; meanwhile another one may be shown
  #follow = (event) => {
    const [explorer] = event.composedPath();
    for (const name of ["image", "frame"]) this.setAttribute(name, explorer.getAttribute(name));
  };

  connectedCallback() {
    this.innerHTML = TEMPLATE;
    const { tool, undo, close } = this.#fields;
    this.#drawing = new RegionDrawing(this.querySelector(".drawing"), (region) => this.#measure(region));
    this.querySelector("[name=open]").addEventListener("click", () => this.open());
    close.addEventListener("click", () => this.#dialog.close());
    undo.addEventListener("click", () => this.#drawing.undo());
    for (const one of tool) one.addEventListener("click", () => this.#take(one));
    this.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#save();
    });
    // The page's own keys are not meant here.
    this.#dialog.addEventListener("keydown", (event) => event.stopPropagation());
    document.addEventListener("endolens-shown", this.#follow);
  }

  disconnectedCallback() {
    document.removeEventListener("endolens-shown", this.#follow);
  }

  get #dialog() {
    return this.querySelector("dialog");
  }

  get #fields() {
    return this.querySelector("form").elements;
  }

  get #shown() {
    return `${this.getAttribute("api")}/images/${encodeURIComponent(this.getAttribute("image"))}/frames/${this.getAttribute("frame")}`;
  }

  async open() {
    const frame = (this.#frame = this.#shown);
    this.#say("");
    this.#take(undefined);
    this.#drawing.show(`${frame}/picture.jpg`, this.drawn?.());
    this.#fields.by.value ||= localStorage.getItem(READER) ?? "";
    this.#fields.comment.value = "";
    this.#dialog.showModal();
    try {
      const [[model], prediction, said] = await Promise.all(
        [`${this.getAttribute("api")}/models`, `${frame}/prediction`, `${frame}/labels`].map((address) => ask(address)),
      );
      this.#model = `${model.name} ${model.version}`;
      this.querySelector(".network").textContent = `The network says ${prediction.predicted}.`;
      this.#fields.class.replaceChildren(new Option("choose …", ""), ...model.classes.map((name) => new Option(name)));
      this.#list(said);
    } catch (error) {
      this.#say(error.message, true);
    }
  }

  // A way to draw; the one that is in hand is put away.
  #take(tool) {
    const taken = tool?.getAttribute("aria-pressed") === "true" ? undefined : tool;
    for (const one of this.querySelectorAll("button[name=tool]")) one.setAttribute("aria-pressed", String(one === taken));
    this.#drawing.tool = taken?.value ?? "";
  }

  #measure(region) {
    const tool = this.querySelector(".drawing").dataset.tool;
    const how = { rectangle: "Drag over the frame.", polygon: "Click the corners, three or more." }[tool];
    const [across, down] = [0, 1].map((axis) => region.map((point) => point[axis]));
    const span = (values) => `${Math.round(Math.min(...values))}–${Math.round(Math.max(...values))}`;
    this.#fields.region.value = region.length
      ? `${region.length} corners, columns ${span(across)}, rows ${span(down)}`
      : (how ?? "The whole frame is meant.");
  }

  async #save() {
    const { class: label, by, comment, save } = this.#fields;
    save.disabled = true;
    try {
      const content = { class: label.value, by: by.value, comment: comment.value, region: this.#drawing.region, model: this.#model };
      this.#list(await ask(`${this.#frame}/labels`, content));
      localStorage.setItem(READER, by.value);
      comment.value = "";
      this.#say("Saved.");
      this.dispatchEvent(new CustomEvent("endolens-corrected", { bubbles: true }));
    } catch (error) {
      this.#say(error.message, true);
    }
    save.disabled = false;
    save.focus(); // which a button loses while it is disabled, and with it the dialog its keys
  }

  #say(text, wrong = false) {
    const place = this.querySelector(".said");
    place.textContent = text;
    place.classList.toggle("error", wrong);
  }

  #list(labels) {
    const when = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
    const lines = [...labels].reverse().map(({ class: label, by, at, region, comment, current }) => {
      const what = `${label}${region.length ? ", of a region" : ""}`;
      const line = document.createElement("li");
      line.className = current ? "current" : "";
      line.textContent = `${what} – ${by}, ${when.format(new Date(at))}${comment ? `: ${comment}` : ""}${current ? "" : " (no longer holds)"}`;
      return line;
    });
    this.querySelector(".history").replaceChildren(...lines);
    this.querySelector("h3").hidden = !lines.length;
  }
}

customElements.define("endolens-correct", EndolensCorrect);
