"""The normal form of flash changes: what joins, what does not, and how places and lengths are called."""

from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.formats.partition import Partition
from harness.links.emulator import EmulatorLink
from harness.links.flash_log import FlashChange, Terms, merged

OTA_0 = Partition("ota_0", 0, 0x10, 0x20000, 0x180000)
OTA_1 = Partition("ota_1", 0, 0x11, 0x1A0000, 0x180000)
OTADATA = Partition("otadata", 1, 0, 0x17000, 0x2000)


def change(kind: str, offset: int, length: int, *, who: str = "app", boot: int = 1) -> FlashChange:
    return FlashChange(boot, who, kind, offset, length)


def test_page_programs_and_block_erases_become_the_call_that_they_were_cut_from() -> None:
    erase = [change("erase", at, 0x1000) for at in range(0x1F000, 0x20000, 0x1000)]
    erase += [change("erase", at, 0x10000) for at in (0x20000, 0x30000)]
    pages = [change("write", 0x1F000 + at, 0x40) for at in range(0, 0x1000, 0x40)]
    assert merged([*erase, *pages]) == (change("erase", 0x1F000, 0x21000), change("write", 0x1F000, 0x1000))


@pytest.mark.parametrize(
    "second",
    [
        change("write-encrypted", 0x1100, 0x20),
        change("write", 0x1120, 0x20),
        change("write", 0x1000, 0x20),
        change("write", 0x1100, 0x20, who="bootloader"),
        change("write", 0x1100, 0x20, boot=2),
    ],
    ids=["another kind", "a gap", "backwards", "another writer", "another boot"],
)
def test_what_does_not_go_on_stays_apart(second: FlashChange) -> None:
    first = change("write", 0x1000, 0x100)
    assert merged([first, second]) == (first, second)


def test_a_change_of_nothing_is_none() -> None:
    assert merged([change("write", 0x1000, 0), change("erase", 0x1000, 0)]) == ()


def test_merging_twice_changes_nothing() -> None:
    once = merged([change("write", at, 0x40) for at in (0, 0x40, 0x100, 0x140, 0x40)])
    assert merged(once) == once
    assert len(once) == 3


@pytest.mark.parametrize("body_bytes", [76_960, 290_016], ids=["native image", "image for the chip"])
def test_images_of_different_size_read_alike(body_bytes: int) -> None:
    terms = Terms.of_update(OTA_0, OTA_1, OTADATA, active=0, body_bytes=body_bytes)
    lines = terms.lines(
        [
            change("erase", OTA_1.offset, -(-body_bytes // 4096) * 4096),
            change("write", OTA_1.offset, body_bytes),
            change("write", OTA_1.offset + 0x4000, 3616),
            change("erase", OTADATA.offset + 0x1000, 0x1000),
            change("write-encrypted", OTADATA.offset, 32, who="bootloader", boot=2),
            change("erase", OTA_0.offset, OTA_0.size, boot=2),
            change("erase", 0x9000, 0x1000, boot=2),
        ]
    )
    assert lines == (
        "app: erase other, body in sectors",
        "app: write other, body",
        "app: write other + 0x4000, 3616 bytes",
        "app: erase other record, sector",
        "next boot",
        "bootloader: write-encrypted active record, 32 bytes",
        "app: erase running, slot",
        "app: erase 0x9000, sector",
    )


def test_a_link_without_a_log_says_so() -> None:
    with pytest.raises(UsageError, match="does not record flash operations"):
        EmulatorLink.flash_log(_Named(), 0)  # type: ignore[arg-type]


class _Named:
    kind = "qemu"
