"""One command to a QEMU machine protocol socket, https://www.qemu.org/docs/master/interop/qmp-spec.html."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from smtp_intercept.app.lab.host import LabError

ANSWER_S = 20.0


def say(path: Path, command: str, **arguments: Any) -> Any:
    """What the command returned; `LabError` if there is no machine, or it refuses."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_S)
        try:
            connection.connect(str(path))
            with connection.makefile("rw") as stream:
                stream.readline()  # its greeting
                _ask(stream, "qmp_capabilities", {})
                return _ask(stream, command, arguments)
        except OSError as error:
            raise LabError(f"{path}: {error}: has the machine power?") from None


def _ask(stream: Any, command: str, arguments: dict[str, Any]) -> Any:
    stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
    stream.flush()
    for line in stream:
        answer = json.loads(line)
        if "error" in answer:
            raise LabError(f"{command} {arguments}: {answer['error']['desc']}")
        if "return" in answer:
            return answer["return"]
    raise LabError(f"{command}: the machine has gone")
