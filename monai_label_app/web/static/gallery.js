// The frames of a study: those in view are predicted one after the other, and the filter is asked of all of them.
import { ask } from "./ask.js";
import { percent } from "./explain-views.js";

export class Gallery {
  #list;
  #filters;
  #explorer;
  #buttons;
  #inView = new Set();
  #working = false;

  constructor(list, filters, explorer) {
    this.#list = list;
    this.#filters = filters;
    this.#explorer = explorer;
    this.#buttons = [...list.querySelectorAll("button")];
    list.addEventListener("click", ({ target }) => this.open(target.closest("button")));
    filters.addEventListener("input", () => this.#filter());
    filters.addEventListener("submit", (event) => event.preventDefault());
    const watch = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) this.#inView[isIntersecting ? "add" : "delete"](target);
      this.#predict();
    }, { root: list });
    for (const button of this.#buttons) watch.observe(button);
    this.open(this.#addressed() ?? this.#buttons[0]);
    window.addEventListener("hashchange", () => this.open(this.#addressed()));
    this.#filter();
  }

  open(button) {
    if (!button) return;
    for (const one of this.#buttons) one.removeAttribute("aria-current");
    button.setAttribute("aria-current", "true");
    button.scrollIntoView({ block: "nearest" });
    const { image, frame } = button.dataset;
    // So that the page can be loaded again, and pointed at.
    history.replaceState(null, "", `#${image}/${frame}`);
    this.#explorer.setAttribute("image", image);
    this.#explorer.setAttribute("frame", frame);
  }

  // So many frames on, of those that the filter leaves.
  move(step) {
    const shown = this.#buttons.filter((button) => !button.parentElement.hidden);
    const here = shown.findIndex((button) => button.hasAttribute("aria-current"));
    this.open(shown[Math.min(shown.length - 1, Math.max(0, here + step))]);
  }

  #addressed() {
    const [image, frame] = location.hash.slice(1).split("/");
    return this.#buttons.find(({ dataset }) => dataset.image === image && dataset.frame === frame);
  }

  get #wanted() {
    const { class: label, certainty, warned } = this.#filters.elements;
    const [least, most] = certainty.value.split(" ").map(Number);
    const any = !label.value && certainty.selectedIndex === 0 && !warned.checked;
    return { label: label.value, least, most, warned: warned.checked, any };
  }

  // One at a time, and not while the explorer waits: whoever looks at a frame comes first.
  async #predict() {
    if (this.#working) return;
    this.#working = true;
    for (let next; (next = this.#next()); ) {
      await this.#explorer.ready;
      await this.#describe(next);
      this.#filter();
    }
    this.#working = false;
  }

  #next() {
    const unknown = (button) => !("known" in button.dataset);
    return [...this.#inView].find(unknown) ?? (this.#wanted.any ? undefined : this.#buttons.find(unknown));
  }

  async #describe(button) {
    const { image, frame } = button.dataset;
    button.dataset.known = "";
    const words = button.querySelector(".prediction");
    try {
      const address = `${this.#explorer.getAttribute("api")}/images/${image}/frames/${frame}/prediction`;
      const { predicted, probabilities, warnings } = await ask(address);
      Object.assign(button.dataset, { label: predicted, certainty: probabilities[predicted] });
      words.textContent = predicted;
      button.querySelector(".certainty").textContent = percent(probabilities[predicted]);
      const warned = button.querySelector(".warned");
      warned.hidden = !warnings.length;
      warned.textContent = "⚠ evidence on an artifact";
      warned.title = warnings.join(" ");
    } catch (error) {
      words.textContent = `no prediction: ${error.message}`;
    }
  }

  #filter() {
    const { label, least, most, warned, any } = this.#wanted;
    let shown = 0;
    for (const button of this.#buttons) {
      const certainty = Number(button.dataset.certainty);
      const fits = [
        !label || button.dataset.label === label,
        certainty >= least && (certainty < most || most === 1),
        !warned || !button.querySelector(".warned").hidden,
      ];
      button.parentElement.hidden = !any && !fits.every(Boolean);
      shown += !button.parentElement.hidden;
    }
    const known = this.#buttons.filter(({ dataset }) => "known" in dataset).length;
    const all = this.#buttons.length;
    const progress = known < all ? `, ${known} looked at …` : "";
    const frames = `${all} frame${all === 1 ? "" : "s"}`;
    this.#filters.elements.count.value = any ? frames : `${shown} of ${frames}${progress}`;
    if (!any) this.#predict();
  }
}
