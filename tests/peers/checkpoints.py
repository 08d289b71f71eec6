#!/usr/bin/env python3
"""Makes the tiny checkpoints that `ops/lm/src/oracle/transformers.rs` is held to: random weights, and `transformers`' logits.

    pip install -r transformers-requirements.txt
    python checkpoints.py ../../ops/lm/fixtures

Each folder is what `save_pretrained` writes (weights in half floats, so that Retort keeps them exactly) and an `expected.json`
with token ids and the logits that `transformers` computes for each of them in single floats. The seeds are fixed: with the same
versions of the packages the files come out the same.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM
from transformers import Gemma3TextConfig, LlamaConfig, MistralConfig, PhiConfig, Qwen2Config, Qwen3Config

SIZES = {
    "vocab_size": 48,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
WINDOW = 7
GEMMA3 = SIZES | {
    "head_dim": 8,
    "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "full_attention"],
    "rope_theta": 3000.0,
    "rope_local_base_freq": 300.0,
    "rope_scaling": {"rope_type": "linear", "factor": 8.0},
}

CONFIGS = {
    "llama": LlamaConfig(**SIZES, tie_word_embeddings=True, rope_theta=500.0),
    "llama3": LlamaConfig(**SIZES, rope_scaling=LLAMA3, rope_theta=3e8, attention_bias=True, mlp_bias=True),
    "mistral": MistralConfig(**SIZES, sliding_window=WINDOW, head_dim=8),
    "qwen2": Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1),
    "qwen2-yarn": Qwen2Config(**SIZES, rope_scaling=YARN, rope_theta=500.0),
    "qwen3": Qwen3Config(**SIZES, head_dim=8, rope_scaling={"rope_type": "linear", "factor": 2.5}),
    "gemma3": Gemma3TextConfig(**GEMMA3, query_pre_attn_scalar=8),
    "gemma3-scale": Gemma3TextConfig(**GEMMA3, query_pre_attn_scalar=11),
    "phi": PhiConfig(**SIZES, partial_rotary_factor=0.67, layer_norm_eps=1e-3),
}


def randomise(model, seed):
    """Weights, norms and biases of a size at which each matters to the logits."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() == 2:
            noise = noise * 1.7 / parameter.shape[1] ** 0.5
        else:
            noise = 0.3 * noise + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
        parameter.data = noise.half().float()


@torch.no_grad()
def make(name, config, seed, folder):
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    randomise(model, seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    tokens = torch.randint(0, config.vocab_size, (1, 40), generator=generator)
    logits = model(tokens).logits[0]
    shutil.rmtree(folder, ignore_errors=True)
    model.half().save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    rows = [[round(value, 5) for value in row] for row in logits.tolist()]
    text = json.dumps({"tokens": tokens[0].tolist(), "logits": rows}, separators=(",", ":"))
    (folder / "expected.json").write_text(text + "\n")
    print(f"{name}: largest logit {logits.abs().max():.2f}")


def main():
    target = Path(sys.argv[1])
    for seed, (name, config) in enumerate(CONFIGS.items()):
        make(name, config, seed, target / name)


if __name__ == "__main__":
    main()
