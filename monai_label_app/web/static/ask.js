// Ask the server, or, with content, tell it something. An error is one sentence for the reader.
export async function ask(address, content) {
  const options = content && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(content) };
  const response = await fetch(address, options).catch(() => {
    throw new Error("EndoLens does not answer.");
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.detail ?? `the server answered ${response.status}`);
  return answer;
}
