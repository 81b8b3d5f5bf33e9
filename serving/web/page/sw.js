// Lets the page open without a network: its own files, LiteRT.js and settings.json are kept. What is published is not kept here: the page
// verifies that, and keeps it in its own database. What the cloud answers is never kept.

const CACHE = "dual-web-1";
const SHELL = [
  "/",
  "/settings.json",
  "/vendor/vendor.json",
  ...["style.css", "page.js", "view.js", "bytes.js", "refusal.js", "trust.js", "pixels.js", "model.js", "shelf.js", "device.js", "layered.js"].map((name) => `/page/${name}`),
];

self.addEventListener("install", (event) => {
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(SHELL)).then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  const old = caches.keys().then((names) => Promise.all(names.filter((name) => name !== CACHE).map((name) => caches.delete(name))));
  event.waitUntil(old.then(() => self.clients.claim()));
});

// The parts of LiteRT.js that this browser turned out to need: before this worker was there, nobody could keep them.
self.addEventListener("message", (event) => {
  const wanted = (event.data?.keep ?? []).filter((url) => isKept(new URL(url)));
  const port = event.ports[0];
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(wanted)).then(() => port?.postMessage("kept")));
});

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (event.request.method === "GET" && isKept(url)) event.respondWith(fresh(event.request));
});

const isKept = (url) => url.origin === self.location.origin && (["/", "/settings.json"].includes(url.pathname) || /^\/(page|vendor)\//.test(url.pathname));

/** From the network where there is one, so that a new page is seen at once; what was kept otherwise. */
async function fresh(request) {
  const cache = await caches.open(CACHE);
  try {
    const answer = await fetch(request);
    if (answer.ok) await cache.put(request, answer.clone());
    return answer;
  } catch (error) {
    const kept = await cache.match(request, { ignoreSearch: true });
    if (kept) return kept;
    throw error;
  }
}
