// What a person sees of it. Text goes in as text: nothing that was published is ever parsed as HTML.

const $ = (id) => document.getElementById(id);

const percent = (score) => `${(100 * score).toFixed(1)} %`;
const milliseconds = (value) => (value === undefined ? "–" : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`);
export const bytes = (count) => (count < 1000 ? `${count} B` : count < 1e6 ? `${(count / 1000).toFixed(1)} kB` : `${(count / 1e6).toFixed(2)} MB`);

function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

/** The line of facts below the title. */
export function showState(state, cloud) {
  $("release").textContent = state.current ? state.current.release : "none yet";
  $("channel").textContent = `${state.channel}, sequence ${state.sequence || "–"}`;
  $("cloud-state").textContent = cloud ? "asked when the phone is unsure" : "none to ask";
  showNetwork();
}

export function showNetwork() {
  $("network").textContent = navigator.onLine ? "on" : "off: this browser answers by itself";
}

/** Why something published was not taken; empty: all is well. */
export function showRefusal(kind, message, kept) {
  const rest = kept ? ` Release ${kept} goes on answering.` : " There is no model here yet.";
  $("refusal").hidden = !message;
  $("refusal").textContent = message ? `${kind === "offline" ? "Not updated" : `Refused (${kind})`}: ${message}${rest}` : "";
}

/** The checks that the model in service has passed, in words. */
export function showChecks(lines) {
  $("checks").replaceChildren(...lines.map((line) => element("li", line)));
}

/** The image as it will be classified. */
export function showImage(image, name) {
  const canvas = $("preview");
  canvas.width = image.width;
  canvas.height = image.height;
  const pixels = new ImageData(image.width, image.height);
  for (let from = 0, to = 0; from < image.data.length; from += 3, to += 4) pixels.data.set([image.data[from], image.data[from + 1], image.data[from + 2], 255], to);
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  canvas.hidden = false;
  canvas.setAttribute("aria-label", `Your image: ${name}`);
  $("hint").textContent = "Another one: drop it, paste it, or";
}

export function showBusy(text) {
  $("answer").setAttribute("aria-busy", "true");
  $("why").textContent = text;
}

/** What went wrong with an image. */
export function showError(message) {
  $("answer").setAttribute("aria-busy", "false");
  $("verdict").textContent = "–";
  $("why").textContent = message;
}

/** A decision: who answered, why, and what both said. */
export function showDecision(decision, installed) {
  $("answer").setAttribute("aria-busy", "false");
  $("verdict").textContent = `${decision.label} ${percent(decision.score)}`;
  $("why").textContent = `The ${decision.model === "cloud" ? "cloud" : "phone"} decided: ${decision.why}.`;
  showHalf("mobile", decision.model === "mobile", `${decision.mobile.label} ${percent(decision.mobile.score)}`, {
    "Time": milliseconds(decision.mobile.milliseconds),
    "Sent": bytes(0),
    "Model": bytes(installed.mobile.size),
  });
  showHalf("cloud", decision.model === "cloud", decision.cloud ? `${decision.cloud.label} ${percent(decision.cloud.score)}` : "no answer", {
    "Time": milliseconds(decision.cloudMilliseconds),
    "Sent": bytes(decision.bytesSent),
  });
  if (decision.cloudMilliseconds === undefined) $("cloud").querySelector(".said").textContent = "not asked";
  showScores(installed.mobile.labels, decision.mobile.probabilities);
}

function showHalf(id, chosen, said, facts) {
  const half = $(id);
  half.classList.toggle("chosen", chosen);
  half.querySelector(".decided").hidden = !chosen;
  half.querySelector(".said").textContent = said;
  half.querySelector("dl").replaceChildren(...Object.entries(facts).flatMap(([term, value]) => [element("dt", term), element("dd", value)]));
}

function showScores(labels, probabilities) {
  const ordered = labels.map((label, at) => [label, probabilities[at]]).sort((a, b) => b[1] - a[1]).slice(0, 5);
  const rows = ordered.map(([label, score]) => {
    const row = element("li");
    const bar = element("span", "", "bar");
    const filled = element("span");
    filled.style.width = percent(score).replace(" ", "");
    bar.append(filled);
    row.append(element("span", label), element("span", percent(score), "number"), bar);
    return row;
  });
  document.querySelector("#mobile .scores").replaceChildren(...rows);
}
