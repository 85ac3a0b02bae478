import re
import subprocess
import sys
from urllib.parse import quote

import pytest

from dermaflux.errors import InputError, quoted, redacted


def test_quotes_stay_short_and_hold_no_control_characters():
    bomb = [1]
    for _ in range(40):
        bomb = [bomb] * 10  # 10^40 numbers when written out
    for value in ("a\x1b[2J\n" * 1000, b"\0" * 10**6, 10**6000, bomb, {"k": "\r\n" * 500}):
        text = quoted(value)
        assert len(text) <= 200
        assert text.isprintable()
    assert quoted("Läsion 1") == "'Läsion 1'"


@pytest.mark.parametrize(
    "text",
    [
        "http://user:s3cret-word@host:5000/x",
        "postgresql+psycopg://user:a@s3cret-word@host/db",
        "mysql://user:with/slash#s3cret-word@host/db",
        "https://s3cret-word@host and https://user:s3cret-word@other",
        "socks5://:s3cret-word@proxy:1080",
        "https://host/path?x=1&access_token=s3cret-word",
        "https://host/path?sig=s3cret-word&se=2027",
        "HTTPSConnectionPool(host='h'): url: /v1?X-Amz-Signature=s3cret-word (Caused by x)",
        "host=db password=s3cret-word sslmode=require",
        "mssql+pyodbc:///?odbc_connect=UID%3Dme%3BPWD%3Ds3cret-word",
        "{'Authorization': 'Bearer s3cret-word'}",
        "server said: wrong password pla:in/word for user",
        "the key hf_0123456789 is not valid",
    ],
)
def test_no_message_holds_a_password_or_key(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:pla%3Ain%2Fword@tracking.example")
    monkeypatch.setenv("SOME_SERVICE_TOKEN", "hf_0123456789")
    secrets = ("s3cret-word", "pla:in/word", "pla%3Ain%2Fword", "hf_0123456789")
    assert any(secret in text for secret in secrets)
    long = f"{text.split()[0]}{'x' * 500}"
    for message in (redacted(text), str(InputError(f"{text} is wrong")), quoted(long)):
        assert not any(secret in message for secret in secrets)
    assert redacted(redacted(text)) == redacted(text)


@pytest.mark.parametrize(
    "address",
    [
        *(f"http://me:ab{sign}cd@host:5000" for sign in " \t\"'<>@/?#\\%ü"),
        *("me:ab12cd@host", "//me:ab12cd@host", "http:/me:ab12cd@host", "http//me:ab12cd@host"),
        *("http:me:ab12cd@host", "http://me:80/ab12cd@host", "'http://me:ab cd@host'"),
    ],
)
@pytest.mark.parametrize("variable", ["MLFLOW_TRACKING_URI", "https_proxy"])
def test_a_badly_written_address_of_the_environment_is_hidden(
    address: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, address)
    value = address.strip("'")
    sent = quote(value, "/?#:@")
    for text in (redacted(f"{value}: refused"), str(InputError(quoted(value))), redacted(sent)):
        assert "***@host" in text
        assert not re.search("ab.*cd", text.removesuffix("refused")), text


def test_what_is_no_secret_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("A_URI", "sqlite:///C:/Users/me@corp/x.db"), ("B_URL", "http://me@host")):
        monkeypatch.setenv(name, value)
    for text in (
        "C:/Users/me",
        "models:/lesion-vit@champion",
        "git+https://example.org/a/b@main",
        "http://127.0.0.1:5000/experiments/3?search=x@y",
        "max_new_tokens=5, monkey=7",
        "file:///data/mlruns/artifacts",
        "sqlite:////data/mlruns/mlflow.db",
    ):
        assert redacted(text) == text


_FAULT = """
import sys
from dermaflux import cli
from dermaflux.sources import overview

def run(check):
    raise RuntimeError("cannot parse http://me:s3cret-word@host")

overview.run = run
sys.argv = ["dermaflux", "sources"]
cli.main()
"""


def test_a_traceback_of_the_command_line_holds_no_password() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FAULT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.splitlines()[-1] == "RuntimeError: cannot parse http://***@host"
    assert "s3cret" not in done.stderr
