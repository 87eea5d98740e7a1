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


@pytest.mark.parametrize("library", COMPUTE)
async def test_a_library_on_openmp(make_app: MakeApp, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    need(library, nightly=True)
    app = make_app(f"{DATA}\ndef compute():\n    {COMPUTE[library]}\n\napp.preload(compute)\n{ENTRYPOINT}")
    assert await results_of(app) == [None]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("MKL_NUM_THREADS", "3")  # which torch heeds, too
    refusal = await refusal_of(app)
    assert "thread(s) besides its own" in refusal
    assert "scikit-learn, LightGBM, XGBoost, faiss): set OMP_NUM_THREADS=1 (Greenroom's default)" in refusal


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
    path = Path(app.removesuffix(":app"))
    source = path.read_text()
    path.write_text(source.replace("WHERE", "preload"))
    assert "a function that numba compiles with parallel=True was compiled or called" in await refusal_of(app)
    path.write_text(source.replace("WHERE", "prewarm"))
    assert await results_of(app) == [[1000.0, 9]]
