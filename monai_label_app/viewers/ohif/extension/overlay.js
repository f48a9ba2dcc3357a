// What lies over the frame in the viewport. It is moved by one CSS matrix, and not drawn again.

const TEMPLATE = `
<link rel="stylesheet" href="${new URL("../static/endolens-explain.css", import.meta.url)}">
<link rel="stylesheet" href="${new URL("overlay.css", import.meta.url)}">
<div class="panes"></div>`;

export class Overlay {
  #host = Object.assign(document.createElement("div"), { className: "endolens-overlay", hidden: true });

  constructor() {
    this.#host.attachShadow({ mode: "open" }).innerHTML = TEMPLATE;
  }

  // Where <endolens-explain> draws.
  get place() {
    return this.#host.shadowRoot.querySelector(".panes");
  }

  set hidden(hidden) {
    this.#host.hidden = hidden;
  }

  // Lie where the frame is now.
  follow({ element, geometry }) {
    if (!element || !geometry) return this.remove();
    const canvas = element.querySelector("canvas");
    if (this.#host.previousElementSibling !== canvas) canvas.after(this.#host);
    const { width, height, matrix } = geometry;
    const { style } = this.place;
    Object.assign(style, { width: `${width}px`, height: `${height}px`, transform: `matrix(${matrix})` });
    // So that lines are as wide at any zoom.
    style.setProperty("--zoom", Math.hypot(matrix[0], matrix[1]));
  }

  remove() {
    this.#host.remove();
  }
}
