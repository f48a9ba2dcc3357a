// Draws a region on a picture, in the picture's own pixels: a rectangle by dragging, a polygon by clicks.

const SVG = "http://www.w3.org/2000/svg";
const LEAST = 3; // pixels; a smaller drag is a slip of the hand

export class RegionDrawing {
  #place;
  #svg;
  #shape = document.createElementNS(SVG, "polygon");
  #points = [];
  #start;

  constructor(place, changed) {
    this.#place = place;
    this.changed = changed;
    this.#svg = place.querySelector("svg");
    this.#svg.append(this.#shape);
    this.#svg.addEventListener("pointerdown", (event) => this.#press(event));
    this.#svg.addEventListener("pointermove", (event) => this.#drag(event));
    this.#svg.addEventListener("pointerup", () => this.#release());
  }

  // [[x, y], …], empty while there is no area.
  get region() {
    return this.#points.length < 3 ? [] : this.#points;
  }

  set tool(name) {
    this.#place.dataset.tool = name;
    this.clear();
  }

  // A picture, and a region that is there to begin with.
  show(address, region = []) {
    const picture = this.#place.querySelector("img");
    picture.src = address;
    picture.onload = () => this.#svg.setAttribute("viewBox", `0 0 ${picture.naturalWidth} ${picture.naturalHeight}`);
    this.#start = undefined;
    this.#set(region);
  }

  clear() {
    this.#start = undefined;
    this.#set([]);
  }

  undo() {
    this.#set(this.#place.dataset.tool === "polygon" ? this.#points.slice(0, -1) : []);
  }

  #set(points) {
    this.#points = points;
    this.#shape.setAttribute("points", points.map((point) => point.join(",")).join(" "));
    this.changed(this.region);
  }

  // Where the pointer is, in pixels of the picture; outside of it, on its edge.
  #at({ clientX, clientY }) {
    const { x, y } = new DOMPoint(clientX, clientY).matrixTransform(this.#svg.getScreenCTM().inverse());
    const { width, height } = this.#svg.viewBox.baseVal;
    return [[x, width], [y, height]].map(([value, most]) => Math.round(10 * Math.min(most, Math.max(0, value))) / 10);
  }

  #press(event) {
    if (event.button) return;
    if (this.#place.dataset.tool === "polygon") this.#set([...this.#points, this.#at(event)]);
    if (this.#place.dataset.tool !== "rectangle") return;
    this.#svg.setPointerCapture(event.pointerId);
    this.#start = this.#at(event);
    this.#set([]);
  }

  #drag(event) {
    if (!this.#start) return;
    const [[x0, y0], [x1, y1]] = [this.#start, this.#at(event)];
    const slip = Math.min(Math.abs(x1 - x0), Math.abs(y1 - y0)) < LEAST;
    this.#set(slip ? [] : [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]);
  }

  #release() {
    this.#start = undefined;
  }
}
