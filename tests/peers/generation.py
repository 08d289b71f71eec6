#!/usr/bin/env python3
"""Runs one model here and in llama.cpp, side by side: a prompt, and rows that decode after a shared prompt of 512 tokens.

    python3 -m venv /tmp/peers && /tmp/peers/bin/pip install scikit-build-core cmake ninja setuptools numpy
    CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX512=ON -DGGML_AVX512_VBMI=ON -DGGML_AVX512_VNNI=ON -DGGML_AVX512_BF16=ON \\
        -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON -DMTMD_BUILD=OFF" \\
        /tmp/peers/bin/pip install --no-binary llama-cpp-python --no-build-isolation llama-cpp-python==0.3.36
    cargo bench --workspace --bench decoder --no-run        # prints where the program is
    /tmp/peers/bin/python tests/peers/generation.py --decoder target/release/deps/decoder-… [--model FILE.gguf]

llama.cpp is called through its C interface, ours is the bench `decoder`, which sees the same file. It is run in half floats and in eight bits (`int8`), in which
llama.cpp computes too. Each round measures one after the other; what is printed are medians of the rounds in tokens a second, the processor seconds that a thousand tokens took, and the peak of resident memory of
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


def ours(options, bench, arguments):
    """The median times of one bench by its argument, and the peak of memory in MB."""
    one_of = "|".join(map(str, arguments))
    command = [options.decoder, "--bench", "--color", "never", f"(^|::){bench}::({one_of})$"]
    env = os.environ | {"RETORT_BENCH_MODEL": str(options.model.resolve()), "RAYON_NUM_THREADS": str(options.threads)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    out = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0, out
    rows = re.findall(r"[├╰]─ (\d+) .*?│.*?│([^│]*)│", out)
    return {int(argument): seconds(median.strip()) for argument, median in rows}, used.ru_maxrss // 1024


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
    here, there, memory = {}, {}, {"f16": 0, "int8": 0, "llama.cpp": 0}
    names = {("prompt", PROMPT): "prompt", **{("decode", rows): f"rows {rows}" for rows in ROWS}}
    for _ in range(options.rounds):
        command = [sys.executable, __file__, "--llama", "--model", options.model, "--threads", str(options.threads)]
        for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
            if line.startswith("memory"):
                memory["llama.cpp"] = max(memory["llama.cpp"], int(line.split()[1]))
            else:
                name, n, wall, cpu = line.rsplit(" ", 3)
                there.setdefault(name, []).append((int(n) / float(wall), 1000 * float(cpu) / int(n)))
        for precision, suffix in (("f16", ""), ("int8", "_int8")):
            for bench in ("prompt", "decode"):
                medians, peak = ours(options, bench + suffix, [n for kind, n in names if kind == bench])
                memory[precision] = max(memory[precision], peak)
                for (_, n), name in ((at, name) for at, name in names.items() if at[0] == bench):
                    here.setdefault((name, precision), []).append(n / medians[n])
    print(f"{options.model.name}, {options.threads} threads, load {os.getloadavg()[0]:.1f}; tokens a second")
    print(f"{'':12} {'f16':>8} {'int8':>8} {'llama.cpp':>10} {'int8 to it':>11}   llama.cpp, CPU s per 1,000 tokens")
    for name in names.values():
        f16, int8 = (statistics.median(here[name, precision]) for precision in ("f16", "int8"))
        theirs = statistics.median(rate for rate, _ in there[name])
        cpu = statistics.median(cpu for _, cpu in there[name])
        print(f"{name:12} {f16:8.0f} {int8:8.0f} {theirs:10.0f} {int8 / theirs:11.2f}   {cpu:.2f}")
    print(f"{'peak, MB':12} {memory['f16']:8} {memory['int8']:8} {memory['llama.cpp']:10}")
    return None


if __name__ == "__main__":
    main()
