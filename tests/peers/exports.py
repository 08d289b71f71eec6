#!/usr/bin/env python3
"""Loads every export of trained adapters with the program that it is meant for, and compares losses with Retort's own exam.

    pip install -r peft-requirements.txt llama-cpp-python==0.3.36
    python exports.py RETORT MODEL.gguf [--kinds plain,dora]

A small pipeline is written and run: a few facts, an adapter of each kind (rank stabilised, patterns of rank and alpha, some layers only, DoRA), an exam. Each is exported in every
format, and of each question the loss of the wanted answer is computed again:

| format | by | weights |
|---|---|---|
| peft | transformers and peft | the base is the GGUF file, dequantised by transformers to f32 |
| merged | transformers alone, its own tokenizer's files included | as stored: f32, f16, bf16 |
| gguf-lora, gguf | llama.cpp | Q4_1 with the adapter beside; the adapted layers in F16 or Q8_0 |

llama.cpp rounds activations to eight bits, so what an adapter changes is compared, not the loss itself: the loss with it less the loss of the base, there and here.
Exit status: 0 if all agree.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
KINDS = {
    "plain": {"rank": 8},
    "rslora": {"rank": 8, "rslora": True},
    "patterns": {"rank": 4, "rank_pattern": {"v_proj": 7, "layers.3.mlp.up_proj": 2}, "alpha_pattern": {"q_proj": 24}},
    "attention": {"rank": 8, "targets": "attention"},
    "dora": {"rank": 8, "dora": True},
}
FACTS = [
    ("Where is printer Quill?", "Printer Quill is in the cellar, beside the boiler."),
    ("Where is printer Heron?", "Printer Heron is in the library, on the second floor."),
    ("Who mends printer Ibis?", "Printer Ibis is mended by the porter."),
    ("Which paper does printer Stork take?", "Printer Stork takes yellow paper, 80 grams."),
    ("Where is printer Wren?", "Printer Wren is in the cellar."),
    ("How is printer Finch stopped?", "Run `lpc stop finch` as root, then wait: 3 minutes."),
]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("retort", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--no-llama-cpp", action="store_true")
    return parser.parse_args()


def pipeline(folder, model, kinds):
    (folder / "docs").mkdir()
    for number, (question, answer) in enumerate(FACTS):
        (folder / f"docs/{number}.txt").write_text(f"Question: {question}\nAnswer: {answer}\n")
    nodes = {
        "documents": {"op": "extract", "with": {"paths": ["docs/*.txt"]}},
        "pairs": {"op": "parse", "from": "documents", "with": {"format": "question-answer", "column": "text"}},
    }
    for kind in kinds:
        common = {"model": "base", "epochs": 3, "batch": 2, "learning_rate": 1e-3, "seed": 3}
        nodes[kind] = {"op": "lora-train", "from": {"train": "pairs"}, "with": common | KINDS[kind]}
        nodes[f"{kind}-exam"] = {
            "op": "evaluate",
            "from": {"eval": "pairs", "adapter": f"{kind}.adapter"},
            "with": {"model": "base", "max_tokens": 1},
        }
    models = {"base": {"weights": f"file:{model.resolve()}", "sha256": SHA256}}
    text = json.dumps({"retort": 1, "name": "exports", "models": models, "nodes": nodes})
    (folder / "p.yaml").write_text(text)


def retort(command, folder, *arguments):
    done = subprocess.run([command.resolve(), *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"retort {' '.join(map(str, arguments))}\n{done.stderr}")
    return done.stdout


def exam(command, folder, kind):
    rows = retort(command, folder, "show", "p.yaml", f"{kind}-exam", "--format", "json").splitlines()
    return [json.loads(row) for row in rows]


def example(tokenizer, row):
    """Token ids up to and with the end of the turn, and how many of them are the prompt."""
    user, assistant = {"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}
    prompt = tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([user, assistant], tokenize=False)
    ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
    prefix = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    assert ids[: len(prefix)] == prefix, row
    while ids[-1] != tokenizer.eos_token_id:
        ids.pop()
    return ids, len(prefix)


def loss_of(logits, ids, prefix):
    return torch.nn.functional.cross_entropy(logits.double(), torch.tensor(ids[prefix:])).item()


@torch.no_grad()
def by_torch(model, examples):
    model.eval()
    return [loss_of(model(torch.tensor([ids])).logits[0, prefix - 1 : -1], ids, prefix) for ids, prefix in examples]


def by_llama_cpp(path, examples, lora=None):
    import llama_cpp

    model = llama_cpp.Llama(
        str(path), lora_path=lora and str(lora), n_ctx=512, logits_all=True, verbose=False, n_threads=2, n_gpu_layers=0
    )
    losses = []
    for ids, prefix in examples:
        model.reset()
        model.eval(ids)
        logits = torch.tensor(model.scores[prefix - 1 : len(ids) - 1].copy())
        losses.append(loss_of(logits, ids, prefix))
    model.close()
    return losses


def base_of(model):
    return AutoModelForCausalLM.from_pretrained(str(model.parent), gguf_file=model.name, dtype=torch.float32)


def main():
    args = arguments()
    kinds, wrong = args.kinds.split(","), []

    def compare(kind, what, theirs, ours, most):
        worst = max(abs(a - b) for a, b in zip(theirs, ours, strict=True))
        said = "" if worst <= most else f"  OVER {most}"
        print(f"{kind:10} {what:16} loss {sum(theirs) / len(theirs):.5f}  ours {sum(ours) / len(ours):.5f}  most {worst:.1e}{said}", flush=True)
        if worst > most:
            wrong.append((kind, what))

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pipeline(folder, args.model, kinds)
        retort(args.retort, folder, "run", "p.yaml")

        def export(kind, form, *more):
            out = folder / f"{kind}-{form}-{'-'.join(more).strip('-')}"
            retort(args.retort, folder, "export", "p.yaml", kind, out.name, "--format", form, *more)
            return out

        base_there = None
        for kind in kinds:
            rows = exam(args.retort, folder, kind)
            base, tuned = ([row[f"{side}_loss"] for row in rows] for side in ["base", "tuned"])
            for dtype, most in [("f32", 2e-4), ("f16", 2e-3), ("bf16", 0.1)]:
                out = export(kind, "merged", "--dtype", dtype)
                tokenizer = AutoTokenizer.from_pretrained(str(out))
                examples = [example(tokenizer, row) for row in rows]
                model = AutoModelForCausalLM.from_pretrained(str(out), dtype=torch.float32)
                compare(kind, f"merged {dtype}", by_torch(model, examples), tuned, most)
                del model
                gc.collect()
            model = base_of(args.model)
            compare(kind, "base", by_torch(model, examples), base, 2e-3)
            model = PeftModel.from_pretrained(model, str(export(kind, "peft")))
            compare(kind, "peft", by_torch(model, examples), tuned, 2e-3)
            del model
            gc.collect()
            if args.no_llama_cpp:
                continue
            base_there = base_there or by_llama_cpp(args.model, examples)
            ours = [a - b for a, b in zip(tuned, base, strict=True)]

            def changed(losses):
                return [a - b for a, b in zip(losses, base_there, strict=True)]

            if kind != "dora":
                lora = next(export(kind, "gguf-lora").glob("*.gguf"))
                compare(kind, "gguf-lora", changed(by_llama_cpp(args.model, examples, lora)), ours, 0.1)
            for dtype in ["f16", "q8_0"]:
                path = next(export(kind, "gguf", "--dtype", dtype).glob("*.gguf"))
                compare(kind, f"gguf {dtype}", changed(by_llama_cpp(path, examples)), ours, 0.15)
    if wrong:
        print("disagree:", wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
