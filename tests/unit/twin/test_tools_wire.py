"""The vendor's own tools, as installed, drive the twin: esptool with stub and without, espefuse, both chips."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from boot_board import KINDS, PLAIN_CONFIG, bootloader_image
from rom_requests import NOISE
from signing_bench import key_digest, signed
from twin_process import TwinProcess, environment, read_until

from harness.chips import CHIPS, KEY_PURPOSE_NUMBERS, TWINS
from harness.chips.efuses import efuse_geometry

# esptool leaves files open when it ends with an error.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

REVISIONS = {
    "esp32": "v3.0",
    "esp32s2": "v1.0",
    "esp32s3": "v0.3",
    "esp32c2": "v1.0",
    "esp32c3": "v0.3",
    "esp32c5": "v1.0",
    "esp32c6": "v0.2",
    "esp32h2": "v1.2",
    "esp32p4": "v3.0",
}
CRYSTALS = {"esp32c5": 48, "esp32h2": 32}
"""In MHz, where it is not 40."""
KEY = bytes(range(1, 33))
OTHER_KEY = bytes(range(101, 133))
TEXT = b"plain text that packs well. " * 400


@dataclass(frozen=True)
class Outcome:
    code: int
    text: str


class Tools:
    """Runs the tools on one twin: in this process over one connection, or as programs of their own.

    One connection spares the tests the half second that each new one takes.
    """

    def __init__(self, twin: TwinProcess, capture: Callable[[], str]) -> None:
        self.twin = twin
        self._capture = capture
        self._loader: Any = None

    def connect(self, *, stub: bool) -> None:
        """Reset into download mode and connect anew."""
        import esptool

        self.disconnect()
        self.twin.tell("reset", boot="download")
        self._loader = esptool.detect_chip(self.twin.url)
        if stub:
            self._loader = esptool.run_stub(self._loader)
        esptool.attach_flash(self._loader)

    def disconnect(self) -> None:
        if self._loader is not None:
            self._loader._port.close()
            self._loader = None

    def esptool(self, *words: str | Path) -> Outcome:
        import esptool

        # --no-stub: where the stub is wanted it already runs.
        loader = ("--chip", self.twin.chip, "--no-stub", "--after", "no-reset-stub")
        return self._run(esptool.main, (*loader, *words))

    def espefuse(self, *words: str | Path) -> Outcome:
        import espefuse

        self.disconnect()
        self.twin.tell("reset", boot="download")
        line = ("--chip", self.twin.chip, "--port", self.twin.url, "--do-not-confirm", *words)
        return self._run(espefuse.main, line)

    def program(self, tool: str, *words: str | Path) -> Outcome:
        """Run a tool as a program, on a board that was just reset into download mode."""
        self.disconnect()
        self.twin.tell("reset", boot="download")
        line = [
            sys.executable,
            "-m",
            tool,
            "--chip",
            self.twin.chip,
            "--port",
            self.twin.url,
            *map(str, words),
        ]
        result = subprocess.run(line, capture_output=True, text=True, env=environment(), timeout=300)
        return Outcome(result.returncode, result.stdout + result.stderr)

    def _run(self, main: Callable[..., None], words: tuple[str | Path, ...]) -> Outcome:
        import esptool

        self._capture()
        try:
            line = [str(word) for word in words]
            main(line) if self._loader is None else main(line, esp=self._loader)
        except SystemExit as end:
            return Outcome(end.code if isinstance(end.code, int) else 1, self._capture())
        except esptool.FatalError as error:
            return Outcome(2, f"{self._capture()}{error}")
        return Outcome(0, self._capture())


class Started(dict[str, TwinProcess]):
    """Twins by chip, each started when it is first asked for."""

    def __init__(self, start: Callable[[str], TwinProcess]) -> None:
        super().__init__()
        self._start = start

    def __missing__(self, chip: str) -> TwinProcess:
        self[chip] = self._start(chip)
        return self[chip]


@pytest.fixture(scope="module")
def boards(tmp_path_factory) -> Iterator[dict[str, TwinProcess]]:
    """One board per chip for everything that burns no fuse."""
    twins: dict[str, TwinProcess] = Started(
        lambda chip: TwinProcess(chip, tmp_path_factory.mktemp("tools") / chip)
    )
    yield twins
    for twin in twins.values():
        twin.close()


@pytest.fixture
def tools(boards, request, capfd) -> Iterator[Tools]:
    tools = Tools(boards[request.param], lambda: "".join(capfd.readouterr()))
    yield tools
    tools.disconnect()


@pytest.fixture
def fresh(tmp_path, request, capfd) -> Iterator[Tools]:
    """A board of its own, for burning."""
    twin = TwinProcess(request.param, tmp_path / "state")
    tools = Tools(twin, lambda: "".join(capfd.readouterr()))
    yield tools
    tools.disconnect()
    twin.close()


def on(fixture: str, *chips: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(fixture, chips or KINDS, indirect=True)


@on("tools")
@pytest.mark.parametrize("stub", [True, False], ids=["stub", "no stub"])
def test_flash_is_written_verified_read_and_erased(tools, stub, tmp_path):
    tools.connect(stub=stub)
    image, text, back = tmp_path / "image.bin", tmp_path / "text.bin", tmp_path / "back.bin"
    image.write_bytes(NOISE + b"odd")
    text.write_bytes(TEXT)
    # ESP32's ROM ends a compressed write with 32 KiB whatever the length: far from the other file.
    written = tools.esptool("write-flash", "--no-compress", "0x10000", image)
    assert written.code == 0, written.text
    written = tools.esptool("write-flash", "--compress", "0x40000", text)
    assert written.code == 0, written.text
    assert "Hash of data verified." in written.text
    assert tools.twin.flash(0x10000, len(NOISE) + 3) == NOISE + b"odd"
    assert tools.twin.flash(0x40000, len(TEXT)) == TEXT
    assert tools.esptool("verify-flash", "0x40000", text).code == 0
    assert tools.esptool("verify-flash", "0x40001", text).code == 2
    assert tools.esptool("read-flash", "0x10001", "1001", back).code == 0
    assert back.read_bytes() == NOISE[1:1002]
    assert tools.esptool("erase-region", "0x41000", "0x1000").code == 0
    kept = TEXT[:0x1000] + b"\xff" * 0x1000 + TEXT[0x2000:]
    assert tools.twin.flash(0x40000, len(kept)) == kept
    assert tools.esptool("erase-flash").code == (0 if stub else 2)
    assert (tools.twin.flash(0, 4 << 20) == b"\xff" * (4 << 20)) == stub


@on("tools", *TWINS)
def test_esptool_as_a_program_with_stub_and_without(tools, tmp_path):
    for loader in ((), ("--no-stub",)):
        found = tools.program("esptool", *loader, "flash-id")
        assert found.code == 0, found.text
        crystal = f"Crystal frequency:  {CRYSTALS.get(tools.twin.chip, 40)}MHz"
        for said in ("Detected flash size: 4MB", "Manufacturer: c8", crystal):
            assert said in found.text
        assert tools.twin.started["mac"].lower() in found.text
        assert f"(revision {REVISIONS[tools.twin.chip]})" in found.text
    image = tmp_path / "image.bin"
    image.write_bytes(NOISE)
    fast = tools.program(
        "esptool", "--baud", "921600", "--after", "no-reset-stub", "write-flash", "0x10000", image
    )
    assert fast.code == 0, fast.text
    assert tools.twin.tell("account")["baud"] == 921600


@on("tools")
def test_an_image_is_described(tools, tmp_path):
    from harness.formats.app_image import Segment, build_app_image

    chip = CHIPS[tools.twin.chip]
    image = tmp_path / "image.bin"
    segments = (Segment(chip.bootloader_load_address, NOISE[:64]),)
    image.write_bytes(build_app_image(chip, segments, entry_point=chip.bootloader_load_address))
    found = tools.esptool("image-info", image)
    assert found.code == 0
    assert "(valid)" in found.text


@on("tools", *TWINS)
def test_summary_and_dump_show_a_factory_board(tools):
    shown = tools.program("espefuse", "summary", "dump")
    assert shown.code == 0, shown.text
    assert tools.twin.started["mac"].lower() in shown.text
    assert "[error]" not in shown.text
    assert "dump: 00000000" in shown.text


@on("fresh", "esp32c3")
def test_a_c3_key_is_burned_protected_and_used(fresh, tmp_path):
    key, other, image = tmp_path / "key.bin", tmp_path / "other.bin", tmp_path / "image.bin"
    key.write_bytes(KEY)
    other.write_bytes(OTHER_KEY)
    image.write_bytes(NOISE)
    burned = fresh.espefuse("burn-key", "BLOCK_KEY0", key, "XTS_AES_128_KEY")
    assert burned.code == 0, burned.text
    assert "BURN BLOCK4  - OK (write block == read block)" in burned.text
    assert (fresh.twin.folder / "efuse.bin").read_bytes()[0x70:0x90] == KEY[::-1]
    summary = fresh.espefuse("summary").text
    assert "XTS_AES_128_KEY R/- (0x4)" in summary
    assert "?? ?? ?? ??" in summary
    again = fresh.espefuse("burn-key", "BLOCK_KEY0", other, "XTS_AES_128_KEY")
    assert again.code == 2
    assert "read-protected" in again.text
    for stub in (False, True):
        fresh.connect(stub=stub)
        written = fresh.esptool("write-flash", "--encrypt", "0x10000", image)
        assert written.code == 0, written.text
        assert fresh.twin.flash(0x10000, 0x800) == espsecure(KEY, 0x10000, NOISE, aes_xts=True)
        fresh.esptool("erase-region", "0x10000", "0x1000")


@on("fresh", "esp32s3", "esp32c6", "esp32p4")
def test_a_key_of_the_chips_length_is_burned_protected_and_used(fresh, tmp_path):
    chip, key, image = CHIPS[fresh.twin.chip], tmp_path / "key.bin", tmp_path / "image.bin"
    key.write_bytes(bytes(range(1, 1 + chip.cipher.key_size_bytes)))
    image.write_bytes(NOISE)
    burned = fresh.espefuse("burn-key", "BLOCK_KEY1", key, chip.fuses.key_purpose)
    assert burned.code == 0, burned.text
    summary = fresh.espefuse("summary").text
    for index, purpose in enumerate(chip.fuses.key_purposes):
        number = KEY_PURPOSE_NUMBERS[purpose]
        assert f"= {purpose} R/- (0x{number:x})" in summary or f"= {purpose} R/- (0b{number:05b})" in summary
        stored = block_of(fresh.twin, f"BLOCK_KEY{1 + index}")
        assert stored == key.read_bytes()[32 * index : 32 * index + 32][::-1]
    assert "?? ?? ?? ??" in summary
    assert fresh.espefuse("burn-efuse", chip.fuses.counter, "1").code == 0
    fresh.connect(stub=False)
    written = fresh.esptool("write-flash", "--encrypt", "0x10000", image)
    assert written.code == 0, written.text
    assert fresh.twin.flash(0x10000, 0x800) == espsecure(key.read_bytes(), 0x10000, NOISE, aes_xts=True)


@on("fresh", "esp32c2")
def test_digest_and_derived_key_of_an_esp32c2_go_in_one_batch(fresh, tmp_path):
    chip, key, pem, image = CHIPS["esp32c2"], *(tmp_path / name for name in ("key.bin", "k.pem", "image.bin"))
    key.write_bytes(KEY[:16])
    pem.write_bytes(ecdsa_p256_pem())
    image.write_bytes(NOISE)
    # A program of its own: espefuse's batch mode stays on in the process that once used it.
    batch = ("burn-key-digest", pem, "burn-key", "BLOCK_KEY0", key, chip.fuses.key_purpose)
    burned = fresh.program("espefuse", "--do-not-confirm", *batch)
    assert burned.code == 0, burned.text
    stored = block_of(fresh.twin, "BLOCK_KEY0")
    assert stored[:16] == KEY[:16][::-1]
    assert stored[16:] == public_key_digest(pem)[:16]
    shown = fresh.espefuse("summary").text
    low, high = (shown.split(f"BLOCK_KEY0_{half}_128", 1)[1].splitlines()[1] for half in ("LOW", "HI"))
    assert low.strip() == "= ?? ?? ?? ?? ?? ?? ?? ?? ?? ?? ?? ?? ?? ?? ?? ?? -/-"
    assert high.strip() == f"= {stored[16:].hex(' ')} R/-"
    again = fresh.espefuse("burn-key", "BLOCK_KEY0", key, chip.fuses.key_purpose)
    assert again.code == 2
    assert fresh.espefuse("burn-efuse", chip.fuses.counter, "7").code == 0
    fresh.connect(stub=True)
    written = fresh.esptool("write-flash", "--encrypt", "0x10000", image)
    assert written.code == 0, written.text
    assert fresh.twin.flash(0x10000, 0x800) == espsecure(KEY[:16], 0x10000, NOISE, aes_xts=True)


@on("fresh", "esp32c2")
def test_protecting_the_counter_of_an_esp32c2_freezes_secure_boot(fresh):
    assert fresh.espefuse("write-protect-efuse", "SPI_BOOT_CRYPT_CNT").code == 0
    late = fresh.espefuse("burn-efuse", "SECURE_BOOT_EN", "1")
    assert late.code == 2
    assert "write-protected" in late.text


@on("fresh", "esp32s3", "esp32c6")
def test_with_secure_boot_the_stub_runs_where_esptool_knows_a_way(fresh):
    assert fresh.espefuse("burn-efuse", "SECURE_BOOT_EN", "1").code == 0
    asked = fresh.program("esptool", "--connect-attempts", "1", "flash-id")
    if fresh.twin.chip == "esp32s3":
        assert asked.code == 0, asked.text
        assert "Stub flasher running" in asked.text
    else:
        assert asked.code != 0
        assert "Failed to start stub flasher" in asked.text
    assert fresh.program("esptool", "--no-stub", "flash-id").code == 0


@on("fresh", "esp32c3")
def test_a_second_burn_of_a_coded_block_is_an_error_that_lasts(fresh, tmp_path):
    key, other = tmp_path / "key.bin", tmp_path / "other.bin"
    key.write_bytes(KEY)
    other.write_bytes(OTHER_KEY)
    assert fresh.espefuse("burn-block-data", "BLOCK_KEY2", key).code == 0
    refused = fresh.espefuse("burn-block-data", "BLOCK_KEY2", other)
    assert refused.code == 2
    assert "RS coding scheme does not allow this" in refused.text
    forced = fresh.espefuse("burn-block-data", "BLOCK_KEY2", other, "--force-write-always")
    assert forced.code == 2
    assert "fail_bit=True" in forced.text
    assert fresh.espefuse("check-error").code == 2


@on("fresh", "esp32")
def test_an_esp32_key_is_burned_protected_and_used(fresh, tmp_path):
    key, image = tmp_path / "key.bin", tmp_path / "image.bin"
    key.write_bytes(KEY)
    image.write_bytes(NOISE)
    burned = fresh.espefuse("burn-key", "flash_encryption", key)
    assert burned.code == 0, burned.text
    assert (fresh.twin.folder / "efuse.bin").read_bytes()[0x1C:0x3C] == KEY[::-1]
    assert fresh.espefuse("burn-efuse", "FLASH_CRYPT_CONFIG", "0xf", "FLASH_CRYPT_CNT", "1").code == 0
    fresh.connect(stub=True)
    written = fresh.esptool("write-flash", "--encrypt", "0x10000", image)
    assert written.code == 0, written.text
    assert fresh.twin.flash(0x10000, 0x800) == espsecure(KEY, 0x10000, NOISE, aes_xts=False)
    assert fresh.espefuse("burn-efuse", "DISABLE_DL_ENCRYPT", "1").code == 0
    fresh.connect(stub=True)
    refused = fresh.esptool("write-flash", "--encrypt", "0x10000", image)
    assert refused.code == 2
    assert "encrypt functionality in UART download mode disabled" in refused.text
    plain = fresh.esptool("write-flash", "0x20000", image)
    assert plain.code == 2
    assert fresh.esptool("write-flash", "--force", "0x20000", image).code == 0
    assert fresh.twin.flash(0x20000, 0x800) == NOISE


@on("fresh", "esp32", "esp32c3")
def test_a_digest_is_burned_and_protections_hold(fresh, tmp_path):
    pem, key = tmp_path / "key.pem", tmp_path / "hmac.bin"
    pem.write_bytes(rsa_3072_pem())
    key.write_bytes(KEY)
    is_c3 = fresh.twin.chip == "esp32c3"
    place = ("BLOCK_KEY1", pem, "SECURE_BOOT_DIGEST0") if is_c3 else (pem,)
    burned = fresh.espefuse("burn-key-digest", *place)
    assert burned.code == 0, burned.text
    assert fresh.espefuse("write-protect-efuse", "DIS_ICACHE" if is_c3 else "DIS_CACHE").code == 0
    late = fresh.espefuse("burn-efuse", "DIS_DOWNLOAD_MANUAL_ENCRYPT" if is_c3 else "DIS_CACHE", "1")
    assert late.code == 2
    assert "write-protected" in late.text
    if is_c3:
        assert fresh.espefuse("burn-key", "BLOCK_KEY3", key, "HMAC_UP", "--no-read-protect").code == 0
    protected = fresh.espefuse("read-protect-efuse", "BLOCK_KEY3" if is_c3 else "BLOCK3")
    assert protected.code == 0, protected.text


@on("fresh", "esp32s3", "esp32c2", "esp32c3", "esp32c6")
def test_secure_download_mode_leaves_security_info_and_plain_writes(fresh, tmp_path):
    image = tmp_path / "image.bin"
    image.write_bytes(NOISE)
    before = fresh.program("esptool", "get-security-info")
    assert "Flash Encryption: Disabled" in before.text
    burned = fresh.program("espefuse", "--do-not-confirm", "burn-efuse", "ENABLE_SECURITY_DOWNLOAD", "1")
    assert burned.code == 0, burned.text
    assert "ENABLE_SECURITY_DOWNLOAD is enabled." in burned.text
    assert "Secure Download Mode is enabled" in fresh.program("espefuse", "summary").text
    written = fresh.program("esptool", "--no-stub", "write-flash", "--flash-size", "4MB", "0x10000", image)
    assert written.code == 0, written.text
    assert fresh.twin.flash(0x10000, len(NOISE)) == NOISE
    assert fresh.program("esptool", "read-flash", "0", "16", tmp_path / "x").code == 2
    assert fresh.program("esptool", "--no-stub", "erase-region", "0x10000", "0x1000").code == 0
    assert fresh.twin.flash(0x10000, 0x800) == b"\xff" * 0x800


SECURE_BOOT_BURNS = {
    "esp32": (("ABS_DONE_1", "1", "JTAG_DISABLE", "1", "CONSOLE_DEBUG_DISABLE", "1"), ("secure_boot_v2",)),
    "esp32c3": (
        (
            "SECURE_BOOT_EN",
            "1",
            "SOFT_DIS_JTAG",
            "7",
            "SECURE_BOOT_KEY_REVOKE1",
            "1",
            "SECURE_BOOT_KEY_REVOKE2",
            "1",
        ),
        ("BLOCK_KEY1", "SECURE_BOOT_DIGEST0"),
    ),
}


@on("fresh", "esp32", "esp32c3")
def test_a_board_with_secure_boot_takes_signed_images_by_the_tools(fresh, tmp_path):
    """The digest and the fuse by espefuse, the image by esptool, which then changes nothing in it."""
    chip = CHIPS[fresh.twin.chip]
    fuses, (block, *purpose) = SECURE_BOOT_BURNS[fresh.twin.chip]
    digest, image = tmp_path / "digest", tmp_path / "bootloader.bin"
    digest.write_bytes(key_digest())
    image.write_bytes(signed(bootloader_image(chip, PLAIN_CONFIG)))
    burned = fresh.espefuse("burn-key", block, digest, *purpose)
    assert burned.code == 0, burned.text
    assert fresh.espefuse("burn-efuse", *fuses).code == 0
    assert fresh.espefuse("write-protect-efuse", "RD_DIS").code == 0
    summary = fresh.espefuse("summary")
    assert summary.code == 0
    assert digest.read_bytes().hex(" ") in summary.text
    written = fresh.program(
        "esptool", "write-flash", "--force", "--flash-size", "2MB", hex(chip.bootloader_offset), image
    )
    assert written.code == 0, written.text
    assert "Security features enabled, so not changing any flash settings." in written.text
    no_stub = "Stub flasher is not supported on ESP32-C3 with Secure Boot" in written.text
    assert no_stub == (fresh.twin.chip == "esp32c3")
    assert fresh.twin.flash(chip.bootloader_offset, image.stat().st_size) == image.read_bytes()
    assert fresh.program("esptool", "erase-flash").code == 2
    with fresh.twin.uart() as line:
        fresh.twin.tell("reset", boot="run")
        assert b"secure boot verification succeeded" in read_until(line, b"2nd stage bootloader")


@on("fresh", "esp32c3")
def test_security_info_tells_of_secure_boot(fresh):
    fuses = ("SECURE_BOOT_EN", "1", "SECURE_BOOT_KEY_REVOKE2", "1", "SECURE_BOOT_AGGRESSIVE_REVOKE", "1")
    assert fresh.espefuse("burn-efuse", *fuses).code == 0
    told = fresh.program("esptool", "get-security-info").text
    assert "Secure Boot: Enabled" in told
    assert "Secure Boot Aggressive key revocation: Enabled" in told
    assert "Secure Boot Key2 is Revoked" in told


@on("fresh", "esp32")
def test_without_uart_download_nothing_answers_any_more(fresh):
    assert fresh.espefuse("burn-efuse", "UART_DOWNLOAD_DIS", "1").code == 0
    dead = fresh.program("esptool", "--connect-attempts", "1", "read-mac")
    assert dead.code == 2
    assert "Failed to connect" in dead.text
    with fresh.twin.uart() as line:
        fresh.twin.tell("reset", boot="download")
        assert line.recv(54) == b"Download mode is disabled. Restart with GPIO0 high.\r\n"


def espsecure(key: bytes, address: int, data: bytes, *, aes_xts: bool) -> bytes:
    from io import BytesIO

    import espsecure as tool

    out = BytesIO()
    tool.encrypt_flash_data(BytesIO(key), out, address, 0xF, aes_xts, BytesIO(data))
    return out.getvalue()


def block_of(twin: TwinProcess, name: str) -> bytes:
    """What the cells of a block hold, protected or not."""
    block = efuse_geometry(twin.chip).block(name)
    return (twin.folder / "efuse.bin").read_bytes()[block.file_offset :][: block.size_bytes]


def ecdsa_p256_pem() -> bytes:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def public_key_digest(pem: Path) -> bytes:
    import espsecure as tool

    with pem.open("rb") as file:
        return bytes(tool._digest_sbv2_public_key(file))


def rsa_3072_pem() -> bytes:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=3072)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
