"""Where the Hub token comes from, and what is none."""

from pathlib import Path

import pytest

from ftq_client.submit.tokens import find_token
from ftq_shared.errors import UsageError


@pytest.mark.parametrize("text", ["é", "hf_a b", "hf_\x1b[31m", "hf_ü"])
def test_what_no_request_can_carry_is_told_and_not_repeated(
    text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", text)
    with pytest.raises(UsageError, match="HF_TOKEN: holds a character") as caught:
        find_token()
    assert text not in str(caught.value) + caught.value.hint
    monkeypatch.delenv("HF_TOKEN")
    (tmp_path / "token").write_bytes(b"\xff\xfe")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(UsageError, match="token: holds"):
        find_token()


def test_without_a_home_there_is_no_stored_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HF_TOKEN_PATH", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "expanduser", lambda _: (_ for _ in ()).throw(RuntimeError("home")))
    assert find_token() is None
