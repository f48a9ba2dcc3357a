// Requests to the server. An error is one sentence for the reader; "passing" says that it may be over soon.

export async function request(address, options) {
  // Of another server of the house, as in its own OHIF, the browser's log-in there counts too.
  const response = await fetch(address, { credentials: "include", ...options }).catch(() => {
    throw Object.assign(new Error("the server does not answer"), { passing: true });
  });
  if (response.ok) return response;
  const { detail } = await response.json().catch(() => ({}));
  // Above 500 it is something behind the server, or too much at once.
  throw Object.assign(new Error(detail ?? `the server answered ${response.status}`), { passing: response.status > 500 });
}

// Ask for JSON, or, with content, send some.
export async function ask(address, content) {
  const headers = { "Content-Type": "application/json" };
  return (await request(address, content && { method: "POST", headers, body: JSON.stringify(content) })).json();
}
