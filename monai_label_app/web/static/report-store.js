// Keeps a report on the server as it is edited. What is not there yet is kept in this tab, and said.
//
// Events: "state" {state, text}, "version" {version}, "conflict" {mine, base, current}: base is what mine was made of.
// States: saved, unsaved, saving, away (the server does not answer), conflict, refused, signed.

const PAUSE_MILLISECONDS = 700;
const RETRY_MILLISECONDS = 3000;

export class ReportStore extends EventTarget {
  #address;
  #key;
  #etag;
  #base; // the report that this etag stands for
  #pending = null; // the report as it was edited last, if it is not saved yet
  #saving = null;
  #timer;
  author = "";

  constructor(address) {
    super();
    this.#address = address;
    this.#key = `endolens:${address}`;
    window.addEventListener("beforeunload", (event) => {
      if (this.#pending) event.preventDefault();
    });
    window.addEventListener("online", () => this.flush());
  }

  // The report as it counts, and what this tab kept of it unsaved, if anything.
  async open(language) {
    const { version, etag } = await this.#ask("", { method: "POST", body: { language } });
    const kept = JSON.parse(sessionStorage.getItem(this.#key) ?? "null");
    this.#took(version, etag);
    if (!kept || same(kept.report, version.report)) {
      sessionStorage.removeItem(this.#key);
      return version;
    }
    [this.#etag, this.#base] = [kept.etag, kept.base];
    this.edited(kept.report);
    return { ...version, report: kept.report };
  }

  // What was typed: saved after a pause.
  edited(report) {
    this.#pending = structuredClone(report);
    sessionStorage.setItem(this.#key, JSON.stringify({ etag: this.#etag, base: this.#base, report }));
    this.#say("unsaved", "Not saved yet");
    this.#soon(PAUSE_MILLISECONDS);
  }

  // Save now. True once nothing is left to be saved.
  async flush() {
    clearTimeout(this.#timer);
    await this.#saving;
    if (!this.#pending) return true;
    this.#saving = this.#save(this.#pending);
    const saved = await this.#saving;
    this.#saving = null;
    return saved && (!this.#pending || this.flush());
  }

  // After a conflict: this is what both agree on.
  resolve(report, current) {
    [this.#etag, this.#base] = [current.etag, current.report];
    this.edited(report);
    return this.flush();
  }

  versions() {
    return this.#ask("/versions").then(({ version }) => version.versions);
  }

  version(number) {
    return this.#ask(`?version=${number}`).then(({ version }) => version);
  }

  proposals() {
    return this.#ask("/proposals").then(({ version }) => version);
  }

  async sign(signature) {
    try {
      const { version, etag } = await this.#ask("/signature", { method: "POST", body: signature });
      this.#took(version, etag);
    } catch (problem) {
      // It may be signed though not stored, or somebody else was faster.
      await this.#ask("").then(({ version, etag }) => this.#took(version, etag), () => {});
      throw problem;
    }
  }

  async addendum() {
    const { version, etag } = await this.#ask("/addendum", { method: "POST" });
    this.#took(version, etag);
  }

  async #save(report) {
    this.#say("saving", "Saving …");
    try {
      const { version, etag } = await this.#ask("", { method: "PUT", body: { report, author: this.author } });
      if (this.#pending === report) {
        this.#pending = null;
        sessionStorage.removeItem(this.#key);
      }
      this.#took(version, etag);
      return true;
    } catch (problem) {
      await this.#failed(problem, report);
      return false;
    }
  }

  async #failed(problem, report) {
    if (problem.status === 409) {
      // Signed by somebody else meanwhile: the server keeps what was written here, and this tab shows what was signed.
      this.#pending = null;
      sessionStorage.removeItem(this.#key);
      await this.#ask("").then(({ version, etag }) => this.#took(version, etag), () => {});
      this.#say("refused", `Not saved: ${problem.message}`);
    } else if (problem.status === 412) {
      this.#say("conflict", problem.message);
      const current = { ...problem.content.current, etag: problem.etag };
      this.#tell("conflict", { mine: report, base: this.#base, current });
    } else if (!problem.status || problem.status >= 500) {
      const reason = problem.status ? problem.message : "the server does not answer";
      this.#say("away", `Not saved: ${reason}. What you wrote is kept in this tab, and is saved as soon as it can be.`);
      this.#soon(RETRY_MILLISECONDS);
    } else {
      this.#say("refused", `Not saved: ${problem.message}`);
    }
  }

  #soon(milliseconds) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.flush(), milliseconds);
  }

  #took(version, etag) {
    [this.#etag, this.#base] = [etag, structuredClone(version.report)];
    if (version.signature) this.#say("signed", "Signed");
    else if (!this.#pending) this.#say("saved", `Saved as version ${version.number}, ${new Date(version.saved).toLocaleTimeString()}`);
    this.#tell("version", { version });
  }

  async #ask(path, { method = "GET", body } = {}) {
    const headers = {};
    if (body) headers["Content-Type"] = "application/json";
    if (method !== "GET" && this.#etag) headers["If-Match"] = this.#etag;
    const answer = await fetch(this.#address + path, { method, headers, body: body && JSON.stringify(body) });
    const content = await answer.json().catch(() => ({}));
    const etag = answer.headers.get("ETag");
    if (answer.ok) return { version: content, etag };
    const problem = new Error(content.detail ?? `the server answered ${answer.status}`);
    throw Object.assign(problem, { status: answer.status, content, etag });
  }

  #say(state, text) {
    this.#tell("state", { state, text });
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

export const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
