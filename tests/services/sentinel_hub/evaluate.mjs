// Runs evalscripts V3. Each message, both ways: length of a header (uint32, little endian), the header as JSON, and
// as many bytes of arrays as its `bytes` says. A script lives from its `setup` to the next one, with its globals.
import vm from "node:vm";

const RANGES = {
  INT8: [-128, 127, Int8Array], UINT8: [0, 255, Uint8Array], INT16: [-32768, 32767, Int16Array],
  UINT16: [0, 65535, Uint16Array], FLOAT32: [null, null, Float32Array], AUTO: [0, 255, Uint8Array],
};
const CONSTANTS = {
  Mosaicking: { SIMPLE: "SIMPLE", ORBIT: "ORBIT", TILE: "TILE" },
  SampleType: Object.fromEntries(Object.keys(RANGES).map((name) => [name, name])),
  Units: { DN: "DN", REFLECTANCE: "REFLECTANCE" },
};

// Runs inside of the script's world, so that its arrays and objects are those of the script.
const LOOP = `(function (api, n, names, masked, scenes, meta, put, mosaicking, sparse) {
  const make = names.map((_, s) => new Function("a", "return function (i) { return {" +
    api.bands.map((band, b) => JSON.stringify(band) + ": a[" + b + "][i]").join(", ") + "}; }")(names[s]));
  const key = mosaicking === "TILE" ? "tiles" : "orbits";
  for (let i = 0; i < n; i++) {
    if (mosaicking === "SIMPLE") {
      put(evaluatePixel(make[0](i), {}, meta.input, {}, meta.output), i);
      continue;
    }
    let samples = [], here = scenes;
    if (sparse) {
      here = { [key]: [] };
      for (let s = 0; s < make.length; s++) {
        if (masked[s][i]) { samples.push(make[s](i)); here[key].push(scenes[key][s]); }
      }
    } else {
      for (let s = 0; s < make.length; s++) samples.push(make[s](i));
    }
    put(evaluatePixel(samples, here, meta.input, {}, meta.output), i);
  }
})`;

let world = null;

function setUp({ evalscript }) {
  if (!evalscript.trimStart().startsWith("//VERSION=3")) throw new Error("the script does not start with //VERSION=3");
  const context = vm.createContext({}, { codeGeneration: { strings: true, wasm: false } });
  for (const [name, value] of Object.entries(CONSTANTS)) context[name] = value;
  vm.runInContext(evalscript, context, { filename: "evalscript.js", timeout: 5000 });
  const is = (name) => vm.runInContext(`typeof ${name} === "function"`, context);
  for (const name of ["setup", "evaluatePixel"]) {
    if (!is(name)) throw new Error(`function ${name} is missing`);
  }
  world = { context, is, parse: vm.runInContext("JSON.parse", context) };
  return { setup: JSON.parse(vm.runInContext("JSON.stringify(setup())", context)) };
}

function preProcess({ mosaicking, scenes, from, to, bands, meta }) {
  const { context, is, parse } = world;
  world.mosaicking = mosaicking;
  world.meta = { input: parse(JSON.stringify(meta)), output: parse('{"userData": {}}') };
  const key = mosaicking === "TILE" ? "tiles" : "orbits";
  let kept = parse(JSON.stringify(scenes));
  if (mosaicking !== "SIMPLE" && is("preProcessScenes")) {
    context.__text = JSON.stringify(mosaicking === "TILE" ? scenes : scenes.map(({ tiles, ...orbit }) => orbit));
    context.__interval = [from, to];
    vm.runInContext(`__given = { scenes: { ${key}: JSON.parse(__text) } };
      ${mosaicking === "ORBIT" ? "__given.from = new Date(__interval[0]); __given.to = new Date(__interval[1]);" : ""}
      __returned = preProcessScenes(__given);`, context);
    const returned = context.__returned?.scenes?.[key];
    if (!Array.isArray(returned)) throw new Error(`preProcessScenes returned no scenes.${key}`);
    kept = parse(JSON.stringify(Array.from(returned, (scene) => scenes[scene.__idx])));
  }
  world.scenes = mosaicking === "SIMPLE" ? parse("{}") : { [key]: kept };
  const outputs = parse(JSON.stringify(bands));
  if (is("updateOutput")) {
    context.__outputs = outputs;
    context.__dates = Array.from(kept, (scene) => scene.date ?? scene.dateFrom);
    vm.runInContext("updateOutput(__outputs, { scenes: __dates.map((date) => ({ date: new Date(date) })) })", context);
  }
  for (const name of ["__text", "__interval", "__given", "__returned", "__outputs", "__dates"]) delete context[name];
  return { kept: Array.from(kept, (scene) => scene.__idx), bands: outputs };
}

function evaluate({ n, bands, scenes, outputs, sparse }, blob) {
  const { context, mosaicking, meta } = world;
  const floats = new Float32Array(blob.buffer.slice(blob.byteOffset, blob.byteOffset + blob.length));
  const arrays = [], masked = [];
  for (let s = 0, at = 0; s < scenes; s++) {
    arrays.push(bands.map(() => floats.subarray(at, (at += n))));
    masked.push(floats.subarray(at, (at += n)));
  }
  const filled = outputs.map(({ bands, sampleType }) => new RANGES[sampleType][2](bands * n));
  const put = (returned, i) => {
    outputs.forEach(({ id, bands, sampleType }, o) => {
      const values = Array.isArray(returned) && outputs.length === 1 ? returned : returned?.[id];
      if (values === undefined || values === null) throw new Error(`evaluatePixel returned nothing for output "${id}"`);
      if (values.length !== bands) throw new Error(`output "${id}" has ${bands} bands, got ${values.length}`);
      const [low, high] = RANGES[sampleType], scale = sampleType === "AUTO" ? 255 : 1;
      for (let b = 0; b < bands; b++) {
        const value = Number(values[b]) * scale;
        filled[o][b * n + i] = low === null ? value : Math.min(high, Math.max(low, Math.round(value)));
      }
    });
  };
  const loop = vm.runInContext(LOOP, context);
  loop({ bands }, n, arrays, masked, world.scenes, meta, put, mosaicking, sparse);
  if (world.is("updateOutputMetadata")) {
    vm.runInContext("updateOutputMetadata", context)(world.scenes, meta.input, meta.output);
  }
  const bytes = filled.map((array) => Buffer.from(array.buffer));
  return [{ userData: meta.output.userData ?? null, sizes: bytes.map((part) => part.length) }, Buffer.concat(bytes)];
}

const STEPS = { setup: setUp, scenes: preProcess, run: evaluate };

function answer(header, blob) {
  let reply, bytes = Buffer.alloc(0);
  try {
    const result = STEPS[header.step](header, blob);
    [reply, bytes] = Array.isArray(result) ? result : [result, bytes];
  } catch (error) {
    reply = { error: String(error?.message ?? error) };
  }
  const text = Buffer.from(JSON.stringify({ ...reply, bytes: bytes.length }));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(text.length);
  process.stdout.write(Buffer.concat([length, text, bytes]));
}

let pending = [], size = 0;
process.stdin.on("data", (piece) => {
  pending.push(piece);
  size += piece.length;
  for (;;) {
    if (size < 4) return;
    if (pending.length > 1 && pending[0].length < 4) pending = [Buffer.concat(pending)];
    const head = pending[0].readUInt32LE(0);
    if (size < 4 + head) return;
    if (pending[0].length < 4 + head) pending = [Buffer.concat(pending)];
    const header = JSON.parse(pending[0].subarray(4, 4 + head));
    const all = 4 + head + (header.bytes ?? 0);
    if (size < all) return;
    const whole = pending.length > 1 ? Buffer.concat(pending) : pending[0];
    answer(header, whole.subarray(4 + head, all));
    pending = [whole.subarray(all)];
    size -= all;
  }
});
