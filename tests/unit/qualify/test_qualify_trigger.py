"""What is done to a unit from outside: lines, calls, commands, prompts; and secrets that are in none of their traces."""

from __future__ import annotations

import http.server
import json
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from recorded_unit import RecordedPort

from harness.console.reader import Console
from harness.errors import LabError, NotProvenError, UsageError
from harness.qualify.file import QualifyPlan, WitnessEntry, parse_qualify_text
from harness.qualify.trigger import Hands, ask_at_terminal
from harness.qualify.unit import Unit
from harness.qualify.witness import read_witness

ZERO = "0" * 64
SECRET = "correct horse battery"


class Desk:
    """A unit that prints what the test says, and hands that act on it."""

    def __init__(self, folder: Path, *, observe: bool = False) -> None:
        self.folder = folder
        self.port = RecordedPort([])
        self.console = Console(self.port, log_path=folder / "serial.log", name="unit")
        self.console.start()
        board: Any = SimpleNamespace(name="unit", console=self.console, log_path=folder / "serial.log")
        (folder / "wifi.password").write_text(f"{SECRET}\n")
        self.asked: list[str] = []
        self.plan = self.planned([{"by": "reset"}])
        self.hands = Hands(Unit(board, self.plan.file), self.plan, observe, self.asked.append)
        self.hands.values = {"url": "http://10.0.2.2/a.bin", "version": "1.1.0"}

    def planned(self, actions: list[dict[str, Any]]) -> QualifyPlan:
        told = {
            "version": 1,
            "unit": "ship",
            "running": {"path": "a", "sha256": ZERO},
            "update": {"path": "b", "sha256": ZERO},
            "image": "plaintext",
            "trigger": actions,
            "secrets": {"wifi": {"file": "wifi.password"}},
        }
        # JSON is YAML.
        text = json.dumps(told)
        path = self.folder / "qualify.yaml"
        return QualifyPlan(path, text, parse_qualify_text(text, path))

    def do(self, **action: Any) -> None:
        self.hands.carry_out(self.planned([action]).file.trigger)

    def says(self, line: str) -> None:
        self.port.say(line)

    @property
    def log(self) -> str:
        return (self.folder / "serial.log").read_text()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.console.close()


def test_a_line_is_sent_when_the_unit_has_said_that_it_is_ready(desk: Desk) -> None:
    desk.says("type the URL")
    desk.do(by="uart", after="type the URL", send="{url}", end="\r\n", timeout_s=60)
    assert desk.port.written == b"http://10.0.2.2/a.bin\r\n"


def test_a_unit_that_does_not_say_so_is_not_sent_anything(desk: Desk) -> None:
    with pytest.raises(NotProvenError, match="did not print a line like"):
        desk.do(by="uart", after="never", send="x", timeout_s=0.1)
    assert desk.port.written == b""


def test_a_secret_goes_over_the_wire_and_into_no_log_even_when_it_is_echoed(desk: Desk) -> None:
    desk.do(by="uart", send="join home {secret:wifi}")
    assert SECRET.encode() in desk.port.written
    desk.says(f"> join home {SECRET}")
    desk.says("joined")
    desk.do(by="await", line="joined", timeout_s=60)
    desk.console.close()
    assert SECRET not in desk.log
    assert SECRET.encode() not in (desk.folder / "serial.raw").read_bytes()
    assert not any(SECRET in step for step in desk.hands.done)


def test_a_command_runs_beside_the_file_and_fails_in_one_line(desk: Desk) -> None:
    desk.do(by="command", run=[sys.executable, "-c", "open('done','w').write('{version}')"])
    assert (desk.folder / "done").read_text() == "1.1.0"
    with pytest.raises(LabError, match="status 3: gone wrong"):
        desk.do(
            by="command",
            run=[sys.executable, "-c", "import sys; print('gone wrong', file=sys.stderr); sys.exit(3)"],
        )
    with pytest.raises(LabError, match="cannot be started"):
        desk.do(by="command", run=["there-is-no-such-program"])


def test_a_command_that_fails_does_not_tell_a_secret(desk: Desk) -> None:
    with pytest.raises(LabError) as caught:
        desk.do(
            by="command",
            run=[sys.executable, "-c", "import sys; sys.exit(sys.stdin.read())"],
            input="{secret:wifi}",
        )
    assert SECRET not in str(caught.value)


def test_a_command_gets_a_secret_by_its_input_or_its_environment_and_others_see_it_nowhere(
    desk: Desk,
) -> None:
    program = (
        "import os, sys; open('got','w').write(os.environ['TOKEN'] + sys.stdin.read() + ' '.join(sys.argv))"
    )
    desk.do(
        by="command",
        run=[sys.executable, "-c", program],
        environment={"TOKEN": "<{secret:wifi}>"},
        input="[{secret:wifi}]",
    )
    assert (desk.folder / "got").read_text() == f"<{SECRET}>[{SECRET}]-c"
    assert SECRET not in desk.log


def test_what_the_command_of_a_witness_printed_is_among_the_evidence(desk: Desk) -> None:
    entry = WitnessEntry(pattern="version=([0-9.]+)", run=[sys.executable, "-c", "print('version=1.2.3')"])
    value, line = read_witness(entry, desk.hands.unit, desk.hands, 0)
    assert value == "1.2.3"
    assert line is not None
    assert "a witness read: version=1.2.3" in desk.log.splitlines()[-1]


class Called(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.seen = (self.path, body, self.headers.get("Authorization"))  # type: ignore[attr-defined]
        self.send_response(404 if self.path == "/missing" else 202)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_an_http_call_carries_body_and_headers_and_its_status_counts(desk: Desk) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Called) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        headers = {"Authorization": "Bearer {secret:wifi}"}
        desk.do(by="http", url=f"{base}/update", body='{"url": "{url}"}', headers=headers)
        assert server.seen == ("/update", '{"url": "http://10.0.2.2/a.bin"}', f"Bearer {SECRET}")  # type: ignore[attr-defined]
        with pytest.raises(LabError, match="status 404"):
            desk.do(by="http", url=f"{base}/missing", body="")
        server.shutdown()
    assert SECRET not in desk.log


def test_a_unit_that_answers_no_http_costs_a_sentence(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            caller, _ = server.accept()
            with caller:
                caller.recv(4096)
                caller.sendall(b"E (12) lock: not now\r\n")

        threading.Thread(target=answer, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/update"
        with pytest.raises(LabError, match=r"POST http://127.0.0.1:.*: BadStatusLine"):
            desk.do(by="http", url=url, body="")


def test_a_command_that_no_system_could_start_costs_a_sentence(desk: Desk) -> None:
    with pytest.raises(LabError, match="'true' cannot be started"):
        desk.do(by="command", run=["true"], environment={"A=B": "x"})


@pytest.mark.parametrize("url", ["ftp://unit/x", "unit/x", "file:///etc/passwd"])
def test_what_is_no_http_url_is_not_called(desk: Desk, url: str) -> None:
    with pytest.raises(UsageError, match="is no URL to call"):
        desk.do(by="http", url=url)


def test_a_person_is_asked_and_without_one_nothing_is_proven(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.do(by="prompt", text="start the update to {version}")
    assert desk.asked == ["start the update to 1.1.0"]
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(NotProvenError, match="nobody is there"):
        ask_at_terminal("unit")("start it")


def test_an_observation_refuses_to_send(tmp_path: Path) -> None:
    desk = Desk(tmp_path, observe=True)
    with pytest.raises(UsageError, match="sends nothing over the UART"):
        desk.do(by="uart", send="x")
    desk.console.close()
    assert desk.port.written == b""


@pytest.mark.parametrize(
    ("text", "said"), [("{secret:none}", "there is no secret 'none'"), ("{slot}", "is not known")]
)
def test_a_word_that_stands_for_nothing_is_refused(desk: Desk, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        desk.do(by="uart", send=text)


def test_braces_that_are_no_words_of_ours_stay(desk: Desk) -> None:
    assert desk.hands.fill('{"a": {"b": 1}, x{2}}')[0] == '{"a": {"b": 1}, x{2}}'
