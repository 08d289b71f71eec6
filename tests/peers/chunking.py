#!/usr/bin/env python3
"""Chunks the same documents with retort and its peers, by the same tokenizer, and counts what went wrong.

    python3 -m venv /tmp/peers && /tmp/peers/bin/pip install -r tests/peers/chunking.txt
    cargo build --release --workspace --bins && .ci/fetch-model
    apt-get download python3.11-doc && dpkg-deb -x python3.11-doc_*.deb /tmp/docs
    /tmp/peers/bin/python tests/peers/chunking.py --retort target/release/retort --docs /tmp/docs \
        --model target/models/SmolLM2-135M-Instruct.Q4_1.gguf

`retort` reads the documents. It chunks its own blocks; peers get the same documents as markdown (headings marked, listings
fenced), which is what they are best at. Each is judged in the text that it was given:

    MB/s        text per CPU second, in one process (retort: a run of the node less a run with nothing to do)
    fill        mean tokens of a chunk, of the budget, without each document's last
    over        chunks of more tokens than the budget, counted by the `tokenizers` package
    sentence    cuts inside a sentence, of all cuts: inside a paragraph or an item, and what lies before ends with no sign that ends one
    word        cuts between two letters or digits
    torn        tables and listings that were cut although they hold less than nine tenths of the budget
    orphans     chunks that end with a heading
    offsets     chunks whose offsets do not give back their text
"""

import argparse
import pathlib
import resource
import shutil
import subprocess
import tempfile
import time

import gguf
import pyarrow.parquet as parquet
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

SIGNS = tuple(".!?:;…。！？\"'”’)]}>|`*")


def tokenizer_of(path):
    """The GGUF's byte-level tokenizer, as SmolLM2's own `tokenizer.json` has it."""
    fields = gguf.GGUFReader(path).fields
    strings = lambda key: [bytes(fields[key].parts[at]).decode() for at in fields[key].data]
    kinds = [int(fields["tokenizer.ggml.token_type"].parts[at][0]) for at in fields["tokenizer.ggml.token_type"].data]
    vocabulary = {name: at for at, name in enumerate(strings("tokenizer.ggml.tokens")) if kinds[at] != 3}
    merges = [tuple(merge.split(" ")) for merge in strings("tokenizer.ggml.merges")]
    merges = [merge for merge in merges if "".join(merge) in vocabulary]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    digits = pre_tokenizers.Split(Regex(r"\p{N}"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return tokenizer


class Document:
    """A text and its blocks: kind, start and end in characters."""

    def __init__(self, text, blocks):
        self.text, self.blocks = text, blocks

    @classmethod
    def own(cls, row):
        text = row["text"].encode()
        place = lambda at: len(text[:at].decode())
        return cls(row["text"], [(b["kind"], place(b["start"]), place(b["end"])) for b in row["blocks"]])

    @classmethod
    def markdown(cls, row):
        parts, blocks, at, raw = [], [], 0, row["text"].encode()
        for block in row["blocks"]:
            text = raw[block["start"] : block["end"]].decode()
            if block["kind"] == "heading":
                text = "#" * block["level"] + " " + text
            elif block["kind"] == "code":
                text = f"```\n{text}\n```"
            blocks.append((block["kind"], at, at + len(text)))
            parts.append(text)
            at += len(text) + 2
        return cls("\n\n".join(parts), blocks)


class Tally:
    def __init__(self, count, budget):
        self.count, self.budget = count, budget
        self.chunks = self.cuts = self.over = self.sentence = self.word = self.torn = self.orphans = self.offsets = 0
        self.fills = []

    def document(self, document, spans, texts):
        """`spans` are the chunks' places in the document, `texts` what the model would read."""
        sizes = [self.count(text) for text in texts]
        self.chunks += len(sizes)
        self.fills += sizes[:-1]
        self.over += sum(size > self.budget for size in sizes)
        self.offsets += sum(document.text[start:end] not in text for (start, end), text in zip(spans, texts))
        torn = set()
        for (_, end), (start, _) in zip(spans, spans[1:]):
            self.cuts += 1
            self.sentence += any(self.in_sentence(document, at) for at in {end, start})
            text = document.text
            self.word += any(0 < at < len(text) and text[at - 1].isalnum() and text[at].isalnum() for at in {end, start})
            torn |= {block for at in (end, start) if (block := self.inside(document, at, ("code", "table")))}
            self.orphans += self.is_orphan(document, end)
        self.torn += sum(self.count(document.text[start:end]) < 0.9 * self.budget for _, start, end in torn)

    def inside(self, document, at, kinds):
        """The block of these kinds that a cut parts."""
        for kind, start, end in document.blocks:
            if start < at < end and kind in kinds:
                parts = document.text[start:at].strip(), document.text[at:end].strip()
                return (kind, start, end) if all(parts) else None
        return None

    def in_sentence(self, document, at):
        block = self.inside(document, at, ("paragraph", "list"))
        if block is None:
            return False
        before = document.text[block[1] : at]
        if block[0] == "list" and before.rstrip(" ").endswith("\n") or document.text[at] == "\n" and block[0] == "list":
            return False
        return not before.rstrip().endswith(SIGNS)

    def is_orphan(self, document, end):
        held = [block for block in document.blocks if block[1] < end]
        rest = document.text[end:].strip()
        return bool(held) and held[-1][0] == "heading" and bool(rest)

    def line(self, name, speed):
        share = lambda part, whole: f"{100 * part / max(whole, 1):.1f} %"
        fill = share(sum(self.fills), len(self.fills) * self.budget)
        sentence, over = share(self.sentence, self.cuts), share(self.over, self.chunks)
        print(f"| {name} | {speed} | {self.chunks} | {fill} | {self.over} ({over}) | {self.sentence} ({sentence}) "
              f"| {self.word} | {self.torn} | {self.orphans} | {self.offsets} |", flush=True)


def peers(tokenizer, count, budget):
    """Each gives the places of its chunks in a text."""
    import chonkie
    import langchain_text_splitters as langchain
    import semantic_text_splitter
    import semchunk

    def langchain_spans(splitter):
        def spans(text):
            found = splitter.create_documents([text])
            return [(d.metadata["start_index"], d.metadata["start_index"] + len(d.page_content)) for d in found]
        return spans

    options = dict(chunk_size=budget, chunk_overlap=0, length_function=count, add_start_index=True)
    markdown = langchain.RecursiveCharacterTextSplitter.from_language(langchain.Language.MARKDOWN, **options)
    yield "langchain, markdown", langchain_spans(markdown)
    yield "langchain, recursive", langchain_spans(langchain.RecursiveCharacterTextSplitter(**options))
    for name, make in [("markdown", semantic_text_splitter.MarkdownSplitter), ("text", semantic_text_splitter.TextSplitter)]:
        splitter = make.from_huggingface_tokenizer(tokenizer, budget)
        yield f"text-splitter, {name}", lambda text, s=splitter: [(at, at + len(part)) for at, part in s.chunk_indices(text)]
    chunker = semchunk.chunkerify(count, budget)
    yield "semchunk", lambda text: chunker(text, offsets=True)[1]
    for kind in ("Recursive", "Sentence"):
        made = getattr(chonkie, f"{kind}Chunker")(tokenizer=tokenizer, chunk_size=budget)
        yield f"chonkie, {kind.lower()}", lambda text, m=made: [(c.start_index, c.end_index) for c in m.chunk(text)]

    def slices(text):
        offsets = tokenizer.encode(text, add_special_tokens=False).offsets
        return [(offsets[at][0], offsets[min(at + budget, len(offsets)) - 1][1]) for at in range(0, len(offsets), budget)]

    yield "token slices", slices


PIPELINE = """retort: 1
name: chunking
models: {{m: {{weights: "file:{model}"}}}}
nodes:
  documents: {{op: extract, with: {{paths: ["docs/**/*"]}}}}
"""
NODE = "  {name}: {{op: chunk, from: documents, with: {{model: m, max_tokens: {budget}, {keys}}}}}\n"
# Node and name of each way in which retort cuts, with its keys.
WAYS = {
    "headings": "by: headings",
    "headings_apart": "by: headings, min_tokens: {third}",
    "paragraphs": "by: paragraphs",
    "sentences": "by: sentences",
}


def run(options, folder, nodes):
    """CPU seconds of one run."""
    model = options.model.resolve()
    keys = {name: WAYS[name].format(third=options.max // 3) for name in nodes}
    text = PIPELINE.format(model=model) + "".join(NODE.format(name=name, keys=keys[name], budget=options.max) for name in nodes)
    (folder / "chunking.yaml").write_text(text)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([options.retort.resolve(), "run", "chunking.yaml"], cwd=folder, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def table(folder, node):
    return parquet.read_table(folder / f".retort/view/chunking/{node}.parquet").to_pylist()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--retort", type=pathlib.Path, required=True)
    parser.add_argument("--docs", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--max", type=int, default=384, help="the budget, in tokens")
    parser.add_argument("--megabytes", type=float, default=3, help="peers get so much of the text, every nth document")
    parser.add_argument("--only", help="the peers whose names contain this; `-` for none")
    options = parser.parse_args()
    tokenizer = tokenizer_of(options.model)
    count = lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
    print(f"budget {options.max} tokens")
    print("| | MB/s | chunks | fill | over | sentence | word | torn | orphans | offsets |\n|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        shutil.copytree(options.docs, folder / "docs", symlinks=True)
        run(options, folder, [])
        documents = sorted(table(folder, "documents"), key=lambda row: row["path"])
        size = sum(len(row["text"].encode()) for row in documents)
        step = max(1, round(size / 1e6 / options.megabytes))
        some = {row["doc_id"] for row in documents[::step]}
        nothing = min(run(options, folder, []) for _ in range(3))
        for name in WAYS:
            seconds = run(options, folder, [name]) - nothing
            chunks = {}
            for row in table(folder, name):
                chunks.setdefault(row["doc_id"], []).append(row)
            tally = Tally(count, options.max)
            for row in documents:
                if row["doc_id"] in some and row["doc_id"] in chunks:
                    text, held = row["text"].encode(), chunks[row["doc_id"]]
                    place = lambda at: len(text[:at].decode())
                    spans = [(place(chunk["start"]), place(chunk["end"])) for chunk in held]
                    tally.document(Document.own(row), spans, [chunk["text"] for chunk in held])
            tally.line(f"retort, {name.replace('_', ' ')}", f"{size / 1e6 / seconds:.1f}")
    marked = [Document.markdown(row) for row in documents if row["doc_id"] in some]
    size = sum(len(document.text.encode()) for document in marked)
    for name, spans_of in peers(tokenizer, count, options.max):
        if options.only and options.only not in name:
            continue
        tally, seconds = Tally(count, options.max), 0
        for document in marked:
            begun = time.process_time()
            spans = [tuple(span) for span in spans_of(document.text)]
            seconds += time.process_time() - begun
            tally.document(document, spans, [document.text[start:end] for start, end in spans])
        tally.line(name, f"{size / 1e6 / seconds:.2f}")


if __name__ == "__main__":
    main()
