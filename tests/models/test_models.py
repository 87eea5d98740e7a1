"""Libraries that models are loaded with: what they leave in the zygote, and what helps where it must not be there.

The recipes of docs/models.md are run by tests/test_docs.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from models.tiny_models import make_model, need, onnx_noise, onnx_sum
from support import DEADLINE

from greenroom import AppLoadError, ProcessPool
from greenroom.zygote.onnxruntime_random import LARGEST
from greenroom.zygote.onnxruntime_threads import imported, number_of_threads

MakeApp = Callable[[str], str]


async def result_of(app: str, **options: object) -> object:
    async with ProcessPool(app, num_idle_processes=1, prewarm_timeout=DEADLINE, **options) as pool:
        report = await (await pool.launch(timeout=DEADLINE)).wait()
    assert report.outcome == "succeeded", report
    return report.result


async def refusal_of(app: str) -> str:
    with pytest.raises(AppLoadError) as refused:
        await ProcessPool(app).start()
    return str(refused.value)


# --- onnxruntime ----------------------------------------------------------------------------------

ONNXRUNTIME = """
def load(options=None):
    import onnxruntime
    return onnxruntime.InferenceSession(PATH, options, providers=["CPUExecutionProvider"])

def infer(session):
    import numpy
    y, = session.run(None, {"x": numpy.array([1, 2, 3], numpy.float32)})
    options = session.get_session_options()
    return [y.tolist(), options.intra_op_num_threads, options.inter_op_num_threads]
"""


@pytest.fixture
def onnx_app(make_app: MakeApp, tmp_path: Path) -> MakeApp:
    need("onnxruntime")
    onnx_sum(tmp_path / "sum.onnx")
    return lambda source: make_app(f"PATH = {str(tmp_path / 'sum.onnx')!r}\n{ONNXRUNTIME}\n{source}")


async def test_a_default_session_of_onnxruntime_has_one_thread(onnx_app: MakeApp) -> None:
    """In preload, with and without options, and in a session. A number that the app names stands."""
    source = """
@app.preload
def preload():
    global models
    import onnxruntime
    parallel = onnxruntime.SessionOptions()
    parallel.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    models = [load(), load(parallel)]

@app.entrypoint
async def entrypoint(ctx):
    import onnxruntime
    before, options = len(os.listdir("/proc/self/task")), onnxruntime.SessionOptions()
    models.append(load())
    has_come = len(os.listdir("/proc/self/task")) - before
    options.intra_op_num_threads = 2
    return [has_come, [infer(model) for model in [*models, load(options)]]]
"""
    one = [[2.0, 4.0, 6.0], 1, 1]
    assert await result_of(onnx_app(source)) == [0, [one, one, one, [[2.0, 4.0, 6.0], 2, 1]]]


@pytest.mark.parametrize("start_method", ["zygote", "spawn"])
async def test_onnxruntime_has_one_thread_where_a_session_imports_it(onnx_app: MakeApp, start_method: str) -> None:
    source = "@app.entrypoint\ndef entrypoint(ctx): return infer(load())"
    assert await result_of(onnx_app(source), start_method=start_method) == [[2.0, 4.0, 6.0], 1, 1]


async def test_an_operator_has_the_last_word_on_threads_of_onnxruntime(
    onnx_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    app = onnx_app("model = load()\n\n@app.entrypoint\ndef entrypoint(ctx): ...")
    refusal = await refusal_of(app)
    assert "2 thread(s) besides its own" in refusal
    assert "(started by onnxruntime." in refusal
    assert f"{app.removesuffix(':app')}, line " in refusal
    assert "onnxruntime: set OMP_NUM_THREADS=1 (Greenroom's default) for the worker." in refusal
    assert "OpenBLAS" not in refusal


async def test_a_number_of_threads_in_the_app_is_named(onnx_app: MakeApp) -> None:
    source = """
@app.preload
def preload():
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    app.model = load(options)

@app.entrypoint
def entrypoint(ctx): ...
"""
    refusal = await refusal_of(onnx_app(source))
    assert "1 thread(s) besides its own" in refusal
    assert "onnxruntime: leave intra_op_num_threads" in refusal


@pytest.mark.parametrize(("value", "number"), [("1", 1), ("4,2", 4), (" 2 ", 2), ("", None), ("0", None), ("x", None)])
def test_the_number_of_threads(value: str, number: int | None) -> None:
    assert number_of_threads(value) == number


def test_another_onnxruntime_is_left_alone() -> None:
    class InferenceSession:
        pass

    module = ModuleType("onnxruntime")
    imported(module)
    initialize = InferenceSession.__init__
    vars(module).update(InferenceSession=InferenceSession, SessionOptions=object)
    imported(module)
    assert InferenceSession.__init__ is initialize


async def test_each_process_has_random_numbers_of_onnxruntime_of_its_own(
    make_app: MakeApp, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A small model is made anew, and one that is made in prewarm has another seed. A large one is named."""
    need("onnxruntime")
    small, large = tmp_path / "small.onnx", tmp_path / "large.onnx"
    onnx_noise(small)
    onnx_noise(large, size=LARGEST)
    app = make_app(f"""
def load(path):
    import onnxruntime
    return onnxruntime.InferenceSession(path)

@app.preload
def preload():
    global models
    models = [load({str(small)!r}), load(open({str(small)!r}, "rb").read()), load({str(large)!r})]

@app.prewarm
def prewarm(proc): models.append(load({str(large)!r}))

@app.entrypoint
def entrypoint(ctx): return [float(model.run(None, {{}})[0][0]) for model in models]
""")
    async with ProcessPool(app, num_idle_processes=2) as pool:
        first, second = [(await (await pool.launch(timeout=DEADLINE)).wait()).result for _ in range(2)]
    assert [a == b for a, b in zip(first, second, strict=True)] == [False, False, True, False]
    assert f"an onnxruntime session of {large} draws random numbers" in caplog.text
    assert str(small) not in caplog.text


# --- tokenizers and scikit-learn ------------------------------------------------------------------


async def test_tokenizers_and_scikit_learn_are_shared(make_app: MakeApp) -> None:
    need("tokenizers")
    need("sklearn")
    source = """
@app.preload
def preload():
    global tokenizer, classifier
    import numpy
    from sklearn.linear_model import LogisticRegression
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordLevel(unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(["yes yes yes", "no no"], trainers.WordLevelTrainer(special_tokens=["?"]))
    tokenizer.encode_batch(["yes no"] * 100)
    classifier = LogisticRegression().fit(numpy.array([[1], [2]]), ["yes", "no"])
    classifier.predict([[2]])

def work():
    tokens = [each.tokens for each in tokenizer.encode_batch(["yes no maybe"] * 100)]
    return [tokens[99], classifier.predict([[2]]).tolist()]

@app.entrypoint
async def entrypoint(ctx): return await asyncio.to_thread(work)
"""
    assert await result_of(make_app(source)) == [["yes", "no", "?"], ["no"]]


# --- ctranslate2 ----------------------------------------------------------------------------------


async def test_ctranslate2_is_refused_in_preload_and_works_in_prewarm(make_app: MakeApp, tmp_path: Path) -> None:
    need("ctranslate2")
    make_model(tmp_path / "model")
    app = make_app(f"""
def load(proc=None):
    global generator
    import ctranslate2
    generator = ctranslate2.Generator({str(tmp_path / "model")!r}, device="cpu")

app.WHERE(load)

@app.entrypoint
def entrypoint(ctx): return generator.generate_batch([["<s>"]], max_length=2)[0].sequences
""")
    path = Path(app.removesuffix(":app"))
    source = path.read_text()
    path.write_text(source.replace("WHERE", "preload"))
    refusal = await refusal_of(app)
    assert "ctranslate2 (faster-whisper): it starts threads when it loads a model" in refusal
    assert "@app.service" in refusal
    assert f"(started by {path}, line " in refusal
    path.write_text(source.replace("WHERE", "prewarm"))
    assert await result_of(app) == [["yes", "yes"]]
