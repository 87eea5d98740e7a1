"""What large libraries leave in the zygote, and what is said of it. Run by ``tests/models/night.py``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from models.tiny_models import need
from support import DEADLINE

from greenroom import AppLoadError, ProcessPool

MakeApp = Callable[[str], str]

DATA = "import numpy; table = numpy.random.RandomState(0).rand(5000, 16).astype('float32'); truth = table[:, 0] > 0.5"
COMPUTE = {
    "torch": "import torch; torch.ones(3_000_000).exp()",
    "sklearn": "import sklearn.ensemble as e; e.HistGradientBoostingClassifier(max_iter=2).fit(table, truth)",
    "lightgbm": "import lightgbm; lightgbm.train({'verbose': -1}, lightgbm.Dataset(table, truth), 2)",
    "xgboost": "import xgboost; xgboost.train({}, xgboost.DMatrix(table, truth), 2)",
    "faiss": "import faiss; index = faiss.IndexFlatL2(16); index.add(table); index.search(table, 5)",
}
OTHER_DEFAULTS = {
    "pandas": (
        "import pandas; assert (pandas.DataFrame({'a': ['x', 'y']})['a'] == 'x').sum() == 1",
        ("JE_ARROW_MALLOC_CONF", "background_thread:true", "background_thread:false"),
    ),
    "cv2": (
        "import cv2, numpy; assert cv2.GaussianBlur(numpy.full((600, 800, 3), 7, numpy.uint8), (9, 9), 2).max() == 7",
        ("OPENCV_FOR_THREADS_NUM", "3", "1"),
    ),
    "numexpr": (
        "import numexpr, numpy; assert numexpr.evaluate('a + 1', {'a': numpy.zeros(100_000)}).max() == 1",
        ("OMP_NUM_THREADS", "3", "1"),
    ),
}
"""What has one thread with Greenroom's environment; and a variable, an operator's value for it, and the default."""

WITH_THREADS = {
    "polars": ("import polars; polars.DataFrame({'a': [1]}).filter(polars.col('a') == 1)", "Polars: it starts a"),
    "duckdb": ("import duckdb; app.kept = duckdb.connect(); app.kept.execute('select 3')", "DuckDB: connect to a"),
    "zarr": (
        "import zarr; zarr.create_array('memory://', shape=(10,), dtype='i4', overwrite=True)[3]",
        "Zarr: open its arrays in prewarm",
    ),
    "lancedb": ("import lancedb", "LanceDB: it starts a"),
    "chromadb": ("import chromadb; chromadb.EphemeralClient()", "Chroma: make its client in prewarm"),
    "jax": ("import jax; assert jax.jit(lambda n: n + 1)(1) == 2", "JAX: it starts threads"),
    "pyarrow": (
        "import io, pyarrow.csv; assert pyarrow.csv.read_csv(io.BytesIO(b'a\\n1')).num_rows == 1",
        "pyarrow.ipc.open_stream(pyarrow.memory_map(file)).read_all() needs no thread",
    ),
}
"""What starts threads in any case, and what is said of it."""

ENTRYPOINT = """
@app.entrypoint
async def entrypoint(ctx): return await asyncio.to_thread(compute)
"""
SECONDS = 3 * DEADLINE
"""To load: these are large."""


async def results_of(app: str, number: int = 1) -> list[object]:
    async with ProcessPool(app, num_idle_processes=1, preload_timeout=SECONDS, prewarm_timeout=SECONDS) as pool:
        reports = [await (await pool.launch(timeout=SECONDS)).wait() for _ in range(number)]
    assert {report.outcome for report in reports} == {"succeeded"}, reports
    return [report.result for report in reports]


async def refusal_of(app: str) -> str:
    with pytest.raises(AppLoadError) as refused:
        await ProcessPool(app, preload_timeout=SECONDS).start()
    return str(refused.value)


def in_place(app: str, where: str) -> str:
    """Return an app of the same folder, with the name of a decorator in the place of WHERE."""
    path = Path(app.removesuffix(":app"))
    other = path.with_name(f"{path.stem}_{where}.py")
    other.write_text(path.read_text().replace("WHERE", where))
    return f"{other}:app"


@pytest.mark.parametrize("library", COMPUTE)
async def test_a_library_on_openmp(make_app: MakeApp, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    need(library, nightly=True)
    app = make_app(f"{DATA}\ndef compute():\n    {COMPUTE[library]}\n\napp.preload(compute)\n{ENTRYPOINT}")
    assert await results_of(app) == [None]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("MKL_NUM_THREADS", "3")  # which torch heeds, too
    monkeypatch.setenv("NUMEXPR_NUM_THREADS", "1")  # pandas imports it, and it heeds OMP_NUM_THREADS
    refusal = await refusal_of(app)
    assert "thread(s) besides its own" in refusal
    assert "scikit-learn, LightGBM, XGBoost, faiss): set OMP_NUM_THREADS=1 (Greenroom's default)" in refusal


@pytest.mark.parametrize("library", OTHER_DEFAULTS)
async def test_a_library_that_has_threads_by_default(
    make_app: MakeApp, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(library, nightly=True)
    source, (variable, value, default) = OTHER_DEFAULTS[library]
    app = make_app(f"def compute():\n    {source}\n\napp.preload(compute)\n{ENTRYPOINT}")
    assert await results_of(app) == [None]
    monkeypatch.setenv(variable, value)
    refusal = await refusal_of(app)
    assert f": set {variable}={default} (Greenroom's default) for the worker" in refusal


@pytest.mark.parametrize("library", WITH_THREADS)
async def test_a_library_that_belongs_in_prewarm(make_app: MakeApp, library: str) -> None:
    need(library, nightly=True)
    source, words = WITH_THREADS[library]
    app = make_app(f"def compute(proc=None):\n    {source}\n\napp.WHERE(compute)\n{ENTRYPOINT}")
    assert words in await refusal_of(in_place(app, "preload"))
    assert await results_of(in_place(app, "prewarm")) == [None]


async def test_a_table_of_arrow_is_shared(make_app: MakeApp, tmp_path: Path) -> None:
    need("pyarrow", nightly=True)
    source = f"""
import pyarrow

def write():
    table = pyarrow.table({{"a": [1, 2, 3]}})
    with pyarrow.ipc.new_stream("{tmp_path}/table.arrow", table.schema) as file: file.write(table)

@app.preload
def preload():
    global table
    write()
    table = pyarrow.ipc.open_stream(pyarrow.memory_map("{tmp_path}/table.arrow")).read_all()

def compute(): return table["a"].to_pylist()
"""
    assert await results_of(make_app(source + ENTRYPOINT)) == [[1, 2, 3]]


async def test_each_process_has_random_numbers_of_torch_of_its_own(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    need("torch", nightly=True)
    source = """
    import torch

    class Voice:
        def __init__(self): self.noise = torch.Generator()

    voice, usual = Voice(), torch.default_generator

    def compute(): return [torch.rand(1).item(), torch.rand(1, generator=voice.noise).item()]
    """
    first, second = await results_of(make_app(source + ENTRYPOINT.replace("\n", "\n    ")), 2)
    assert [a == b for a, b in zip(first, second, strict=True)] == [False, True]  # type: ignore[call-overload]
    assert "app_0.voice.noise is a generator of random numbers" in caplog.text
    assert "app_0.usual" not in caplog.text


async def test_numba_in_parallel_belongs_in_prewarm(make_app: MakeApp) -> None:
    need("numba", nightly=True)
    app = make_app(f"""
import numba

@numba.njit
def square(number): return number * number

@numba.njit(parallel=True)
def total(values):
    found = 0.0
    for index in numba.prange(len(values)):
        found += values[index]
    return found

def compute(proc=None):
    import numpy
    return [total(numpy.ones(1000)), square(3)]

square(2)
app.WHERE(compute)
{ENTRYPOINT}
""")
    assert "a function that numba compiles with parallel=True was compiled or called" in await refusal_of(
        in_place(app, "preload")
    )
    assert await results_of(in_place(app, "prewarm")) == [[1000.0, 9]]
