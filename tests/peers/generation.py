#!/usr/bin/env python3
"""Runs one model here and in llama.cpp, side by side: a prompt, and rows that decode after a shared prompt of 512 tokens.

    python3 -m venv /tmp/peers && /tmp/peers/bin/pip install scikit-build-core cmake ninja setuptools numpy
    CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX512=ON -DGGML_AVX512_VBMI=ON -DGGML_AVX512_VNNI=ON -DGGML_AVX512_BF16=ON \\
        -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON -DMTMD_BUILD=OFF" \\
        /tmp/peers/bin/pip install --no-binary llama-cpp-python --no-build-isolation llama-cpp-python==0.3.36
    cargo bench --workspace --bench decoder --no-run        # prints where the program is
    /tmp/peers/bin/python tests/peers/generation.py --decoder target/release/deps/decoder-… [--model FILE.gguf]

llama.cpp is called through its C interface, ours is the bench `decoder`, which sees the same file. Each round measures one after the other;
what is printed are medians of the rounds in tokens a second, the processor seconds that a thousand tokens took, and the peak of resident memory of
each process. The load of the machine stands beside it: llama.cpp's threads spin and suffer when others want the processor, so on a busy
machine only the processor seconds say anything.
"""

import argparse
import os
import pathlib
import re
import resource
import statistics
import subprocess
import sys
import time

PROMPT = 512
STEPS = 16
ROWS = (1, 16, 32)


def tokens(n):
    return [1000 + i * 37 % 40_000 for i in range(n)]


def llama(model_path, threads):
    """Prints a line a measurement: name, tokens, wall seconds, processor seconds; at last the peak of memory."""
    import llama_cpp as api

    api.llama_log_set(quiet := api.llama_log_callback(lambda *_: None), None)
    api.llama_backend_init()
    model = api.llama_model_load_from_file(str(model_path).encode(), api.llama_model_default_params())
    params = api.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = 4096, 512, 512, max(ROWS)
    params.n_threads = params.n_threads_batch = threads
    params.kv_unified = True
    context = api.llama_init_from_model(model, params)
    memory = api.llama_get_memory(context)
    batch = api.llama_batch_init(PROMPT, 0, max(ROWS))

    def run(items):
        batch.n_tokens = len(items)
        for i, (token, position, sequence, wanted) in enumerate(items):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, position, 1, wanted
            batch.seq_id[i][0] = sequence
        assert api.llama_decode(context, batch) == 0

    def prompt():
        api.llama_memory_clear(memory, True)
        run([(token, i, 0, i == PROMPT - 1) for i, token in enumerate(tokens(PROMPT))])

    def timed(name, n, work):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        print(name, n, time.perf_counter() - wall, time.process_time() - cpu, flush=True)

    prompt()
    timed("prompt", PROMPT, prompt)
    for rows in ROWS:
        prompt()
        for row in range(1, rows):
            api.llama_memory_seq_cp(memory, 0, row, -1, -1)

        def decode():
            for step in range(STEPS):
                run([(42, PROMPT + 1 + step, row, True) for row in range(rows)])

        run([(42, PROMPT, row, True) for row in range(rows)])
        timed(f"rows {rows}", rows * STEPS, decode)
    print("memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    del quiet


def seconds(text):
    value, unit = text.split()
    return float(value) * {"s": 1, "ms": 1e-3, "µs": 1e-6}[unit]


def ours(decoder, name):
    """The median time of one bench, processor seconds of all its iterations, and the peak of memory in MB."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = ["/usr/bin/env", "time", "-f", "%M", decoder, "--bench", "--exact", name, "--color", "never"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    row = next(line for line in done.stdout.splitlines() if re.search(r"[├╰]─ " + name.split(".")[-1] + r"\s", line))
    median = re.split("│", row)[2].strip()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds(median), cpu, int(done.stderr.split()[-1]) // 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--decoder", type=pathlib.Path)
    parser.add_argument("--model", type=pathlib.Path, default="target/models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--llama", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.llama:
        return llama(options.model, options.threads)
    here, there, memory = {}, {}, [0, 0]
    names = {"prompt": f"prompt.{PROMPT}", **{f"rows {rows}": f"decode.{rows}" for rows in ROWS}}
    for _ in range(options.rounds):
        command = [sys.executable, __file__, "--llama", "--model", options.model, "--threads", str(options.threads)]
        for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
            *name, value = line.rsplit(" ", 1) if line.startswith("memory") else (line,)
            if name:
                memory[1] = max(memory[1], int(value))
            else:
                name, n, wall, cpu = line.rsplit(" ", 3)
                there.setdefault(name, []).append((int(n) / float(wall), 1000 * float(cpu) / int(n)))
        for name, bench in names.items():
            n = PROMPT if name == "prompt" else int(name.split()[1])
            median, _, peak = ours(options.decoder, bench)
            memory[0] = max(memory[0], peak)
            here.setdefault(name, []).append(n / median)
    print(f"{options.model}, {options.threads} threads, load {os.getloadavg()[0]:.1f}")
    print(f"{'':12} {'here':>8} {'llama.cpp':>10} {'ratio':>6}   llama.cpp, CPU s per 1,000 tokens")
    for name in names:
        ours_, theirs = statistics.median(here[name]), statistics.median(rate for rate, _ in there[name])
        cpu = statistics.median(cpu for _, cpu in there[name])
        print(f"{name:12} {ours_:8.0f} {theirs:10.0f} {ours_ / theirs:6.2f}   {cpu:.2f}")
    print(f"peak memory  {memory[0]:5} MB {memory[1]:7} MB")
    return None


if __name__ == "__main__":
    main()
