// <endolens-panel>: the network opened on the frame of OHIF's active viewport, and what can be done with it.
import { ask } from "../static/ask.js";
import "../static/endolens-analysis.js";
import "../static/endolens-correct.js";
import "../static/endolens-explain.js";
import { ActiveViewport } from "./active-viewport.js";
import { Overlay } from "./overlay.js";
import { go, openStudy, refresh } from "./study.js";

const KEY = "o";
const SETTLED_MILLISECONDS = 150; // whoever scrolls on does not want this frame
const REVIEW = "endolens-review"; // image that a study was opened for
const READER = "endolens-reader"; // as <endolens-correct> keeps it

const own = (path) => new URL(`../${path}`, import.meta.url).href;
const API = own("api/v1");

const TEMPLATE = `
<link rel="stylesheet" href="${own("static/endolens.css")}">
<link rel="stylesheet" href="${own("static/endolens-analysis.css")}">
<link rel="stylesheet" href="${own("ohif/panel.css")}">
<p class="notice" hidden></p>
<p class="nothing" role="status">There is no picture in the active viewport that EndoLens could look at.</p>
<div class="frame" hidden>
  <label><input type="checkbox" name="overlay" checked> Map over the frame <kbd>${KEY}</kbd></label>
  <endolens-explain api="${API}"></endolens-explain>
</div>
<footer>
  <p class="said" role="status"></p>
  <div class="row frame" hidden>
    <button type="button" name="save-view" title="Store the map over its frame with the study, as a Secondary Capture">Save view</button>
    <button type="button" name="add" title="Add the frame, and the map where it is seen, to the study's report">Add to report</button>
    <endolens-correct api="${API}"></endolens-correct>
  </div>
  <div class="row study" hidden>
    <span class="analysis"></span>
    <a class="button" target="endolens-report">Open report</a>
  </div>
  <form class="row review">
    <button name="next" title="The next image that nobody has corrected or confirmed yet">Next to review:</button>
    <select name="strategy" aria-label="Which image is next">
      <option value="uncertainty">least sure</option>
      <option value="diversity">least alike</option>
      <option value="random">any</option>
    </select>
  </form>
</footer>`;

class EndolensPanel extends HTMLElement {
  #managers;
  #viewport;
  #overlay;
  #shown; // what <endolens-explain> shows: its address, method, layer and label
  #study;
  #settled;
  #ending;

  // Called once it is in OHIF's page.
  start(managers) {
    if (this.#viewport) return;
    this.#managers = managers;
    const root = this.shadowRoot ?? this.attachShadow({ mode: "open" });
    root.innerHTML = TEMPLATE;
    this.#overlay = new Overlay();
    this.#viewport = new ActiveViewport(managers);
    this.#explorer.over(this.#overlay.place);
    this.#viewport.addEventListener("frame", () => this.#follow());
    this.#viewport.addEventListener("moved", () => this.#overlay.follow(this.#viewport));
    root.addEventListener("endolens-shown", ({ detail }) => this.#took(detail));
    root.addEventListener("endolens-analysed", () => this.#try(() => this.#refresh()));
    root.addEventListener("click", ({ target }) => this.#press(target.closest("button")?.name));
    this.#of("[name=overlay]").addEventListener("change", () => this.#reveal());
    this.#of("endolens-correct").drawn = () => this.#viewport.region();
    this.#of(".review").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#try(() => this.#next(), this.#of("[name=next]"));
    });
    this.#ending = new AbortController();
    const { signal } = this.#ending;
    document.addEventListener("keydown", (event) => this.#key(event), { signal });
    // In the report's own page something may have been stored.
    window.addEventListener("focus", () => this.#study && this.#refresh().catch(() => {}), { signal });
    this.#try(async () => this.#warn(await ask(`${API}/models`)));
    this.#follow();
  }

  disconnectedCallback() {
    this.#viewport?.close();
    this.#ending?.abort();
    this.#overlay?.remove();
    clearTimeout(this.#settled);
    this.#viewport = undefined;
  }

  get #explorer() {
    return this.#of("endolens-explain");
  }

  #of(selector) {
    return this.shadowRoot.querySelector(selector);
  }

  // The server's name for the frame in the viewport.
  get #address() {
    const { image, number } = this.#viewport.frame ?? {};
    return image && `/images/${encodeURIComponent(image)}/frames/${number}`;
  }

  #warn([{ notice }]) {
    this.#of(".notice").textContent = notice;
    this.#of(".notice").hidden = !notice;
  }

  // Another frame is in the viewport, or none.
  #follow() {
    const { frame } = this.#viewport;
    this.#reveal();
    this.#overlay.follow(this.#viewport);
    this.#of(".nothing").hidden = Boolean(frame);
    for (const part of this.shadowRoot.querySelectorAll(".frame")) part.hidden = !frame;
    clearTimeout(this.#settled);
    if (!frame) return;
    this.#settled = setTimeout(() => this.#look(frame), SETTLED_MILLISECONDS);
    if (frame.study !== this.#study) this.#open(frame.study);
  }

  #look({ image, number }) {
    this.#explorer.setAttribute("image", image);
    this.#explorer.setAttribute("frame", number);
    const wanted = sessionStorage.getItem(REVIEW);
    if (wanted && (wanted === image || go(this.#managers, this.#viewport, wanted))) sessionStorage.removeItem(REVIEW);
  }

  #took(detail) {
    this.#shown = detail;
    this.#reveal();
  }

  // The map is of one frame, and must not lie over another.
  #reveal() {
    const current = Boolean(this.#shown) && this.#shown.address === this.#address;
    this.#overlay.hidden = !current || !this.#of("[name=overlay]").checked;
    for (const name of ["save-view", "add"]) this.#of(`[name=${name}]`).disabled = !current;
  }

  async #open(study) {
    this.#study = study;
    const place = this.#of(".study");
    place.querySelector("a").href = own(`studies/${encodeURIComponent(study)}/report`);
    place.hidden = true;
    await this.#try(async () => {
      const { state, patient } = await ask(`${API}/studies/${encodeURIComponent(study)}`);
      if (study !== this.#study) return;
      const analysis = document.createElement("endolens-analysis");
      for (const [name, value] of Object.entries({ api: API, study, state, label: patient })) analysis.setAttribute(name, value);
      this.#of(".analysis").replaceChildren(analysis);
      place.hidden = false;
    });
  }

  #refresh() {
    return refresh(this.#managers, this.#study);
  }

  #press(name) {
    if (name === "save-view") this.#try(() => this.#save(), this.#of("[name=save-view]"));
    if (name === "add") this.#try(() => this.#add(), this.#of("[name=add]"));
  }

  async #save() {
    const { stored } = await this.#store();
    this.#say(stored ? "Saved with the study, in the series “saved views”." : "This view was saved before.");
  }

  async #store() {
    const { address, method, layer, label } = this.#shown;
    const capture = await ask(`${API}${address}/captures`, { method, layer, class: label });
    if (capture.stored) await this.#refresh();
    return capture;
  }

  // With the map where it is seen.
  async #add() {
    const { image, number } = this.#viewport.frame;
    const { label } = this.#shown;
    const seen = this.#of("[name=overlay]").checked;
    const capture = seen ? (await this.#store()).sop_instance_uid : "";
    const author = localStorage.getItem(READER) ?? "";
    const [language] = navigator.language.split("-");
    await ask(`${API}/studies/${encodeURIComponent(this.#study)}/report/evidence`, { image, frame: number, class: label, capture, author, language });
    this.#say(`Added to the report under ${label}: the frame${seen ? " and this view of it" : ""}.`);
  }

  async #next() {
    this.#say("Looking for it …");
    const { id, StudyInstanceUID: study } = await ask(own(`../activelearning/${this.#of("[name=strategy]").value}`), {});
    if (!id) return this.#say("Every image was reviewed.");
    this.#say("");
    if (go(this.#managers, this.#viewport, id)) return;
    sessionStorage.setItem(REVIEW, id);
    openStudy(study);
  }

  #key(event) {
    const [target] = event.composedPath();
    const typed = target instanceof Element && target.matches("input:not([type=checkbox], [type=range]), textarea, select");
    if (event.key !== KEY || event.ctrlKey || event.metaKey || event.altKey || typed) return;
    const box = this.#of("[name=overlay]");
    box.checked = !box.checked;
    this.#reveal();
  }

  async #try(action, button = {}) {
    button.disabled = true;
    this.#say("");
    try {
      await action();
    } catch (error) {
      this.#say(error.message, true);
    }
    button.disabled = false;
    if (this.#viewport) this.#reveal();
  }

  #say(text, wrong = false) {
    const said = this.#of(".said");
    said.textContent = text;
    said.classList.toggle("error", wrong);
  }
}

customElements.define("endolens-panel", EndolensPanel);
