// The page of a running examination: asks for the picture, the map and the words again and again.
const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
// Each goes on by itself: the picture does not wait for the map.
async function show(id, pause) {
  const image = document.getElementById(id);
  for (;;) {
    try {
      const answer = await fetch(`${id}.jpg`);
      if (answer.status === 200) {
        const address = URL.createObjectURL(await answer.blob());
        image.src = address;
        await image.decode();
        URL.revokeObjectURL(address);
      }
    } catch { /* the next may come */ }
    await wait(pause);
  }
}
async function say() {
  const place = document.getElementById("said");
  for (;;) {
    try {
      const state = await (await fetch("state")).json();
      const delay = state.delay === null ? "" : `, ${state.delay.toFixed(1)} s behind`;
      const seen = state.class ? `${state.class} ${state.percent}` : "nothing to be told";
      place.textContent = (state.problem || (state.analysed ? seen + delay : "Waiting for the network.")) + (state.ended ? " – ended" : "");
    } catch { place.textContent = "The server does not answer."; }
    await wait(200);
  }
}
show("frame", 30); show("map", 60); say();
