"""The same app under another version: for scenarios that need many versions of one build. Pure.

Version and secure version are data in the app's description; ESP-IDF's bootloader, its OTA functions and the app
itself all read them there. What follows from them, checksum and SHA-256, is computed again. A signed image has a
signature over both and must be built anew.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from harness.errors import UsageError
from harness.formats.app_image import APP_DESCRIPTION_BYTES, APP_DESCRIPTION_OFFSET, parse_app_image
from harness.ota.release import Release, parse_release


def restamp(release: Release, *, version: str, secure_version: int | None = None) -> Release:
    """`release` with another version; the same code.

    Args:
        release: an unsigned image.
        version: up to 31 bytes.
        secure_version: None keeps it.

    Raises:
        UsageError: something follows the image (a signature). FormatError: the version does not fit.
    """
    image = release.image
    if len(image) != release.parsed.size_bytes:
        raise UsageError(
            f"{release.project_name} {release.version} is signed: another version of it must be built and signed",
            todo="build that version, and give it as a folder of its own",
        )
    description = replace(
        release.description,
        version=version,
        secure_version=release.secure_version if secure_version is None else secure_version,
    )
    end = APP_DESCRIPTION_OFFSET + APP_DESCRIPTION_BYTES
    changed = bytearray(image)
    changed[APP_DESCRIPTION_OFFSET:end] = description.to_bytes()
    hashed = len(image) - hashlib.sha256().digest_size
    changed[hashed - 1] = parse_app_image(bytes(changed)).computed_checksum
    changed[hashed:] = hashlib.sha256(changed[:hashed]).digest()
    return parse_release(bytes(changed), name=f"{release.project_name} {version}")
