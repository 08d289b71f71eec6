#!/usr/bin/env python3
"""Writes a model of LLaMA 7B's shape with random weights in Q8_0: does a machine hold what its file says?

    pip install gguf==0.19.0 numpy
    python large_gguf.py ../../target/models/SmolLM2-135M-Instruct.Q4_1.gguf /tmp/large.gguf
    /usr/bin/time -v retort chat --model /tmp/large.gguf --precision int8

Tokenizer and chat template are those of the first file, so it talks, in nonsense. 7.2 GB.
"""

import sys

import gguf
import numpy

HIDDEN, LAYERS, INNER, HEADS, CONTEXT = 4096, 32, 11008, 32, 4096


def main(donor, path):
    reader = gguf.GGUFReader(donor)
    vocabulary = len(reader.fields["tokenizer.ggml.tokens"].data)
    writer = gguf.GGUFWriter(path, "llama")
    for name, field in reader.fields.items():
        if name.startswith("tokenizer."):
            kinds = field.types
            writer.add_key_value(name, field.contents(), kinds[0], kinds[1] if len(kinds) > 1 else None)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(vocabulary)

    matrices = {"token_embd.weight": (vocabulary, HIDDEN), "output.weight": (vocabulary, HIDDEN)}
    vectors = ["output_norm.weight"]
    for layer in range(LAYERS):
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrices[f"blk.{layer}.{part}.weight"] = (HIDDEN, HIDDEN)
        matrices[f"blk.{layer}.ffn_gate.weight"] = (INNER, HIDDEN)
        matrices[f"blk.{layer}.ffn_up.weight"] = (INNER, HIDDEN)
        matrices[f"blk.{layer}.ffn_down.weight"] = (HIDDEN, INNER)
        vectors += [f"blk.{layer}.attn_norm.weight", f"blk.{layer}.ffn_norm.weight"]

    blocks = {name: rows * columns // 32 for name, (rows, columns) in matrices.items()}
    for name in vectors:
        writer.add_tensor_info(name, (HIDDEN,), numpy.dtype(numpy.float32), HIDDEN * 4)
    for name, (rows, columns) in matrices.items():
        q8 = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor_info(name, (rows, columns // 32 * 34), numpy.dtype(numpy.uint8), blocks[name] * 34, q8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _ in vectors:
        writer.write_tensor_data(numpy.ones(HIDDEN, numpy.float32))
    random = numpy.random.default_rng(1)
    for name, (_, columns) in matrices.items():
        block = numpy.empty(blocks[name], numpy.dtype([("scale", "<f2"), ("values", "i1", 32)]))
        block["scale"] = 0.02 / 127 * (4096 / columns) ** 0.5
        block["values"] = random.integers(-127, 128, (blocks[name], 32), numpy.int8)
        writer.write_tensor_data(block.view(numpy.uint8))
    writer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
