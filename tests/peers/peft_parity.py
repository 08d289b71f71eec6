#!/usr/bin/env python3
"""Compares the eval loss of an exported adapter in Python PEFT with Retort's own.

    pip install -r peft-requirements.txt
    python peft_parity.py --adapter DIR --base FILE.gguf --tokenizer FILE.gguf --eval eval.jsonl --ours 1.2345

`--adapter` is a folder of `retort export … --format peft`, `--base` a Hugging Face folder or a GGUF file of the base weights,
`--tokenizer` the GGUF file (or a folder with `tokenizer.json`) whose vocabulary and chat template are used, `--eval` a
JSON Lines file of `question` and `answer`, `--ours` the `loss` of Retort's `summary` table for the tuned model (and
`--ours-base` that of the base).

The template and the mask are written again here, from their description and not from Retort's code: the chat template
renders the question with the generation prompt, then question and answer; the loss is the mean, over all answers, of the
negative log-likelihood of the answer's tokens and of the token that ends its turn.

Exit status: 0 if the losses agree within `--tolerance` (a share, 0.01 by default), 1 if not.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from gguf import GGUFReader
from peft import PeftModel
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
from transformers import AutoModelForCausalLM, AutoTokenizer


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--eval", type=Path, required=True)
    parser.add_argument("--ours", type=float, required=True)
    parser.add_argument("--ours-base", type=float)
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--tolerance", type=float, default=0.01)
    return parser.parse_args()


def load_tokenizer(path):
    if path.suffix == ".gguf":
        tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
        pre = GGUFReader(path).fields["tokenizer.ggml.pre"].contents()
        if pre == "smollm":
            # SmolLM2's own tokenizer.json parts digits first; transformers leaves that out of what it makes of the GGUF.
            parts = [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
            tokenizer.backend_tokenizer.pre_tokenizer = Sequence(parts)
        return tokenizer
    return AutoTokenizer.from_pretrained(str(path))


def load_base(path):
    if path.suffix == ".gguf":
        return AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, dtype=torch.float32)
    return AutoModelForCausalLM.from_pretrained(str(path), dtype=torch.float32)


def example(tokenizer, question, answer):
    """Token ids, and how many of them are the prompt."""
    user = {"role": "user", "content": question}
    assistant = {"role": "assistant", "content": answer}
    prompt = tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([user, assistant], tokenize=False)
    ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
    prefix = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    if ids[: len(prefix)] != prefix:
        raise SystemExit(f"the prompt's tokens change beside the answer of {question!r}")
    # The template writes a line break after the end of the turn; the model has stopped by then.
    while ids[-1] != tokenizer.eos_token_id:
        ids.pop()
    return ids, len(prefix)


@torch.no_grad()
def mean_loss(model, examples):
    total, count = 0.0, 0
    for ids, prefix in examples:
        logits = model(torch.tensor([ids])).logits[0, prefix - 1 : -1].double()
        targets = torch.tensor(ids[prefix:])
        total += torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item()
        count += len(targets)
    return total / count, count


def main():
    args = arguments()
    tokenizer = load_tokenizer(args.tokenizer)
    rows = [json.loads(line) for line in args.eval.read_text(encoding="utf-8").splitlines() if line]
    examples = [example(tokenizer, row["question"], row["answer"]) for row in rows]
    examples = [(ids, prefix) for ids, prefix in examples if len(ids) <= args.max_length]

    model = load_base(args.base)
    model.eval()
    base, count = mean_loss(model, examples)
    tuned_model = PeftModel.from_pretrained(model, str(args.adapter))
    tuned_model.eval()
    tuned, _ = mean_loss(tuned_model, examples)

    print(f"{len(examples)} examples, {count} answer tokens")
    agree = True
    for name, theirs, ours in [("base", base, args.ours_base), ("tuned", tuned, args.ours)]:
        if ours is None:
            print(f"{name:6} peft {theirs:.6f}")
            continue
        share = abs(theirs - ours) / theirs
        agree = agree and share <= args.tolerance
        print(f"{name:6} peft {theirs:.6f}  retort {ours:.6f}  differ by {100 * share:.4f} %")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
