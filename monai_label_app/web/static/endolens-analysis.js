// <endolens-analysis api="…/api/v1" study="UID" state="new" label="whose" job="key of one that runs">: start the analysis
// of a study, watch it, cancel it. Sends "endolens-analysed" when the study has findings.
import { request } from "./ask.js";

const ENDED = ["done", "failed", "cancelled"];

const ask = async (address, method) => (await request(address, { method })).json();

class EndolensAnalysis extends HTMLElement {
  #button = Object.assign(document.createElement("button"), { type: "button" });
  #bar = Object.assign(document.createElement("progress"), { hidden: true });
  #said = Object.assign(document.createElement("span"), { className: "said" });
  #events;
  #job;

  constructor() {
    super();
    this.#button.addEventListener("click", () => (this.running ? this.cancel() : this.start()));
  }

  // Again whenever the element moves within the page: what runs is watched on.
  connectedCallback() {
    this.#said.setAttribute("role", "status");
    this.#bar.setAttribute("aria-label", `analysis of ${this.getAttribute("label") ?? "the study"}`);
    this.replaceChildren(this.#bar, this.#button, this.#said);
    this.#name();
    const key = this.#job ? this.running && this.#job.key : this.getAttribute("job");
    if (key) this.#watch(key);
  }

  disconnectedCallback() {
    this.#events?.close();
  }

  get running() {
    return Boolean(this.#job) && !ENDED.includes(this.#job.state);
  }

  async start() {
    await this.#try(async () => {
      const study = encodeURIComponent(this.getAttribute("study"));
      this.#show(await ask(`${this.getAttribute("api")}/studies/${study}/analysis`, "POST"));
      this.#watch(this.#job.key);
    });
  }

  async cancel() {
    await this.#try(async () => this.#show(await ask(`${this.getAttribute("api")}/jobs/${this.#job.key}`, "DELETE")));
  }

  async #try(work) {
    this.#button.disabled = true;
    try {
      await work();
    } catch (error) {
      this.dataset.job = "failed";
      this.#said.textContent = error.message;
    }
    this.#button.disabled = false;
  }

  // The server ends a stream now and then; the browser asks again by itself, and closes it for good on an error answer.
  #watch(key) {
    this.#events?.close();
    if (!this.isConnected) return;
    this.#events = new EventSource(`${this.getAttribute("api")}/jobs/${key}/events`, { withCredentials: true });
    this.#events.addEventListener("message", ({ data }) => this.#show(JSON.parse(data)));
    this.#events.addEventListener("error", () => {
      if (this.#events.readyState !== EventSource.CLOSED || !this.running) return;
      this.#job = undefined;
      this.dataset.job = "failed";
      this.#said.textContent = "The server no longer knows this analysis; start it again.";
      this.#name();
    });
  }

  #show(job) {
    this.#job = job;
    this.dataset.job = job.state;
    if (ENDED.includes(job.state)) this.#events?.close();
    this.#bar.hidden = !this.running;
    this.#bar.max = job.frames;
    if (job.state === "queued") this.#bar.removeAttribute("value");
    else this.#bar.value = job.done;
    this.#said.textContent = this.#words(job);
    if (job.state === "done") {
      if (this.getAttribute("state") === "new") this.setAttribute("state", "analysed");
      this.dispatchEvent(new CustomEvent("endolens-analysed", { bubbles: true, detail: job }));
    }
    this.#name();
  }

  #words({ state, done, frames, stored, problems }) {
    const left = problems.length ? ` Left out: ${problems.join("; ")}` : "";
    return {
      queued: "waits for its turn",
      running: `${done} of ${frames} frames`,
      storing: "storing the results",
      done: (stored ? `${stored} results stored.` : "The results were there already.") + left,
      failed: problems.join("; "),
      cancelled: "Cancelled; nothing was stored.",
    }[state];
  }

  #name() {
    const again = this.getAttribute("state") === "new" ? "Analyse" : "Analyse again";
    this.#button.textContent = this.running ? "Cancel" : again;
    this.#button.disabled = this.#job?.state === "storing";
    this.#button.setAttribute("aria-label", `${this.#button.textContent}: ${this.getAttribute("label") ?? "this study"}`);
  }
}

customElements.define("endolens-analysis", EndolensAnalysis);
