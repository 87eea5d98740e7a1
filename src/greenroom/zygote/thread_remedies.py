"""Remedies for libraries that leave threads in the zygote: a table, and a search for the libraries of this process."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from typing import NamedTuple

__all__ = ["REMEDIES", "Remedy", "advice", "remedies_for"]


class Remedy(NamedTuple):
    library: str
    """Name of the library for users."""
    modules: tuple[str, ...]
    """Modules of the library. A process that has imported one of them uses the library."""
    files: tuple[str, ...]
    """Beginnings of the names of mapped files, for libraries that come inside others."""
    words: str
    """Advice to the user."""
    variables: tuple[str, ...] = ()
    """Environment variables that limit the library to one thread. Greenroom sets them, unless the operator has done
    so."""


_SERVICE = "it starts threads when it loads a model: load the model in a service (@app.service), or in prewarm"

REMEDIES = (
    Remedy(
        "onnxruntime",
        ("onnxruntime",),
        ("libonnxruntime",),
        "leave intra_op_num_threads and inter_op_num_threads of its SessionOptions at 0 or 1",
        ("OMP_NUM_THREADS", "ORT_DISABLE_TELEMETRY"),
    ),
    Remedy("sherpa-onnx", ("sherpa_onnx",), (), "leave num_threads in its configurations at 1"),
    Remedy("scipy.fft", ("scipy.fft",), (), "do not set its argument workers"),
    Remedy("ctranslate2 (faster-whisper)", ("ctranslate2", "faster_whisper"), ("libctranslate2",), _SERVICE),
    Remedy("OpenVINO", ("openvino",), ("libopenvino",), _SERVICE),
    Remedy("TensorFlow", ("tensorflow",), ("libtensorflow",), _SERVICE),
    Remedy("JAX", ("jaxlib",), (), _SERVICE),
    Remedy(
        "pyarrow (and so pandas)",
        ("pyarrow",),
        (),
        "read Parquet, CSV and Feather files in prewarm; pyarrow.ipc.open_stream(pyarrow.memory_map(file)).read_all() "
        "needs no thread",
        ("OMP_NUM_THREADS", "JE_ARROW_MALLOC_CONF"),
    ),
    Remedy("Polars", ("polars",), (), "it starts a thread when it is imported: import it in prewarm"),
    Remedy("DuckDB", ("duckdb",), (), "connect to a database in prewarm, or close it in preload"),
    Remedy("LanceDB", ("lancedb",), (), "it starts a thread when it is imported: import it in prewarm"),
    Remedy("Chroma", ("chromadb",), (), "make its client in prewarm"),
    Remedy("Zarr", ("zarr",), (), "open its arrays in prewarm"),
    Remedy("OpenCV", ("cv2",), (), "do not call cv2.setNumThreads", ("OPENCV_FOR_THREADS_NUM",)),
    Remedy(
        "numexpr",
        ("numexpr",),
        (),
        "do not set NUMEXPR_NUM_THREADS or call numexpr.set_num_threads",
        ("OMP_NUM_THREADS",),
    ),
    Remedy("PyAV", ("av",), (), "do not set thread_type of its streams, or decode in prewarm"),
    Remedy(
        "CUDA", (), ("libcuda.so",), "a GPU cannot be used after a fork: load the model in a service (@app.service)"
    ),
    Remedy("gRPC", ("grpc",), (), "open its channels in prewarm"),
    Remedy("PyMongo", ("pymongo",), (), "make its client with connect=False, and use it only after the fork"),
    Remedy(
        "tokenizers",
        ("tokenizers",),
        (),
        "do not train a tokenizer in preload, and do not change TOKENIZERS_PARALLELISM",
        ("TOKENIZERS_PARALLELISM",),
    ),
    Remedy(
        "numba",
        ("numba",),
        (),
        "call functions that have parallel=True for the first time in prewarm",
        ("NUMBA_NUM_THREADS",),
    ),
    Remedy(
        "OpenMP (torch, scikit-learn, LightGBM, XGBoost, faiss)",
        (),
        ("libgomp", "libomp", "libiomp"),
        "do not set a number of threads in the code (torch.set_num_threads, n_jobs, num_threads, nthread)",
        ("OMP_NUM_THREADS",),
    ),
    Remedy("MKL", (), ("libmkl",), "do not set a number of threads in the code", ("MKL_NUM_THREADS",)),
    Remedy(
        "OpenBLAS (numpy, scipy)",
        (),
        ("libopenblas", "libscipy_openblas"),
        "do not use threadpoolctl",
        ("OPENBLAS_NUM_THREADS",),
    ),
)
_DEFAULTS = {"TOKENIZERS_PARALLELISM": "false", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
_DEFAULT = "1"


def advice(text: str, *, has_native_threads: bool) -> str:
    """Return advice on the libraries that the text names.

    If the text names none, return advice on all listed libraries of this process, provided that it has native threads.
    """
    here = remedies_for(sys.modules, mapped_files())
    named = [remedy for remedy in here if any(_is_named(module, text) for module in remedy.modules)]
    return "".join(f"{sentence(remedy, os.environ)}. " for remedy in named or (here if has_native_threads else []))


def remedies_for(modules: Iterable[str], files: Iterable[str]) -> list[Remedy]:
    """Return the rows of the table whose library has one of these modules or mapped files."""
    imported, mapped = set(modules), tuple(files)
    return [
        remedy
        for remedy in REMEDIES
        if not imported.isdisjoint(remedy.modules)
        or (remedy.files and any(name.startswith(remedy.files) for name in mapped))
    ]


def _is_named(module: str, text: str) -> bool:
    """Return whether the text names a module, or a part of it. A path that contains the name does not count."""
    return re.search(rf"(?<![\w./-]){re.escape(module)}(?=\.\w|[ ,)]|$)", text) is not None


def sentence(remedy: Remedy, environment: Mapping[str, str]) -> str:
    """Return the advice on a library, given the environment of the zygote."""
    for variable in remedy.variables:
        wanted = _DEFAULTS.get(variable, _DEFAULT)
        if environment.get(variable) != wanted:
            return f"{remedy.library}: set {variable}={wanted} (Greenroom's default) for the worker"
    return f"{remedy.library}: {remedy.words}"


def mapped_files() -> set[str]:
    """Return the names of the files that are mapped into this process, without their folders."""
    with open("/proc/self/maps") as maps:
        return {os.path.basename(line.split(maxsplit=5)[-1].rstrip()) for line in maps if "/" in line}
