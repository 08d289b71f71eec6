#!/usr/bin/env python3
"""Runs the prompts of the shipped pipeline's node `answers` here and through llama.cpp's server with as many slots, side by side.

    tar xf llama_cpp_python-0.3.36.tar.gz        # pip download --no-binary :all: --no-deps llama-cpp-python==0.3.36
    cmake -S llama_cpp_python-0.3.36/vendor/llama.cpp -B /tmp/llama-server -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DBUILD_SHARED_LIBS=OFF \\
        -DCMAKE_BUILD_TYPE=Release && cmake --build /tmp/llama-server --target llama-server -j 2
    cargo build --release
    python3 tests/peers/answers.py --server /tmp/llama-server/bin/llama-server

Both ways it is `prompt-llm` that asks, with the pipeline's documents, chunks, messages and sampling, but for the guide, which that server does not take in
this form. Once the model is read here (in half floats, and in eight bits, in which llama.cpp computes too), once it is a `server`, asked by as many requests at once as it has
slots; `streamed` is that with `stream: true`. What comes before is made beforehand. The times are of whole runs, with the loading of the model here and without it there. The texts differ in length, as they are drawn at
random, so tokens a second are printed beside them.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
PORT = 18431


def pipeline(text, model, precision, name):
    """The pipeline up to `answers`, asked of another model, without a guide."""
    text = text[: text.index("  # Parsing is its own node")]
    text = re.sub(r"\n *#[^\n]*\n *guide:[^\n]*", "", text)
    text = text.replace("name: nextstep", f"name: {name}", 1)
    text = text.replace("\nnodes:", f"\n  asked: {json.dumps(model)}\n\nnodes:", 1)
    head, answers = text.split("  answers:", 1)
    answers = answers.replace("model: ${params.generator}", f"model: asked\n      precision: {precision}" if precision else "model: asked", 1)
    return head + "  answers:" + answers


class Server:
    """llama.cpp's server, as long as it is needed."""

    def __init__(self, options):
        room = str(options.slots * options.room)
        command = [options.server, "-m", options.model, "-np", str(options.slots), "-c", room, "-t", str(options.threads), "-tb", str(options.threads)]
        command += ["--host", "127.0.0.1", "--port", str(PORT), *options.flags.split()]
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)

    def wait(self):
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=1) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                assert self.process.poll() is None, "the server ended"
            time.sleep(0.1)
        raise TimeoutError("the server does not answer")

    def end(self):
        """Ends it; its peak of memory in MB and its processor seconds."""
        self.process.terminate()
        _, _, used = os.wait4(self.process.pid, 0)
        return used.ru_maxrss // 1024, used.ru_utime + used.ru_stime


def run(options, folder, name, node):
    """One run: wall seconds, peak of memory in MB, processor seconds."""
    command = [options.retort, "run", f"{name}.yaml", node]
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = process.stderr.read().decode()
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0, said
    return time.perf_counter() - start, used.ru_maxrss // 1024, used.ru_utime + used.ru_stime


def tokens(options, folder, name):
    """Rows, prompt tokens and output tokens of the answers."""
    query = "SELECT count(*) AS n, sum(n_prompt_tokens) AS prompt, sum(n_output_tokens) AS output FROM answers"
    out = subprocess.run([options.retort, "sql", f"{name}.yaml", query, "--json"], cwd=folder, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    row = json.loads(out.stdout.splitlines()[0])
    return row["n"], row["prompt"], row["output"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--retort", default=ROOT / "target/release/retort", type=lambda path: pathlib.Path(path).resolve())
    parser.add_argument("--server", required=True, type=lambda path: pathlib.Path(path).resolve())
    parser.add_argument("--model", default=ROOT / "target/models/SmolLM2-135M-Instruct.Q4_1.gguf", type=lambda path: pathlib.Path(path).resolve())
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--room", type=int, default=2048, help="tokens of a slot")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--flags", default="", help="more for the server")
    parser.add_argument("--ways", default="f16,int8,llama.cpp", help="which to run, llama.cpp among them; there is `streamed` too")
    options = parser.parse_args()

    asked = {"weights": f"file:{options.model}"}
    served = {"server": f"http://127.0.0.1:{PORT}/v1", "name": "served", "parallel": options.slots}
    text = (ROOT / "pipelines/nextstep.yaml").read_text()
    ways = {"f16": (asked, None), "int8": (asked, "int8"), "llama.cpp": (served, None), "streamed": (served | {"stream": True}, None)}
    ways = {name: ways[name] for name in options.ways.split(",")}
    found = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, (model, precision) in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                shutil.copytree(ROOT / "pipelines/nextstep", f"{folder}/nextstep")
                plain = name.replace(".", "-")
                pathlib.Path(folder, f"{plain}.yaml").write_text(pipeline(text, model, precision, plain))
                run(options, folder, plain, "chunks")
                server = Server(options) if "server" in model else None
                if server:
                    server.wait()
                wall, peak, cpu = run(options, folder, plain, "answers")
                if server:
                    peak, cpu = server.end()
                found[name].append((wall, peak, cpu, *tokens(options, folder, plain)))

    print(f"{options.model.name}, {options.slots} slots, {options.threads} threads, load {os.getloadavg()[0]:.1f}")
    print(f"{'':10} {'rows':>5} {'prompt':>8} {'output':>7} {'wall s':>8} {'cpu s':>7} {'output/s':>9} {'to it':>6} {'rows to it':>10} {'peak MB':>8}")
    medians = {name: [statistics.median(column) for column in zip(*rows)] for name, rows in found.items()}
    there = medians["llama.cpp"]
    for name, (wall, peak, cpu, rows, prompt, output) in medians.items():
        rate, theirs = output / wall, there[5] / there[0]
        print(f"{name:10} {rows:5.0f} {prompt:8.0f} {output:7.0f} {wall:8.1f} {cpu:7.1f} {rate:9.1f} {rate / theirs:6.2f} {there[0] / wall:10.2f} {peak:8.0f}")


if __name__ == "__main__":
    main()
