"""The end of a growing log comes in pieces that fit together."""

from __future__ import annotations

from pathlib import Path

from harness.serve.log_tail import MOST_BYTES, tail

STAMP = "2025-11-26 12:00:00.123"


def test_pieces_fit_together_and_a_half_line_waits(tmp_path: Path) -> None:
    log = tmp_path / "serial.log"
    assert tail(log).lines == ()
    log.write_text(f"{STAMP} >>> reset: EN\n{STAMP} ~ I (1) bo\n{STAMP} | I (1) boot: x\n{STAMP} | half a li")
    first = tail(log)
    assert [(line.time, line.kind, line.text) for line in first.lines] == [
        ("12:00:00.123", "mark", "reset: EN"),
        ("12:00:00.123", "board", "I (1) boot: x"),
    ]
    assert first.fresh
    assert tail(log, first.place).lines == ()
    with log.open("a") as file:
        file.write(f"ne\n{STAMP} | next\n")
    second = tail(log, first.place)
    assert [line.text for line in second.lines] == ["half a line", "next"]
    assert not second.fresh


def test_another_file_of_that_name_begins_anew(tmp_path: Path) -> None:
    log = tmp_path / "serial.log"
    log.write_text(f"{STAMP} | first run\n")
    place = tail(log).place
    (tmp_path / "new").write_text(f"{STAMP} | second run\n" * 2)
    (tmp_path / "new").rename(log)
    piece = tail(log, place)
    assert piece.fresh
    assert len(piece.lines) == 2


def test_who_is_far_behind_gets_the_end(tmp_path: Path) -> None:
    log = tmp_path / "serial.log"
    log.write_text(f"{STAMP} | a\n")
    place = tail(log).place
    with log.open("a") as file:
        file.writelines(f"{STAMP} | line {n}\n" for n in range(10_000))
    piece = tail(log, place)
    assert piece.fresh
    assert piece.lines[-1].text == "line 9999"
    assert all(line.text.startswith("line ") for line in piece.lines)
    assert len(piece.lines) < MOST_BYTES / len(STAMP)


def test_a_place_that_nobody_gave_out_and_a_link_are_harmless(tmp_path: Path) -> None:
    log = tmp_path / "serial.log"
    log.write_text(f"{STAMP} | a\n")
    for place in ("x", "..", "1-2.-5", "1-2.999999999999999999999", ".", "1-2.٣"):
        assert [line.text for line in tail(log, place).lines] == ["a"]
    (tmp_path / "folder").mkdir()
    assert tail(tmp_path / "folder" / "no" / "file").lines == ()


def test_bytes_that_are_no_text_and_foreign_files_are_shown_safely(tmp_path: Path) -> None:
    log = tmp_path / "serial.log"
    log.write_bytes(b"\xff\x1b[31mred\x1b[0m\x00 plain\r\n")
    (line,) = tail(log).lines
    assert (line.time, line.kind, line.text) == ("", "board", "\\xffred\\x00 plain")
