/** A folder as one tar, for the upload: its files are read as they are sent, none before. */

const BLOCK = 512;
const NAME_BYTES = 100;
const encoder = new TextEncoder();

/** files: [{ path, file }]. */
export function tarOf(files) {
  const parts = [];
  for (const { path, file } of files) {
    const name = encoder.encode(path);
    if (name.length > NAME_BYTES || name.length !== path.length) {
      const record = pathRecord(path);
      parts.push(header(encoder.encode("path"), record.length, "x"), ...padded(record));
    }
    parts.push(header(name.slice(0, NAME_BYTES), file.size, "0"), ...padded(file));
  }
  parts.push(new Uint8Array(2 * BLOCK));
  return new Blob(parts, { type: "application/x-tar" });
}

/** The files below what was dropped or chosen; null where that is no folder. */
export async function filesIn(entries) {
  if (!entries.some(({ isDirectory }) => isDirectory)) return null;
  const found = [];
  for (const entry of entries) await walk(entry, found);
  return found;
}

async function walk(entry, found) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    found.push({ path: entry.fullPath.replace(/^\//, ""), file });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) return;
    for (const inner of some) await walk(inner, found);
  }
}

/** A header of the format ustar. */
function header(name, size, type) {
  const block = new Uint8Array(BLOCK);
  const write = (text, at) => block.set(encoder.encode(text), at);
  const octal = (number, digits) => `${number.toString(8).padStart(digits, "0")}\0`;
  block.set(name, 0);
  write(octal(0o644, 7), 100);
  write(octal(0, 7), 108);
  write(octal(0, 7), 116);
  write(octal(size, 11), 124);
  write(octal(0, 11), 136);
  write(" ".repeat(8), 148);
  write(type, 156);
  write("ustar\x0000", 257);
  const sum = block.reduce((total, byte) => total + byte, 0);
  write(`${octal(sum, 6)} `, 148);
  return block;
}

/** "LENGTH path=PATH\n", whose length counts its own digits. */
function pathRecord(path) {
  const rest = encoder.encode(` path=${path}\n`).length;
  let length = rest + 1;
  while (String(length).length + rest !== length) length = String(length).length + rest;
  return encoder.encode(`${length} path=${path}\n`);
}

function padded(content) {
  const size = content.size ?? content.length;
  return [content, new Uint8Array((BLOCK - (size % BLOCK)) % BLOCK)];
}
