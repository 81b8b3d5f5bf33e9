// The page: follows the channel, and classifies what a person gives it.

import { Device } from "./device.js";
import { classify } from "./layered.js";
import { decode } from "./pixels.js";
import { Refusal } from "./refusal.js";
import { Shelf } from "./shelf.js";
import * as view from "./view.js";

const $ = (id) => document.getElementById(id);

let settings;
let device;
let opened = null;
let image = null;
let camera = null;

async function start() {
  settings = await (await fetch("/settings.json")).json();
  device = new Device(settings, await Shelf.open());
  listen();
  // What is here already answers at once, also without a network.
  await use();
  await update();
  document.documentElement.dataset.ready = "yes";
  await keepForOffline();
}

/** Put the model in service to work. */
async function use() {
  try {
    const found = await device.open();
    opened?.model.close();
    opened = found;
  } catch (error) {
    view.showRefusal(error.kind ?? "self-test", error.message, "");
  }
  const state = await device.state();
  view.showState({ ...state, channel: settings.channel }, settings.cloud);
  $("ask").disabled = !(opened && image && settings.cloud);
  return state;
}

async function update() {
  $("update").disabled = true;
  try {
    const { outcome, candidate, key, manifest } = await device.update();
    view.showRefusal("", "");
    if (outcome === "installed" || !opened) await use();
    const state = await device.state();
    view.showState({ ...state, channel: settings.channel }, settings.cloud);
    view.showChecks(checked(state, key, candidate, manifest));
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    const state = await use();
    view.showRefusal(error.kind, error.message, state.current?.release);
  } finally {
    $("update").disabled = false;
  }
}

function checked(state, key, candidate, manifest) {
  if (!state.current) return [`Signature of key ${key}: good`, "This browser is outside of the staged percentage, and there is nothing for it yet"];
  const { mobile, policy, release } = state.current;
  const everybody = manifest.staging.basis_points >= 10_000;
  return [
    `Signature of key ${key}: good (Ed25519)`,
    `Sequence ${state.sequence}: nothing older is accepted from now on`,
    `Release ${release}: ${candidate ? (everybody ? "for everybody" : "the candidate, which this browser is among the first to use") : "what everybody had before"}`,
    `${view.bytes(mobile.size)}, SHA-256 ${mobile.sha256.slice(0, 16)}…: as the manifest says`,
    mobile.selftest ? "Golden pictures: answered as its publisher measured" : "Golden pictures: none were published",
    `The cloud is asked below a confidence of ${policy.threshold}`,
  ];
}

async function take(blob, name) {
  if (blob.size > settings.max_image) return view.showError(`The image has ${view.bytes(blob.size)}, more than ${view.bytes(settings.max_image)}.`);
  image = new Uint8Array(await blob.arrayBuffer());
  try {
    view.showImage(await decode(image), name);
  } catch (error) {
    image = null;
    return view.showError(error.message);
  }
  return answer();
}

async function answer(ask = null) {
  if (!image) return;
  if (!opened) return view.showError("There is no model here yet.");
  view.showBusy("Looking …");
  try {
    view.showDecision(await classify(opened.model, opened.installed.policy, settings.cloud, image, ask), opened.installed);
  } catch (error) {
    view.showError(error.message);
  }
  $("ask").disabled = !settings.cloud;
}

function listen() {
  $("choose").addEventListener("change", (event) => event.target.files[0] && take(event.target.files[0], event.target.files[0].name));
  $("ask").addEventListener("click", () => answer(true));
  $("update").addEventListener("click", update);
  $("camera").addEventListener("click", toggleCamera);
  $("shoot").addEventListener("click", shoot);
  for (const name of ["online", "offline"]) addEventListener(name, view.showNetwork);
  const drop = $("drop");
  drop.addEventListener("dragover", (event) => (event.preventDefault(), drop.classList.add("over")));
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const file = event.dataTransfer.files[0];
    if (file) take(file, file.name);
  });
  addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])][0];
    if (file) take(file, "pasted");
  });
}

async function toggleCamera() {
  if (camera) return stopCamera();
  try {
    camera = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" }, audio: false });
  } catch (error) {
    return view.showError(`The camera can't be used (${error.name}): allow it in the browser, or choose a file.`);
  }
  $("video").srcObject = camera;
  await $("video").play();
  showCamera(true);
}

function stopCamera() {
  camera?.getTracks().forEach((track) => track.stop());
  camera = null;
  showCamera(false);
}

function showCamera(on) {
  $("video").hidden = $("shoot").hidden = !on;
  $("preview").hidden = on || !image;
  $("camera").textContent = on ? "Close the camera" : "Use the camera";
}

async function shoot() {
  const video = $("video");
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 });
  stopCamera();
  await take(blob, "from the camera");
}

/** Let the service worker keep what was loaded, so that the page opens without a network next time. */
async function keepForOffline() {
  if (!navigator.serviceWorker) return;
  await navigator.serviceWorker.register("/sw.js");
  const { active } = await navigator.serviceWorker.ready;
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => (document.documentElement.dataset.offline = "yes");
  const keep = performance.getEntriesByType("resource").map((entry) => entry.name).filter((url) => new URL(url).pathname.startsWith("/vendor/"));
  active.postMessage({ keep: [...new Set(keep)] }, [port2]);
}

await start();
