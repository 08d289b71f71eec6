#!/usr/bin/env python3
"""Writes the tiny checkpoints of `checkpoints.py` as GGUF files, and shows that llama.cpp reads them as the same models.

    pip install gguf==0.19.0 llama-cpp-python==0.3.36 safetensors numpy
    python gguf_checkpoints.py ../../ops/lm/fixtures

For each folder a `model.gguf` is made beside its `model.safetensors`: names, layouts and keys are llama.cpp's. Then llama.cpp
runs it on the tokens of `expected.json`; exit status 1 if its logits are not those of `transformers`. The test
`gguf_files_are_the_same_models` holds Retort to the files.
"""

import json
import sys
from pathlib import Path

import gguf
import llama_cpp
import numpy
from safetensors.numpy import load_file

ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma3_text": "gemma3",
    "phi": "phi2",
}
PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.dense": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}
GEMMA3_PARTS = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
TOP = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "model.final_layernorm": "output_norm",
    "lm_head": "output",
}
# Families whose windows or stretched positions llama.cpp does not take from a file, or not the same way.
BEYOND = {
    "mistral": "windows are not read for `llama`",
    "qwen2": "windows are not read for `qwen2`",
    "gemma3-scale": "the scale of scores is not read",
}


def name_of(name, family):
    path, kind = name.rsplit(".", 1)
    if path in TOP:
        return f"{TOP[path]}.{kind}"
    _, _, layer, part = path.split(".", 3)
    parts = PARTS | (GEMMA3_PARTS if family == "gemma3_text" else {})
    return f"blk.{layer}.{parts[part]}.{kind}"


def permute(values, heads):
    """Rows of each head from halves to neighbours, for interleaved positions."""
    rows = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return rows.swapaxes(1, 2).reshape(values.shape)


def llama3_factors(config, dim):
    scaling = config["rope_scaling"]
    frequencies = 1.0 / config["rope_theta"] ** (numpy.arange(0, dim, 2) / dim)
    original = scaling["original_max_position_embeddings"]
    turns = original * frequencies / (2 * numpy.pi)
    low, high, factor = scaling["low_freq_factor"], scaling["high_freq_factor"], scaling["factor"]
    smooth = (turns - low) / (high - low)
    blended = 1 / ((1 - smooth) / factor + smooth)
    return numpy.where(turns > high, 1.0, numpy.where(turns < low, factor, blended)).astype(numpy.float32)


def write(folder):
    config = json.loads((folder / "config.json").read_text())
    family = config["model_type"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    writer = gguf.GGUFWriter(folder / "model.gguf", ARCHITECTURES[family])
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(int(head_dim * config.get("partial_rotary_factor", 1.0)))
    if "layer_norm_eps" in config:
        writer.add_layer_norm_eps(config["layer_norm_eps"])
    else:
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    scaling = config.get("rope_scaling") or {"rope_type": "default"}
    if scaling["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(scaling["rope_type"]))
        writer.add_rope_scaling_factor(scaling["factor"])
    if scaling["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
    if scaling["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(config, head_dim))
    if family == "gemma3_text":
        writer.add_sliding_window(config["sliding_window"])
        writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config["layer_types"]])
        writer.add_key_value("gemma3.rope.freq_base_swa", config["rope_local_base_freq"], gguf.GGUFValueType.FLOAT32)
        writer.add_key_value(
            "gemma3.attention.scale", config["query_pre_attn_scalar"] ** -0.5, gguf.GGUFValueType.FLOAT32
        )
    for name, values in load_file(folder / "model.safetensors").items():
        if name == "lm_head.weight" and config.get("tie_word_embeddings"):
            continue
        if family in ("llama", "mistral") and ".q_proj." in name:
            values = permute(values, heads)
        if family in ("llama", "mistral") and ".k_proj." in name:
            values = permute(values, kv_heads)
        if family == "gemma3_text" and name.endswith("norm.weight"):
            values = values.astype(numpy.float32) + 1
        if values.ndim == 1:
            values = values.astype(numpy.float32)
        writer.add_tensor(name_of(name, family), numpy.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def distance(folder):
    """The largest difference of a logit."""
    expected = json.loads((folder / "expected.json").read_text())
    model = llama_cpp.Llama(
        str(folder / "model.gguf"), n_ctx=128, logits_all=True, type_k=0, type_v=0, n_threads=1, verbose=False
    )
    model.eval(expected["tokens"])
    logits = numpy.array(model.scores[: len(expected["tokens"])])
    return numpy.abs(logits - numpy.array(expected["logits"])).max()


def main():
    agree = True
    for folder in sorted(path.parent for path in Path(sys.argv[1]).glob("*/config.json")):
        write(folder)
        if folder.name in BEYOND:
            print(f"{folder.name:12} not compared: {BEYOND[folder.name]}")
            continue
        worst = distance(folder)
        agree = agree and worst < 0.1
        print(f"{folder.name:12} logits differ by at most {worst:.5f}")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
