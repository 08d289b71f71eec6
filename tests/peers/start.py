#!/usr/bin/env python3
"""How long from the start of a server until the first token of an answer, here and in llama.cpp, side by side.

    cargo build --release
    python3 tests/peers/start.py --server /tmp/llama-server/bin/llama-server        # built as `answers.py` says

Both read the same file, which the system has in memory after the first round, and are asked the same short question over HTTP as soon as they take one; the answer is a stream, and
its first piece with text ends the clock. llama.cpp's server runs once before it takes questions, so it is measured without that too (`--no-warmup`).
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
PORT = 18433
QUESTION = {"messages": [{"role": "user", "content": "Name a colour."}], "max_tokens": 4, "temperature": 0, "stream": True}


def first_token(process):
    """Asks until an answer comes; the text of its first piece."""
    body = json.dumps(QUESTION).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}/v1/chat/completions", body, {"Content-Type": "application/json"})
    while True:
        assert process.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                for line in answer:
                    if not line.startswith(b"data: {"):
                        continue
                    text = json.loads(line[6:])["choices"][0]["delta"].get("content")
                    if text:
                        return text
                raise AssertionError("no text came")
        except urllib.error.HTTPError as error:
            # It is there, and its model is not.
            assert error.code == 503, error.read()
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(0.001)


def measure(command):
    """Seconds to the first token, and the peak of memory in MB."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first_token(process)
    seconds = time.perf_counter() - start
    process.kill()
    _, _, used = os.wait4(process.pid, 0)
    return seconds, used.ru_maxrss // 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--retort", default=ROOT / "target/release/retort")
    parser.add_argument("--server", required=True)
    parser.add_argument("--model", default=ROOT / "target/models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--threads", default=str(os.cpu_count()))
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()

    ours = [str(options.retort), "serve", "--model", str(options.model), "--port", str(PORT)]
    theirs = [options.server, "-m", str(options.model), "-t", options.threads, "-c", "2048", "--host", "127.0.0.1", "--port", str(PORT)]
    ways = {"f16": ours, "int8": [*ours, "--precision", "int8"], "llama.cpp": theirs, "no warm-up": [*theirs, "--no-warmup"]}
    found = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, command in ways.items():
            found[name].append(measure(command))
    medians = {name: [statistics.median(column) for column in zip(*rows)] for name, rows in found.items()}
    there = medians["no warm-up"][0]
    print(f"{pathlib.Path(options.model).name}, {options.threads} threads, medians of {options.rounds}, load {os.getloadavg()[0]:.1f}")
    print(f"{'':10} {'ms to the first token':>22} {'least':>6} {'to no warm-up':>14} {'peak MB':>8}")
    for name, (seconds, peak) in medians.items():
        print(f"{name:10} {seconds * 1000:22.0f} {min(row[0] for row in found[name]) * 1000:6.0f} {seconds / there:14.2f} {peak:8.0f}")


if __name__ == "__main__":
    main()
