"""What qualify.yaml may have done to the unit from outside, and the types of what is written there."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def compiled(value: str) -> str:
    """`value`, if it is a regular expression."""
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"'{value}' is no regular expression: {error}") from error
    return value


_HIDDEN = "{secret:"
_CREDENTIAL_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "cookie", "x-api-key", "x-auth-token"}
)


def shown_to_all(value: str) -> str:
    # Everybody on a machine sees the words of a command, and every server on the way keeps URLs.
    if _HIDDEN in value:
        raise ValueError(
            "a secret must not stand in a command line or a URL, which others see: give it to a command by 'input' "
            "or 'environment', to a server by 'headers' or 'body'"
        )
    return value


def _url(value: str) -> str:
    if "@" in shown_to_all(value).partition("://")[2].partition("/")[0]:
        raise ValueError(
            "a URL with a password in it is in every log and report: use 'headers' with a secret"
        )
    return value


def _headers(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if name.lower() in _CREDENTIAL_HEADERS and _HIDDEN not in text:
            raise ValueError(
                f"'{name}' is a secret, and this file is part of the evidence: write {{secret:NAME}}, and name its "
                "file in 'secrets'"
            )
    return value


Url = Annotated[str, Field(min_length=1), AfterValidator(_url)]
Pattern = Annotated[str, AfterValidator(compiled)]
Words = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
CommandWords = Annotated[
    list[Annotated[str, Field(min_length=1), AfterValidator(shown_to_all)]], Field(min_length=1)
]
Seconds = Annotated[float, Field(gt=0, le=3600)]


class Model(BaseModel):
    """One mapping of the file; what it does not know it refuses."""

    # What was written may be a password in the wrong place.
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class UartAction(Model):
    """Sends a line to the unit's console."""

    by: Literal["uart"]
    send: str
    after: Pattern | None = None
    """Only when the unit has printed a line like this, in the boot that runs."""
    end: str = "\n"
    timeout_s: Seconds = 60.0
    """For ``after``."""


class HttpAction(Model):
    """Calls the unit, or what it listens to, over HTTP."""

    by: Literal["http"]
    url: Url
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    headers: Annotated[dict[str, str], AfterValidator(_headers)] = {}
    body: str | None = None
    certificate: str | None = None
    """PEM file of the authority that its certificate is checked against; default: the system's."""
    timeout_s: Seconds = 30.0


class CommandAction(Model):
    """Runs a command on this machine; exit status 0 is success."""

    by: Literal["command"]
    run: CommandWords
    timeout_s: Seconds = 60.0
    variables: list[str] = []
    """Environment variables that it may see, by name."""
    environment: dict[str, str] = {}
    """More of them, with their values, which may be secrets."""
    input: str | None = None
    """What it reads from its standard input; may hold secrets."""


class PromptAction(Model):
    """Asks a person, and waits until they have done it."""

    by: Literal["prompt"]
    text: Annotated[str, Field(min_length=1)]


class ResetAction(Model):
    """Resets the unit: for apps that look for an update at their start."""

    by: Literal["reset"]


class AwaitAction(Model):
    """Waits for a line of the unit."""

    by: Literal["await"]
    line: Pattern
    timeout_s: Seconds = 60.0


Action = Annotated[
    UartAction | HttpAction | CommandAction | PromptAction | ResetAction | AwaitAction,
    Field(discriminator="by"),
]
ACTIONS = ("uart", "http", "command", "prompt", "reset", "await")
