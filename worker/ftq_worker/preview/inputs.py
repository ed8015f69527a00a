"""The client's own files, put where the phases look for them; they are linked, not copied."""

import os
import shutil
from pathlib import Path

from ftq_shared.preview_messages import PreviewRequest


def link_inputs(request: PreviewRequest, inputs: Path) -> None:
    """Fill the folder `inputs` of a job that runs beside the files themselves.

    A file on another disk cannot be linked and is copied.
    """
    inputs.mkdir(parents=True)
    for name, folder in (("model", request.model_folder), ("dataset", request.dataset_folder)):
        if folder:
            (inputs / name).symlink_to(Path(folder).absolute(), target_is_directory=True)
    for source, place in request.files:
        target = inputs / place
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Phases do not follow links out of a job's folder, but a hard link is the file itself.
            os.link(os.path.realpath(source), target)
        except OSError:
            shutil.copyfile(source, target)
