"""`tollbridge filter test`: the whole exchange, what would come of it, and a filter that is not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from smtp_intercept.app.cli import main
from tests.milter.conftest import PyMilter


def configured(tmp_path: Path, address: str) -> str:
    path = tmp_path / "tollbridge.toml"
    text = f'[bridge]\nports = ["enp1s0", "enp2s0"]\n[[filter]]\nname = "f"\naddress = "unix:{address}"\n'
    path.write_text(text + '[[rule]]\nname = "r"\nthen = { filter = "f" }\n')
    return str(path)


def test_the_exchange(tmp_path: Path, pymilter: PyMilter, capsys: pytest.CaptureFixture[str]) -> None:
    pymilter.order(edit=[["addheader", "X-A", "1"], ["addrcpt", "<z@y.example>"], ["replacebody", "new\r\n"]])
    (tmp_path / "x.eml").write_bytes(b"From: a@b.example\nTo: c@d.example\nSubject: x\n\ntext\n")
    words = ["--config", configured(tmp_path, pymilter.address), "filter", "test", "f", str(tmp_path / "x.eml")]
    assert main(words) == 0
    said = capsys.readouterr().out.splitlines()
    assert "-> MAIL <a@b.example>" in said
    assert "-> HEADER Subject | x" in said
    assert "<- AddHeader name=X-A value=1" in said
    assert said[said.index("result: continue") :] == [
        *(
            "result: continue",
            "the header would be:",
            "  From: a@b.example",
            "  To: c@d.example",
            "  Subject: x",
            "  X-A: 1",
        ),
        *("the body would be another, of 5 octets", "the server would hear:", "  RCPT TO:<z@y.example>"),
    ]
    assert main([*words, "--json"]) == 0
    page = json.loads(capsys.readouterr().out)
    assert (page["result"], page["body_bytes"]) == ("continue", 5)
    assert {"to": "HEADER", "text": "Subject | x"} in page["exchange"]


def test_one_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = configured(tmp_path, str(tmp_path / "nowhere"))
    assert main(["--config", path, "filter", "test", "f"]) == 1
    assert "filter f: no connection: No such file or directory" in capsys.readouterr().err
    assert main(["--config", path, "filter", "test", "g"]) == 2
    assert "'g' is no [[filter]]" in capsys.readouterr().err
