#!/usr/bin/env python3
"""Runs graphs of one shape through retort, DVC and Snakemake, side by side, when there is nothing to do.

    python3 -m venv /tmp/peers && /tmp/peers/bin/pip install -r tests/peers/engines.txt
    cargo build --release --workspace --bins
    /tmp/peers/bin/python tests/peers/engines.py --retort target/release/retort

Every node copies one small file (in retort: samples one small table). The peers are given what a first run leaves behind
(files, and DVC its lock), since DVC takes quadratic time to make it. What is measured is the command that finds that nothing
is to be done: wall time, processor time and peak of resident memory; the best of several runs, one engine after the other in each round.
"""

import argparse
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(sys.executable).parent


def feeds(shape, i):
    return "n0" if shape == "fan" else f"n{i - 1}"


def retort(folder, shape, n, options):
    nodes = ['  n0: {op: extract, with: {paths: ["docs/*.txt"]}}']
    nodes += [
        f"  n{i}: {{op: sample, from: {feeds(shape, i)}, with: {{rows: 2, seed: {i}}}}}" for i in range(1, n)
    ]
    (folder / "docs").mkdir()
    (folder / "docs/one.txt").write_text("A short document.\n")
    (folder / "many.yaml").write_text("retort: 1\nname: many\nnodes:\n" + "\n".join(nodes) + "\n")
    command = [str(options.retort.resolve()), "run", "many.yaml"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return command, lambda text: f"{n:,} fresh" in text


def dvc(folder, shape, n, options):
    subprocess.run([HERE / "dvc", "init", "--no-scm", "-q"], cwd=folder, check=True)
    subprocess.run([HERE / "dvc", "config", "core.analytics", "false"], cwd=folder, check=True)
    text = "A short document.\n"
    (folder / "n0").write_text(text)
    file = f"{{hash: md5, md5: {hashlib.md5(text.encode()).hexdigest()}, size: {len(text)}, path: "
    stages, lock = ["stages:"], ["schema: '2.0'", "stages:"]
    for i in range(1, n):
        feed = feeds(shape, i)
        (folder / f"n{i}").write_text(text)
        stages.append(f"  n{i}: {{cmd: cp {feed} n{i}, deps: [{feed}], outs: [n{i}: {{cache: false}}]}}")
        lock.append(f"  n{i}: {{cmd: cp {feed} n{i}, deps: [{file}{feed}}}], outs: [{file}n{i}}}]}}")
    (folder / "dvc.yaml").write_text("\n".join(stages) + "\n")
    (folder / "dvc.lock").write_text("\n".join(lock) + "\n")
    return [HERE / "dvc", "repro"], lambda text: "up to date" in text or "didn't change" in text


def snakemake(folder, shape, n, options):
    rules = [f'rule all:\n    input: {", ".join(repr(f"n{i}") for i in range(1, n))}\n']
    (folder / "n0").write_text("A short document.\n")
    for i in range(1, n):
        rules.append(f'rule r{i}:\n    input: "{feeds(shape, i)}"\n    output: "n{i}"\n    shell: "cp {{input}} {{output}}"\n')
        (folder / f"n{i}").write_text("A short document.\n")
        # Each is newer than what it is made of.
        os.utime(folder / f"n{i}", (1_700_000_000 + i, 1_700_000_000 + i))
    os.utime(folder / "n0", (1_700_000_000, 1_700_000_000))
    (folder / "Snakefile").write_text("\n".join(rules))
    return [HERE / "snakemake", "-c1"], lambda text: "Nothing to be done" in text


def measure(command, folder, says_nothing_to_do, limit):
    """Wall seconds, processor seconds, peak megabytes; or why there are none."""
    with tempfile.TemporaryFile() as output:
        begun = time.perf_counter()
        child = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
        while True:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            wall = time.perf_counter() - begun
            if pid:
                break
            if wall > limit:
                child.kill()
                os.wait4(child.pid, 0)
                return f"over {limit} s"
            time.sleep(0.0005)
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode(errors="replace")
    if child.returncode != 0:
        return "RecursionError" if "RecursionError" in text else f"exit status {child.returncode}"
    if not says_nothing_to_do(text):
        return "did not find that nothing is to be done: " + text.strip()[-200:]
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


def compare(shape, n, options):
    engines = {"retort": retort, "DVC": dvc, "Snakemake": snakemake}
    places, commands = [], {}
    for name, prepare in engines.items():
        place = pathlib.Path(tempfile.mkdtemp(dir=options.dir))
        places.append(place)
        commands[name] = (place, *prepare(place, shape, n, options))
    results = {}
    for _ in range(options.rounds):
        for name, (place, command, check) in commands.items():
            if isinstance(results.get(name), str):
                continue
            result = measure(command, place, check, options.limit)
            old = results.get(name)
            results[name] = result if isinstance(result, str) or old is None else min(old, result)
    for place in places:
        shutil.rmtree(place)
    ours = results["retort"]
    for name, result in results.items():
        start = f"{shape:6} {n:>6}  {name:10}"
        if isinstance(result, str) or isinstance(ours, str):
            print(f"{start} {result}")
            continue
        wall, cpu, peak = result
        times = f"{wall / ours[0]:>8.0f} {cpu / ours[1]:>8.0f}" if name != "retort" else f"{'':8} {'':8}"
        print(f"{start} {wall * 1e3:>9.0f} {cpu * 1e3:>9.0f} {peak:>8.0f} {times}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--retort", type=pathlib.Path, default=pathlib.Path("target/release/retort"))
    parser.add_argument("--nodes", default="100,1000")
    parser.add_argument("--shapes", default="chain,fan")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--limit", type=float, default=120, help="seconds that a command may take")
    parser.add_argument("--dir", default="/dev/shm" if os.path.isdir("/dev/shm") else None)
    options = parser.parse_args()
    for engine in ("dvc", "snakemake"):
        version = subprocess.run([HERE / engine, "--version"], capture_output=True, text=True, check=True).stdout.strip()
        print(f"{engine} {version}", end="; ")
    print("load", " ".join(f"{load:.1f}" for load in os.getloadavg()))
    print(f"{'shape':6} {'nodes':>6}  {'engine':10} {'wall ms':>9} {'cpu ms':>9} {'peak MB':>8} {'wall x':>8} {'cpu x':>8}")
    for shape in options.shapes.split(","):
        for n in options.nodes.split(","):
            compare(shape, int(n), options)


main()
