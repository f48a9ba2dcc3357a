// The picture: plays, jumps, steps, and says which frame is under the eye while it is paused.
//
// Sends "frame" with { number, start, end } of the frame that is shown, or without one while none is known; "time".
import { ask } from "./ask.js";

const RETRY_MILLISECONDS = 2000;
const BEFORE = 0.001; // seconds before a frame begins, at which the one before it is shown

export class Screen extends EventTarget {
  #api;
  #video;
  #opened; // { uid, seconds, width, height, … } as the server describes the video
  #frame;
  #playing = false;
  #wanted = 0; // counts what was asked for, so that an answer that comes late is not taken
  #retry;

  constructor(api, video) {
    super();
    this.#api = api;
    this.#video = video;
    video.addEventListener("timeupdate", () => this.dispatchEvent(new Event("time")));
    video.addEventListener("play", () => {
      this.#playing = true;
      this.#show(undefined);
    });
    // The frame that a paused browser shows need not be that of its clock: it is sent there once more.
    video.addEventListener("pause", () => this.#playing && this.jump(video.currentTime));
    video.addEventListener("loadeddata", () => video.parentElement.style.setProperty("--ratio", video.videoWidth / video.videoHeight));
    video.addEventListener("error", () => this.#fail(new Error("this browser cannot play it")));
  }

  get time() {
    return this.#video.currentTime;
  }

  get paused() {
    return this.#video.paused;
  }

  get opened() {
    return this.#opened;
  }

  get frame() {
    return this.#frame;
  }

  set speed(value) {
    this.#video.defaultPlaybackRate = this.#video.playbackRate = value;
  }

  address(rest) {
    return `${this.#api}/images/${encodeURIComponent(this.#opened.uid)}/${rest}`;
  }

  // Another video, at a moment of it. One that is long may have to be made ready first.
  async open(uid, time = 0) {
    clearTimeout(this.#retry);
    const wanted = this.#halt();
    try {
      const described = await ask(`${this.#api}/images/${encodeURIComponent(uid)}/video`);
      if (wanted !== this.#wanted) return;
      this.#opened = { ...described, uid };
      this.#video.src = this.address("video.mp4");
      this.dispatchEvent(new CustomEvent("opened", { detail: this.#opened }));
      await new Promise((done) => this.#video.addEventListener("loadedmetadata", done, { once: true }));
      if (wanted === this.#wanted) await this.jump(time);
    } catch (error) {
      if (wanted !== this.#wanted) return;
      this.#fail(error);
      if (error.passing) this.#retry = setTimeout(() => this.open(uid, time), RETRY_MILLISECONDS);
    }
  }

  // What was seen may be known by now.
  async refresh() {
    if (!this.#opened) return;
    Object.assign(this.#opened, await ask(this.address("video")));
    this.dispatchEvent(new CustomEvent("opened", { detail: this.#opened }));
  }

  toggle() {
    if (!this.#opened) return;
    if (!this.#video.paused) this.#video.pause();
    else this.#video.play().catch((error) => error.name === "AbortError" || this.#fail(error));
  }

  // The frame of a moment, to the middle of which the browser is sent: no rounding leads to another.
  async jump(time) {
    if (!this.#opened) return;
    const wanted = this.#halt();
    const last = this.#opened.seconds - BEFORE;
    try {
      const frame = await ask(this.address(`frames?time=${Math.min(last, Math.max(0, time))}`));
      if (wanted !== this.#wanted) return;
      await this.#seek((frame.start + frame.end) / 2);
      if (wanted === this.#wanted && this.#video.paused) this.#show(frame);
    } catch (error) {
      if (wanted === this.#wanted) this.#fail(error);
    }
  }

  // While the hand still moves: near enough.
  scrub(time) {
    if (!this.#opened) return;
    this.#halt();
    this.#video.currentTime = time;
  }

  step(direction) {
    if (!this.#frame) return this.jump(this.time);
    return this.jump(direction < 0 ? this.#frame.start - BEFORE : this.#frame.end + BEFORE);
  }

  // No frame is known until the one that is asked for now, which gets this number, has come.
  #halt() {
    this.#playing = false;
    this.#video.pause();
    this.#show(undefined);
    return ++this.#wanted;
  }

  async #seek(time) {
    this.#video.currentTime = time;
    do await new Promise((done) => this.#video.addEventListener("seeked", done, { once: true }));
    while (this.#video.seeking);
  }

  #show(frame) {
    this.#frame = frame;
    this.dispatchEvent(new CustomEvent("frame", { detail: frame }));
  }

  #fail(error) {
    this.dispatchEvent(new CustomEvent("failed", { detail: error }));
  }
}
