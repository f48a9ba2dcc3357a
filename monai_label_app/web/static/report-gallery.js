// The study's images: one key attaches the focused one to the target finding, or to a finding by its number.

const gallery = document.querySelector("#gallery");
const buttons = [...gallery.querySelectorAll("button")];

export class Gallery {
  #findings;

  constructor(findings) {
    this.#findings = findings;
    gallery.addEventListener("click", ({ target }) => this.#toggle(target.closest("button"), findings.target));
    gallery.addEventListener("keydown", (event) => this.#key(event));
    document.querySelector("#observations").addEventListener("aim", () => this.show());
    document.addEventListener("keydown", (event) => {
      if (event.key !== "g" || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.target.matches("input, select, textarea") || document.querySelector("dialog[open]")) return;
      event.preventDefault();
      buttons.find(({ tabIndex }) => tabIndex === 0)?.focus();
    });
  }

  // Which images are attached, and to what.
  show() {
    for (const button of buttons) {
      const to = this.#findings.of(button.dataset.uid, Number(button.dataset.frame));
      button.setAttribute("aria-pressed", String(to.includes(this.#findings.target + 1)));
      button.querySelector(".attached").textContent = to.length ? `→ ${to.join(", ")}` : "";
    }
    document.querySelector("#target").textContent = `for finding ${this.#findings.target + 1}`;
  }

  #toggle(button, index) {
    if (!button) return;
    this.#findings.toggle(index, button.dataset.uid, Number(button.dataset.frame));
    this.#focus(button);
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const button = event.target.closest("button");
    const steps = { j: 1, ArrowRight: 1, k: -1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns() };
    if (event.key in steps) this.#focus(buttons[buttons.indexOf(button) + steps[event.key]]);
    else if (event.key === "a") this.#toggle(button, this.#findings.target);
    else if (/^[1-9]$/.test(event.key)) this.#toggle(button, Number(event.key) - 1);
    else return;
    event.preventDefault();
  }

  // One of the images is in the order of tabs, the one that was focused last.
  #focus(button) {
    if (!button) return;
    for (const one of buttons) one.tabIndex = one === button ? 0 : -1;
    button.focus();
  }
}

const columns = () => buttons.filter(({ offsetTop }) => offsetTop === buttons[0]?.offsetTop).length;
