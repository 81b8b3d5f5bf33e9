// From the bytes of a channel's file to a manifest that this browser may follow: docs/channel-spec.md, sections 3 to 5.

import { concat, fromBase64, fromUtf8, sha256, sha256Hex, toUtf8 } from "./bytes.js";
import { Refusal } from "./refusal.js";

const TYPE = "application/vnd.dual-deploy.channel+json";
const SCHEMA = "dual.channel/v2";
const BASIS = 10_000;
export const LARGEST = 1 << 20;

/**
 * The manifest in a channel's file, and what to remember of it ({manifest, seen: {sequence, digest}, key}).
 * `trust` is {keys: [{key_id, public_key}], channel, model}; `seen` the newest that was accepted ({sequence: 0, digest: ""} for none).
 * Throws a Refusal: untrusted, rollback or unsupported.
 */
export async function checkChannel(file, trust, seen) {
  const { body, key } = await signedBody(file, trust.keys);
  const manifest = parseManifest(body);
  if (manifest.channel !== trust.channel) throw new Refusal("untrusted", `This is the channel '${manifest.channel}', not '${trust.channel}'.`);
  if (trust.model && manifest.model !== trust.model) throw new Refusal("untrusted", `This is the model '${manifest.model}', not '${trust.model}'.`);
  const found = { sequence: manifest.sequence, digest: await sha256Hex(body) };
  checkSequence(found, seen);
  return { manifest, seen: found, key };
}

/** The bytes that are signed: DSSE's pre-authentication encoding. */
export function signedBytes(type, body) {
  return concat(toUtf8(`DSSEv1 ${toUtf8(type).length} ${type} ${body.length} `), body);
}

async function signedBody(file, keys) {
  if (file.length > LARGEST) throw new Refusal("untrusted", `The channel has ${file.length} bytes, more than one ever has.`);
  const envelope = parseEnvelope(file);
  const message = signedBytes(envelope.payloadType, envelope.body);
  for (const { keyid, sig } of envelope.signatures) {
    const known = keys.find((key) => key.key_id === keyid);
    if (known && (await verifies(known, sig, message))) return { body: envelope.body, key: keyid };
  }
  const signers = envelope.signatures.map((each) => each.keyid).join(", ") || "nobody";
  const trusted = keys.map((key) => key.key_id).join(", ") || "no key at all";
  throw new Refusal("untrusted", `The channel is signed by ${signers}, and this page trusts ${trusted}.`);
}

function parseEnvelope(file) {
  let found;
  try {
    found = JSON.parse(fromUtf8(file));
  } catch {
    throw new Refusal("untrusted", "The channel is no signed manifest: it is not JSON.");
  }
  const body = fromBase64(found?.payload);
  const signed = Array.isArray(found?.signatures) && found.signatures.every((each) => typeof each?.keyid === "string" && isText(each?.sig));
  if (found?.payloadType !== TYPE || !body?.length || !signed) throw new Refusal("untrusted", "The channel is no signed manifest.");
  return { payloadType: TYPE, body, signatures: found.signatures };
}

async function verifies(key, sig, message) {
  const signature = fromBase64(sig);
  if (signature === null) return false;
  try {
    const imported = await crypto.subtle.importKey("raw", fromBase64(key.public_key), { name: "Ed25519" }, false, ["verify"]);
    return await crypto.subtle.verify({ name: "Ed25519" }, imported, signature, message);
  } catch (error) {
    if (error.name === "NotSupportedError") throw new Refusal("unsupported", "This browser can't verify Ed25519 signatures: use a newer one.");
    return false;
  }
}

function parseManifest(body) {
  let manifest;
  try {
    manifest = JSON.parse(fromUtf8(body));
  } catch {
    throw new Refusal("unsupported", "The manifest is not understood: it is not JSON.");
  }
  const wrong = firstWrong(manifest);
  if (wrong) throw new Refusal("unsupported", `The manifest is not understood (${wrong}): this page knows ${SCHEMA}.`);
  return { staging: { basis_points: BASIS, paused: false, salt: "" }, fallback: null, ...manifest };
}

const isText = (value) => typeof value === "string" && value.length > 0;
const isCount = (value) => Number.isSafeInteger(value) && value >= 0;
const isPointer = (value) => isText(value?.blob) && /^[0-9a-f]{64}$/.test(value?.sha256) && isCount(value?.size);
const isMobile = (value) =>
  isPointer(value) && Array.isArray(value.labels) && value.labels.every(isText) && isText(value.contract?.input?.dtype) && isPointer(value.selftest ?? value);
const isPolicy = (value) => typeof value?.threshold === "number" && value.threshold >= 0 && value.threshold <= 2;
const isStaging = (value) => isCount(value?.basis_points) && value.basis_points <= BASIS && typeof value?.salt === "string";

function firstWrong(manifest) {
  const checks = {
    schema: manifest?.schema === SCHEMA,
    sequence: isCount(manifest?.sequence) && manifest.sequence >= 1,
    channel: isText(manifest?.channel),
    release: isText(manifest?.release),
    mobile: isMobile(manifest?.mobile),
    policy: isPolicy(manifest?.policy),
    staging: manifest?.staging === undefined || isStaging(manifest.staging),
    fallback: manifest?.fallback == null || (isText(manifest.fallback.release) && isMobile(manifest.fallback.mobile) && isPolicy(manifest.fallback.policy)),
  };
  return Object.keys(checks).find((name) => !checks[name]);
}

function checkSequence(found, seen) {
  if (found.sequence < seen.sequence) {
    throw new Refusal("rollback", `The channel has sequence ${found.sequence}, and this browser has seen ${seen.sequence}: a stale cache, or an attack.`);
  }
  if (found.sequence === seen.sequence && seen.digest && found.digest !== seen.digest) {
    throw new Refusal("rollback", `This is another manifest than the one of sequence ${seen.sequence} that this browser has seen.`);
  }
}

/** The installation's number in [0, 10000) for this channel and salt. */
export async function bucket(channel, salt, installation) {
  const digest = await sha256(toUtf8(`${channel}:${salt}:${installation}`));
  return new DataView(digest.buffer).getUint32(0) % BASIS;
}

/** Whether this installation is to use the candidate. */
export async function includes(staging, channel, installation, hasCandidate) {
  const inside = staging.basis_points >= BASIS || (await bucket(channel, staging.salt, installation)) < staging.basis_points;
  return inside && (hasCandidate || !staging.paused);
}
