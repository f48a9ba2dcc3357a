// The timeline: a row a class, its segments as bars and their stills as marks; a click or a drag leads to a moment.

export const seconds = (time) => {
  const whole = Math.floor(time / 60);
  return `${whole}:${(time - 60 * whole).toFixed(2).padStart(5, "0")}`;
};

// Colours tell classes apart and mean nothing.
export const colour = (classes, label) => `hsl(${Math.round((360 * classes.indexOf(label)) / classes.length + 40) % 360} 70% 62%)`;

export class Timeline {
  #names;
  #tracks;
  #hint;
  #now;
  #length = 1;
  #segments = [];
  #screen;

  constructor(place, hint, screen) {
    this.#names = place.querySelector(".names");
    this.#tracks = place.querySelector(".tracks");
    this.#now = place.querySelector(".now");
    this.#hint = hint;
    this.#screen = screen;
    screen.addEventListener("time", () => this.#move());
    screen.addEventListener("frame", () => this.#move());
    this.#tracks.addEventListener("pointerdown", (event) => this.#press(event));
    this.#tracks.addEventListener("pointermove", (event) => this.#hover(event));
    this.#tracks.addEventListener("pointerup", (event) => this.#release(event));
    this.#tracks.addEventListener("pointerleave", () => (this.#hint.textContent = ""));
  }

  show({ seconds: length, segments }, classes) {
    this.#length = length;
    this.#segments = segments;
    const seen = classes.filter((label) => segments.some((one) => one.class === label));
    this.#names.replaceChildren(...seen.map((textContent) => Object.assign(document.createElement("li"), { textContent })));
    this.#tracks.replaceChildren(this.#now, ...seen.map((label) => this.#track(label, classes)));
    this.#tracks.setAttribute("aria-valuemax", length.toFixed(2));
    this.#move();
  }

  #track(label, classes) {
    const track = Object.assign(document.createElement("div"), { className: "track" });
    for (const one of this.#segments.filter((segment) => segment.class === label)) {
      const bar = document.createElement("i");
      Object.assign(bar.style, {
        left: this.#place(one.start),
        width: this.#place(one.end - one.start),
        background: colour(classes, label),
        // The surer, the fuller.
        opacity: 0.3 + 0.7 * one.mean,
      });
      track.append(bar);
      if (one.still_time === null) continue;
      const mark = document.createElement("b");
      mark.style.left = this.#place(one.still_time);
      track.append(mark);
    }
    return track;
  }

  #place(time) {
    return `${(100 * time) / this.#length}%`;
  }

  #move() {
    const { time } = this.#screen;
    this.#now.style.left = this.#place(Math.min(time, this.#length));
    this.#tracks.setAttribute("aria-valuenow", time.toFixed(2));
    this.#tracks.setAttribute("aria-valuetext", this.#words(time));
  }

  #words(time) {
    const seen = this.#segments.filter(({ start, end }) => start <= time && time < end);
    return [seconds(time), ...seen.map((one) => one.class)].join(" · ");
  }

  #at({ clientX }) {
    const { left, width } = this.#tracks.getBoundingClientRect();
    return this.#length * Math.min(1, Math.max(0, (clientX - left) / width));
  }

  #press(event) {
    if (event.button) return;
    this.#tracks.setPointerCapture(event.pointerId);
    this.#screen.scrub(this.#at(event));
  }

  #hover(event) {
    const time = this.#at(event);
    this.#hint.textContent = this.#words(time);
    if (this.#tracks.hasPointerCapture(event.pointerId)) this.#screen.scrub(time);
  }

  #release(event) {
    if (this.#tracks.hasPointerCapture(event.pointerId)) this.#screen.jump(this.#at(event));
  }
}
