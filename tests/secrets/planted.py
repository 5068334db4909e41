"""A bench full of secrets that are known, and everything that a run of the harness on it lets out."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from traces_of import Detector, Secret

from harness.cli.main import cli
from harness.lab import own_vault

BOARDS = """\
version: 1
boards:
  c3:
    chip: esp32c3
    link: twin
    flash_key: {file: flash.key}
    secure_boot: {keys: [boot.pem]}
    network: {ssid: lab, password_file: wifi.txt}
  blank:
    chip: esp32c3
    link: twin
    flash_key: {file: flash.key}
    secure_boot: {keys: [boot.pem]}
  classic:
    chip: esp32
    link: twin
    flash_key: {command: [python3, kms.py]}
"""

RUN_TIMEOUT_S = 3600
"""The whole scenario table, on a busy machine."""
SAMPLE_S = 0.02


def words(name: str, length: int = 20) -> bytes:
    """A passphrase that nobody would come upon: letters and digits from a hash."""
    alphabet = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"
    digest = hashlib.sha512(name.encode()).digest()
    return bytes(alphabet[byte % len(alphabet)] for byte in digest[:length])


def key_bytes(name: str, size: int) -> bytes:
    return hashlib.sha512(name.encode()).digest()[:size]


@dataclass
class Output:
    """What one process left on its standard streams."""

    name: str
    status: int
    said: bytes

    @property
    def text(self) -> str:
        return self.said.decode(errors="replace")


@dataclass
class Bench:
    """A folder with boards.yaml, key files and a HARNESS_HOME; nothing outside of it is used."""

    folder: Path
    outputs: list[Output] = field(default_factory=list)
    seen: dict[str, bytes] = field(default_factory=dict)
    """Command lines and environments of our descendants, and their limits, by what they are."""
    cores: set[str] = field(default_factory=set)
    """Size limits of core files that twins have: they hold the key, and are started behind an open vault."""
    thorough: bool = False
    """Every command in a process of its own."""

    def __post_init__(self) -> None:
        self.flash_key = key_bytes("flash key of c3", 32)
        self.other_key = key_bytes("flash key of classic", 32)
        self.vault_file = words("key file", 44)
        self.passphrase = words("passphrase", 24)
        self.password = words("wifi", 20)
        self.pin = words("pin", 14)
        self.boot = rsa.generate_private_key(public_exponent=65537, key_size=3072)
        self.given: dict[str, bytes] = {
            "flash.key": self.flash_key,
            "classic.key": self.other_key,
            "vault.key": self.vault_file + b"\n",
            "wifi.txt": self.password + b"\n",
            "pin.txt": self.pin + b"\n",
            "kms.py": b"import sys; sys.stdout.buffer.write(open('classic.key', 'rb').read())",
            "boards.yaml": BOARDS.encode(),
            "boot.pem": self.boot.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            ),
        }
        for name, content in self.given.items():
            self.write(name, content)

    def write(self, name: str, content: bytes | str, mode: int = 0o600) -> Path:
        """A file of the bench that the test itself makes: it may hold secrets, and is not searched."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
        self.given.setdefault(name, b"")
        return path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def boot_pkcs8(self) -> bytes:
        """The boot key as a token takes it."""
        return self.boot.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    # --- running ---

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "HARNESS_HOME": str(self.home),
            "HARNESS_VAULT_KEY_FILE": str(self.folder / "vault.key"),
            "PYTHONPATH": os.pathsep.join([*sys.path[:0], str(Path(__file__).parents[2])]),
            "COLUMNS": "200",
        }

    def start(
        self,
        *command: str,
        debug: bool = False,
        given: bytes | None = None,
        also: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Starts `command`; `given` is what it may read on a descriptor, whose number replaces ``FD``."""
        descriptors = [_pipe_with(given)] if given is not None else []
        words_ = [str(descriptors[0]) if word == "FD" else word for word in command]
        process = subprocess.Popen(
            words_,
            cwd=self.folder,
            env=self.environment | {"HARNESS_DEBUG": "1" if debug else ""} | dict(also or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=descriptors,
        )
        for descriptor in descriptors:
            os.close(descriptor)
        return process

    def end(self, process: subprocess.Popen[bytes], name: str) -> Output:
        said, _ = process.communicate(timeout=RUN_TIMEOUT_S)
        self.outputs.append(Output(name, process.returncode, said))
        return self.outputs[-1]

    def run(self, *command: str, **options: object) -> Output:
        with self.watched():
            return self.end(self.start(*command, **options), " ".join(command))  # type: ignore[arg-type]

    def harness(
        self, *arguments: str, debug: bool = False, given: bytes | None = None, own_process: bool = False
    ) -> Output:
        """`harness` with `arguments`: in this process, as long as nobody has to look at it from outside."""
        if own_process or self.thorough:
            return self.run(sys.executable, "-m", "harness", *arguments, debug=debug, given=given)
        descriptor = _pipe_with(given) if given is not None else -1
        words_ = [str(descriptor) if word == "FD" else word for word in arguments]
        done = CliRunner().invoke(cli, words_, standalone_mode=False, env=self.environment)
        if descriptor >= 0:
            os.close(descriptor)
        error = done.exception
        status = done.exit_code if error is None else getattr(error, "exit_code", 1)
        said = done.output + (str(error) if error is not None else "")
        if debug and done.exc_info is not None:
            said += "".join(traceback.format_exception(*done.exc_info))
        self.outputs.append(Output(" ".join(arguments), int(status), said.encode()))
        return self.outputs[-1]

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Samples what everybody on the machine may see of our descendants."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(SAMPLE_S):
                self._sample()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()

    def _sample(self) -> None:
        for pid in _descendants(os.getpid()):
            for what in ("cmdline", "environ"):
                with contextlib.suppress(OSError):
                    content = Path(f"/proc/{pid}/{what}").read_bytes()
                    self.seen[f"{what} {hashlib.sha256(content).hexdigest()[:8]}"] = content
            with contextlib.suppress(OSError, IndexError):
                name = Path(f"/proc/{pid}/cmdline").read_bytes()
                limits = Path(f"/proc/{pid}/limits").read_text()
                if b"harness.twin" in name:
                    self.cores.add(limits.split("Max core file size")[1].split()[0])

    # --- secrets ---

    def secrets(self) -> list[Secret]:
        """All that was planted, and what the vaults have made since."""
        private = self.boot.private_numbers()
        found = [
            Secret("the flash key", self.flash_key),
            Secret("the other flash key", self.other_key),
            Secret("the vault's key file", self.vault_file),
            Secret("the vault's passphrase", self.passphrase),
            Secret("the Wi-Fi password", self.password),
            Secret("the PIN", self.pin),
            *(
                Secret(f"the boot key's {name}", number.to_bytes((number.bit_length() + 7) // 8, "big"))
                for name, number in {
                    "prime p": private.p,
                    "prime q": private.q,
                    "exponent d": private.d,
                }.items()
            ),
        ]
        for state in sorted((self.home / "twins").glob("*")):
            if (state / "vault").is_dir():
                signing = own_vault(state).signing_key()
                assert isinstance(signing, ec.EllipticCurvePrivateKey)
                scalar = signing.private_numbers().private_value.to_bytes(32, "big")
                found.append(Secret(f"the signing key of {state.name}", scalar))
                # Hexadecimal digits: the detector knows bytes in that form.
                opens = bytes.fromhex((state / "vault.key").read_text())
                found.append(Secret(f"the key file of {state.name}'s vault", opens))
        return found

    def excepted(self, path: Path) -> str | None:
        """Why `path` may hold a secret; None: it may not."""
        name = path.relative_to(self.folder).as_posix()
        if name in self.given:
            return "made by the test: what it gave to the harness"
        if path.name == "vault.key" and path.parent.parent == self.home / "twins":
            return "what opens a virtual board's vault"
        if path.name == "efuse.bin":
            return "the eFuses of a twin: in silicon the key is there, too"
        if name.startswith("tokens/"):
            return "a token's own store"
        if name.startswith("exported/"):
            return "what `harness keys export` and `hand-over` are for"
        return None

    def leaks(self) -> list[str]:
        """Every place where a secret shows, in words."""
        detector = Detector(self.secrets())
        found: list[str] = []
        searched: set[bytes] = set()
        for origin, content in self._everything():
            # Blank flashes, and what is printed time and again.
            digest = hashlib.sha256(content).digest()
            if digest in searched:
                continue
            searched.add(digest)
            found += [f"{origin}: {trace.text()}" for trace in detector.traces(content)]
        return found

    def _everything(self) -> Iterable[tuple[str, bytes]]:
        for number, output in enumerate(self.outputs):
            yield f"output {number} of '{output.name}' (status {output.status})", output.said
        for what, content in self.seen.items():
            yield f"{what} ({content[:80]!r}…)", content.replace(b"\0", b"\n")
        for path in sorted(self.folder.rglob("*")):
            if (
                path.is_file()
                and not path.is_symlink()
                and self.excepted(path) is None
                and "builds" not in path.parts
            ):
                yield str(path.relative_to(self.folder)), path.read_bytes()
            yield "the name of a file", str(path.relative_to(self.folder)).encode()


def _pipe_with(content: bytes) -> int:
    """A descriptor that `content` can be read from."""
    read, write = os.pipe()
    os.write(write, content + b"\n")
    os.close(write)
    return read


def _descendants(ancestor: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{ancestor}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *_descendants(int(child))]
    return found
