#!/usr/bin/env python3
"""Trains SmolLM2-135M with LoRA (all-linear, rank 16, sequences of 256) in PyTorch with PEFT and in Retort, side by side.

    pip install -r peft-requirements.txt
    cargo build --workspace --example training
    python training.py --ours ../../target/debug/examples/training --model ../../target/models/SmolLM2-135M-Instruct.Q4_1.gguf

Every way is a process of its own, `--rounds` times in turn, so that a busy machine is as busy for each. All get the same
sequences in the same order (Retort's), begin with the same adapter (Retort's, as a PEFT folder) and take the same AdamW
steps. The table has the median over all steps but the warm-up of tokens a second (by the clock, and by CPU seconds of all
threads), how many times the fastest of PyTorch's that is, the peak of resident memory, and the load. Below it the losses, step by step, and how far they part.

What was measured is kept in the folder, and a run with `--more` adds to it: a machine that others use can be taken for a way at a time.

Exit status: 0 if our losses in f32 are within 1e-3 of PyTorch's in f32 at every step and those in bf16 within 1 %, 1 if not.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

LENGTH = 256
RATE = 2e-4
WARM = 1
WAYS = ["f32", "autocast", "compile"]
OURS = {"ours-f32": "f32", "ours-bf16": "bf16"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ours", type=Path, required=True, help="the example `training`")
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file")
    parser.add_argument("--texts", type=Path, nargs="*", default=[Path(__file__).parents[2] / "GUIDE.md"])
    parser.add_argument("--folder", type=Path, default=Path("/tmp/retort-training"))
    parser.add_argument("--steps", type=int, nargs=2, default=[12, 4], help="at batch 1 and at batch 8")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--ways", nargs="*", default=[*WAYS, *OURS])
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--more", action="store_true", help="add to what was measured before")
    parser.add_argument("--theirs", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def prepare(args):
    """Sequences of `LENGTH` + 1 tokens, enough for the most steps."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(args.model.parent), gguf_file=args.model.name)
    text = "\n".join(path.read_text(encoding="utf-8") for path in args.texts)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    sequences = [ids[at : at + LENGTH + 1] for at in range(0, len(ids) - LENGTH, LENGTH)][:32]
    args.folder.mkdir(parents=True, exist_ok=True)
    (args.folder / "tokens.json").write_text(json.dumps(sequences))


def take_steps(model, run, batches, autocast):
    """Trains on batches of sequences: the loss, wall seconds and processor seconds of each step. `run` is the model, compiled or not."""
    import torch

    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE, weight_decay=0.0)
    losses, walls, cpus = [], [], []
    for batch in batches:
        ids = torch.tensor(batch)
        wall, cpu = time.perf_counter(), time.process_time()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            logits = run(input_ids=ids[:, :-1]).logits
            loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return losses, walls, cpus


def theirs(args, way, batch, steps):
    """One way in PyTorch: a line of JSON."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(2)
    sequences = json.loads((args.folder / "tokens.json").read_text())
    order = json.loads((args.folder / f"order-{batch}.json").read_text())
    base = AutoModelForCausalLM.from_pretrained(str(args.model.parent), gguf_file=args.model.name, dtype=torch.float32)
    base.config.use_cache = False
    for parameter in base.parameters():  # as Retort keeps weights
        if parameter.dim() == 2:
            parameter.data = parameter.data.half().float()
    model = PeftModel.from_pretrained(base, str(args.folder / "adapter"), is_trainable=True)
    model.train()
    run = torch.compile(model) if way == "compile" else model
    batches = ([sequences[at] for at in step] for step in order[: steps + WARM])
    losses, walls, cpus = take_steps(model, run, batches, way != "f32")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"losses": losses, "walls": walls, "cpus": cpus, "peak_kib": peak}))


def one(args, way, batch, steps):
    environment = {**os.environ, "RAYON_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    if way in OURS:
        command = [args.ours, args.model, args.folder, batch, steps + WARM, OURS[way]]
    else:
        command = [sys.executable, __file__, "--ours", args.ours, "--model", args.model, "--folder", args.folder]
        command += ["--theirs", way, batch, steps]
    done = subprocess.run([str(word) for word in command], env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{way}, batch {batch}: ended with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    args = arguments()
    if args.theirs:
        way, batch, steps = args.theirs
        theirs(args, way, int(batch), int(steps))
        return 0
    kept = args.folder / "runs.json"
    runs = json.loads(kept.read_text()) if args.more else []
    if not args.more:
        prepare(args)
    for batch, steps in zip([1, 8], args.steps):
        if batch not in args.batches:
            continue
        one(args, "ours-f32", batch, 0)  # writes the adapter and the order
        for _ in range(args.rounds):
            for way in args.ways:
                load = os.getloadavg()[0]
                runs.append({"batch": batch, "way": way, "load": load, **one(args, way, batch, steps)})
                kept.write_text(json.dumps(runs))
    return report(runs)


def report(runs):
    loads = [run["load"] for run in runs]
    ways = {}
    for run in runs:
        ways.setdefault((run["batch"], run["way"]), []).append(run)

    def rate(batch, way, kind):
        return batch * LENGTH / statistics.median(t for run in ways[batch, way] for t in run[kind][WARM:])

    print(f"load {min(loads):.1f} to {max(loads):.1f}")
    print("batch  way        runs  tokens/s  to PyTorch's best  a CPU second  peak GB")
    for batch, way in sorted(ways, key=lambda key: (key[0], [*WAYS, *OURS].index(key[1]))):
        best = max((rate(batch, other, "walls") for other in WAYS if (batch, other) in ways), default=float("nan"))
        ours, cpu = rate(batch, way, "walls"), rate(batch, way, "cpus")
        peak = max(run["peak_kib"] for run in ways[batch, way]) / 2**20
        count = len(ways[batch, way])
        print(f"{batch:5}  {way:9} {count:5} {ours:9.1f} {ours / best:18.2f} {cpu:13.1f} {peak:8.2f}")
    bad = False
    for batch in sorted({batch for batch, _ in ways}):
        shown = [way for way in [*WAYS, *OURS] if (batch, way) in ways]
        losses = {way: ways[batch, way][0]["losses"] for way in shown}
        print(f"losses, batch {batch}: " + " ".join(f"{way:>9}" for way in shown))
        for at, row in enumerate(zip(*losses.values())):
            print(f"{at:15}: " + " ".join(f"{loss:9.5f}" for loss in row))
        for way, most, share in [("ours-f32", 1e-3, False), ("ours-bf16", 1e-2, True)]:
            if way in losses and "f32" in losses:
                parts = [abs(a - b) / (a if share else 1) for a, b in zip(losses["f32"], losses[way])]
                bad |= max(parts) > most
                print(f"{way} parts from f32 by {max(parts):.1e}{' of the loss' if share else ''} at most")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
