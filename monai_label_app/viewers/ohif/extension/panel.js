// <endolens-panel>: the network opened on the frame of OHIF's active viewport, and what can be done with it.
import { ask } from "../static/ask.js";
import "../static/endolens-analysis.js";
import "../static/endolens-correct.js";
import "../static/endolens-explain.js";
import { addToReport, storeView } from "../static/evidence.js";
import { ActiveViewport } from "./active-viewport.js";
import { PANEL, REVIEW } from "./extension.js";
import { Overlay } from "./overlay.js";
import { go, openStudy, refresh } from "./study.js";

const KEY = "o";
const RETRY_MILLISECONDS = 3000;
const SETTLED_MILLISECONDS = 150; // whoever scrolls on does not want this frame

const own = (path) => new URL(`../${path}`, import.meta.url).href;
const API = own("api/v1");

const TEMPLATE = `
<link rel="stylesheet" href="${own("static/endolens.css")}">
<link rel="stylesheet" href="${own("static/endolens-analysis.css")}">
<link rel="stylesheet" href="${own("ohif/panel.css")}">
<p class="notice"></p>
<p class="nothing" role="status"></p>
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
  #asked = false; // it is to show something else, and does not yet
  #study; // { uid, images }: of the frame in the viewport; without images while they are not known
  #settled;
  #retry;
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
    root.addEventListener("endolens-asked", () => this.#took(this.#shown, true));
    root.addEventListener("endolens-shown", ({ detail }) => this.#took(detail, !detail.last));
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
    window.addEventListener("focus", () => this.#study?.images && this.#refresh().catch(() => {}), { signal });
    this.#listen(signal);
    this.#follow();
  }

  #listen(signal) {
    const { panelService, measurementService, displaySetService } = this.#managers.servicesManager.services;
    const { MEASUREMENT_ADDED, RAW_MEASUREMENT_ADDED } = measurementService.EVENTS;
    // OHIF turns to its list of measurements when one is drawn; here it is the region of a correction.
    const stay = () => panelService.activatePanel(PANEL);
    for (const { unsubscribe } of [
      measurementService.subscribe(MEASUREMENT_ADDED, stay),
      measurementService.subscribe(RAW_MEASUREMENT_ADDED, stay),
      displaySetService.subscribe(displaySetService.EVENTS.DISPLAY_SETS_ADDED, () => this.#follow()),
    ])
      signal.addEventListener("abort", unsubscribe);
  }

  disconnectedCallback() {
    this.#viewport?.close();
    this.#ending?.abort();
    this.#overlay?.remove();
    clearTimeout(this.#settled);
    clearTimeout(this.#retry);
    this.#viewport = this.#study = undefined;
  }

  get #explorer() {
    return this.#of("endolens-explain");
  }

  #of(selector) {
    return this.shadowRoot.querySelector(selector);
  }

  // The server's name for the frame in the viewport.
  get #address() {
    const { image, number } = this.#viewport?.frame ?? {};
    return image && `/images/${encodeURIComponent(image)}/frames/${number}`;
  }

  // Another frame is in the viewport, or none.
  #follow() {
    const { frame } = this.#viewport;
    this.#reveal();
    this.#overlay.follow(this.#viewport);
    clearTimeout(this.#settled);
    if (!frame) return this.#none("There is no picture in the active viewport.");
    if (frame.study !== this.#study?.uid) return this.#open(frame.study);
    if (!this.#study.images) return undefined;
    this.#review(frame.image);
    const known = this.#study.images.has(frame.image);
    this.#none(known ? "" : "This picture is none that EndoLens looks at, but a result or another kind of image.");
    if (known) this.#settled = setTimeout(() => this.#look(frame), SETTLED_MILLISECONDS);
    return undefined;
  }

  // Why no frame is looked at; empty where one is.
  #none(reason) {
    this.#of(".nothing").textContent = reason;
    for (const part of this.shadowRoot.querySelectorAll(".frame")) part.hidden = Boolean(reason);
  }

  #look({ image, number }) {
    if (this.#viewport.playing) return;
    this.#viewport.settle();
    this.#explorer.setAttribute("image", image);
    this.#explorer.setAttribute("frame", number);
  }

  // Go to the frame that the study was opened for, once OHIF has it.
  #review(image) {
    const wanted = sessionStorage.getItem(REVIEW);
    if (wanted && (wanted === image || go(this.#managers, this.#viewport, wanted))) sessionStorage.removeItem(REVIEW);
  }

  #took(detail, asked) {
    this.#shown = detail;
    this.#asked = asked;
    this.#reveal();
  }

  // The map is of one frame, and must not lie over another; what is stored is what is seen.
  #reveal() {
    const current = Boolean(this.#shown) && this.#shown.address === this.#address;
    this.#overlay.hidden = !current || !this.#of("[name=overlay]").checked;
    this.#of("[name=open]").disabled = !current;
    for (const name of ["save-view", "add"]) this.#of(`[name=${name}]`).disabled = !current || this.#asked;
    // A view is a capture of an image, and names no frame of a video.
    if (this.#viewport?.frame?.count) this.#of("[name=save-view]").disabled = true;
  }

  // Another study: which of its images EndoLens knows, and how far it has come.
  async #open(uid) {
    clearTimeout(this.#retry);
    const opened = (this.#study = { uid });
    this.#of(".study").hidden = true;
    this.#none("…");
    try {
      const [{ images, state, patient }, videos, [{ notice }]] = await Promise.all([
        ask(`${API}/studies/${encodeURIComponent(uid)}`),
        ask(`${API}/studies/${encodeURIComponent(uid)}/videos`),
        ask(`${API}/models`),
      ]);
      if (opened !== this.#study) return;
      opened.images = new Set([...images, ...videos].map((one) => one.sop_instance_uid));
      this.#of(".notice").textContent = notice;
      const analysis = document.createElement("endolens-analysis");
      for (const [name, value] of Object.entries({ api: API, study: uid, state, label: patient })) analysis.setAttribute(name, value);
      this.#of(".analysis").replaceChildren(analysis);
      this.#of(".study a").href = own(`studies/${encodeURIComponent(uid)}/report`);
      this.#of(".study").hidden = false;
      this.#follow();
    } catch (error) {
      if (opened !== this.#study) return;
      this.#none(`EndoLens cannot look at this study: ${error.message}`);
      if (error.passing) this.#retry = setTimeout(() => this.#open(uid), RETRY_MILLISECONDS);
    }
  }

  async #refresh() {
    try {
      await refresh(this.#managers, this.#study.uid);
    } catch (error) {
      console.warn("EndoLens:", error);
      throw new Error("It is stored, but OHIF could not list it; reload the page to see it.");
    }
  }

  #press(name) {
    if (name === "save-view") this.#try(() => this.#save(), this.#of("[name=save-view]"));
    if (name === "add") this.#try(() => this.#add(), this.#of("[name=add]"));
  }

  async #save() {
    const { stored } = await storeView(API, this.#shown.address, this.#shown);
    if (stored) await this.#refresh();
    this.#say(stored ? "Saved with the study, in the series “saved views”." : "This view was saved before.");
  }

  // With the map where it is seen.
  async #add() {
    const { image, number: frame, count } = this.#viewport.frame;
    const seen = this.#of("[name=overlay]").checked;
    const stored = await addToReport(API, this.#study.uid, this.#shown, { image, frame, video: Boolean(count), seen });
    if (stored) await this.#refresh();
    this.#say(`Added to the report under ${this.#shown.label}: the frame${seen ? " and this view of it" : ""}.`);
  }

  async #next() {
    this.#say("Looking for it …");
    const { id, StudyInstanceUID: study } = await ask(own(`../activelearning/${this.#of("[name=strategy]").value}`), {});
    if (!id) return this.#say("Every image was reviewed.");
    this.#say("");
    if (!this.#viewport || go(this.#managers, this.#viewport, id)) return;
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
