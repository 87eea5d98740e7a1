"""Models of a few bytes, made here: nothing is downloaded."""

from __future__ import annotations

import struct
from pathlib import Path

__all__ = ["CTRANSLATE2", "onnx_sum"]


def onnx_sum(path: Path, size: int = 3) -> None:
    """Write an ONNX model with an input x of so many floats, whose output y is x + x. It needs no package onnx."""
    value = _field(1, b"x") + _tensor_type(size)
    out = _field(1, b"y") + _tensor_type(size)
    node = _field(1, b"x") + _field(1, b"x") + _field(2, b"y") + _field(4, b"Add")
    graph = _field(1, node) + _field(2, b"sum") + _field(11, value) + _field(12, out)
    opset = _field(1, b"") + _number(2, 17)
    path.write_bytes(_number(1, 9) + _field(7, graph) + _field(8, opset))


def _tensor_type(size: int) -> bytes:
    shape = _field(1, _number(1, size))
    return _field(2, _field(1, _number(1, 1) + _field(2, shape)))  # element type 1: float


def _field(number: int, data: bytes) -> bytes:
    """Return a field of Protocol Buffers with bytes, text or a message in it."""
    assert len(data) < 128 * 128
    length = bytes([len(data)]) if len(data) < 128 else bytes([len(data) % 128 | 128, len(data) // 128])
    return struct.pack("B", number << 3 | 2) + length + data


def _number(number: int, value: int) -> bytes:
    assert value < 128
    return struct.pack("BB", number << 3, value)


CTRANSLATE2 = """
def make_model(folder):
    '''Write a language model of one layer, with weights of zero, for ctranslate2.'''
    import ctranslate2, numpy
    from ctranslate2.specs.transformer_spec import TransformerDecoderModelSpec

    size, words = 8, ["<unk>", "<s>", "</s>", "yes"]
    spec = TransformerDecoderModelSpec.from_config(num_layers=1, num_heads=1)
    zeros = lambda *shape: numpy.zeros(shape, numpy.float32)
    decoder, layer = spec.decoder, spec.decoder.layer[0]
    for norm in (decoder.layer_norm, layer.self_attention.layer_norm, layer.ffn.layer_norm):
        norm.gamma, norm.beta = zeros(size), zeros(size)
    weights = [(decoder.embeddings, len(words), size), (decoder.projection, len(words), size),
               (layer.self_attention.linear[0], 3 * size, size), (layer.self_attention.linear[1], size, size),
               (layer.ffn.linear_0, 4 * size, size), (layer.ffn.linear_1, size, 4 * size)]
    for part, rows, columns in weights:
        part.weight = zeros(rows, columns)
        if hasattr(part, "bias"):
            part.bias = zeros(rows)
    decoder.position_encodings.encodings = zeros(64, size)
    decoder.projection.bias[3] = 1.0  # it says yes, always
    spec.register_vocabulary(words)
    spec.validate()
    spec.optimize()
    os.makedirs(folder, exist_ok=True)
    spec.save(folder)
    return folder
"""
"""Source of a function for an app."""
