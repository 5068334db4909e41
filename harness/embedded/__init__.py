"""Tests in the manner of pytest-embedded on boards of the harness: `dut`, `app`, `target`, and how long a `dut` lasts."""
