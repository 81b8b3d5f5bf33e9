// The published .tflite in LiteRT.js: its contract, its golden answers, its answers.

import { fromBase64, fromUtf8 } from "./bytes.js";
import { decode, resize } from "./pixels.js";
import { Refusal } from "./refusal.js";

const SELFTEST = "dual.selftest/v1";
const STEPS = 256;
/** TFLite's version in LiteRT.js, on the safe side: it can't be asked. */
export const RUNTIME = "2.20.0";

let runtime;

/** LiteRT.js, loaded once from this origin. */
export function loadRuntime(root = "/vendor/") {
  runtime ??= (async () => {
    const litert = await import(`${root}core/index.js`);
    await litert.loadLiteRt(`${root}core/wasm/`);
    return litert;
  })();
  return runtime;
}

/** Refuse what this page can't feed, before anything is downloaded. */
export function checkContract(mobile) {
  const { preprocessing: how, input, output } = mobile.contract;
  const pixels = how?.method === "bilinear" && how.antialias === true && how.aspect === "stretch" && how.dtype === "uint8" && how.channels === 3;
  const expected = [
    [input, [1, how?.height, how?.width, 3], 1],
    [output, [1, mobile.labels.length], 1 / STEPS],
  ];
  const same = expected.every(([tensor, shape, scale]) => tensor?.dtype === "uint8" && `${tensor.shape}` === `${shape}` && tensor.scale === scale && !tensor.zero_point);
  if (!pixels || !same) throw new Refusal("unsupported", "The model's tensors are not those that this page knows: it needs an update.");
  if (mobile.minimum_runtime && isNewer(mobile.minimum_runtime, RUNTIME)) {
    throw new Refusal("unsupported", `The model needs TFLite ${mobile.minimum_runtime}, this page has ${RUNTIME}.`);
  }
}

export function isNewer(version, than) {
  const [ours, theirs] = [version, than].map((text) => text.split(".").map(Number));
  const at = ours.findIndex((part, index) => part !== theirs[index]);
  return at >= 0 && ours[at] > theirs[at];
}

/** A loaded model that has passed its self-test. */
export class Model {
  #litert;
  #compiled;

  constructor(litert, compiled, mobile) {
    this.#litert = litert;
    this.#compiled = compiled;
    this.mobile = mobile;
  }

  /** Load the bytes and compare tensors and golden answers; throws a Refusal of the kind self-test. */
  static async load(bytes, mobile, selftest) {
    let model;
    try {
      const litert = await loadRuntime();
      model = new Model(litert, await litert.loadAndCompile(bytes, { accelerator: "wasm" }), mobile);
    } catch (error) {
      throw new Refusal("self-test", `The model can't be run in this browser (${error.message ?? error}).`);
    }
    model.#checkTensors();
    if (selftest) await model.#checkAnswers(selftest);
    return model;
  }

  /** JPEG or PNG bytes → {label, score, probabilities, milliseconds}; throws an Error if they are no such image. */
  async classify(bytes) {
    const began = performance.now();
    const { height, width } = this.mobile.contract.preprocessing;
    const raw = await this.run(resize(await decode(bytes), height, width));
    const best = raw.indexOf(Math.max(...raw));
    const probabilities = [...raw].map((step) => step / STEPS);
    return { label: this.mobile.labels[best], score: probabilities[best], probabilities, milliseconds: performance.now() - began };
  }

  /** Uint8Array RGB [H, W, 3] → Uint8Array [C], the model's own output. */
  async run(pixels) {
    const input = new this.#litert.Tensor(pixels, this.mobile.contract.input.shape);
    try {
      const outputs = await this.#compiled.run(input);
      const raw = Uint8Array.from(await outputs[0].data());
      outputs.forEach((output) => output.delete());
      return raw;
    } finally {
      input.delete();
    }
  }

  close() {
    this.#compiled.delete();
  }

  #checkTensors() {
    const found = [this.#compiled.getInputDetails(), this.#compiled.getOutputDetails()];
    const promised = [this.mobile.contract.input, this.mobile.contract.output];
    found.forEach((details, at) => {
      const shape = `${Array.from(details[0].shape)}`;
      if (details.length !== 1 || shape !== `${promised[at].shape}` || details[0].dtype !== promised[at].dtype) {
        throw new Refusal("self-test", `The model's tensors are ${details[0].dtype} [${shape}], the contract says ${promised[at].dtype} [${promised[at].shape}].`);
      }
    });
  }

  async #checkAnswers(selftest) {
    const test = JSON.parse(fromUtf8(selftest));
    if (test.schema !== SELFTEST) throw new Refusal("self-test", `The self-test is '${test.schema}', this page knows ${SELFTEST}.`);
    for (const [number, picture] of test.images.entries()) {
      const raw = await this.run((await decode(fromBase64(picture.pixels))).data);
      const worst = Math.max(...picture.probabilities.map((step, at) => Math.abs(step - raw[at])));
      if (raw.length !== picture.probabilities.length || worst > test.tolerance) {
        throw new Refusal("self-test", `Golden picture ${number} (${picture.label}): an output is off by ${worst} steps of 1/256, ${test.tolerance} are allowed.`);
      }
    }
  }
}
