// <endolens-upload api="…/api/v1">: sends files that are chosen or dropped on the page, two at a time, and stores them;
// pictures once it is said whose they are. Sends "endolens-stored" with the UIDs of the studies that changed.

import { ask, request } from "./ask.js";
import { droppedFiles } from "./dropped-files.js";

const AT_ONCE = 2;
const PATIENCE = 30; // attempts, a second apart, where the server has too much to do

const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// Only XMLHttpRequest tells how much of a file was sent.
function send(address, file, progress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", address);
    request.responseType = "json";
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.addEventListener("progress", ({ loaded, total }) => progress(loaded / total));
    request.addEventListener("load", () => resolve(request));
    request.addEventListener("error", () => reject(new Error("The connection broke; it was not sent.")));
    request.addEventListener("abort", () => reject(new Error("It was not sent.")));
    signal.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}

class EndolensUpload extends HTMLElement {
  #open; // the server's upload: a promise of { key, limit }
  #waiting = [];
  #sending = 0;
  #received = new Map(); // number of a file → its row
  #running = new AbortController();
  #storing; // a promise, once what was sent is being stored

  connectedCallback() {
    const chooser = this.querySelector("input[type=file]");
    this.querySelector("[name=choose]").addEventListener("click", () => chooser.click());
    chooser.addEventListener("change", () => {
      this.add([...chooser.files]);
      chooser.value = "";
    });
    this.querySelector("[name=discard]").addEventListener("click", () => this.discard());
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#storing = this.#store(this.#examination());
    });
    this.#listenForDrops();
    addEventListener("pagehide", () => this.#abandon());
  }

  get #form() {
    return this.querySelector("form");
  }

  get #submit() {
    return this.querySelector("[type=submit]");
  }

  get #api() {
    return `${this.getAttribute("api")}/uploads`;
  }

  choose() {
    this.querySelector("input[type=file]").click();
  }

  async add(files) {
    if (!files.length) return;
    await this.#storing;
    if (!this.#open) this.#begin();
    this.querySelector("section").hidden = false;
    this.#ask(false);
    this.#waiting.push(...files.map((file) => ({ file, row: this.#row(file.name) })));
    while (this.#sending < AT_ONCE && this.#waiting.length) this.#work();
  }

  async discard() {
    await this.#abandon();
    this.#end();
    this.querySelector("section").hidden = true;
  }

  #listenForDrops() {
    const body = document.body;
    const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
    body.addEventListener("dragover", (event) => {
      if (!carriesFiles(event)) return;
      event.preventDefault();
      body.classList.add("dragging");
    });
    body.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) body.classList.remove("dragging");
    });
    body.addEventListener("drop", async (event) => {
      if (!carriesFiles(event)) return;
      event.preventDefault();
      body.classList.remove("dragging");
      this.add(await droppedFiles(event.dataTransfer));
    });
  }

  #begin() {
    this.#end();
    this.querySelector(".files").replaceChildren();
    this.#open = request(this.#api, { method: "POST" }).then((answer) => answer.json());
    this.querySelector("[name=discard]").textContent = "Discard";
  }

  #end() {
    this.#open = undefined;
    this.#waiting = [];
    this.#received.clear();
    this.#running = new AbortController();
    this.#ask(false);
    this.#say("");
  }

  #row(name) {
    const row = document.createElement("li");
    const parts = { name: "span", bar: "progress", said: "span" };
    for (const [className, tag] of Object.entries(parts)) row.append(Object.assign(document.createElement(tag), { className }));
    row.querySelector(".name").textContent = row.querySelector(".name").title = name;
    row.querySelector("progress").setAttribute("aria-label", name);
    row.querySelector("progress").value = 0;
    this.querySelector(".files").append(row);
    return row;
  }

  #mark(row, state, text) {
    row.dataset.state = state;
    row.querySelector(".said").textContent = text;
    row.querySelector("progress").hidden = state !== "sending";
  }

  #say(text, wrong = false) {
    const place = this.querySelector(".outcome");
    place.textContent = text;
    place.classList.toggle("error", wrong);
  }

  async #work() {
    const running = this.#running;
    const { file, row } = this.#waiting.shift();
    this.#sending += 1;
    try {
      const { number, kind } = await this.#send(file, row, running.signal);
      this.#received.set(number, row);
      row.dataset.kind = kind;
      this.#mark(row, "received", `${kind}, received`);
    } catch (error) {
      this.#mark(row, "refused", error.message);
    }
    this.#sending -= 1;
    if (running.signal.aborted) return;
    if (this.#waiting.length) this.#work();
    else if (!this.#sending) this.#finish();
  }

  async #send(file, row, signal) {
    this.#mark(row, "sending", "");
    const { key, limit } = await this.#open;
    if (file.size > limit) {
      throw new Error(`${file.name} is larger than the ${Math.round(limit / 2 ** 20)} MB that a file may have.`);
    }
    const address = `${this.#api}/${key}/files?${new URLSearchParams({ name: file.name })}`;
    const bar = row.querySelector("progress");
    for (let attempt = 1; ; attempt += 1) {
      const { status, response } = await send(address, file, (share) => (bar.value = share), signal);
      if (status === 201) return response;
      if (status !== 503 || attempt === PATIENCE) throw new Error(response?.detail ?? `the server answered ${status}`);
      await wait(1000);
    }
  }

  // Everything was sent: pictures need to know whose they are.
  #finish() {
    const rows = [...this.#received.values()];
    const pictures = rows.filter((row) => row.dataset.kind !== "DICOM").length;
    if (!rows.length) {
      this.#abandon();
      this.#open = undefined;
      this.#close();
      this.#say("None of these files could be added.", true);
    } else if (pictures) {
      this.#ask(true);
      this.#submit.textContent = `Add ${rows.length === 1 ? "1 file" : `${rows.length} files`} to the studies`;
      this.#form.elements.patient_id.focus();
    } else {
      this.#storing = this.#store({});
    }
  }

  #examination() {
    const { family, given, ...rest } = Object.fromEntries(new FormData(this.#form));
    for (const name of ["patient_birth_date", "study_date"]) rest[name] = rest[name].replaceAll("-", "");
    return { ...rest, patient_name: [family, given].join("^").replace(/\^$/, "") };
  }

  async #store(examination) {
    this.#submit.disabled = true;
    this.#say("Storing …");
    try {
      const { key } = await this.#open;
      const { files } = await ask(`${this.#api}/${key}/store`, examination);
      for (const { number, state, reason } of files) this.#mark(this.#received.get(number), state, reason || state);
      const count = (state) => files.filter((file) => file.state === state).length;
      const there = count("present") ? ` ${count("present")} were there already.` : "";
      this.#open = undefined;
      this.#form.reset();
      this.#ask(false);
      this.#close();
      this.#say(`${count("stored")} of ${files.length} files added.${there}`);
      const studies = [...new Set(files.filter(({ state }) => state === "stored").map(({ study }) => study))];
      this.dispatchEvent(new CustomEvent("endolens-stored", { bubbles: true, detail: { studies } }));
    } catch (error) {
      this.#ask(true);
      this.#say(error.message, true);
    }
    this.#submit.disabled = false;
  }

  // Shows or hides the question whose pictures they are.
  #ask(shown) {
    this.#form.hidden = this.#submit.hidden = !shown;
  }

  #close() {
    this.querySelector("[name=discard]").textContent = "Close";
  }

  async #abandon() {
    this.#running.abort();
    const opened = await this.#open?.catch(() => undefined);
    if (opened) await fetch(`${this.#api}/${opened.key}`, { method: "DELETE", keepalive: true }).catch(() => undefined);
  }
}

customElements.define("endolens-upload", EndolensUpload);
