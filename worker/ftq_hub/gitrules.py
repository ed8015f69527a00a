"""A repo's own rules for its files: .gitattributes (which are large) and .gitignore."""

from functools import lru_cache

from pathspec import GitIgnoreSpec

LFS_MIN_BYTES = 10 << 20  # the Hub takes plain files up to 10 MiB
ATTRIBUTES, IGNORE = ".gitattributes", ".gitignore"
_LARGE = """
*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gguf *.gz *.h5 *.joblib *.lfs.* *.mlmodel *.model *.msgpack
*.npy *.npz *.onnx *.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors
saved_model/**/* *.tar.* *.tar *.tflite *.tgz *.wasm *.xz *.zip *.zst *tfevents*
"""
# What a new repo begins with.
FIRST_ATTRIBUTES = "".join(
    f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in _LARGE.split()
)


def is_lfs(attributes: str, path: str, size: int) -> bool:
    """Whether a file belongs into large file storage, by its repo's .gitattributes and its size."""
    if size == 0 or size > LFS_MIN_BYTES:
        return size > 0
    fitting = [lfs for spec, lfs in _filters(attributes) if spec.match_file(path)]
    return bool(fitting) and fitting[-1]


@lru_cache(maxsize=64)
def _filters(attributes: str) -> list[tuple[GitIgnoreSpec, bool]]:
    """Return each pattern that sets (True) or unsets the LFS filter; the last that fits counts."""
    found = []
    for line in attributes.splitlines():
        pattern, *words = line.split() or [""]
        wanted = {"filter=lfs": True, "-filter": False, "!filter": False}
        values = [wanted[word] for word in words if word in wanted]
        if pattern and not pattern.startswith("#") and values:
            found.append((GitIgnoreSpec.from_lines([pattern]), values[-1]))
    return found


@lru_cache(maxsize=64)
def _ignores(text: str) -> GitIgnoreSpec:
    return GitIgnoreSpec.from_lines(text.splitlines())


def is_ignored(gitignore: str, path: str) -> bool:
    """Whether a .gitignore leaves a path out."""
    return _ignores(gitignore).match_file(path)
