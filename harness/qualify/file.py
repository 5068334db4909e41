"""What `qualify.yaml` may say: one pydantic model, since a person wrote the input. Complaints name file, line, field."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from harness.errors import UsageError
from harness.inventory.entry import Host, PortRange, Ports
from harness.inventory.inventory import check_events
from harness.qualify.actions import (
    ACTIONS,
    Action,
    CommandWords,
    Model,
    Pattern,
    Seconds,
    Url,
    Words,
    compiled,
)
from harness.qualify.claims import DEMANDABLE
from harness.qualify.url_secrets import texts_in, without_url_secrets

FORMAT_VERSION = 1
DEFAULT_FILE = "qualify.yaml"
MAX_FILE_BYTES = 256 << 10

SLOT = re.compile(r"ota_\d{1,2}|any")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def _reading(value: str) -> str:
    if re.compile(compiled(value)).groups < 1:
        raise ValueError(f"'{value}' has no group: put the value itself in parentheses")
    return value


def _sha256(value: str) -> str:
    if not _SHA256.fullmatch(value.lower()):
        raise ValueError("must be a SHA-256: 64 hexadecimal digits (sha256sum FILE)")
    return value.lower()


def _path(value: str) -> str:
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]{1,100}){1,8}", value):
        raise ValueError(f"'{value}' is no path to serve under; write one like /firmware/app.bin")
    return value


Reading = Annotated[str, AfterValidator(_reading)]
"""A regular expression whose first group is the value."""


class ArtefactFile(Model):
    """One file, by path (relative to qualify.yaml) and SHA-256."""

    path: Annotated[str, Field(min_length=1)]
    sha256: Annotated[str, AfterValidator(_sha256)]


class SecretFile(Model):
    """A secret for actions (``{secret:NAME}``): the one line of a file. It is in no log and in no report."""

    file: Annotated[str, Field(min_length=1)]


class HarnessServer(Model):
    """The harness serves the update: over HTTPS where a certificate is given."""

    by: Literal["harness"] = "harness"
    path: Annotated[str, AfterValidator(_path)] | None = None
    """For apps whose URL is compiled in; default: a path of its own, which nobody can guess."""
    port: PortRange = Ports()
    bind: Host | None = None
    address: Host | None = None
    """Under which the unit reaches this machine; default: as the board's entry says."""
    certificate: str | None = None
    """PEM file with the server's certificate (and those that it hangs on)."""
    key: str | None = None
    """PEM file with its private key, not enciphered."""

    @model_validator(mode="after")
    def _both_or_none(self) -> HarnessServer:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("an HTTPS server needs both 'certificate' and 'key'")
        return self


class ExternalServer(Model):
    """Somebody else serves the update; nobody here sees what was asked for."""

    by: Literal["external"]
    url: Url
    publish: CommandWords | None = None
    """Command that puts ``{file}`` there."""
    timeout_s: Seconds = 120.0


Server = Annotated[HarnessServer | ExternalServer, Field(discriminator="by")]


class WitnessEntry(Model):
    """How something is read: a line of the log, or what a command, or a line sent to the unit, brings."""

    pattern: Reading
    run: CommandWords | None = None
    """Command of this machine whose output is searched instead of the log."""
    send: str | None = None
    """Line that the unit is asked with; the answer is in its log."""
    timeout_s: Seconds = 10.0

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"pattern": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_way(self) -> WitnessEntry:
        if self.run is not None and self.send is not None:
            raise ValueError("read it in one way: 'run' or 'send'")
        return self


def _as_words(value: Any) -> Any:
    """One word is a list of one; what YAML takes for a truth value or a number is the word that was written."""
    words = value if isinstance(value, list) else [value]
    return [
        str(each).lower() if isinstance(each, bool) else str(each) if isinstance(each, int) else each
        for each in words
    ]


class ConfirmedEntry(WitnessEntry):
    """How confirmation is read: a pattern whose group is a state, or one that matches only what means so."""

    model_config = ConfigDict(populate_by_name=True)

    pattern: Pattern
    stated: Annotated[Words | None, BeforeValidator(_as_words), Field(alias="is")] = None
    """What its group is when the version is confirmed; default: `harness.qualify.claims.CONFIRMED_WORDS`."""

    @model_validator(mode="after")
    def _what_is_compared(self) -> ConfirmedEntry:
        if self.stated is not None and not re.compile(self.pattern).groups:
            raise ValueError(f"'{self.pattern}' has no group that 'is' could be compared with")
        return self


class Witness(Model):
    """What the app says of itself, beyond what ESP-IDF's start-up prints anyway."""

    ready: Pattern | None = None
    """A line that means: the app is up; default: ESP-IDF's own start-up lines."""
    failed: Pattern | None = None
    """A line that means: the update was given up."""
    version: WitnessEntry | None = None
    slot: WitnessEntry | None = None
    """A partition's label, or its offset."""
    confirmed: ConfirmedEntry | None = None
    """A group that says ``valid`` (or what ``is`` states), or a pattern without a group that was printed: the running
    version is confirmed."""
    image: WitnessEntry | None = None
    """SHA-256 of the running image: of the file, or the one that ESP-IDF appends to it."""


class EndState(Model):
    """What the unit is to be left with. The default is what follows from the cases."""

    image: Literal["running", "update"] | None = None
    slot: Annotated[str, Field(pattern=r"^(ota_\d{1,2}|factory)$")] | None = None
    otadata: Literal["valid", "undefined"] = "valid"


class Times(Model):
    """How long is waited, in seconds."""

    boot_s: Seconds = 60.0
    """From a reset to the app."""
    update_s: Seconds = 300.0
    """From the trigger to the boot of the new version."""
    settle_s: Seconds = 10.0
    """Silence after an error of the unit, or after the version before came back: then an update counts as over."""
    steady_s: Annotated[float, Field(ge=0, le=3600)] = 3.0
    """An app that is up must stay up for so long: what panics and starts again does not run."""
    confirm_s: Seconds = 60.0
    """From the new version's start until it has confirmed itself."""


Image = Literal["ciphertext", "plaintext", "file"]


class QualifyFile(Model):
    """The whole file."""

    version: Literal[1]
    unit: Literal["ship", "sacrificial"]
    product: str = ""
    board: str | None = None
    """Name in boards.yaml; ``--board`` overrules."""
    profile: Literal["release", "release+sbv2", "development", "development+sbv2", "open"] = "release"
    """What the unit is demanded to be in."""
    running: ArtefactFile
    """The app that the unit runs when it comes."""
    update: ArtefactFile
    """The app that it is updated to, as plaintext and signed as the unit demands."""
    image: Image
    """What is served: the update enciphered here for the slot, as it is, or files that somebody else has made."""
    served: dict[str, ArtefactFile] = Field(default_factory=dict)
    """For ``image: file``: what is served, by the slot that it is for (``ota_0``, ``ota_1``), or ``any``."""
    served_back: dict[str, ArtefactFile] = Field(default_factory=dict)
    partition_table: ArtefactFile | None = None
    """Binary; default: as the bootloader prints it."""
    there_and_back: StrictBool = False
    """After the update, update to ``running`` again."""
    rollback: StrictBool = False
    """An update that is reset before it has confirmed itself is demanded to give way to the version before."""
    server: Server = HarnessServer()
    prepare: list[Action] = Field(default_factory=list)
    trigger: Annotated[list[Action], Field(min_length=1)]
    confirm: list[Action] = Field(default_factory=list)
    """After the new version is up; nothing for apps that confirm themselves."""
    witness: Witness = Witness()
    reset: Literal["link", "power", "none"] = "link"
    """How the unit is reset into its app: DTR/RTS (or what stands for them), its supply, or not at all."""
    end: EndState = EndState()
    times: Times = Times()
    secrets: dict[str, SecretFile] = Field(default_factory=dict)
    requirements: dict[str, list[str] | str] = Field(default_factory=dict)
    """Id in somebody's specification: the claims that meet it."""

    @model_validator(mode="after")
    def _what_is_served(self) -> QualifyFile:
        wrong = [name for name in (*self.served, *self.served_back) if not SLOT.fullmatch(name)]
        if wrong:
            raise ValueError(f"served: '{wrong[0]}' is no slot; name ota_0, ota_1, …, or any")
        if (self.image == "file") != bool(self.served):
            raise ValueError("'served' belongs to 'image: file', and that needs it")
        if self.image == "file" and self.there_and_back and not self.served_back:
            raise ValueError("with 'image: file' the way back needs 'served_back'")
        return self

    @model_validator(mode="after")
    def _what_a_ship_unit_gets(self) -> QualifyFile:
        if self.unit == "ship" and self.rollback:
            raise ValueError(
                "'rollback' is for 'unit: sacrificial': a ship unit gets nothing but a good update"
            )
        return self

    @model_validator(mode="after")
    def _known_claims(self) -> QualifyFile:
        for identifier, claims in self.requirements.items():
            if not claims:
                raise ValueError(f"requirements: {identifier}: no claim is named that would meet it")
            for claim in [claims] if isinstance(claims, str) else claims:
                if claim not in DEMANDABLE:
                    raise ValueError(
                        f"requirements: {identifier}: there is no claim '{claim}'; there are: "
                        f"{', '.join(DEMANDABLE)}"
                    )
        return self

    def claims_of(self, identifier: str) -> list[str]:
        """The keys of the claims that meet the requirement `identifier`."""
        claims = self.requirements[identifier]
        return [claims] if isinstance(claims, str) else claims

    def requirements_of(self, claim: str) -> str | None:
        """Ids of the requirements that the claim `claim` is for, as one text."""
        found = [identifier for identifier in self.requirements if claim in self.claims_of(identifier)]
        return ", ".join(found) or None


@dataclass(frozen=True, slots=True)
class QualifyPlan:
    """A file that was read, and where it lies."""

    path: Path
    text: str
    file: QualifyFile

    @property
    def folder(self) -> Path:
        """What relative paths in it are relative to."""
        return self.path.absolute().parent

    def shown(self) -> str:
        """The text without what may be secret in the URLs in it: the copy among the evidence."""
        return without_url_secrets(self.text)

    def place(self, name: str) -> Path:
        """The file that it calls `name`.

        Raises:
            UsageError: it is in the home folder of a user that there is not.
        """
        try:
            return self.folder / Path(name).expanduser()
        except RuntimeError:
            raise UsageError(
                f"{self.path}: '{name}': there is no such user on this machine",
                todo="write the path without ~",
            ) from None


def read_qualify_file(path: Path) -> QualifyPlan:
    """Reads a `qualify.yaml`.

    Raises:
        UsageError: it cannot be read, is not YAML, or says something wrong: ``file:line: field: what``.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(
            f"{path}: cannot be read: {reason}", todo="write one with: harness qualify --init"
        ) from error
    return QualifyPlan(path, text, parse_qualify_text(text, path))


def parse_qualify_text(text: str, path: Path) -> QualifyFile:
    """Parses the text of a `qualify.yaml`; `path` is for messages. Errors as `read_qualify_file`."""
    if len(text) > MAX_FILE_BYTES:
        raise UsageError(f"{path}:1: the file has more than {MAX_FILE_BYTES >> 10} KiB")
    try:
        check_events(text, path)
        tree = YAML(typ="rt").load(text)
        plain = YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        # Not "from": the error quotes the line, and what is wrong there may be a password.
        raise UsageError(f"{path}:{line}: not valid YAML", todo="mend the syntax there") from None
    except (YAMLError, ValueError, TypeError, RecursionError):
        raise UsageError(f"{path}:1: not valid YAML", todo="mend the syntax") from None
    _require_plain_text(plain, path)
    _require_shown_alike(plain, text, path)
    if not isinstance(plain, dict):
        raise UsageError(f"{path}:1: the file must be a mapping", todo="see: harness qualify --init")
    version = plain.get("version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise UsageError(
            f"{path}:1: version: {version} is newer than this harness knows ({FORMAT_VERSION})",
            todo="use a newer harness; nothing was touched",
        )
    try:
        return QualifyFile.model_validate(plain)
    except ValidationError as error:
        complaints = [_complaint(path, tree, item) for item in error.errors()[:20]]
        raise UsageError(
            "\n".join(complaints), todo=f"mend {path.name} and run again; nothing was touched"
        ) from None


def _require_plain_text(tree: Any, path: Path) -> None:
    """No file name, no command and no log holds a NUL, or half a pair of UTF-16, which YAML can write."""
    for text in texts_in(tree):
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
            raise UsageError(
                f"{path}: a text holds \\0, or half of a character (\\ud800 to \\udfff)",
                todo="leave it out, or write the character whole",
            )


def _require_shown_alike(tree: Any, text: str, path: Path) -> None:
    """The copy among the evidence says what the file says, but for what may be secret in its URLs.

    A URL that is broken over two lines, or written with escapes, would keep a part of its token there.
    """
    wanted = [without_url_secrets(each) for each in texts_in(tree)]
    try:
        copied = YAML(typ="safe", pure=True).load(without_url_secrets(text)) if wanted else tree
    except (YAMLError, ValueError, TypeError, RecursionError):
        copied = None
    if texts_in(copied) != wanted:
        raise UsageError(
            f"{path}: a URL holds a password or a query, and is not written as one word: its copy in the report "
            "would hold a part of it",
            todo="write the URL on one line, in quotes, without escapes",
        )


_WANTED = {
    "missing": "is missing",
    "extra_forbidden": "there is no such field",
    "string_type": "must be text; put it in quotes if YAML takes it for something else",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a mapping: {name: value}",
    "model_type": "must be a mapping: {field: value}",
    "model_attributes_type": "must be a mapping: {field: value}",
    "string_too_short": "must not be empty",
    "too_short": "must have at least one in the list",
    "union_tag_not_found": "'by' is missing: it says who or what does it",
}


def _complaint(path: Path, tree: Any, item: Any) -> str:
    location = [part for part in item["loc"] if part not in (*ACTIONS, "harness", "external")]
    field = ".".join(str(part) for part in location) or "file"
    message = str(item["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
    message = _WANTED.get(item["type"], message)
    if item["type"] == "union_tag_invalid":
        message = f"'by' must be one of: {item['ctx']['expected_tags']}".replace("'", "").replace(
            "by must", "'by' must", 1
        )
    if item["type"] == "missing" and location == ["unit"]:
        message = "is missing: say 'ship' (nothing but a good update is written) or 'sacrificial'"
    return f"{path}:{_line(tree, location)}: {field}: {message}"


def _line(tree: Any, location: list[Any]) -> int:
    """Line (from 1) of the deepest part of `location` that is in the file."""
    line, node = 0, tree
    for part in location:
        places = getattr(getattr(node, "lc", None), "data", None) or {}
        if part not in places:
            break
        line, node = places[part][0], node[part]
    return int(line) + 1
