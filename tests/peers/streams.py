#!/usr/bin/env python3
"""Tokens a second of one text at a time, here and from llama.cpp's server, side by side.

    cargo build --release
    python3 tests/peers/streams.py --server /tmp/llama-server/bin/llama-server        # built as `answers.py` says

`pairs` are the messages of the shipped pipeline's node `answers`, over its own chunks, which the answers quote; `chat` is questions without a text. Both servers read the same file and are
asked one question after the other over HTTP, each of them once. The clock runs from the first piece of a text to the end of its stream. `ngram` is llama.cpp's server with guesses
out of the text itself, two tokens looked up and four guessed, as ours does. With a temperature the texts differ, so rates are over all tokens of a round.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
PORT = 18434
NGRAM = "--spec-type ngram-simple --spec-ngram-simple-size-n 2 --spec-ngram-simple-size-m 4".split()
QUESTIONS = [
    "How does a spooler work?",
    "What is the difference between a process and a thread?",
    "Explain what a mount point is.",
    "Write a shell script that counts the lines of all text files in a folder.",
    "What does the swap file do?",
    "How are a hostname and an address connected?",
    "Why do computers have a boot loader?",
    "Name five commands of UNIX and say what each is for.",
]


def pairs(retort, n):
    """Messages of `answers` over the first chunks."""
    pipeline = yaml.safe_load((ROOT / "pipelines/nextstep.yaml").read_text())
    messages = pipeline["nodes"]["answers"]["with"]["messages"]
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ROOT / "pipelines/nextstep.yaml", folder)
        shutil.copytree(ROOT / "pipelines/nextstep", f"{folder}/nextstep")
        subprocess.run([retort, "run", "nextstep.yaml", "chunks"], cwd=folder, check=True, capture_output=True)
        query = f"SELECT context, text FROM chunks ORDER BY chunk_id LIMIT {n}"
        out = subprocess.run([retort, "sql", "nextstep.yaml", query, "--json"], cwd=folder, check=True, capture_output=True, text=True)
    chunks = [json.loads(line) for line in out.stdout.splitlines()]

    def fill(text, chunk):
        return text.replace("{{ context }}", chunk["context"] or "").replace("{{ text }}", chunk["text"])

    return [[{"role": role, "content": fill(text, chunk)} for message in messages for role, text in message.items()] for chunk in chunks]


def ask(messages, options):
    """Seconds from the first piece to the end, and tokens."""
    body = {"messages": messages, "max_tokens": options.tokens, "temperature": options.temperature, "top_p": 0.9, "seed": 1, "stream": True}
    body |= {"stream_options": {"include_usage": True}, "cache_prompt": True}
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    first, tokens = None, None
    with urllib.request.urlopen(request, timeout=600) as answer:
        for line in answer:
            if line.startswith(b"data: {"):
                piece = json.loads(line[6:])
                if first is None and piece["choices"] and piece["choices"][0]["delta"].get("content"):
                    first = time.perf_counter()
                if piece.get("usage"):
                    tokens = piece["usage"]["completion_tokens"]
    return (time.perf_counter() - first, tokens - 1) if first and tokens > 1 else (0, 0)


def measure(command, cases, options):
    """Of each case seconds and tokens of all its texts; the peak of memory in MB."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        assert process.poll() is None, "the server ended"
        try:
            ask([{"role": "user", "content": "Hello"}], options)
            break
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    found = {case: [sum(column) for column in zip(*(ask(messages, options) for messages in prompts))] for case, prompts in cases.items()}
    process.terminate()
    _, _, used = os.wait4(process.pid, 0)
    return found, used.ru_maxrss // 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--retort", default=ROOT / "target/release/retort", type=lambda path: pathlib.Path(path).resolve())
    parser.add_argument("--server", required=True)
    parser.add_argument("--model", default=ROOT / "target/models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--threads", default=str(os.cpu_count()))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--temperature", type=float, default=0.3, help="the pipeline's by default")
    options = parser.parse_args()

    cases = {"pairs": pairs(options.retort, options.texts), "chat": [[{"role": "user", "content": question}] for question in QUESTIONS[: options.texts]]}
    serve = ["serve", "--model", str(options.model), "--port", str(PORT)]
    theirs = [options.server, "-m", str(options.model), "-t", options.threads, "-np", "1", "-c", "4096", "--host", "127.0.0.1", "--port", str(PORT)]
    ways = {"f16": [str(options.retort), *serve], "int8": [str(options.retort), *serve, "--precision", "int8"]}
    ways |= {"llama.cpp": theirs, "ngram": [*theirs, *NGRAM]}
    rates = {name: {case: [] for case in cases} for name in ways}
    peaks = {}
    for _ in range(options.rounds):
        for name, command in ways.items():
            found, peaks[name] = measure(command, cases, options)
            for case, (seconds, tokens) in found.items():
                rates[name][case].append(tokens / seconds)
    rates = {name: {case: statistics.median(all) for case, all in row.items()} for name, row in rates.items()}

    print(f"{pathlib.Path(options.model).name}, {options.threads} threads, medians of {options.rounds}, temperature {options.temperature}, load {os.getloadavg()[0]:.1f}")
    print(f"{'':12}" + "".join(f"{case:>8}/s {'to it':>6} {'to ngram':>9}" for case in cases) + f" {'peak MB':>8}")
    for name, row in rates.items():
        columns = (f"{rate:8.1f}   {rate / rates['llama.cpp'][case]:6.2f} {rate / rates['ngram'][case]:9.2f}" for case, rate in row.items())
        print(f"{name:12}" + "".join(columns) + f" {peaks[name]:8}")


if __name__ == "__main__":
    main()
