// What <endolens-explain> asks the REST interface.
import { request } from "./ask.js";

const REMEMBERED = 50;

export class Server {
  #api;
  #evidence = new Map();

  constructor(api) {
    this.#api = api;
  }

  // The address of a frame, below the interface's own.
  frame(image, number) {
    return `/images/${encodeURIComponent(image)}/frames/${encodeURIComponent(number)}`;
  }

  absolute(address) {
    return `${this.#api}${address}`;
  }

  async ask(address) {
    return (await request(this.absolute(address))).json();
  }

  // A map as the address of a picture that this browser holds.
  async map(frame, query) {
    const response = await request(this.absolute(`${frame}/explanation.png?${new URLSearchParams(query)}`));
    return URL.createObjectURL(await response.blob());
  }

  // What a class is read from; asked once while it is remembered.
  async evidence(frame, query) {
    const address = `${frame}/evidence?${new URLSearchParams(query)}`;
    const found = this.#evidence.get(address) ?? (await this.ask(address));
    this.#evidence.delete(address);
    this.#evidence.set(address, found);
    if (this.#evidence.size > REMEMBERED) this.#evidence.delete(this.#evidence.keys().next().value);
    return found;
  }
}
