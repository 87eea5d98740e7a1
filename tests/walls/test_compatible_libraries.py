"""What libraries do in sessions goes on behind walls, and Chromium in its own sandbox."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from models.tiny_models import need, onnx_sum
from walled import NOBODY, walled

pytestmark = pytest.mark.more

PROCESSES = """
import psutil

def use():
    return any(each.info["cmdline"] is not None for each in psutil.process_iter(["pid", "name", "status", "cmdline"]))
"""

ONNXRUNTIME = """
def use():
    import numpy
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2  # the library sets the affinity of its threads
    session = onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
    (total,) = session.run(None, {"x": numpy.array([1, 2, 3], numpy.float32)})
    return total.tolist() == [2.0, 4.0, 6.0]
"""

TORCH = """
def use():
    import torch

    torch.set_num_threads(2)
    model = torch.nn.LSTM(8, 8)
    output, _ = model(torch.zeros(4, 1, 8))
    traced = torch.jit.trace(torch.nn.Linear(8, 2), torch.zeros(1, 8))
    shared = torch.zeros(4).share_memory_()
    loader = torch.utils.data.DataLoader(torch.arange(8), batch_size=4, num_workers=2)
    batches = [batch.tolist() for batch in loader]
    shapes = [tuple(output.shape), tuple(traced(torch.zeros(1, 8)).shape)]
    return [shapes, batches, shared.is_shared()] == [[(4, 1, 8), (1, 2)], [[0, 1, 2, 3], [4, 5, 6, 7]], True]
"""

RTC = """
async def use_async():
    from livekit import rtc

    source = rtc.AudioSource(48000, 1)
    await source.capture_frame(rtc.AudioFrame.create(48000, 1, 480))
    await source.aclose()
    resampler = rtc.AudioResampler(48000, 16000)
    frames = [*resampler.push(rtc.AudioFrame.create(48000, 1, 4800)), *resampler.flush()]
    room = rtc.Room()
    try:
        await room.connect("ws://127.0.0.1:9", "token")  # nobody listens
    except rtc.ConnectError:
        return all(frame.sample_rate == 16000 for frame in frames)

def use():
    import asyncio

    return asyncio.run(use_async())
"""

CHROMIUM = """
def use():
    import subprocess
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        command = [PROGRAM, "--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
        command += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={folder}"]
        command += ["--dump-dom", "data:text/html,<p id=it></p><script>it.textContent=6*7</script>"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return "<p id=\\"it\\">42</p>" in done.stdout or done.stderr
"""

SESSION = """
from greenroom import App

app = App()

@app.entrypoint
def entrypoint(ctx):
    return use()
"""


async def result_of(folder: Path, source: str, walls: str = "require") -> Any:
    app = folder / "app.py"
    app.write_text(f"{source}\n{SESSION}")
    async with walled(NOBODY, "--walls", walls, app=app, has_victim=False) as worker:
        report = await worker.run({})
    assert report["reason"] == "completed", report
    return report["result"]


async def test_processes_are_listed(tmp_path: Path) -> None:
    need("psutil")
    assert await result_of(tmp_path, PROCESSES) is True


async def test_onnxruntime_with_two_threads(tmp_path: Path) -> None:
    need("onnxruntime", "numpy")
    onnx_sum(tmp_path / "sum.onnx")
    assert await result_of(tmp_path, f"MODEL = {(tmp_path / 'sum.onnx').read_bytes()!r}\n{ONNXRUNTIME}") is True


async def test_torch_with_two_threads_and_its_processes(tmp_path: Path) -> None:
    need("torch", nightly=True)
    assert await result_of(tmp_path, TORCH) is True


async def test_the_native_runtime_of_livekit(tmp_path: Path) -> None:
    need("livekit.rtc")
    assert await result_of(tmp_path, RTC) is True


async def test_chromium_in_its_own_sandbox(tmp_path: Path) -> None:
    """Where it works without walls: it needs user namespaces, which some machines forbid."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no Chromium on this machine")
    source = f"PROGRAM = {program!r}\n{CHROMIUM}"
    without = await result_of(tmp_path, source, walls="off")
    if without is not True:
        pytest.skip(f"Chromium's sandbox does not work on this machine: {without[-500:]}")
    assert await result_of(tmp_path, source) is True
