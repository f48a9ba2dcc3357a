// What <endolens-explain> asks the REST interface.

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
    return (await this.#fetch(address)).json();
  }

  // A map as the address of a picture that this browser holds.
  async map(frame, query) {
    const response = await this.#fetch(`${frame}/explanation.png?${new URLSearchParams(query)}`);
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

  async #fetch(address) {
    const response = await fetch(this.absolute(address)).catch(() => {
      throw Object.assign(new Error("the server does not answer"), { passing: true });
    });
    if (response.ok) return response;
    const { detail } = await response.json().catch(() => ({}));
    const passing = response.status > 500; // a server behind it, or too much at once
    throw Object.assign(new Error(detail ?? `the server answered ${response.status}`), { passing });
  }
}
