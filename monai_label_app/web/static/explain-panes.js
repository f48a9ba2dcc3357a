// The pictures of <endolens-explain>: frames side by side, each with its map, outlines and caption. Where a viewer shows
// the frame itself, there is no picture, but what lies over it.

const SVG = "http://www.w3.org/2000/svg";

const FIGURE = `
<div class="stage">
  <img class="picture" alt=""><img class="map" alt="" hidden>
  <svg aria-hidden="true" preserveAspectRatio="none"><g class="regions"></g><g class="artifacts"></g></svg>
</div>
<figcaption></figcaption>`;

export class Panes {
  #place;
  #pictured;
  #opacity = 1;

  constructor(place, { pictured = true } = {}) {
    this.#place = place;
    this.#pictured = pictured;
  }

  // A frame without maps, in one pane, while it is not known what to show over it.
  clear(frame) {
    this.#arrange(1);
    for (const figure of this.#place.children) {
      if (frame) this.#picture(figure, frame);
      this.#map(figure);
      for (const group of figure.querySelectorAll(".regions, .artifacts")) group.replaceChildren();
      figure.querySelector("figcaption").textContent = "";
    }
  }

  // All maps at once, so that no two on the screen are of different choices.
  async draw(frame, panes, maps) {
    await Promise.all(maps.filter(Boolean).map((source) => Object.assign(new Image(), { src: source }).decode()));
    this.#arrange(panes.length);
    this.#place.style.setProperty("--ratio", frame.width / frame.height);
    this.#place.style.setProperty("--letters", frame.height / 36);
    for (const [index, figure] of [...this.#place.children].entries()) {
      const { map, caption, words } = panes[index];
      this.#picture(figure, frame);
      this.#map(figure, maps[index], words, map);
      figure.querySelector("svg").setAttribute("viewBox", `0 0 ${frame.width} ${frame.height}`);
      figure.querySelector(".regions").replaceChildren();
      figure.querySelector("figcaption").textContent = caption;
    }
  }

  opacity(value) {
    this.#opacity = value;
    for (const map of this.#place.querySelectorAll(".map")) map.style.opacity = value;
  }

  // What was found on the frame, in every pane.
  artifacts({ artifacts }, shown) {
    for (const group of this.#place.querySelectorAll(".artifacts")) {
      group.replaceChildren(
        ...(shown ? artifacts : []).map(({ name, outline, removed }) => {
          const one = document.createElementNS(SVG, "g");
          one.append(polygon(outline), label(outline, removed ? `${name}, ${removed}` : name));
          return one;
        }),
      );
    }
  }

  // Where the evidence lies, of each pane of which it is known.
  regions(evidence) {
    for (const [index, group] of [...this.#place.querySelectorAll(".regions")].entries()) {
      const contours = evidence[index]?.regions.map(({ contour }) => contour) ?? [];
      group.replaceChildren(...contours.flatMap((contour) => [polygon(contour, "halo"), polygon(contour)]));
    }
  }

  #arrange(count) {
    while (this.#place.children.length > count) {
      this.#map(this.#place.lastElementChild);
      this.#place.lastElementChild.remove();
    }
    while (this.#place.children.length < count) this.#place.append(this.#figure());
    this.#place.dataset.count = count;
  }

  #figure() {
    const figure = document.createElement("figure");
    figure.innerHTML = FIGURE;
    figure.querySelector(".map").style.opacity = this.#opacity;
    return figure;
  }

  #picture(figure, { picture, number }) {
    if (!this.#pictured) return;
    const image = figure.querySelector(".picture");
    if (image.getAttribute("src") !== picture) image.src = picture;
    image.alt = `Frame ${number}`;
  }

  #map(figure, source, words = "", query = undefined) {
    const map = figure.querySelector(".map");
    if (map.src) URL.revokeObjectURL(map.src);
    map.hidden = !source;
    map.alt = words;
    map.dataset.shown = query ? new URLSearchParams(query) : "";
    if (source) map.src = source;
    else map.removeAttribute("src");
  }
}

function polygon(points, className = "") {
  const shape = document.createElementNS(SVG, "polygon");
  shape.setAttribute("class", className);
  shape.setAttribute("points", points.map((point) => point.join(",")).join(" "));
  return shape;
}

function label(outline, words) {
  const text = document.createElementNS(SVG, "text");
  const [left, top] = [0, 1].map((axis) => Math.min(...outline.map((point) => point[axis])));
  for (const [name, value] of Object.entries({ x: left, y: top, dx: "0.4em", dy: "0.3em" })) text.setAttribute(name, value);
  text.textContent = words;
  return text;
}
