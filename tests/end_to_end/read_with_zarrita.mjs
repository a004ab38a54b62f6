// Reads arrays of a cube with zarrita.js: node read_with_zarrita.mjs CUBE OUT ARRAY...
// CUBE is a folder or an http address. Writes each array's values to OUT/<array>.bin and prints shapes, attributes and
// zarrita's version as JSON.
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import * as zarr from "zarrita";
import FileSystemStore from "@zarrita/storage/fs";
import FetchStore from "@zarrita/storage/fetch";

const here = dirname(fileURLToPath(import.meta.url));
const [cube, out, ...paths] = process.argv.slice(2);
const store = /^https?:/.test(cube) ? new FetchStore(cube) : new FileSystemStore(resolve(cube));
const root = zarr.root(store);
const found = { version: JSON.parse(readFileSync(join(here, "node_modules/zarrita/package.json"))).version };
for (const path of paths) {
  const array = await zarr.open.v3(root.resolve(path), { kind: "array" });
  // A scalar comes as itself, anything else as {data, shape, stride} in C order.
  const { data } = array.shape.length === 0 ? await array.getChunk([]) : await zarr.get(array);
  writeFileSync(join(out, `${path.replaceAll("/", ".")}.bin`), new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  found[path] = { shape: array.shape, attributes: array.attrs };
}
console.log(JSON.stringify(found));
