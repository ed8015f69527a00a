"""One tracker, in a process of its own: `python -m ftq_worker.training.tracker_process wandb`.

Lines of JSON come in: first the job, then figures; at their end the tracker is closed. Lines of
JSON go out: `ready` with where the figures are, or `error`. Without a key or an address among the
job's secrets all stays in the folder.
"""

import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

_KEYS = ("_API_KEY", "_TOKEN", "_PASSWORD")  # of the host: they are not the job's


class Opened(NamedTuple):
    """A tracker that has started."""

    where: str
    log: Callable[[int, dict[str, float]], object]
    finish: Callable[[], object]


def open_wandb(job: Mapping[str, Any]) -> Opened:
    """Online with WANDB_API_KEY, else in the folder, to be sent with `wandb sync`."""
    os.environ["WANDB_MODE"] = "online" if "WANDB_API_KEY" in os.environ else "offline"
    wandb = importlib.import_module("wandb")
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "ftq"),
        name=job["title"],
        id=job["job"],
        resume="allow",
        dir=job["folder"],
        config=job["settings"],
        settings=wandb.Settings(silent=True, console="off"),
    )
    run.define_metric("*", step_metric="step")  # a resumed run goes back to its checkpoint's step

    def log(step: int, figures: dict[str, float]) -> None:
        run.log({"step": step, **figures})

    return Opened(run.url or f"offline in {job['folder']}; send it: wandb sync", log, run.finish)


def open_mlflow(job: Mapping[str, Any]) -> Opened:
    """To MLFLOW_TRACKING_URI, else to a database in the folder."""
    mlflow = importlib.import_module("mlflow")
    where = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{job['folder']}/mlflow.db"
    mlflow.set_tracking_uri(where)
    mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", "ftq"))
    mlflow.start_run(run_name=job["title"], tags={"ftq_job": job["job"]})
    mlflow.log_params({key: str(value)[:500] for key, value in job["settings"].items()})

    def log(step: int, figures: dict[str, float]) -> None:
        mlflow.log_metrics(figures, step=step)

    return Opened(where, log, mlflow.end_run)


def open_trackio(job: Mapping[str, Any]) -> Opened:
    """To the Space TRACKIO_SPACE_ID, else to the folder."""
    space = os.environ.get("TRACKIO_SPACE_ID")
    os.environ.setdefault("TRACKIO_DIR", job["folder"])
    if not space:
        os.environ.pop("HF_TOKEN", None)
    trackio = importlib.import_module("trackio")
    trackio.init(project="ftq", name=job["title"], config=job["settings"], space_id=space)

    def log(step: int, figures: dict[str, float]) -> None:
        trackio.log(figures, step=step)

    return Opened(f"Space {space}" if space else f"in {job['folder']}", log, trackio.finish)


OPEN = {"wandb": open_wandb, "mlflow": open_mlflow, "trackio": open_trackio}


def main() -> None:
    """Run one tracker to the end of the input; leaves with code 1 after an error."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a tracker's own words go nowhere
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    job = json.loads(sys.stdin.readline())
    for name in [name for name in os.environ if name.endswith(_KEYS)]:
        del os.environ[name]
    os.environ.update(job["secrets"])
    Path(job["folder"]).mkdir(parents=True, exist_ok=True)
    try:
        tracker = OPEN[sys.argv[1]](job)
        _say(out, ready=tracker.where)
        for line in sys.stdin:
            told = json.loads(line)
            tracker.log(told["step"], told["figures"])
        # Whoever waits has a limit of its own; without it, nothing would end a hanging tracker.
        last = threading.Timer(job["finish_s"], os._exit, (1,))
        last.daemon = True
        last.start()
        tracker.finish()
    except BaseException as error:
        lines = str(error).strip().splitlines()
        _say(out, error=f"{type(error).__name__}: {lines[0] if lines else ''}")
        os._exit(1)
    os._exit(0)  # no tracker's own threads are waited for


def _end_with(parent: int) -> None:
    """End with the training, also while the tracker hangs."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _say(out: Any, **words: str) -> None:
    out.write(json.dumps(words) + "\n")
    out.flush()


if __name__ == "__main__":
    main()
