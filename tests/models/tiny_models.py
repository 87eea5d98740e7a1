"""Models of a few bytes, made here: nothing is downloaded. And what of the libraries is installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

__all__ = ["make_model", "need", "onnx_noise", "onnx_sum"]

TIME_TO_MAKE = 120.0
"""Seconds."""


def onnx_sum(path: Path) -> None:
    """Write an ONNX model with an input x of three floats, whose output y is x + x. It needs no package onnx."""
    node = _field(1, b"x") + _field(1, b"x") + _field(2, b"y") + _field(4, b"Add")
    path.write_bytes(_onnx(node, _field(11, _value("x"))))


def onnx_noise(path: Path, size: int = 0) -> None:
    """Write one without an input, whose output y is three random numbers, in a file of more than so many bytes."""
    shape = _field(1, b"shape") + _number(8, 3) + _number(20, 7)  # a list of integers
    node = _field(2, b"y") + _field(4, b"RandomNormal") + _field(5, shape)
    path.write_bytes(_onnx(node, b"") + _field(6, size * b" "))  # as its description


def _onnx(node: bytes, inputs: bytes) -> bytes:
    graph = _field(1, node) + _field(2, b"graph") + inputs + _field(12, _value("y"))
    opset = _field(1, b"") + _number(2, 17)
    return _number(1, 9) + _field(7, graph) + _field(8, opset)


def _value(name: str) -> bytes:
    shape = _field(1, _number(1, 3))
    return _field(1, name.encode()) + _field(2, _field(1, _number(1, 1) + _field(2, shape)))  # 1: floats


def _field(number: int, data: bytes) -> bytes:
    """Return a field of Protocol Buffers with bytes, text or a message in it."""
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def need(*libraries: str, nightly: bool = False) -> None:
    """Skip a test without these libraries. Where all should be there, fail it: at night, or in each run of CI."""
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    if missing:
        assert ("NIGHTLY" if nightly else "CI") not in os.environ, f"not installed: {missing}"
        pytest.skip(f"not installed: {', '.join(missing)}")


def make_model(folder: Path) -> None:
    """Write a language model for ctranslate2 that says yes. In a process of its own: what it imports is heavy."""
    subprocess.run([sys.executable, __file__, folder], check=True, timeout=TIME_TO_MAKE)


def _make_model(folder: str) -> None:
    import numpy
    from ctranslate2.specs.transformer_spec import TransformerDecoderModelSpec

    size, words = 8, ["<unk>", "<s>", "</s>", "yes"]
    spec = TransformerDecoderModelSpec.from_config(num_layers=1, num_heads=1)
    decoder, layer = spec.decoder, spec.decoder.layer[0]
    for norm in (decoder.layer_norm, layer.self_attention.layer_norm, layer.ffn.layer_norm):
        norm.gamma = norm.beta = numpy.zeros(size, numpy.float32)
    for part, rows, columns in (
        (decoder.embeddings, len(words), size),
        (decoder.projection, len(words), size),
        (layer.self_attention.linear[0], 3 * size, size),
        (layer.self_attention.linear[1], size, size),
        (layer.ffn.linear_0, 4 * size, size),
        (layer.ffn.linear_1, size, 4 * size),
    ):
        part.weight = numpy.zeros((rows, columns), numpy.float32)
        if hasattr(part, "bias"):
            part.bias = numpy.zeros(rows, numpy.float32)
    decoder.position_encodings.encodings = numpy.zeros((64, size), numpy.float32)
    decoder.projection.bias[words.index("yes")] = 1.0
    spec.register_vocabulary(words)
    spec.validate()
    spec.optimize()
    os.makedirs(folder)
    spec.save(folder)


if __name__ == "__main__":
    _make_model(sys.argv[1])
