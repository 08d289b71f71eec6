#!/usr/bin/env python3
"""Compares Retort's greedy continuations, and its tokens, with llama.cpp's.

    pip install llama-cpp-python==0.3.36
    cargo build --workspace --examples
    python llama_cpp_parity.py --greedy ../../target/debug/examples/greedy MODEL.gguf...
    python llama_cpp_parity.py --greedy ../../target/debug/examples/greedy --text FILE VOCABULARY.gguf...

For each model: the prompts' token ids must be equal, and so must the tokens that follow. llama.cpp rounds activations to eight
bits and keeps its cache in half floats, so where two tokens are nearly as likely it may take the other one: the first place
where the two part is shown with the margin by which Retort's token won. A margin above `--margin` fails. `--precision int8` has Retort round activations too.

With `--text`, tokens only: each paragraph of the file, and the file as a whole.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import llama_cpp

PROMPTS = [
    "The capital of France is Paris. The capital of Italy is",
    "To mount a disk on a NeXT computer, the system administrator",
    "def fibonacci(n):\n    ",
    "Question: What is a retort?\nAnswer:",
    "Once upon a time, in a small village by the sea, there lived",
    "1, 2, 3, 5, 8, 13,",
    "Les ordinateurs NeXT étaient",
    "<|im_start|>user\nHello<end_of_turn></s> is text, not control.",
]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--greedy", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--margin", type=float, default=0.5)
    parser.add_argument("--precision", choices=["f16", "int8"], default="f16")
    parser.add_argument("--text", type=Path)
    parser.add_argument("models", nargs="+", type=Path)
    return parser.parse_args()


def retort(greedy, model, tokens, prompts, precision="f16"):
    lines = "".join(json.dumps(prompt) + "\n" for prompt in prompts)
    arguments = [greedy, model, str(tokens)] + ["int8"] * (precision == "int8")
    done = subprocess.run(arguments, input=lines, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def encode(model, text, adds_bos):
    return model.tokenize(text.encode(), add_bos=adds_bos, special=False)


def greedy(model, prompt, tokens):
    model.reset()
    model.eval(prompt)
    output = []
    for _ in range(tokens):
        output.append(int(model.scores[model.n_tokens - 1].argmax()))
        model.eval([output[-1]])
    return output


def compare(args, path):
    model = llama_cpp.Llama(str(path), n_ctx=512, logits_all=True, type_k=0, type_v=0, n_threads=2, verbose=False)
    adds_bos = bool(llama_cpp.llama_vocab_get_add_bos(llama_cpp.llama_model_get_vocab(model.model)))
    ours = retort(args.greedy, path, args.tokens, PROMPTS, args.precision)
    equal, agree = 0, True
    for prompt, row in zip(PROMPTS, ours, strict=True):
        ids = encode(model, prompt, adds_bos)
        if ids != row["prompt"]:
            print(f"  {prompt!r}: tokens {row['prompt']}, llama.cpp {ids}")
            agree = False
            continue
        theirs = greedy(model, ids, args.tokens)
        apart = next((at for at in range(args.tokens) if theirs[at] != row["output"][at]), None)
        if apart is None:
            equal += 1
            continue
        margin = row["margins"][apart]
        agree = agree and margin <= args.margin
        print(f"  {prompt!r}: part at token {apart} of {args.tokens}, margin {margin:.3f}")
    print(f"{path.name}: {equal} of {len(PROMPTS)} continuations of {args.tokens} tokens are equal")
    return agree


def compare_text(args, path):
    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    adds_bos = bool(llama_cpp.llama_vocab_get_add_bos(llama_cpp.llama_model_get_vocab(model.model)))
    whole = args.text.read_text(encoding="utf-8", errors="replace")
    texts = [part for part in whole.split("\n\n") if part] + [whole]
    ours = retort(args.greedy, path, 0, texts)
    wrong = 0
    for text, row in zip(texts, ours, strict=True):
        ids = encode(model, text, adds_bos)
        if ids != row["prompt"]:
            wrong += 1
            at = next((i for i, (a, b) in enumerate(zip(ids, row["prompt"])) if a != b), min(len(ids), len(row["prompt"])))
            if wrong <= 3:
                place = model.detokenize(ids[max(at - 3, 0) : at + 4])
                print(f"  differs at token {at}, near {place!r}: {row['prompt'][at : at + 4]}, llama.cpp {ids[at : at + 4]}")
    print(f"{path.name}: {len(texts) - wrong} of {len(texts)} texts ({len(whole.encode()):,} bytes twice) have equal tokens")
    return wrong == 0


def main():
    args = arguments()
    one = compare_text if args.text else compare
    return 0 if all([one(args, path) for path in args.models]) else 1


if __name__ == "__main__":
    sys.exit(main())
