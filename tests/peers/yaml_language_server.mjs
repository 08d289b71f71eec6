// Asks the real yaml-language-server (from npm) about a pipeline, over stdio: two diagnostics, and completions of a key, an operator and a
// choice; all of them from `retort schema`.
//
//   npm install --prefix /tmp/yls yaml-language-server@1.25.0
//   node tests/peers/yaml_language_server.mjs /tmp/yls/node_modules/.bin/yaml-language-server pipelines/pipeline.schema.json
//
// Prints what it was told; ends with 1 if any of it is missing.
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [server, schema] = process.argv.slice(2);
if (!schema) {
  console.error("usage: yaml_language_server.mjs SERVER SCHEMA");
  process.exit(2);
}
const folder = mkdtempSync(join(tmpdir(), "retort-yls-"));
writeFileSync(join(folder, "pipeline.schema.json"), readFileSync(schema));
const child = spawn(server, ["--stdio"], { stdio: ["pipe", "pipe", "inherit"] });

// Messages: a header with a length, an empty line, JSON.
let buffer = Buffer.alloc(0);
let next = 1;
const waiting = new Map();
const published = new Map();
const send = (message) => {
  const body = Buffer.from(JSON.stringify({ jsonrpc: "2.0", ...message }));
  child.stdin.write(`Content-Length: ${body.length}\r\n\r\n`);
  child.stdin.write(body);
};
const request = (method, params) =>
  new Promise((done) => {
    waiting.set(next, done);
    send({ id: next++, method, params });
  });
child.stdout.on("data", (data) => {
  buffer = Buffer.concat([buffer, data]);
  for (;;) {
    const end = buffer.indexOf("\r\n\r\n");
    if (end < 0) return;
    const length = Number(/Content-Length: (\d+)/i.exec(buffer.subarray(0, end))[1]);
    if (buffer.length < end + 4 + length) return;
    const message = JSON.parse(buffer.subarray(end + 4, end + 4 + length));
    buffer = buffer.subarray(end + 4 + length);
    if (message.method === "textDocument/publishDiagnostics") {
      published.get(message.params.uri)?.(message.params.diagnostics);
    } else if (message.method && message.id !== undefined) {
      // What it asks of an editor: no settings of its own.
      send({ id: message.id, result: message.method === "workspace/configuration" ? message.params.items.map(() => null) : null });
    } else if (waiting.has(message.id)) {
      waiting.get(message.id)(message.result);
      waiting.delete(message.id);
    }
  }
});

const HEAD = "# yaml-language-server: $schema=./pipeline.schema.json\nretort: 1\nnodes:\n";
const open = (name, text) => {
  const path = join(folder, name);
  writeFileSync(path, text);
  const uri = pathToFileURL(path).href;
  const diagnostics = new Promise((done) => published.set(uri, done));
  send({ method: "textDocument/didOpen", params: { textDocument: { uri, languageId: "yaml", version: 1, text } } });
  return { uri, diagnostics };
};
const complete = async (name, text) => {
  const at = text.indexOf("@");
  const before = text.slice(0, at).split("\n");
  const { uri } = open(name, text.slice(0, at) + text.slice(at + 1));
  const position = { line: before.length - 1, character: before.at(-1).length };
  const found = await request("textDocument/completion", { textDocument: { uri }, position });
  return (found.items ?? found).map((item) => item.label);
};

const watchdog = setTimeout(() => {
  console.error("no answer within 60 s");
  child.kill();
  process.exit(1);
}, 60_000);
await request("initialize", { processId: process.pid, rootUri: pathToFileURL(folder).href, capabilities: {} });
send({ method: "initialized", params: {} });
send({
  method: "workspace/didChangeConfiguration",
  params: { settings: { yaml: { validate: true, completion: true, hover: true, schemaStore: { enable: false } } } },
});

const failures = [];
const must = (what, there) => {
  if (!there) failures.push(what);
};

const bad = open("bad.yaml", `${HEAD}  documents: {op: extract, with: {paths: [docs]}}\n  chunks:\n    op: chunk\n    from: documents\n    with: {max_word: 250, by: page}\n`);
for (const { range, message } of await bad.diagnostics) {
  console.log(`bad.yaml:${range.start.line + 1}:${range.start.character + 1}: ${message.split("\n").join(" / ")}`);
  must("the places of the mistakes", range.start.line === 7);
}
const told = (await bad.diagnostics).map((one) => one.message).join("\n");
must("the unknown key", told.includes("max_word"));
must("the choices of `by`", /headings/.test(told) || /Value is not accepted/.test(told));
const good = open("good.yaml", `${HEAD}  documents: {op: extract, with: {paths: ["docs/**/*"]}}\n`);
console.log(`good.yaml: ${(await good.diagnostics).length} diagnostics`);
must("a good file is good", (await good.diagnostics).length === 0);

const keys = await complete("keys.yaml", `${HEAD}  chunks:\n    op: chunk\n    from: documents\n    with:\n      @\n`);
console.log(`keys of chunk: ${keys.join(", ")}`);
must("keys of `chunk`", ["max_tokens", "max_words", "overlap", "by"].every((key) => keys.includes(key)));
must("no keys of other operators", !keys.includes("paths"));
const ops = await complete("ops.yaml", `${HEAD}  chunks:\n    op: @\n`);
console.log(`operators: ${ops.join(", ")}`);
must("operators", ["chunk", "extract", "prompt-llm"].every((op) => ops.includes(op)));
const choices = await complete("choices.yaml", `${HEAD}  chunks:\n    op: chunk\n    with:\n      by: @\n`);
console.log(`choices of by: ${choices.join(", ")}`);
must("choices of `by`", ["headings", "paragraphs", "sentences"].every((choice) => choices.includes(choice)));
const hover = await request("textDocument/hover", { textDocument: { uri: good.uri }, position: { line: 3, character: 36 } });
console.log(`hover over paths: ${JSON.stringify(hover?.contents?.value ?? hover?.contents ?? null).slice(0, 160)}`);
must("a description of `paths`", JSON.stringify(hover ?? "").includes("Globs"));

clearTimeout(watchdog);
child.kill();
rmSync(folder, { recursive: true });
for (const failure of failures) console.error(`missing: ${failure}`);
process.exit(failures.length ? 1 : 0);
