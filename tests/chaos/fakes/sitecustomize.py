"""Loaded by every Python process of a chaos worker (this folder is on its PYTHONPATH).

FTQ_CHAOS_SCALE   lease times are multiplied by it, so that a run takes minutes and not hours
FTQ_CHAOS_FAKES   phases are fakes
FTQ_CHAOS_LIGHT   the training stack is never imported
FTQ_CHAOS_CLOCK   seconds by which this host's wall clock is wrong

Nothing of ftq knows of this: the supervisor, agent, Celery worker, zygote and child that run are
the real ones, on the real broker. Only what a phase computes is made up, and named so.
"""

import datetime
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import time
import types
from typing import ClassVar

LEASE_TIMES = ("LEASE_S", "RENEW_S", "PAUSE_S", "CHILD_S", "CLAIM_S", "BEAT_S", "HOST_LOST_S")
HEAVY = ("torch", "transformers", "trl", "datasets", "peft")
PHASES = "ftq_worker.phases."
FAKES, LIGHT = (f"FTQ_CHAOS_{what}" in os.environ for what in ("FAKES", "LIGHT"))


class _Nothing(types.ModuleType):
    """Stands for a heavy library: has everything, does nothing."""

    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_, **__: None


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Answers for the phases with fakes, and for heavy libraries with nothing."""

    def find_spec(self, name, path=None, target=None):
        heavy = LIGHT and name.partition(".")[0] in HEAVY
        if heavy or (FAKES and name.startswith(PHASES)):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return None if spec.name.startswith(PHASES) else _Nothing(spec.name)

    def exec_module(self, module) -> None:
        if module.__name__.startswith(PHASES):
            phase = module.__name__.removeprefix(PHASES)

            def run(ctx: object) -> None:
                import fake_phases

                fake_phases.run(phase, ctx)

            module.run = run


if scale := float(os.environ.get("FTQ_CHAOS_SCALE") or 0):
    from ftq_shared import lifetimes

    for _name in LEASE_TIMES:
        setattr(lifetimes, _name, getattr(lifetimes, _name) * scale)
if FAKES or LIGHT:
    sys.meta_path.insert(0, _Finder())
if wrong_s := float(os.environ.get("FTQ_CHAOS_CLOCK") or 0):
    _right = time.time

    class _WrongDatetime(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.datetime.fromtimestamp(_right() + wrong_s, tz)

    time.time = lambda: _right() + wrong_s
    datetime.datetime = _WrongDatetime
