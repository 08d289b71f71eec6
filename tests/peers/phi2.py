#!/usr/bin/env python3
"""Trains a model of phi-2's shape (random weights in bfloat16, LoRA of rank 128 on all layers, one sequence of 325 tokens a step) here and in PyTorch with PEFT.

    pip install -r peft-requirements.txt
    cargo build --release --workspace --example training
    python phi2.py --ours ../../target/release/examples/training

Each way is a process of its own: PyTorch with weights, adapter and steps in bfloat16; ours in bfloat16 with weights that stay as the file has them (`qlora-bf16`) or are packed once
(`bf16`). The table has the median of the steps after the first, and the peak of resident memory. The checkpoint (5.6 GB) is made once and kept.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

from training import take_steps

LENGTH = 325
RANK = 128
SIZES = {
    "vocab_size": 51200,
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "partial_rotary_factor": 0.4,
    "max_position_embeddings": 2048,
}


def prepare(folder, layers, steps):
    import torch
    from transformers import PhiConfig, PhiForCausalLM

    model = folder / "model"
    if not (model / "config.json").exists():
        torch.manual_seed(1)
        torch.set_default_dtype(torch.bfloat16)
        PhiForCausalLM(PhiConfig(**{**SIZES, "num_hidden_layers": layers}, dtype="bfloat16")).save_pretrained(model)
    ids = torch.randint(0, SIZES["vocab_size"], (steps + 1, LENGTH + 1), generator=torch.Generator().manual_seed(2))
    (folder / "tokens.json").write_text(json.dumps(ids.tolist()))


def theirs(folder, steps):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(2)
    sequences = json.loads((folder / "tokens.json").read_text())
    order = json.loads((folder / "order-1.json").read_text())
    base = AutoModelForCausalLM.from_pretrained(str(folder / "model"), dtype=torch.bfloat16)
    base.config.use_cache = False
    model = PeftModel.from_pretrained(base, str(folder / "adapter"), is_trainable=True).to(torch.bfloat16)
    model.train()
    batches = ([sequences[at] for at in step] for step in order[: steps + 1])
    losses, walls, _ = take_steps(model, model, batches, False)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"losses": losses, "walls": walls, "peak_kib": peak}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ours", type=Path, required=True, help="the example `training`")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/retort-phi2"))
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--layers", type=int, default=SIZES["num_hidden_layers"], help="fewer, to try it")
    parser.add_argument("--ways", nargs="*", default=["qlora-bf16", "bf16", "PyTorch"])
    parser.add_argument("--theirs", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.theirs:
        return theirs(options.folder, options.steps)
    options.folder.mkdir(parents=True, exist_ok=True)
    prepare(options.folder, options.layers, options.steps)
    environment = {**os.environ, "RAYON_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    print(f"{'way':12} {'s a step':>9} {'tokens/s':>9} {'peak GB':>8}   losses", flush=True)
    for way in options.ways:
        ours = [options.ours, options.folder / "model", options.folder, 1, options.steps + 1, way, RANK]
        there = [sys.executable, __file__, "--theirs", "--ours", options.ours, "--folder", options.folder, "--steps", options.steps]
        command = [str(word) for word in (there if way == "PyTorch" else ours)]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        step = statistics.median(found["walls"][1:])
        losses = " ".join(f"{loss:.4f}" for loss in found["losses"])
        print(f"{way:12} {step:9.2f} {LENGTH / step:9.1f} {found['peak_kib'] / 1024**2:8.2f}   {losses}", flush=True)
    return None


if __name__ == "__main__":
    main()
