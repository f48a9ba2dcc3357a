// The keys of a page: what has its own use for them, and the dialog that lists them.

// A field has; of a tick box it is the space bar alone.
export function isField(target) {
  return target instanceof Element && target.matches("select, textarea, input:not([type=checkbox])");
}

// [["keys with spaces between", "what they do"], …]
export function offer(dialog, button, keys) {
  button.addEventListener("click", () => dialog.showModal());
  dialog.querySelector("tbody").append(
    ...keys.map(([names, what]) => {
      const row = document.createElement("tr");
      const [left, right] = [row.insertCell(), row.insertCell()];
      const keyOf = (key) => (key === "–" ? key : Object.assign(document.createElement("kbd"), { textContent: key }));
      for (const key of names.split(" ")) left.append(keyOf(key), " ");
      right.textContent = what;
      return row;
    }),
  );
}
