// One installation: takes what a channel publishes to it after every check, and keeps answering with what it has whatever happens.
// The order of an update is that of serving/client/device.py: fetch → signature → channel, model → sequence → percentage → contract →
// size and SHA-256 → tensors and golden answers → swap.

import { concat, sha256Hex } from "./bytes.js";
import { checkContract, Model } from "./model.js";
import { Refusal } from "./refusal.js";
import { checkChannel, includes, LARGEST } from "./trust.js";

export class Device {
  #settings;
  #shelf;

  constructor(settings, shelf) {
    this.#settings = settings;
    this.#shelf = shelf;
  }

  get channel() {
    return this.#settings.channel;
  }

  state() {
    return this.#shelf.read(this.channel);
  }

  /** Take what is published for this browser: {outcome: installed | kept | nothing, manifest, candidate, key}. A Refusal leaves everything as it was. */
  update() {
    // Another tab may be doing the same.
    return navigator.locks.request(`dual-web ${this.channel}`, () => this.#update());
  }

  /** The model in service, or the one before if that can't be loaded any more; null if there is none. */
  async open() {
    const { current, previous } = await this.state();
    for (const installed of [current, previous].filter(Boolean)) {
      const kept = await this.#shelf.model(installed.mobile.sha256);
      if (kept && (await sha256Hex(kept.bytes)) === installed.mobile.sha256) {
        return { installed, model: await Model.load(kept.bytes, installed.mobile, null) };
      }
    }
    return null;
  }

  async #update() {
    const state = await this.state();
    const file = await this.#fetch(`channels/${this.channel}.json`, LARGEST, { cache: "no-cache" });
    const { manifest, seen, key } = await checkChannel(file, this.#settings, state);
    if (seen.sequence !== state.sequence || seen.digest !== state.digest) {
      // From here on nothing older is accepted, whatever becomes of the download. What failed may be tried again.
      Object.assign(state, seen, { refused: {} });
      await this.#shelf.write(this.channel, state);
    }
    const candidate = this.#settings.tester || (await includes(manifest.staging, manifest.channel, state.installation, state.current?.release === manifest.release));
    const half = candidate ? manifest : manifest.fallback;
    const outcome = half ? await this.#take({ release: half.release, mobile: half.mobile, policy: half.policy }, state) : state.current ? "kept" : "nothing";
    return { outcome, manifest, candidate, key };
  }

  async #take(target, state) {
    if (JSON.stringify(target) === JSON.stringify(state.current) && (await this.#shelf.model(target.mobile.sha256))) return "kept";
    checkContract(target.mobile);
    const { sha256: digest } = target.mobile;
    if (state.refused[digest]) throw new Refusal("self-test", `It was refused before: ${state.refused[digest]}`);
    const kept = (await this.#shelf.model(digest)) ?? (await this.#download(target.mobile, state));
    const sameFile = state.current?.mobile.sha256 === digest;
    const swapped = { ...state, current: target, previous: sameFile ? state.previous : state.current };
    await this.#shelf.write(this.channel, swapped, digest, kept);
    return "installed";
  }

  async #download(mobile, state) {
    const bytes = await this.#blob(mobile);
    const selftest = mobile.selftest ? await this.#blob(mobile.selftest) : null;
    try {
      (await Model.load(bytes, mobile, selftest)).close();
    } catch (error) {
      if (error instanceof Refusal) await this.#shelf.write(this.channel, { ...state, refused: { ...state.refused, [mobile.sha256]: error.message } });
      throw error;
    }
    return { bytes, selftest };
  }

  async #blob(pointer) {
    if (pointer.size > this.#settings.max_blob) throw new Refusal("unsupported", `The model has ${pointer.size} bytes, more than this page takes.`);
    const bytes = await this.#fetch(pointer.blob, pointer.size);
    if (bytes.length !== pointer.size) throw new Refusal("damaged", `${pointer.blob} has ${bytes.length} bytes, the manifest says ${pointer.size}.`);
    const found = await sha256Hex(bytes);
    if (found !== pointer.sha256) throw new Refusal("damaged", `${pointer.blob} has SHA-256 ${found}, the manifest says ${pointer.sha256}.`);
    return bytes;
  }

  /** The bytes of a published file; reading stops one byte after `limit`. */
  async #fetch(name, limit, how = {}) {
    let answer;
    try {
      answer = await fetch(`${this.#settings.store}${name}`, how);
    } catch {
      throw new Refusal("offline", "The store can't be reached.");
    }
    if (answer.status === 404) {
      if (name.startsWith("channels/")) throw new Refusal("offline", `Nothing is published in the channel ${this.channel} yet.`);
      throw new Refusal("damaged", `${name} is not there, though the channel names it.`);
    }
    if (!answer.ok) throw new Refusal("offline", `The store refuses (${answer.status}).`);
    return readUpTo(answer.body.getReader(), limit);
  }
}

async function readUpTo(reader, limit) {
  const parts = [];
  let size = 0;
  try {
    while (size <= limit) {
      const { done, value } = await reader.read();
      if (done) break;
      parts.push(value);
      size += value.length;
    }
  } catch {
    throw new Refusal("offline", "The connection broke.");
  }
  await reader.cancel();
  return concat(...parts);
}
