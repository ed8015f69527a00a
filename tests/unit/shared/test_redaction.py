import json

import pytest

from ftq_shared.redaction import HIDDEN, Redactor, escape_control, escape_json

TOKEN = "hf_" + "aB3" * 11


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"token={TOKEN} used", TOKEN),
        ("redis://:s3cr3t!x@host:6379/0", "s3cr3t!x"),
        ("rediss://user:pa%40ss@host", "pa%40ss"),
        ("https://me:word@example.invalid/x", ":word@"),
        ("Authorization: Bearer abcdef123456", "abcdef123456"),
        ("authorization: basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
    ],
)
def test_what_looks_like_a_secret_is_hidden_unasked(text, secret):
    assert secret not in Redactor().text(text)
    assert HIDDEN in Redactor().text(text)


def test_known_values_are_hidden_in_every_form():
    secret = 'p"ss/wörd=\\1'
    redactor = Redactor([secret, "first-line\nsecond-line", "abcdef", "abcdefgh"])
    text = f"{secret} {json.dumps(secret)} p%22ss%2Fw%C3%B6rd%3D%5C1 second-line abcdefgh"
    assert redactor.text(text) == f'{HIDDEN} "{HIDDEN}" {HIDDEN} {HIDDEN} {HIDDEN}'


def test_ordinary_text_stays():
    text = "step 12 loss 1.83 https://host:8080/a@b bearer of news, hf_home and 10:30@noon"
    assert Redactor(["", "abc"]).text(text) == text


def test_data_is_redacted_all_the_way_down():
    data = {"a": [TOKEN, {"b": (f"x {TOKEN}", 1, None, 2.5, True)}], TOKEN: 1}
    assert Redactor().data(data) == {
        "a": [HIDDEN, {"b": [f"x {HIDDEN}", 1, None, 2.5, True]}],
        HIDDEN: 1,
    }


def test_control_characters_are_shown():
    text = "\x1b[31mred\x1b[0m \x07 \u202egnp.exe \u2028 \x9b \ud800 \u200b"
    shown = escape_control(text)
    assert shown == ("\\x1b[31mred\\x1b[0m \\x07 \\u202egnp.exe \\u2028 \\x9b \\ud800 \\u200b")
    assert escape_control("a\n\tb\r") == "a\n\tb\\x0d"
    assert escape_control("a\n\tb", keep_newlines=False) == "a\\x0a\\x09b"


def test_invisible_characters_are_shown_too():
    hidden = "a\u00ad\u034f\u180e\ufff9\U000e0041\U000e0101\u3164z"
    assert escape_control(hidden) == ("a\\xad\\u034f\\u180e\\ufff9\\U000e0041\\U000e0101\\u3164z")


def test_json_is_escaped_inside_its_strings_and_means_the_same():
    value = {"k\u202e": "\x7f\x9b \u2028 \u00ad \ud800 \U000e0041 né 👩\u200d🚀"}
    text = escape_json(json.dumps(value, ensure_ascii=False))
    assert text.replace("\u200d", "").isprintable()
    assert "né 👩" in text
    assert json.loads(text) == value


def test_letters_of_all_scripts_stay():
    text = "Grüße, 你好, שלום, नमस्ते, 👩\u200d🚀"
    assert escape_control(text) == text
