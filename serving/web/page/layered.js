// The layered pair: the phone answers if it is sure enough, else the cloud does; if that fails, the phone's answer counts.
// Decisions and words are those of serving/client/layered.py.

import { toBase64 } from "./bytes.js";

/** Who answers, given the mobile model's highest probability. */
export const decide = (threshold, score) => (score >= threshold ? "mobile" : "cloud");

const short = (number) => `${+number.toPrecision(6)}`;

/**
 * JPEG or PNG bytes → {label, score, model, why, mobile, cloud, cloudMilliseconds, bytesSent}.
 * `ask` true or false overrules the policy; `cloud` is {path, timeout_ms} or null.
 */
export async function classify(model, policy, cloud, bytes, ask = null) {
  const mobile = await model.classify(bytes);
  const unsure = decide(policy.threshold, mobile.score) === "cloud";
  const why = `its confidence ${mobile.score.toFixed(2)} is ${unsure ? "below" : "at least"} ${short(policy.threshold)}`;
  const byPhone = (reason, more = {}) => ({ label: mobile.label, score: mobile.score, model: "mobile", why: reason, mobile, cloud: null, bytesSent: 0, ...more });
  if (!(ask ?? unsure)) return byPhone(unsure ? "the cloud was not to be asked" : why);
  const reason = ask === null ? why : "the cloud was asked for";
  if (!cloud) return byPhone(`${reason}, but there is no cloud to ask`);
  if (!navigator.onLine) return byPhone(`${reason}, but there is no network`);
  const began = performance.now();
  const { answer, error, bytesSent } = await askCloud(cloud, bytes);
  const cloudMilliseconds = performance.now() - began;
  if (error) return byPhone(`${reason}, but the cloud ${error}`, { cloudMilliseconds, bytesSent });
  if (!model.mobile.labels.includes(answer.label)) {
    return byPhone(`${reason}, but the cloud answers '${answer.label}', which this page does not know`, { cloudMilliseconds, bytesSent });
  }
  return { label: answer.label, score: answer.score, model: "cloud", why: reason, mobile, cloud: answer, cloudMilliseconds, bytesSent };
}

/** One question over TF Serving's REST, within a time that holds whatever the network does. */
async function askCloud(cloud, bytes) {
  const body = JSON.stringify({ instances: [{ b64: toBase64(bytes) }] });
  const late = `gave no answer within ${cloud.timeout_ms / 1000} s`;
  try {
    const answer = await fetch(cloud.path, { method: "POST", body, headers: { "content-type": "application/json" }, signal: AbortSignal.timeout(cloud.timeout_ms) });
    if (answer.status === 504) return { error: late, bytesSent: body.length };
    if (answer.status === 502) return { error: "can't be reached", bytesSent: body.length };
    if (!answer.ok) return { error: `refuses (${answer.status})`, bytesSent: body.length };
    const found = (await answer.json()).predictions?.[0];
    const good = typeof found?.label === "string" && typeof found?.score === "number";
    return good ? { answer: found, bytesSent: body.length } : { error: "gives an answer that can't be used", bytesSent: body.length };
  } catch (error) {
    return { error: error.name === "TimeoutError" ? late : "can't be reached", bytesSent: body.length };
  }
}
