"""Download what a machine with a card lacks to run `make gpu` without a network.

    python -m pip freeze > have.txt                          on that machine
    python scripts/gpu_wheels.py have.txt build/wheels       here, then bring the folder

Every package is the version of constraints.txt, for Linux on x86-64. torch and what it brings is
never among them: that machine has its own.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ROOTS = ("ftq[worker]", "pytest", "pytest-timeout")
NOT_OURS = re.compile(r"torch|triton|nvidia-.*|cuda-.*|ftq")
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux1")


def main() -> None:
    """Download the wheels and say which."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("have", type=Path, help="`pip freeze` of that machine")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default="3.12", help="that machine's version of Python")
    args = parser.parse_args()
    have = dict(_frozen(args.have))
    lacking = []
    for name, wanted in _needs(args.python).items():
        version = have.get(name)
        if version is None or not all(r.specifier.contains(version, True) for r in wanted):
            lacking.append(f"{name}=={distribution(name).version}")
    print("\n".join(lacking))
    platforms = [f"--platform={name}_x86_64" for name in PLATFORMS]
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"),
            *(f"--python-version={args.python}", "--implementation=cp", *platforms),
            *("--dest", str(args.folder), *lacking),
        ],
        check=True,
    )


def _frozen(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the packages of a `pip freeze` that have a version."""
    for line in file.read_text().splitlines():
        name, found, version = line.partition("==")
        if found:
            try:
                yield canonicalize_name(name), str(Version(version.strip()))
            except InvalidVersion:
                continue


def _needs(python: str) -> dict[str, list[Requirement]]:
    """Return what is needed, directly or by others, with all that is asked of its version."""
    found: dict[str, list[Requirement]] = {}
    coming = [Requirement(root) for root in ROOTS]
    seen = set()
    while coming:
        one = coming.pop()
        name = canonicalize_name(one.name)
        if name not in seen and not NOT_OURS.fullmatch(name):
            found.setdefault(name, [])
        if name in found:
            found[name].append(one)
        key = (name, frozenset(one.extras))
        if key in seen:
            continue
        seen |= {key, name}
        try:
            requires = distribution(name).requires or []
        except PackageNotFoundError:  # not for this platform
            found.pop(name, None)
            continue
        for extra in one.extras or {""}:
            here = {"extra": extra, "python_version": python, "python_full_version": f"{python}.0"}
            inner = [Requirement(line) for line in requires]
            if not NOT_OURS.fullmatch(name) or name == "ftq":
                coming += [r for r in inner if r.marker is None or r.marker.evaluate(here)]
    return found


if __name__ == "__main__":
    main()
