"""No key, passphrase or password shows anywhere: not in output, logs, reports, file names, arguments or environments.

Secrets that can be recognised are planted, the harness runs through successes and failures, and everything that it lets
out is searched for them in any form (`traces_of`). The default is a short table. ``pytest tests/secrets --full`` has
every command in a process of its own, which is looked at from outside, and also runs the whole scenario table on boards
with planted keys, as it is and with every update breaking inside the harness.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from planted import Bench, Output
from traces_of import traces_of

from harness.chips import ESP32C3
from harness.formats.app_description import AppDescription
from harness.formats.app_image import Segment, build_app_image
from harness.home import Home
from harness.locks import STATE_LOCK, BoardLock
from harness.report.writing import read_run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

RELEASE = ("--board", "c3", "--profile", "release+sbv2")
PASSPHRASE = ("--vault-passphrase-fd", "FD")
TABLES = Path(__file__).parent.parent / "ota"
LIBRARIES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so")


def ended(output: Output, status: int) -> Output:
    assert output.status == status, output.text
    return output


# --- rows of the table ---


def provisioned(bench: Bench) -> None:
    # In a process of its own, with a compiler and a twin below it, and the key file's name in the environment.
    ended(bench.harness("provision", *RELEASE, "--out", "out/provision", debug=True, own_process=True), 0)


def looked_at(bench: Bench) -> None:
    ended(bench.harness("plan", *RELEASE, "--json", "--out", "out/plan"), 0)
    ended(bench.harness("keys", "list", "--board", "c3", "--history"), 0)
    ended(bench.harness("boards", "--json"), 0)
    ended(bench.harness("vault", "verify", "--board", "c3"), 0)


def held_by_another(bench: Bench) -> None:
    with BoardLock([bench.home / "twins" / "c3" / STATE_LOCK], board="c3", purpose="another job"):
        for debug in (False, True):
            output = bench.harness("plan", *RELEASE, "--out", "out/held", debug=debug)
            assert "another job" in output.text
            assert output.status in (1, 3), output.text


WRONG_BOARDS: dict[str, Callable[[Bench], str]] = {
    "a password": lambda b: f"network: {{ssid: lab, password: {b.password.decode()}}}",
    "a password as file": lambda b: f"network: {{ssid: lab, password_file: [{b.password.decode()}]}}",
    "a flash key": lambda b: f"flash_key: {{key: {b.flash_key.hex()}}}",
    "a flash key as field": lambda b: f"flash_key: {b.flash_key.hex()}",
    "a passphrase of nowhere": lambda b: f"vault_passphrase: {b.passphrase.decode()}",
    "a PIN": lambda b: f"secure_boot: {{keys: ['pkcs11:{b.pin.decode()}']}}",
    "a password twice": lambda b: (
        f"network: {{ssid: {b.password.decode()}, ssid: {b.password.decode()[::-1]}}}"
    ),
    "a password with a star": lambda b: f"network: {{ssid: lab, password_file: *{b.password.decode()}}}",
    "a password with an exclamation mark": lambda b: (
        f"network: {{ssid: lab, password_file: !{b.password.decode()} }}"
    ),
    "half of YAML": lambda b: f"network: {{ssid: lab, password: '{b.password.decode()}",
    "a PEM": lambda b: "secure_boot: {keys: [|\n" + b.given["boot.pem"].decode() + "]}",
}


def wrong_boards(bench: Bench) -> None:
    for name, line in WRONG_BOARDS.items():
        text = f"version: 1\nboards:\n  c3:\n    chip: esp32c3\n    link: twin\n    {line(bench)}\n"
        file = bench.write(f"wrong/{name}.yaml", text)
        assert bench.harness("plan", "--board", "c3", "--boards", str(file), debug=True).status != 0, name


def wrong_key_files(bench: Bench) -> None:
    sources: dict[str, str] = {
        "short": "{file: wrong/short.key}",
        "text": "{file: wrong/text.key}",
        "open": "{file: wrong/open.key}",
        "failing": "{command: [python3, wrong/fails.py]}",
        "talking": "{command: [python3, wrong/talks.py]}",
    }
    bench.write("wrong/short.key", bench.flash_key[:-1])
    bench.write("wrong/text.key", bench.flash_key.hex() + " and more")
    bench.write("wrong/open.key", bench.flash_key, mode=0o644)
    # What a tool of somebody else complains of, in the forms that such tools have.
    say = f"""
import base64, sys
key = {bench.flash_key!r}
print(key.hex())
print("it is", key.hex(), key.hex(" "), key.hex(":", 2), key[4:15].hex(), "0x" + key[::-1].hex(), list(key), repr(key),
      base64.b64encode(key), base64.b64encode(key[:15]).decode(), int.from_bytes(key, "big"), file=sys.stderr)
"""
    for name, then in {"fails": "sys.exit(1)", "talks": "print('and more')"}.items():
        bench.write(f"wrong/{name}.py", say + then)
    boards = [f"  {name}: {{chip: esp32c3, link: twin, flash_key: {how}}}" for name, how in sources.items()]
    file = bench.write("wrong-keys.yaml", "\n".join(["version: 1", "boards:", *boards, ""]))
    for name in sources:
        output = bench.harness(
            "provision", "--board", name, "--boards", str(file), "--out", "out/wrong", debug=True
        )
        assert output.status != 0, output.text


def wrong_passphrases(bench: Bench) -> None:
    ended(bench.harness("vault", "create", *PASSPHRASE, given=bench.passphrase), 0)
    ended(bench.harness("keys", "list", *PASSPHRASE, given=bench.passphrase, own_process=True), 0)
    # Each costs what scrypt is meant to cost.
    attempts = (
        (bench.passphrase[:-1], bench.passphrase * 200, b"") if bench.thorough else (bench.passphrase[:-1],)
    )
    for wrong in attempts:
        assert bench.harness("keys", "list", *PASSPHRASE, given=wrong, debug=True).status != 0
    # It opens with a passphrase, and is given a key file.
    assert bench.harness("keys", "list", debug=True).status != 0


def given_out_and_taken_in(bench: Bench) -> None:
    mac = re.findall(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}", bench.harness("keys", "list", "--board", "c3").text)[
        0
    ]
    (bench.folder / "exported").mkdir()
    ended(bench.harness("keys", "export", "--board", "c3", "--out", "exported/c3.key"), 0)
    assert (bench.folder / "exported" / "c3.key").stat().st_mode & 0o777 == 0o600
    bench.harness("keys", "export", "--board", "c3", "--out", "exported/c3.key", debug=True)
    ended(bench.harness("keys", "hand-over", "--board", "c3", "--out", "exported/over"), 0)
    wrong = bench.flash_key.hex()[:32]
    assert (
        bench.harness("keys", "hand-over", "--board", "c3", "--answer", "exported/c3.key", debug=True).status
        != 0
    )
    assert bench.harness("keys", "import", "exported/nothing", "--board", "c3", debug=True).status != 0, wrong
    for file in ("flash.key", "classic.key", "boot.pem", "kms.py"):
        bench.harness("keys", "import", file, "--board", "c3", "--out", "out/import", debug=True)
    bench.harness("rescue", "c3", "--as", mac, "--mac", mac, "--out", "out/rescue", debug=True)


def enciphered_and_signed(bench: Bench) -> None:
    described = AppDescription("1.0.0", "companion").to_bytes()
    image = build_app_image(ESP32C3, [Segment(ESP32C3.drom_base + 0x20, described)], entry_point=0)
    bench.write("app.bin", image)
    bench.write("table.csv", "otadata,data,ota,0xf000,0x2000\na,app,ota_0,0x20000,1M\nb,app,ota_1,,1M\n")
    table = ("--table", "table.csv", "--table-offset", "0xe000")
    for number, debug in enumerate((False, True)):
        bench.harness("sign", "app.bin", "--board", "c3", "--out", f"signed-{number}.bin", debug=debug)
        bench.harness("encrypt", "app.bin", "--board", "c3", *table, "--out", f"bundle-{number}", debug=debug)


INNER = """
import pytest
from pathlib import Path
from types import SimpleNamespace

class Broken(Exception):
    pass

def broken(*_, **__):
    # What it was called with is a variable of this file, and shown.
    __tracebackhide__ = True
    raise Broken("here")

def test_in_the_cipher(board, monkeypatch):
    release = board.release("9.9.9")
    monkeypatch.setattr("harness.formats.flash_encryption.BlockCipher", broken)
    board.update(release)

def test_below_the_cipher(board, monkeypatch):
    release = board.release("9.9.8")
    monkeypatch.setattr("cryptography.hazmat.primitives.ciphers.algorithms.AES.block_size", 7)
    monkeypatch.setattr("cryptography.hazmat.primitives.ciphers.Cipher.encryptor", broken)
    board.update(release)

def test_in_the_vault(board, monkeypatch):
    monkeypatch.setattr("harness.vault.vault.key_id", lambda _key: "another")
    board.update(board.release("9.9.7"))

def test_in_the_signature(board, monkeypatch):
    monkeypatch.setattr("cryptography.hazmat.primitives.serialization.load_der_private_key", broken)
    board.update(board.release("9.9.6"))

def test_at_the_password(board, monkeypatch):
    from harness.network.credentials import WifiNetwork
    password = WifiNetwork("lab", Path("wifi.txt")).password()
    answer = board._device.send("wifi", {"ssid": "lab", "password": password}, timeout_s=5)
    assert answer.fields == {"password": password}

def test_of_whole_objects(board):
    vault, boot_keys, key = board.vault, board.boot_keys, board.vault.flash_key(board.mac)
    assert [board, vars(board), vault, boot_keys] == []

def test_of_a_key(board):
    assert board.vault.flash_key(board.mac) == bytes(32)

def test_with_a_warning(board):
    import logging, warnings
    key = board.vault.flash_key(board.mac)
    logging.getLogger("mine").warning("the key is %s, or %r", key, key)
    print(f"it is {key}", key)
    warnings.warn(f"really {key}")

@pytest.fixture
def half_done(board):
    key = board.vault.flash_key(board.mac)
    yield key
    raise Broken(f"at the end, {key!r}")

def test_with_a_fixture(half_done):
    pass
"""

SHOWING = ("--showlocals", "--tb=long", "-vv", "-rA", "-p", "no:cacheprovider")


def pytest_(bench: Bench, *arguments: str) -> Output:
    return bench.run(sys.executable, "-m", "pytest", *arguments, also={"PYTEST_ADDOPTS": ""})


def failing_tests(bench: Bench) -> None:
    bench.write("test_inner.py", INNER)
    # rootdir is the bench, so that the tests are those of somebody who uses the harness.
    bench.write("pytest.ini", "[pytest]\n")
    board = (*RELEASE, "--harness-out", "out/pytest", "--basetemp", "out/tmp")
    output = pytest_(bench, "test_inner.py", *board, *SHOWING, "--junitxml=out/junit.xml")
    assert re.search(r"7 failed, 2 passed, .*1 error", output.text), output.text[-3000:]
    assert b"Broken" in output.said
    # What is searched below has the failures in it, in every form in which a run leaves them.
    left = bench.folder / "out" / "pytest"
    for name in ("run.json", "junit.xml", "parts/main.jsonl", "report.html"):
        assert "test_with_a_fixture" in (left / name).read_text(), name
    causes = [test.cause for test in read_run(left).tests if test.outcome in ("failed", "error")]
    assert len(causes) == 8
    assert all(causes), causes


def searched_everything(bench: Bench) -> None:
    """The search itself: it finds what is where it may be, in the very files that the harness wrote."""
    exported = (bench.folder / "exported" / "c3.key").read_bytes()
    assert traces_of(bench.secrets(), exported), "the planted key was not the one in use"
    assert any(b"harness.twin" in content for content in bench.seen.values()), "no process was seen"
    fuses = (bench.home / "twins" / "c3" / "efuse.bin").read_bytes()
    assert traces_of(bench.secrets(), fuses), "the planted key was not burned"
    assert bench.cores == {"0"}, "a process with keys would leave them in a core file"


ROWS = (
    provisioned,
    looked_at,
    held_by_another,
    wrong_boards,
    wrong_key_files,
    wrong_passphrases,
    given_out_and_taken_in,
    enciphered_and_signed,
    failing_tests,
    searched_everything,
)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A new bench, with what was compiled before."""
    made = Bench(tmp_path)
    made.home.mkdir(mode=0o700)
    (made.home / "builds").symlink_to(Home.of_user().builds)
    monkeypatch.chdir(tmp_path)
    return made


def require_no_leak(bench: Bench) -> None:
    found = bench.leaks()
    assert not found, f"{len(found)} leaks:\n" + "\n".join(found[:40])


def main_job(bench: Bench) -> None:
    ended(bench.harness("run", *RELEASE, "--out", "out/run", debug=True), 0)
    bench.harness("doctor", "--board", "c3", debug=True)


def twin_that_dies(bench: Bench) -> None:
    with bench.watched():
        run = bench.start(
            sys.executable,
            "-m",
            "harness",
            "provision",
            *RELEASE,
            "--reflash",
            "--out",
            "out/died",
            debug=True,
        )
        running = bench.home / "twins" / "c3" / "running.json"
        while run.poll() is None and not running.exists():
            time.sleep(0.05)
        time.sleep(0.2)
        os.kill(int(json.loads(running.read_text())["pid"]), signal.SIGKILL)
        assert bench.end(run, "a provisioning whose twin dies").status != 0


def interrupted(bench: Bench) -> None:
    with bench.watched():
        run = bench.start(
            sys.executable, "-m", "harness", "run", *RELEASE, "--out", "out/interrupted", debug=True
        )
        time.sleep(4.0)
        run.send_signal(signal.SIGTERM)
        bench.end(run, "a run that is ended")


def signed_in_a_token(bench: Bench) -> None:
    """The PIN is in a file of its own; a wrong one, and one that is none, are refused by the token."""
    library = next((name for name in LIBRARIES if Path(name).exists()), None)
    if library is None or shutil.which("softhsm2-util") is None:
        return
    (bench.folder / "tokens").mkdir()
    configuration = bench.write(
        "softhsm2.conf", f"directories.tokendir = {bench.folder / 'tokens'}\nobjectstore.backend = file\n"
    )
    also = {"SOFTHSM2_CONF": str(configuration)}
    # A harness never starts these: they are not watched.
    pin = ("--pin", bench.pin.decode())
    token = ("--label", "lab", "--so-pin", "12345678", *pin)
    told = subprocess.run(
        ["softhsm2-util", "--init-token", "--free", *token],
        env=os.environ | also,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    slot = re.findall(r"slot (\d+)", told)[-1]
    pem = bench.write("boot-pkcs8.pem", bench.boot_pkcs8)
    load = ("--import", str(pem), "--token", "lab", "--label", "boot", "--id", "01", *pin)
    subprocess.run(["softhsm2-util", *load], env=os.environ | also, capture_output=True, check=True)
    bench.write("wrong.txt", bench.pin[::-1] + b"\n")
    bench.write("two-lines.txt", bench.pin + b"\nmore\n")
    boards = ["version: 1", "boards:"]
    for name in ("pin", "wrong", "two-lines", "absent"):
        lines = [
            "[hsm_config]",
            f"pkcs11_lib = {library}",
            f"slot = {slot}",
            "label = boot",
            f"pin_file = {name}.txt",
            "",
        ]
        bench.write(f"hsm-{name}.ini", "\n".join(lines))
        state = bench.home / "twins" / "c3"
        boards.append(
            f"  {name}: {{chip: esp32c3, link: twin, state: '{state}', secure_boot: {{keys: ['pkcs11:hsm-{name}.ini']}}}}"
        )
    file = str(bench.write("hsm.yaml", "\n".join([*boards, ""])))
    for name in ("pin", "wrong", "two-lines", "absent"):
        command = ("sign", "app.bin", "--board", name, "--boards", file, "--out", f"hsm-{name}.bin")
        output = bench.run(sys.executable, "-m", "harness", *command, debug=True, also=also)
        assert (output.status == 0) is (name == "pin"), output.text


SABOTAGE = """
import pytest

class Broken(Exception):
    pass

def broken(*_, **__):
    __tracebackhide__ = True
    raise Broken("in the middle of it")

@pytest.fixture(autouse=True)
def _sabotage(request, monkeypatch):
    if "board" in request.fixturenames:
        request.getfixturevalue("board")
    monkeypatch.setattr("harness.formats.flash_encryption.BlockCipher", broken)
    monkeypatch.setattr("harness.ota.release.utils.decode_dss_signature", broken, raising=False)
"""


def whole_table(bench: Bench) -> None:
    """Every scenario, on two boards at a time; then with every update breaking where the key is in the hand."""
    bench.write("sabotage.py", SABOTAGE)
    boards = ("--boards", str(bench.folder / "boards.yaml"), "--board", "blank", "--board", "classic")
    for name, more in {"table": (), "sabotaged": ("-p", "sabotage")}.items():
        where = (
            "--harness-out",
            f"out/{name}",
            "--basetemp",
            f"out/tmp-{name}",
            f"--junitxml=out/{name}.xml",
        )
        output = bench.run(
            *(
                sys.executable,
                "-m",
                "pytest",
                str(TABLES),
                *boards,
                *more,
                *where,
                *SHOWING,
                "-n",
                "2",
                "--dist",
                "loadgroup",
            ),
            also={
                "PYTEST_ADDOPTS": "",
                "PYTHONPATH": f"{bench.folder}{os.pathsep}{bench.environment['PYTHONPATH']}",
            },
        )
        assert re.search(r"\d+ (passed|failed)", output.text), output.text[-3000:]
        assert bool(more) is (output.status != 0), output.text[-3000:]


@pytest.mark.full
def test_no_secret_shows_anywhere_in_the_whole_table(bench: Bench) -> None:
    bench.thorough = True
    *rows, last = ROWS
    for row in (*rows, main_job, twin_that_dies, interrupted, signed_in_a_token, whole_table, last):
        row(bench)
    require_no_leak(bench)


def test_no_secret_shows_anywhere(bench: Bench) -> None:
    for row in ROWS:
        row(bench)
    require_no_leak(bench)
