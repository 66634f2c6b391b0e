// Generate images with a bundle, invert them, and generate them again, with onnxruntime-node alone:
// node round_trip.mjs BUNDLE FOLDER SEEDS [LABELS]      for example: digits.bundle out 7,8,9 3,1,4
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { InferenceSession, Tensor } from "onnxruntime-node";

const MASK = 2n ** 64n - 1n, START = 0n, INVERSION = 2n ** 32n; // draws of a seed; 1, 2, … are injections
const [bundle, folder, ...lists] = process.argv.slice(2);
const [seeds, labels] = lists.map((list) => list.split(",").map(BigInt));
const { model, graphs, schedules } = JSON.parse(readFileSync(`${bundle}/manifest.json`, "utf8"));
const forward = await InferenceSession.create(`${bundle}/${graphs.fp32.forward}`);
const inverse = await InferenceSession.create(`${bundle}/${graphs.fp32.inverse}`);
const [C, H, W] = model.sample_shape, size = C * H * W, count = seeds.length, shape = [count, C, H, W];

function uniform(seed, draw, count) { // numbers in (0, 1) from Philox4x64-10 with the key (seed, draw)
  const words = [];
  for (let block = 1n; words.length < count; block++) {
    let [a, b, c, d, k, l] = [block, 0n, 0n, 0n, seed, draw];
    for (let round = 0; round < 10; round++) {
      const p = 0xd2e7470ee14c6c93n * a, q = 0xca5a826395121157n * c;
      [a, b, c, d] = [(q >> 64n) ^ b ^ k, q & MASK, (p >> 64n) ^ d ^ l, p & MASK];
      [k, l] = [(k + 0x9e3779b97f4a7c15n) & MASK, (l + 0xbb67ae8584caa73bn) & MASK];
    }
    words.push(a, b, c, d);
  }
  return words.map((word) => (Number(word >> 11n) + 0.5) * 2 ** -53);
}

function standardNormal(draw) { // Float32Array, N images. Image i depends on seeds[i] and draw alone
  return Float32Array.from(seeds.flatMap((seed) => {
    const half = Math.ceil(size / 2), random = uniform(seed, draw, 2 * half);
    const z = (i, wave) => Math.sqrt(-2 * Math.log(random[i])) * wave(2 * Math.PI * random[half + i]);
    return Array.from({ length: size }, (_, i) => (i < half ? z(i, Math.cos) : z(i - half, Math.sin)));
  }));
}

async function play(schedule, x) { // the state after a schedule such as "80>0.002 +0.1 0.1>1.2>0.002"
  let noise = x.map(() => 0), injections = 0n;
  for (const [i, word] of schedule.split(" ").entries()) {
    const levels = word.split(">").map(Number);
    if (word[0] === "+") noise = standardNormal(i ? ++injections : INVERSION).map((z) => levels[0] * z);
    for (let j = 1; j < levels.length; j++) {
      const perSample = (level) => new Tensor(new Float32Array(count).fill(level), [count]);
      const inputs = { t: perSample(levels[j - 1]), u: perSample(levels[j]) }, up = levels[j] > levels[j - 1];
      inputs.x = new Tensor(up ? x : x.map((value, k) => value + noise[k]), shape);
      if (up) inputs.noise = new Tensor(noise, shape);
      if (labels) inputs.label = new Tensor("int64", labels, [count]);
      x = (await (up ? inverse : forward).run(inputs)).x_u.data;
      noise = x.map(() => 0);
    }
  }
  return x;
}

const clip = (x) => x.map((value) => Math.min(Math.max(value, -1), 1));
const images = clip(await play(schedules["mixture-4"], standardNormal(START).map((z) => 80 * z)));
const latents = (await play(schedules["invert-2"], images)).map((value) => value / 80);
const again = clip(await play(schedules["one-step"], latents.map((z) => 80 * z)));
mkdirSync(folder, { recursive: true });
for (const [name, x] of Object.entries({ images, latents, again })) writeFileSync(`${folder}/${name}.f32`, x);
