"""What is done to the unit from outside: lines on its console, HTTP calls, commands, and prompts to a person.

Secrets (``{secret:NAME}``) come from files, are blotted out of the log, and are in no message.
"""

from __future__ import annotations

import http.client
import re
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import click

from harness.console.redaction import REDACTED
from harness.errors import LabError, NotProvenError, UsageError
from harness.links.environment import child_environment
from harness.qualify.actions import (
    Action,
    AwaitAction,
    CommandAction,
    HttpAction,
    PromptAction,
    ResetAction,
    UartAction,
)
from harness.qualify.file import QualifyPlan
from harness.qualify.unit import Unit
from harness.qualify.url_secrets import without_url_secrets

_PLACEHOLDER = re.compile(r"\{(secret:[A-Za-z0-9_.-]+|[a-z_]+)\}")
VALUES = ("url", "host", "port", "path", "version", "sha256", "size", "slot", "mac", "board", "file")
"""What an action may name in braces."""


@dataclass(slots=True)
class Hands:
    """Carries out the actions of one qualification."""

    unit: Unit
    plan: QualifyPlan
    observe: bool
    ask: Callable[[str], None]
    """Asks a person, and returns when it is done."""
    values: dict[str, str] = field(default_factory=dict)
    """What stands for the words in braces now."""
    done: list[str] = field(default_factory=list)
    """What was done so far, in words, without secrets."""

    def carry_out(self, actions: Iterable[Action], *, since: int | None = None) -> None:
        """Does all of them, in order. `since`: where lines count from that an action waits for.

        Raises:
            NotProvenError: the unit did not say what was waited for, or a person is needed and nobody is there.
            LabError: a command or a call failed. UsageError: an unknown word in braces.
        """
        for action in actions:
            self._carry_out(action, self._boot_began() if since is None else since)

    def _boot_began(self) -> int:
        boot = self.unit.current()
        return boot.first_line if boot is not None else 0

    def _carry_out(self, action: Action, since: int) -> None:
        if isinstance(action, UartAction):
            self._send(action, since)
        elif isinstance(action, AwaitAction):
            self._await(action.line, action.timeout_s, since)
        elif isinstance(action, HttpAction):
            self._call(action)
        elif isinstance(action, CommandAction):
            self.run(
                action.run,
                action.timeout_s,
                action.variables,
                environment=action.environment,
                text=action.input,
            )
        elif isinstance(action, ResetAction):
            self.unit.reset()
            self._note("reset")
        else:
            self._prompt(action)

    def _note(self, text: str) -> None:
        self.done.append(text)
        if not text.startswith("reset"):
            self.unit.console.note(text)

    def send(self, text: str, end: str = "\n") -> None:
        """Sends a line; never in an observation.

        Raises:
            UsageError: in one.
        """
        if self.observe:
            raise UsageError(
                "--observe sends nothing over the UART, and qualify.yaml has an action or a witness that does",
                board=self.unit.name,
                todo="use 'by: prompt', 'by: http' or 'by: command', or leave --observe out",
            )
        line, shown = self.fill(text)
        self.unit.console.write((line + end).encode(), shown=shown)
        self.done.append(f"sent '{shown}'")

    def _send(self, action: UartAction, since: int) -> None:
        if action.after is not None:
            self._await(action.after, action.timeout_s, since)
        self.send(action.send, action.end)

    def _await(self, pattern: str, timeout_s: float, since: int) -> None:
        if self.unit.await_line(pattern, timeout_s, since) is None:
            raise NotProvenError(
                f"the unit did not print a line like /{pattern}/ within {timeout_s:g} s",
                board=self.unit.name,
                todo=f"read the end of {self.unit.board.log_path}",
            )

    def _call(self, action: HttpAction) -> None:
        url, shown = self.fill(action.url)
        headers = {name: self.fill(value)[0] for name, value in action.headers.items()}
        body = self.fill(action.body)[0].encode() if action.body is not None else None
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"'{shown}' is no URL to call", todo="begin it with http:// or https://")
        context = None
        if url.startswith("https://"):
            context = ssl.create_default_context(
                cafile=str(self.plan.place(action.certificate)) if action.certificate else None
            )
        request = urllib.request.Request(url, data=body, headers=headers, method=action.method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=action.timeout_s, context=context) as answer:  # noqa: S310
                status = answer.status
        except urllib.error.HTTPError as error:
            # Not "from": the error holds the request with its headers.
            raise LabError(f"{action.method} {shown}: status {error.code}", board=self.unit.name) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            # The last of them: who answers speaks no HTTP.
            why = getattr(error, "reason", None) or type(error).__name__
            raise LabError(f"{action.method} {shown}: {why}", board=self.unit.name) from None
        self._note(f"{action.method} {shown}: status {status}")

    def run(
        self,
        words: Iterable[str],
        timeout_s: float,
        variables: Iterable[str] = (),
        *,
        environment: Mapping[str, str] | None = None,
        text: str | None = None,
    ) -> str:
        """Runs a command that reads `text`, and gives what it printed. A secret is in none of its words.

        Raises:
            LabError: it cannot be started, takes too long, or fails.
        """
        filled = [self.fill(word) for word in words]
        shown = " ".join(seen for _, seen in filled)
        more = {name: self.fill(value)[0] for name, value in (environment or {}).items()}
        try:
            done = subprocess.run(
                [word for word, _ in filled],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
                check=False,
                cwd=self.plan.folder,
                env={**child_environment(variables), **more},
                input=self.fill(text)[0] if text is not None else "",
            )
        except subprocess.TimeoutExpired:
            raise LabError(f"'{shown}' took more than {timeout_s:g} s", board=self.unit.name) from None
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "no process can have such words or such an environment"
            raise LabError(f"'{shown}' cannot be started: {why}", board=self.unit.name) from None
        if done.returncode != 0:
            said = self.unit.console.redacted(
                done.stderr.strip().splitlines()[-1] if done.stderr.strip() else ""
            )
            raise LabError(f"'{shown}' failed with status {done.returncode}: {said}", board=self.unit.name)
        self._note(f"ran '{shown}'")
        return done.stdout

    def _prompt(self, action: PromptAction) -> None:
        text = self.fill(action.text)[1]
        self.ask(text)
        self._note(f"a person was asked, and has answered: {text}")

    def fill(self, text: str) -> tuple[str, str]:
        """`text` with the words in braces replaced, and the same as it may be shown.

        Raises:
            UsageError: there is no such word, or a secret cannot be read.
        """
        real: list[str] = []
        shown: list[str] = []
        position = 0
        for match in _PLACEHOLDER.finditer(text):
            before, word = text[position : match.start()], match[1]
            position = match.end()
            value, seen = self._value(word)
            real += [before, value]
            shown += [before, seen]
        real.append(text[position:])
        shown.append(text[position:])
        return "".join(real), without_url_secrets("".join(shown))

    def _value(self, word: str) -> tuple[str, str]:
        if word.startswith("secret:"):
            return self._secret(word.removeprefix("secret:")), REDACTED
        if word in self.values:
            return self.values[word], self.values[word]
        if word in VALUES:
            raise UsageError(
                f"{self.plan.path}: {{{word}}} is not known at this point",
                todo="use it in 'trigger'; what is served is known there",
            )
        return f"{{{word}}}", f"{{{word}}}"

    def _secret(self, name: str) -> str:
        entry = self.plan.file.secrets.get(name)
        if entry is None:
            raise UsageError(
                f"{self.plan.path}: there is no secret '{name}'",
                todo="name its file: secrets: {NAME: {file: FILE}}",
            )
        path = self.plan.place(entry.file)
        try:
            text = path.read_bytes()[:4096].decode().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            # Not "from": the error of a decoder holds the bytes.
            raise UsageError(f"the secret '{name}': {path} cannot be read: {why}") from None
        self.unit.console.hide(text)
        return text


def ask_at_terminal(board: str) -> Callable[[str], None]:
    """Asks the person at the terminal; where nobody is there, nothing is proven.

    The function it gives raises NotProvenError then.
    """

    def ask(text: str) -> None:
        if not sys.stdin.isatty():
            raise NotProvenError(
                f"a person is needed, and nobody is there: {text}",
                board=board,
                todo="run it at a terminal, or use another kind of action",
            )
        click.prompt(
            f"{board}: {text}\nPress Enter when it is done", default="", show_default=False, err=True
        )

    return ask


def url_values(url: str) -> Mapping[str, str]:
    """The parts of a URL by the words that actions use."""
    rest = url.partition("://")[2]
    authority, slash, path = rest.partition("/")
    host, _, port = authority.rpartition(":") if ":" in authority else (authority, "", "")
    return {"url": url, "host": host or authority, "port": port, "path": slash + path}
