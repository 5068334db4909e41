"""Proves release-mode, pre-encrypted OTA on ESP32 boards, real and virtual."""

__version__ = "0.1.0"
