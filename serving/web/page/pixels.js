// An image's bytes as the mobile model takes them; the arithmetic is that of serving/client/pixels.py.

const MOST_PIXELS = 89_000_000;

/** JPEG or PNG bytes → {data: Uint8Array RGB, height, width}, orientation tags unheeded as in the cloud's graph. Throws an Error that says why not. */
export async function decode(bytes) {
  const kind = kindOf(bytes);
  if (!kind) throw new Error("This is not a JPEG or PNG image.");
  const size = kind === "image/jpeg" ? jpegSize(bytes) : pngSize(bytes);
  if (!size || size.width * size.height > MOST_PIXELS) throw new Error("The image is damaged, or has more than 89 megapixels.");
  const plain = kind === "image/jpeg" ? withoutMetadata(bytes) : bytes;
  let bitmap;
  try {
    bitmap = await createImageBitmap(new Blob([plain], { type: kind }), { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new Error("The image can't be decoded.");
  }
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  const found = { data: withoutAlpha(data), height: bitmap.height, width: bitmap.width };
  bitmap.close();
  return found;
}

/** RGB [h, w, 3] → Uint8Array RGB [height, width, 3]: antialiased bilinear, rounded half to even. */
export function resize(image, height, width) {
  const rows = weights(image.height, height);
  const columns = weights(image.width, width);
  const stride = image.width * 3;
  const narrow = new Float32Array(height * stride);
  rows.forEach(({ first, values }, y) => {
    for (let x = 0; x < stride; x++) {
      let sum = 0;
      for (let k = 0; k < values.length; k++) sum += values[k] * image.data[(first + k) * stride + x];
      narrow[y * stride + x] = sum;
    }
  });
  const out = new Uint8Array(height * width * 3);
  for (let y = 0; y < height; y++) {
    columns.forEach(({ first, values }, x) => {
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let k = 0; k < values.length; k++) sum += values[k] * narrow[y * stride + (first + k) * 3 + c];
        out[(y * width + x) * 3 + c] = Math.min(255, Math.max(0, halfToEven(sum)));
      }
    });
  }
  return out;
}

/** How much each input sample counts for each output sample: a triangle, stretched where the image becomes smaller, normalised. */
function weights(source, target) {
  const scale = source / target;
  const stretch = Math.max(scale, 1);
  return Array.from({ length: target }, (_, index) => {
    const centre = (index + 0.5) * scale;
    const first = Math.max(0, Math.floor(centre - stretch - 0.5));
    const end = Math.min(source, Math.ceil(centre + stretch + 0.5));
    const raw = Array.from({ length: end - first }, (_, k) => Math.max(0, 1 - Math.abs(first + k + 0.5 - centre) / stretch));
    const sum = raw.reduce((total, value) => total + value, 0);
    return { first, values: Float32Array.from(raw, (value) => value / sum) };
  });
}

function halfToEven(value) {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 ? floor + 1 : floor;
}

function withoutAlpha(rgba) {
  const rgb = new Uint8Array((rgba.length / 4) * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4, to += 3) {
    rgb[to] = rgba[from];
    rgb[to + 1] = rgba[from + 1];
    rgb[to + 2] = rgba[from + 2];
  }
  return rgb;
}

function kindOf(bytes) {
  if (bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff) return "image/jpeg";
  return [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a].every((byte, at) => bytes[at] === byte) ? "image/png" : "";
}

function pngSize(bytes) {
  if (bytes.length < 24) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  return { width: view.getUint32(16), height: view.getUint32(20) };
}

/** The segments of a JPEG before its first scan: {marker, start, end}. */
function* segments(bytes) {
  let at = 2;
  while (at + 4 <= bytes.length && bytes[at] === 0xff) {
    const marker = bytes[at + 1];
    if (marker === 0xff) {
      at += 1;
      continue;
    }
    const end = at + 2 + ((bytes[at + 2] << 8) | bytes[at + 3]);
    if (marker === 0xda || end > bytes.length) return;
    yield { marker, start: at, end };
    at = end;
  }
}

function jpegSize(bytes) {
  for (const { marker, start } of segments(bytes)) {
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      return { height: (bytes[start + 5] << 8) | bytes[start + 6], width: (bytes[start + 7] << 8) | bytes[start + 8] };
    }
  }
  return null;
}

/** Without Exif and colour profiles (APP1, APP2): a browser would turn and recolour what the model was trained on as stored. */
function withoutMetadata(bytes) {
  const cut = [...segments(bytes)].filter(({ marker }) => marker === 0xe1 || marker === 0xe2);
  if (!cut.length) return bytes;
  const kept = [];
  let from = 0;
  for (const { start, end } of cut) {
    kept.push(bytes.subarray(from, start));
    from = end;
  }
  kept.push(bytes.subarray(from));
  const whole = new Uint8Array(kept.reduce((sum, part) => sum + part.length, 0));
  kept.reduce((at, part) => (whole.set(part, at), at + part.length), 0);
  return whole;
}
