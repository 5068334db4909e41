"""The page is only read, under names of this machine, from elsewhere with its token; of files it gives those of runs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from harness.errors import LabError, RefusedError
from harness.home import Home
from harness.serve.access import TOKEN_FILE, read_token
from harness.serve.server import bind, url_of
from tests.unit.serve.lab_of_paper import PaperRun, ServedPage

RUN = "20251126-120000-aaaa"
TOKEN = "a-token-of-this-test-0123456789"
SECRET = "what no browser may ever see"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    run = PaperRun(home, RUN)
    run.logs("I (1) boot: hello <b>")
    (run.folder / "report.html").write_text("<script>1</script>")
    (run.folder / "flash.bin").write_text(SECRET)
    (run.folder / "keys.pem").write_text(SECRET)
    (home.root / "secret.txt").write_text(SECRET)
    (home.root / "artefacts" / "secret.txt").write_text(SECRET)
    (run.folder / "link.txt").symlink_to(home.root / "secret.txt")
    (run.folder / "linked").symlink_to(home.root)
    (run.folder / "folder.txt").mkdir()
    os.mkfifo(run.folder / "pipe.txt")
    foreign = home.root / "artefacts" / "20251126-120000-bbbb"
    foreign.mkdir()
    (foreign / "notes.txt").write_text(SECRET)
    (home.root / "artefacts" / "20251126-120000-cccc").symlink_to(run.folder)
    return home


@pytest.fixture(scope="module")
def page(home: Home) -> Iterator[ServedPage]:
    with ServedPage(home) as page:
        yield page


@pytest.fixture(scope="module")
def guarded(home: Home) -> Iterator[ServedPage]:
    with ServedPage(home, token=TOKEN) as page:
        yield page


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"])
def test_nothing_but_reading_is_answered(page: ServedPage, method: str) -> None:
    answer = page.get("/", method=method)
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD"


def test_an_endless_address_is_answered_and_leaves_no_word_of_it(
    page: ServedPage, caplog: pytest.LogCaptureFixture
) -> None:
    assert page.get(f"/?token={'a' * 5000}").status == 400
    assert caplog.text == ""


def test_head_is_get_without_a_body(page: ServedPage) -> None:
    for path in ("/", f"/run/{RUN}/report.html"):
        answer = page.get(path, method="HEAD")
        assert (answer.status, answer.text) == (200, "")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:80", 200),
        ("127.0.0.1", 200),
        ("[::1]:8642", 200),
        ("evil.example", 421),
        ("evil.example:8642", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("192.168.1.5", 421),
        ("", 421),
        ("[", 421),
    ],
)
def test_a_name_that_was_made_to_lead_here_gets_nothing(page: ServedPage, host: str, status: int) -> None:
    assert page.get("/", {"Host": host}).status == status


def test_a_rebound_name_gets_nothing_even_with_the_token(guarded: ServedPage) -> None:
    headers = {"X-Harness-Token": TOKEN}
    assert guarded.get("/", headers | {"Host": "evil.example"}).status == 421
    assert guarded.get("/", headers | {"Host": "192.168.1.5:8642"}).status == 200


@pytest.mark.parametrize(
    "path", ["/", "/runs", f"/run/{RUN}/report.html", "/static/serve.js", "/nowhere", "/board/x/log"]
)
def test_without_the_token_there_is_nothing_at_all(guarded: ServedPage, path: str) -> None:
    wrong = [
        {},
        {"X-Harness-Token": ""},
        {"X-Harness-Token": TOKEN[:-1]},
        {"Cookie": f"harness-{guarded.port}={TOKEN}"},
    ]
    for headers in wrong:
        answer = guarded.get(path, headers)
        assert answer.status == 401
        assert "needs its token" in answer.text
    assert guarded.get(f"{path}?token=x").status == 401


def test_the_token_comes_once_in_the_address_and_leaves_it(guarded: ServedPage) -> None:
    answer = guarded.get(f"/runs?token={TOKEN}&x=1")
    assert answer.status == 200
    assert TOKEN not in answer.text
    assert 'content="0;url=/runs?x=1"' in answer.text
    cookie = answer.headers["set-cookie"]
    assert TOKEN not in cookie
    for attribute in ("HttpOnly", "SameSite=Strict", "Path=/"):
        assert attribute in cookie
    given = {"Cookie": cookie.partition(";")[0]}
    assert guarded.get("/runs", given).status == 200
    # Whoever comes by the link again does not keep the token in the address.
    assert "http-equiv" in guarded.get(f"/?token={TOKEN}", given).text


def test_where_the_token_leads_to_stays_on_this_server(guarded: ServedPage) -> None:
    answer = guarded.get(f"//evil.example/?token={TOKEN}")
    assert "url=//" not in answer.text


@pytest.mark.parametrize(
    "path", ["/", "/nowhere", f"/run/{RUN}/report.html", "/static/serve.js", "/board/twin-c3/log"]
)
def test_every_answer_forbids_what_it_does_not_need(page: ServedPage, path: str) -> None:
    headers = page.get(path, {"Origin": "https://evil.example"}).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["server"] == "harness"
    assert not [name for name in headers if name.startswith("access-control")]


def test_a_report_may_run_its_script_in_an_origin_of_its_own(page: ServedPage) -> None:
    answer = page.get(f"/run/{RUN}/report.html")
    assert answer.text == "<script>1</script>"
    assert answer.headers["content-security-policy"].startswith("sandbox allow-scripts;")
    assert "allow-same-origin" not in answer.headers["content-security-policy"]


def test_a_log_is_plain_text(page: ServedPage) -> None:
    answer = page.get(f"/run/{RUN}/twin-c3/serial.log")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert "<b>" in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt",
        "../../secret.txt",
        "%2e%2e/secret.txt",
        "..%2fsecret.txt",
        "..%5csecret.txt",
        "%2e%2e%2f%2e%2e%2fsecret.txt",
        "twin-c3/../../secret.txt",
        "twin-c3/%2e%2e/%2e%2e/secret.txt",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "C:/secret.txt",
        "secret.txt%00",
        "link.txt",
        "linked/secret.txt",
        "folder.txt",
        "pipe.txt",
        "flash.bin",
        "keys.pem",
        "parts",
        "",
        "../20251126-120000-bbbb/notes.txt",
    ],
)
def test_nothing_outside_of_a_run_is_given_out(page: ServedPage, path: str) -> None:
    answer = page.get(f"/run/{RUN}/{path}")
    assert answer.status in (400, 404), answer.text
    assert SECRET not in answer.text


@pytest.mark.parametrize(
    "run", ["20251126-120000-bbbb", "20251126-120000-cccc", "..", "%2e%2e", "artefacts", "x" * 3000]
)
def test_a_folder_that_is_no_run_is_not_given_out(page: ServedPage, run: str) -> None:
    for rest in ("", "/notes.txt", "/secret.txt", "/report.html"):
        answer = page.get(f"/run/{run}{rest}")
        assert answer.status in (400, 404)
        assert SECRET not in answer.text


def test_the_files_of_a_run_are_listed_without_links(page: ServedPage) -> None:
    text = page.get(f"/run/{RUN}").text
    assert f'href="/run/{RUN}/twin-c3/serial.log"' in text
    for name in ("link.txt", "linked", "flash.bin", "keys.pem"):
        assert name not in text


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such modes")
def test_the_token_is_its_owners_alone(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    token, made = read_token(home)
    assert made
    assert (home.root / TOKEN_FILE).stat().st_mode & 0o777 == 0o600
    assert read_token(home) == (token, False)
    (home.root / TOKEN_FILE).chmod(0o644)
    with pytest.raises(RefusedError, match="others may read the token"):
        read_token(home)
    other, made = read_token(home, new=True)
    assert made
    assert other != token
    assert (home.root / TOKEN_FILE).stat().st_mode & 0o777 == 0o600


def test_a_port_that_is_taken_is_one_sentence() -> None:
    with bind("127.0.0.1", 0) as taken, pytest.raises(LabError, match=r"cannot listen on 127\.0\.0\.1, port"):
        bind("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(LabError, match="cannot listen on 'no such host'"):
        bind("no such host", 0)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:1/"),
        ("::1", "http://127.0.0.1:1/"),
        ("fd00::5", "http://[fd00::5]:1/"),
    ],
)
def test_the_address_is_one_to_click_on(host: str, url: str) -> None:
    assert url_of(host, 1) == url


def test_the_command_tells_where_it_is_and_shows_a_new_token_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "harness", "serve", "--port", "0", "--host"]
    environment = os.environ | {"HARNESS_HOME": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*command, "0.0.0.0"], env=environment, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    ) as server:
        assert server.stdout is not None
        lines = [server.stdout.readline() for _ in range(2)]
        port = re.search(r":(\d+)/", lines[0])
        token = re.search(r"token=(\S+)", lines[1])
        assert port, lines
        assert token, lines
        # What it prints is what lets one in, from wherever one comes.
        url = f"http://127.0.0.1:{port[1]}/?token={token[1]}"
        with urlopen(url, timeout=60) as answer:
            assert answer.status == 200
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
        assert server.stdout.read() == "stopped\n"
    assert read_token(Home(tmp_path)) == (token[1], False)
