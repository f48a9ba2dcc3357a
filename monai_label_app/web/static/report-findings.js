// The list of findings. One of them, the target, gets the images that are attached.

import { percent } from "./explain-views.js";
import { wording } from "./report-words.js";

const list = document.querySelector("#observations");
const template = document.querySelector("#observation").content.firstElementChild;
const imageTemplate = document.querySelector("#evidence").content.firstElementChild;

export class Findings {
  #context;
  #target = 0;
  // Which class a machine gave which probability: a class that a person chose is not the machine's.
  #proposed = new WeakMap();

  // context: { report(), words(), sites, picture(uid, frame), changed() }
  constructor(context) {
    this.#context = context;
    list.addEventListener("input", ({ target }) => this.#edit(target));
    list.addEventListener("focusin", ({ target }) => this.#aim(this.#numberOf(target)));
    list.addEventListener("click", ({ target }) => this.#press(target.closest("button")));
  }

  get target() {
    return this.#target;
  }

  get #all() {
    return this.#context.report().observations;
  }

  show() {
    list.replaceChildren(...this.#all.map((one, index) => this.#card(one, index)));
    this.#aim(Math.min(this.#target, Math.max(0, this.#all.length - 1)));
  }

  add(text = "") {
    this.#all.push({ label: "", text, evidence: [], probability: null, site: "" });
    this.#target = this.#all.length - 1;
    this.#changed();
    list.lastElementChild.querySelector("textarea").focus();
  }

  // Attach an image to a finding, or detach it where it is attached.
  toggle(index, uid, frame) {
    const one = this.#all[index];
    if (!one) return;
    const place = one.evidence.findIndex((image) => image.sop_instance_uid === uid && image.frame_number === frame);
    if (place >= 0) one.evidence.splice(place, 1);
    else one.evidence.push({ sop_instance_uid: uid, frame_number: frame, caption: "", reason: "" });
    this.#changed();
  }

  // Numbers of the findings that an image is attached to.
  of(uid, frame) {
    const shows = ({ evidence }) => evidence.some((image) => image.sop_instance_uid === uid && image.frame_number === frame);
    return this.#all.flatMap((one, index) => (shows(one) ? [index + 1] : []));
  }

  #card(one, index) {
    const card = template.cloneNode(true);
    const { words } = this.#context;
    for (const place of card.querySelectorAll("[data-word]")) place.textContent = words()[place.dataset.word];
    card.querySelector(".place").textContent = index + 1;
    const label = card.querySelector("[data-part=label]");
    if (one.label && ![...label.options].some(({ value }) => value === one.label)) label.append(new Option(one.label));
    for (const part of ["label", "site", "text"]) card.querySelector(`[data-part=${part}]`).value = one[part];
    this.#mark(card, one);
    card.querySelector("[data-do=up]").disabled = index === 0;
    card.querySelector("[data-do=down]").disabled = index === this.#all.length - 1;
    card.querySelector(".evidence").replaceChildren(...one.evidence.map((image) => this.#image(image)));
    return card;
  }

  // What a machine found says so.
  #mark(card, one) {
    const mark = card.querySelector("header .machine");
    mark.hidden = one.probability === null;
    if (one.probability === null) return;
    const words = this.#context.words();
    mark.textContent = words.proposed.replace("{probability}", percent(one.probability, words.decimal));
  }

  #image(image) {
    const item = imageTemplate.cloneNode(true);
    const words = this.#context.words();
    for (const place of item.querySelectorAll("[data-word]")) place.textContent = words[place.dataset.word];
    item.querySelector("img").src = this.#context.picture(image.sop_instance_uid, image.frame_number);
    item.querySelector("input").value = image.caption;
    const reason = item.querySelector(".reason");
    reason.hidden = !image.reason;
    reason.textContent = words["proposed.image"].replace("{reason}", image.reason);
    return item;
  }

  #edit(control) {
    const { part } = control.dataset;
    const one = this.#all[this.#numberOf(control)];
    if (part === "caption") one.evidence[childNumber(control.closest(".evidence > li"))].caption = control.value;
    else if (part === "label") this.#choose(one, control.value, control.closest(".observation"));
    else one[part] = control.value;
    this.#context.changed();
  }

  // Another class: wording and site follow where they were the former one's own.
  #choose(one, label, card) {
    const words = this.#context.words();
    const { sites } = this.#context;
    if (!one.text || one.text === wording(words, one.label)) one.text = label && wording(words, label);
    if (!one.site || one.site === sites[one.label]) one.site = sites[label] ?? "";
    if (one.probability !== null) this.#proposed.set(one, { label: one.label, probability: one.probability });
    one.label = label;
    const machine = this.#proposed.get(one);
    one.probability = machine?.label === label ? machine.probability : null;
    for (const part of ["site", "text"]) card.querySelector(`[data-part=${part}]`).value = one[part];
    this.#mark(card, one);
  }

  #press(button) {
    if (!button) return;
    const index = this.#numberOf(button);
    const all = this.#all;
    const [one] = [all[index]];
    const act = {
      remove: () => all.splice(index, 1),
      up: () => all.splice(index - 1, 2, one, all[index - 1]),
      down: () => all.splice(index, 2, all[index + 1], one),
      detach: () => one.evidence.splice(childNumber(button.closest(".evidence > li")), 1),
    };
    act[button.dataset.do]();
    this.#target = index + ({ up: -1, down: 1 }[button.dataset.do] ?? 0);
    this.#changed();
    const card = list.children[this.#target];
    (card?.querySelector("textarea") ?? document.querySelector("#add")).focus();
  }

  #aim(index) {
    this.#target = index;
    for (const [place, card] of [...list.children].entries()) card.classList.toggle("target", place === index);
    list.dispatchEvent(new CustomEvent("aim"));
  }

  #numberOf(element) {
    return childNumber(element.closest(".observation"));
  }

  #changed() {
    this.show();
    this.#context.changed();
  }
}

const childNumber = (element) => [...element.parentElement.children].indexOf(element);
