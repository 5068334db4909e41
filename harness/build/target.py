"""Builds the companion firmware for a chip, with ESP-IDF.

Two kinds of folder under ``<work>/idf``:

- ``artefacts/<chip>-companion-<digest>``: a finished build, named after everything that went in: sources, chip,
  fragments, signing keys, version, ESP-IDF. Found again, it is taken as it is.
- ``work/<chip>-<digest>``: the folder that idf.py builds in, named after what configures it. Versions and signing
  keys share it, so that the second one compiles a single file.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from harness.build.app_dir import PROJECT, AppDirectory, read_app_dir
from harness.build.artefacts import Artefacts
from harness.build.build_output import Progress, ProgressReader, first_failure
from harness.build.compiler import warnings_are_errors
from harness.build.esp_idf import EspIdf, digest_of
from harness.build.native import firmware_dir
from harness.build.sdkconfig import OWN_PREFIXES, fragment_path, parse_sdkconfig
from harness.chips import Chip
from harness.errors import FormatError, LabError, UsageError
from harness.formats.app_description import AppDescription

BUILD_TIMEOUT_S = 3600.0
"""A first build compiles a thousand files; on a small machine that takes a quarter of an hour."""

LOCK_TIMEOUT_S = 3600.0
_NOT_SOURCES = ("native", "build", "managed_components", "__pycache__")
_NOT_SOURCE_FILES = ("sdkconfig", "sdkconfig.old", "dependencies.lock", "README.md", ".clang-format")
_MUST_HOLD = (
    *OWN_PREFIXES,
    "CONFIG_SECURE_FLASH_ENC",
    "CONFIG_SECURE_BOOT_V2_ENABLED",
    "CONFIG_SECURE_BOOT_BUILD",
    "CONFIG_SECURE_BOOT_ECDSA_KEY",
    "CONFIG_SECURE_SIGNED_APPS",
    "CONFIG_BOOTLOADER_APP_",
    "CONFIG_ESP_CONSOLE_U",
)
"""Options that Kconfig must not drop silently because something that they depend on is missing."""


@dataclass(frozen=True, slots=True)
class _Inputs:
    """Everything that a build is made of."""

    firmware: Path
    chip: Chip
    idf: EspIdf
    version: str
    configuration: tuple[tuple[str, str], ...]
    """(name, text) of every fragment, later ones winning."""
    paths: tuple[Path, ...]
    """The fragments that are files of the firmware or of a person."""
    signing_keys: tuple[bytes, ...]
    sources: str
    """Digest of the firmware's sources."""

    @property
    def work_name(self) -> str:
        werror = str(warnings_are_errors())
        return f"{self.chip.name}-{digest_of(str(self.firmware), werror, *self._common)}"

    @property
    def name(self) -> str:
        own = digest_of(self.sources, self.version, *self.signing_keys)
        return f"{self.chip.name}-{PROJECT}-{digest_of(own, *self._common)}"

    @property
    def _common(self) -> tuple[str, ...]:
        texts = [text for pair in self.configuration for text in pair]
        return (self.idf.identity, self.chip.name, *texts)


def build_target(
    chip: Chip,
    *,
    version: str,
    fragments: Sequence[str] = ("profile.release",),
    secure_version: int = 0,
    signing_keys: Sequence[bytes] = (),
    idf: EspIdf,
    work: Path,
    firmware: Path | None = None,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
) -> Artefacts:
    """Builds one version, or takes it from the cache; safe to call from several processes at once.

    Args:
        chip: what is built for.
        version: up to 31 bytes.
        fragments: sdkconfig fragments, later ones winning: ``profile.release``, ``lock.none``, ``net.openeth``,
            ``test``, or paths of files.
        secure_version: for anti-rollback; a fragment must switch that on.
        signing_keys: up to two ECDSA P-256 public keys (65 bytes: 04, X, Y) whose packages the firmware takes.
        idf: what `find_esp_idf` found.
        work: the folder of builds.
        firmware: sources; default: the companion firmware.
        on_progress: called for every step of ninja.

    Raises:
        LabError: the build failed; holds the compiler's first message and the path of the log.
        UsageError: an unknown fragment, a wrong key. FormatError: a text does not fit its field.
    """
    AppDescription(version=version, project_name=PROJECT).to_bytes()  # refuses what does not fit
    inputs = _collect(chip, version, fragments, secure_version, signing_keys, idf, firmware or firmware_dir())
    final = work / "idf" / "artefacts" / inputs.name
    found = _finished(final)
    if found is not None:
        return found
    folder = work / "idf" / "work" / inputs.work_name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        final.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(folder / "build.lock", timeout=LOCK_TIMEOUT_S):
            # Another process may have built it while we waited.
            return _finished(final) or _build(inputs, folder, final, on_progress)
    except Timeout as error:
        raise LabError(
            f"another build has held {folder / 'build.lock'} for {LOCK_TIMEOUT_S:.0f} s",
            todo="see what it is doing",
        ) from error
    except OSError as error:
        raise LabError(
            f"the build in {folder} failed: {error}", todo="see whether the disk is full"
        ) from error


def _finished(final: Path) -> Artefacts | None:
    """A finished build; one that was damaged counts as none."""
    if not final.is_dir():
        return None
    try:
        return Artefacts.read(final)
    except FormatError:
        shutil.rmtree(final, ignore_errors=True)
        return None


def _collect(
    chip: Chip,
    version: str,
    fragments: Sequence[str],
    secure_version: int,
    signing_keys: Sequence[bytes],
    idf: EspIdf,
    firmware: Path,
) -> _Inputs:
    if len(signing_keys) > 2 or any(len(key) != 65 or key[0] != 4 for key in signing_keys):
        raise UsageError(
            "the firmware takes up to two signing keys of 65 bytes that start with 04",
            todo="give ECDSA P-256 public keys as uncompressed points",
        )
    paths = (firmware / "sdkconfig.defaults", *(fragment_path(firmware, name) for name in fragments))
    configuration = []
    for path in paths:
        # ESP-IDF adds the file of the same name for the target by itself.
        for each in (path, path.with_name(f"{path.name}.{chip.name}")):
            if each.is_file():
                configuration.append((each.name, each.read_text(encoding="utf-8")))
    own = [f'CONFIG_RAW_OTA_PUBLIC_KEY_{n}="public_key_{n}.bin"' for n in range(1, len(signing_keys) + 1)]
    if secure_version:
        if not any("CONFIG_BOOTLOADER_APP_ANTI_ROLLBACK=y" in text for _, text in configuration):
            raise UsageError(
                f"secure version {secure_version} needs a build with anti-rollback",
                todo="add a fragment with CONFIG_BOOTLOADER_APP_ANTI_ROLLBACK=y",
            )
        own.append(f"CONFIG_BOOTLOADER_APP_SECURE_VERSION={secure_version}")
    configuration.append(("generated", "\n".join([*own, ""])))
    return _Inputs(
        firmware=firmware,
        chip=chip,
        idf=idf,
        version=version,
        configuration=tuple(configuration),
        paths=paths,
        signing_keys=tuple(signing_keys),
        sources=_sources_digest(firmware),
    )


def _sources_digest(firmware: Path) -> str:
    """Over names and contents of everything that idf.py may compile or configure from."""
    digest = hashlib.sha256()
    for path in sorted(firmware.rglob("*")):
        name = path.relative_to(firmware)
        if not path.is_file() or name.parts[0] in _NOT_SOURCES or "__pycache__" in name.parts:
            continue
        if str(name) in _NOT_SOURCE_FILES or name.name.startswith("sdkconfig."):
            continue
        data = path.read_bytes()
        digest.update(f"{name.as_posix()}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()


def _build(inputs: _Inputs, folder: Path, final: Path, on_progress: Callable[[Progress], None]) -> Artefacts:
    """Runs idf.py and keeps what it made; the caller holds the lock of `folder`."""
    log = folder / "build.log"
    log.write_text("", encoding="utf-8")
    reader = ProgressReader()

    def told(line: str) -> None:
        progress = reader.read(line)
        if progress is not None:
            on_progress(progress)

    code = inputs.idf.run(
        _arguments(inputs, folder), folder=folder, log=log, timeout_s=BUILD_TIMEOUT_S, on_line=told
    )
    what = f"building the firmware {inputs.version} for {inputs.chip.title} with ESP-IDF {inputs.idf.version}"
    if code != 0:
        said = log.read_text(encoding="utf-8", errors="replace").splitlines()
        raise LabError(f"{what} failed: {first_failure(said)}", todo=f"read {log}")
    if _sources_digest(inputs.firmware) != inputs.sources:
        raise LabError(f"{what}: its sources were changed meanwhile", todo="run it again")
    sdkconfig = (folder / "sdkconfig").read_text(encoding="utf-8")
    _check_configuration(inputs, parse_sdkconfig(sdkconfig), what, log)
    built = read_app_dir(folder / "build", chip=inputs.chip)
    if built.version != inputs.version:
        raise LabError(f"{what}: the image says that it is {built.version}", todo=f"read {log}")
    if not all(key in built.release.image for key in inputs.signing_keys):
        raise LabError(
            f"{what}: the image does not hold the signing keys", todo=f"remove {folder} and build again"
        )
    return _kept(built, sdkconfig, log, final)


def _arguments(inputs: _Inputs, folder: Path) -> list[str]:
    """Arguments of idf.py; writes the generated fragment and the keys beside the build."""
    generated = folder / "sdkconfig.generated"
    text = inputs.configuration[-1][1]
    for number, key in enumerate(inputs.signing_keys, 1):
        path = folder / f"public_key_{number}.bin"
        # Only a newer file makes ninja embed it again.
        if not path.is_file() or path.read_bytes() != key:
            path.write_bytes(key)
        text = text.replace(f'"{path.name}"', f'"{path.as_posix()}"')
    generated.write_text(text, encoding="utf-8")
    defaults = ";".join(path.absolute().as_posix() for path in (*inputs.paths, generated))
    return [
        "-C",
        str(inputs.firmware),
        "-B",
        str(folder / "build"),
        f"-DIDF_TARGET={inputs.chip.name}",
        f"-DSDKCONFIG={(folder / 'sdkconfig').as_posix()}",
        f"-DSDKCONFIG_DEFAULTS={defaults}",
        f"-DCOMPANION_VERSION={inputs.version}",
        f"-DCOMPANION_WERROR={'ON' if warnings_are_errors() else 'OFF'}",
        "build",
    ]


def _check_configuration(inputs: _Inputs, built: dict[str, str], what: str, log: Path) -> None:
    """Every option of the fragments that matters must have come out as it was asked for.

    Raises:
        LabError: Kconfig has dropped one.
    """
    asked: dict[str, str] = {}
    for _, text in inputs.configuration[:-1]:
        asked.update(parse_sdkconfig(text))
    lost = [
        f"{name}={value} (it is {built.get(name, 'not there')})"
        for name, value in asked.items()
        if name.startswith(_MUST_HOLD) and built.get(name, "n") != value
    ]
    if lost:
        raise LabError(
            f"{what}: the configuration does not hold what its fragments say: {', '.join(lost)}",
            todo=f"see what the option depends on; the log is {log}",
        )


def _kept(built: AppDirectory, sdkconfig: str, log: Path, final: Path) -> Artefacts:
    """The images of a build in a folder of their own, with its log; only the log names folders of this host."""
    making = Path(tempfile.mkdtemp(dir=final.parent, prefix=".making-"))
    try:
        Artefacts.write(
            making,
            chip=built.chip,
            kind="target",
            project=built.project,
            version=built.version,
            secure_version=built.secure_version,
            bootloader=built.bootloader,
            partition_table=built.partition_table,
            table_offset=built.table_offset,
            app=built.release.image,
            sdkconfig=_relocatable(sdkconfig, log.parent),
        )
        shutil.copyfile(log, making / "build.log")
        making.replace(final)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return Artefacts.read(final)


def _relocatable(sdkconfig: str, folder: Path) -> str:
    """Paths into the build's folder become bare file names."""
    return sdkconfig.replace(f"{folder.absolute().as_posix()}/", "")
