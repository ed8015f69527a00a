"""Keep the libraries from drawing progress bars and repeating what events already say."""

import logging
import os
import warnings

import datasets
import transformers
from huggingface_hub.utils.tqdm import disable_progress_bars


def quiet_libraries() -> None:
    """Turn progress bars off and let only errors through; safe to call again."""
    # Forked tokenizers warn about their own threads; prepare has tokenized everything already.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    datasets.disable_progress_bars()
    disable_progress_bars()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for name in ("trl", "peft", "accelerate", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(trl|transformers|peft)\.")
