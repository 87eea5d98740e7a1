"""An admission that knows no limit of the machine."""

from __future__ import annotations

from greenroom import ProcessPool
from greenroom.server.admission import Admission
from greenroom.server.history.history import History
from greenroom.server.job_registry import JobRegistry
from greenroom.server.machine.cpu_room import CpuRoom
from greenroom.server.machine.limits import MemoryRoom
from greenroom.server.machine.room import MachineRoom
from greenroom.server.stall_guard import StallGuard
from greenroom.server.worker_identity import WorkerIdentity

__all__ = ["boundless_admission"]


def boundless_admission(pool: ProcessPool, registry: JobRegistry, offer_timeout: float) -> Admission:
    machine = MachineRoom(MemoryRoom(None), CpuRoom(None, dict))
    new_job_id, history = WorkerIdentity("here").new_job_id, History(pool, registry.live)
    return Admission(
        pool, registry, machine, history, new_job_id=new_job_id, offer_timeout=offer_timeout, stalls=StallGuard()
    )
