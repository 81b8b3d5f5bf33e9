// What this browser keeps: a state for each channel, and models by their digests. One transaction is the swap.

const DATABASE = "dual-web";

const settled = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

export class Shelf {
  #database;

  constructor(database) {
    this.#database = database;
  }

  static async open() {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => ["states", "models"].forEach((name) => request.result.createObjectStore(name));
    return new Shelf(await settled(request));
  }

  /** The state of a channel; a new installation if there is none. */
  async read(channel) {
    const found = await settled(this.#database.transaction("states").objectStore("states").get(channel));
    return found ?? { installation: crypto.randomUUID(), sequence: 0, digest: "", current: null, previous: null, refused: {} };
  }

  /** A model's {bytes, selftest}, or undefined. */
  model(digest) {
    return settled(this.#database.transaction("models").objectStore("models").get(digest));
  }

  /** Replace the state, and put a model beside it if one is given: both or neither; models that no state names are removed. */
  async write(channel, state, digest = "", model = null) {
    const transaction = this.#database.transaction(["states", "models"], "readwrite", { durability: "strict" });
    const done = new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve();
      transaction.onabort = () => reject(transaction.error);
    });
    const [states, models] = ["states", "models"].map((name) => transaction.objectStore(name));
    states.put(state, channel);
    if (model) models.put(model, digest);
    const all = await settled(states.getAll());
    const needed = new Set(all.flatMap(({ current, previous }) => [current, previous]).filter(Boolean).map(({ mobile }) => mobile.sha256));
    for (const key of await settled(models.getAllKeys())) if (!needed.has(key)) models.delete(key);
    return done;
  }
}
