// Reads arrays of a cube with zarrita.js: node read_with_zarrita.mjs CUBE OUT ARRAY...
// Writes each array's values to OUT/<array>.bin and prints shapes and attributes as JSON. Exits with 3 without zarrita.
import { writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

let zarr, FileSystemStore;
try {
  zarr = await import("zarrita");
  ({ default: FileSystemStore } = await import("@zarrita/storage/fs"));
} catch {
  process.exit(3);
}

const [cube, out, ...paths] = process.argv.slice(2);
const found = {};
if (cube !== undefined) {
  const root = zarr.root(new FileSystemStore(resolve(cube)));
  for (const path of paths) {
    const array = await zarr.open.v3(root.resolve(path), { kind: "array" });
    const read = await zarr.get(array);
    // A scalar comes as itself, anything else as {data, shape, stride} in C order.
    const data = array.shape.length === 0 ? await scalar(array) : read.data;
    writeFileSync(join(out, `${path.replaceAll("/", ".")}.bin`), new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    found[path] = { shape: array.shape, attributes: array.attrs };
  }
}
console.log(JSON.stringify(found));

async function scalar(array) {
  return (await array.getChunk([])).data;
}
