"""Binary and text formats of flash content: tables, otadata, images, signatures, packages, build options."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import pairwise

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from harness.build.sdkconfig import kconfig_defaults, parse_sdkconfig, to_header, to_text
from harness.chips import CHIPS
from harness.errors import FormatError
from harness.formats import signature_block
from harness.formats.app_description import AppDescription
from harness.formats.app_image import Segment, build_app_image, parse_app_image, secure_padded
from harness.formats.bootloader_config import BootloaderConfig, BootloaderDescription
from harness.formats.native_payload import native_program, native_segment
from harness.formats.ota_package import HEADER_BYTES, PackageHeader, parse_header, parse_package
from harness.formats.otadata import OtaData, OtaRecord, OtaState
from harness.formats.partition_table import PartitionTable
from tests.fuzz.target import DATA, Target, refused, require

C3 = CHIPS["esp32c3"]
CSV = """\
# name, type, subtype, offset, size, flags
nvs, data, nvs, 0x9000, 0x4000,
otadata, data, ota, , 8K,
phy_init, data, phy, , 0x1000, readonly
ota_0, app, ota_0, 0x10000, 1M,
ota_1, app, ota_1, , -0x250000, encrypted:readonly
"""


def check_partition_table(data: bytes) -> str:
    try:
        table = PartitionTable.from_binary(data)
    except FormatError as error:
        return refused(error)
    binary = table.to_binary()
    require(PartitionTable.from_binary(binary) == table, "a table differs when it is written and read")
    require(len(table.partitions) <= 94, "more partitions than fit")
    try:
        table.check(table_offset=0x8000, flash_size_bytes=4 << 20)
    except FormatError as error:
        return refused(error)
    ends = sorted((p.offset, p.end) for p in table.partitions)
    require(all(0 <= start < end <= 4 << 20 for start, end in ends), "a partition outside the flash")
    require(all(a[1] <= b[0] for a, b in pairwise(ends)), "two partitions overlap")
    return "good"


def partition_tables() -> Iterator[bytes]:
    real = (DATA / "formats/partition-table-idf5.5.5.bin").read_bytes()
    yield real.rstrip(b"\xff") + b"\xff" * 32
    yield PartitionTable.from_csv(CSV).to_binary()
    yield real


def check_partition_csv(data: bytes) -> str:
    text = data.decode("utf-8", "surrogateescape")
    try:
        table = PartitionTable.from_csv(text, bootloader_offset=0x1000)
    except FormatError as error:
        return refused(error)
    require(PartitionTable.from_binary(table.to_binary()) == table, "the binary form is another table")
    again = PartitionTable.from_csv(table.to_csv(), bootloader_offset=0x1000)
    require(again == table, "the CSV that was written is another table")
    return "good"


def partition_csvs() -> Iterator[bytes]:
    yield CSV.encode()
    yield b"bl, bootloader, primary, N/A, N/A\npt, partition_table, primary, N/A, N/A\na, app, factory, , 64K\n"
    yield b"\xef\xbb\xbfa,0,0x10,0x10000,1M\r\nb,0x40,6,,0b1000000000000,\r\n"


def check_otadata(data: bytes) -> str:
    try:
        otadata = OtaData.from_bytes(data)
    except FormatError as error:
        return refused(error)
    require(OtaData.from_bytes(otadata.to_bytes()) == otadata, "otadata differs when written and read")
    for slots in (0, 1, 2, 16):
        chosen = otadata.select(slots)
        slot = chosen.slot_index
        require(slot is None or 0 <= slot < slots, "a slot that there is not")
        require(
            (chosen.record_index is None) == (slot is None),
            "a slot without the record that decides, or the reverse",
        )
        if chosen.record_index is not None:
            require(otadata.records[chosen.record_index].is_bootable, "a record that is not bootable decides")
    return "/".join(record.state_name[:3] for record in otadata.records) + str(otadata.is_initial_or_damaged)


def otadata_samples() -> Iterator[bytes]:
    yield OtaData.blank().to_bytes()
    for state in OtaState:
        yield OtaData((OtaRecord.make(3, state), OtaRecord.make(2, OtaState.VALID))).to_bytes()
    yield OtaData.for_slot(1, 2, OtaState.NEW).to_bytes()


def check_app_image(data: bytes) -> str:
    try:
        image = parse_app_image(data)
    except FormatError as error:
        return refused(error)
    require(image.size_bytes <= len(data), "an image longer than its file")
    require(sum(len(s.data) for s in image.segments) < image.size_bytes, "segments larger than the image")
    for at, segment in zip(image.segment_offsets, image.segments, strict=True):
        require(data[at : at + len(segment.data)] == segment.data, "a segment's data lie elsewhere")
    if image.hash_ok:
        require(
            hashlib.sha256(data[: image.size_bytes - 32]).digest() == image.stored_hash, "the hash is wrong"
        )
    _check_description(image.description)
    word = f"{len(image.segments)} {image.checksum_ok} {image.hash_ok}"
    try:
        padded = secure_padded(data)
        require(parse_app_image(padded).is_intact, "filling an image damages it")
        require(parse_app_image(padded).size_bytes % 0x10000 == 0, "not filled to whole pages")
    except FormatError as error:
        word += refused(error)[:20]
    try:
        program = native_program(image)
        return f"{word} {program is not None}"
    except FormatError as error:
        return word + refused(error)


def _check_description(description: AppDescription | None) -> None:
    if description is None:
        return
    try:
        raw = description.to_bytes()
    except FormatError:
        # Texts that are not UTF-8 get longer when they are escaped.
        return
    require(AppDescription.from_bytes(raw) == description, "a description differs when written and read")


def app_images() -> Iterator[bytes]:
    yield build_app_image(C3, [Segment(0x3FC80000, b"abcd")], entry_point=0x40380000)
    yield (DATA / "formats/app-head-esp32c3-idf5.5.5.bin").read_bytes()
    yield (DATA / "formats/bootloader-head-esp32c3-idf5.5.5.bin").read_bytes()
    description = AppDescription("1.0.0", "app", idf_ver="v5.5.5")
    native = native_segment(C3, description, b"\x7fELF" + bytes(60))
    yield build_app_image(C3, [native, Segment(0x40380000, b"code")], entry_point=0x40380000)
    config = BootloaderConfig(compile_time="Nov 21 2026 01:19:46")
    bootloader = Segment(0x3FCD5820, config.to_segment_data())
    yield build_app_image(C3, [bootloader], entry_point=0x403CC71A, hash_appended=False)


def check_signature_sector(data: bytes) -> str:
    """The first bytes stand for the content, the rest is a sector whose CRCs are made right half of the time."""
    content = data[:1] * signature_block.SECTOR_BYTES
    sector = bytearray(data[2:])
    if data[1:2] and data[1] & 1:
        for at in range(0, min(len(sector), 3 * signature_block.BLOCK_BYTES), signature_block.BLOCK_BYTES):
            block = bytes(sector[at : at + signature_block.BLOCK_BYTES]).ljust(
                signature_block.BLOCK_BYTES, b"\0"
            )
            sector[at : at + len(block)] = signature_block.with_crc(block)
    try:
        blocks = signature_block.signature_blocks(bytes(sector))
    except FormatError as error:
        return refused(error)
    words = []
    for block in blocks:
        fault = block.fault(content)
        words.append(f"{block.scheme.value}: {fault}")
        key = block.key
        if key is not None:
            require(
                signature_block.encode_public_key(key) == block.public_key, "another key than in the block"
            )
        require(len(block.key_digest) == 32, "the digest of a key has no 32 bytes")
    return "; ".join(words)


def signature_sectors() -> Iterator[bytes]:
    content = b"A" * signature_block.SECTOR_BYTES
    key = ec.derive_private_key(0x1234567, ec.SECP256R1())
    # Whether it verifies is no matter; r and s are numbers.
    signature = bytes.fromhex("3006020107020109")
    block = signature_block.make_block(key.public_key(), content, signature)
    yield b"A\1" + signature_block.make_sector([block])
    small = bytearray(block)
    small[36] = 1
    yield b"A\1" + signature_block.make_sector([bytes(small), block])
    rsa = bytearray(block)
    rsa[1], rsa[36:420] = 2, b"\xc5" * 384
    yield b"A\1" + signature_block.make_sector([bytes(rsa)])
    yield b"A\0" + signature_block.make_sector([block, block, bytes(rsa)])


def check_key_pem(data: bytes) -> str:
    words = []
    for read in (signature_block.read_public_key, signature_block.read_private_key):
        try:
            key = read(data, name="key.pem")
            words.append(type(key).__name__)
        except FormatError as error:
            require("MIG" not in str(error) and "MHc" not in str(error), "a message quotes the file")
            words.append(refused(error))
    return "; ".join(words)


def key_pems() -> Iterator[bytes]:
    keys = [
        ec.derive_private_key(0x1234567, ec.SECP256R1()),
        ec.derive_private_key(0x1234567, ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)),
    ]
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    for key in keys:
        yield key.private_bytes(pem, pkcs8, serialization.NoEncryption())
        yield key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    yield keys[0].private_bytes(
        pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    yield keys[0].private_bytes(pem, pkcs8, serialization.BestAvailableEncryption(b"pass"))


def check_bootloader_config(data: bytes) -> str:
    words = []
    try:
        words.append(str(bool(BootloaderDescription.from_bytes(data).version)))
    except FormatError as error:
        words.append(refused(error))
    for read in (BootloaderConfig.from_blob, BootloaderConfig.from_segment_data, _config_of_json):
        try:
            config = read(data)
        except FormatError as error:
            words.append(refused(error))
            continue
        if config is not None:
            require(
                BootloaderConfig.from_blob(config.to_blob()) == config, "a configuration does not survive"
            )
            words.append("good")
    return "; ".join(words)


def _config_of_json(data: bytes) -> BootloaderConfig:
    return BootloaderConfig.from_blob(b"TWINBLD1" + len(data).to_bytes(4, "little") + data)


def bootloader_configs() -> Iterator[bytes]:
    config = BootloaderConfig(flash_encryption="release", secure_boot=True, secure_boot_scheme="rsa3072")
    yield BootloaderConfig().to_blob()
    yield config.to_blob()
    yield config.to_blob()[12:]
    yield config.to_segment_data()


def check_sdkconfig(data: bytes) -> str:
    text = data.decode("utf-8", "surrogateescape")
    options = parse_sdkconfig(text)
    require(parse_sdkconfig(to_text(options, idf_version="v5.5.5")) == options, "options do not survive")
    require(to_header(options).startswith("/*"), "no header")
    words = []
    for read in (BootloaderConfig.from_sdkconfig, kconfig_defaults):
        try:
            read(text)
            words.append("good")
        except FormatError as error:
            words.append(refused(error))
    return "; ".join(words)


def sdkconfigs() -> Iterator[bytes]:
    yield b"CONFIG_PARTITION_TABLE_OFFSET=0x8000\nCONFIG_BOOTLOADER_LOG_LEVEL=3\n# CONFIG_A is not set\n"
    yield b'# Espressif IoT Development Framework (ESP-IDF) 5.5.5 Project Configuration\nCONFIG_A="b c"\n'
    yield b"choice A\n  default B\n  config B\n    bool\nendchoice\nconfig C\n  int\n  default 7\n"
    real = json.loads((DATA / "build/sdkconfig-secure-boot-idf5.5.5.json").read_text())
    yield "".join(f"CONFIG_{name}={_kconfig(value)}\n" for name, value in real.items()).encode()[:4000]


def _kconfig(value: object) -> object:
    return {True: "y", False: "n"}.get(value, value) if isinstance(value, bool) else value


def check_ota_package(data: bytes) -> str:
    try:
        header = parse_header(data)
    except FormatError as error:
        return refused(error)
    _check_package_header(header, data)
    try:
        header, signature, body = parse_package(data)
    except FormatError as error:
        return refused(error)
    require(
        header.body_size == len(body) == len(data) - HEADER_BYTES, "the body is not what follows the header"
    )
    require(len(signature) == 64, "a signature of another length")
    try:
        header.check_body(body)
    except FormatError as error:
        return refused(error)
    return "good"


def _check_package_header(header: PackageHeader, data: bytes) -> None:
    require(header.image_size <= header.body_size < header.image_size + 16, "sizes disagree")
    try:
        made = header.to_bytes(data[192:256])
    except FormatError:
        return
    require(parse_header(made) == header, "a header differs when written and read")


def ota_packages() -> Iterator[bytes]:
    body = bytes(range(32))
    header = PackageHeader(
        chip_id=5,
        cipher_number=1,
        mac=bytes.fromhex("aabbcc000001"),
        key_id=b"12345678",
        slot_offset=0x20000,
        slot_size=0x100000,
        image_size=30,
        body_size=32,
        body_sha256=hashlib.sha256(body).digest(),
        image_sha256=bytes(32),
        version="1.2.3",
        secure_version=7,
        project_name="companion",
    )
    yield header.to_bytes(bytes(64)) + body
    yield header.to_bytes(bytes(64))


_NUMBERS = (b"0x10000", b"0", b"-1", b"1M", b"64K", b"KKKKKKKK", b"0b11", b"0o7", b"4294967295", b"9" * 60)

TARGETS = (
    Target(
        "partition-table",
        "partition tables in flash",
        check_partition_table,
        partition_tables,
        (b"\xaa\x50", b"\xeb\xeb" + b"\xff" * 14, b"\xff" * 32, b"ota_0", b"\0\0"),
    ),
    Target(
        "partition-csv",
        "partition tables as CSV",
        check_partition_csv,
        partition_csvs,
        (
            b"app",
            b"data",
            b"ota_0",
            b"bootloader",
            b"primary",
            b",",
            b"\n",
            b"#",
            b"encrypted:readonly",
            *_NUMBERS,
        ),
    ),
    Target("otadata", "otadata", check_otadata, otadata_samples, (b"\xff" * 32,), max_bytes=0x2000),
    Target(
        "app-image",
        "app and bootloader images, app descriptions, native programs",
        check_app_image,
        app_images,
        (b"\xe9", b"\x32\x54\xcd\xab", b"NATIVE1\0", b"\0\0\0\1", b"\xff\xff\xff\0"),
    ),
    Target(
        "signature-sector",
        "secure boot signature blocks",
        check_signature_sector,
        signature_sectors,
        (b"\xe7\x02", b"\xe7\x03", b"\xe7\x03\x01", b"\1\0\1\0"),
        max_bytes=4098,
    ),
    Target(
        "key-pem",
        "signing keys as PEM",
        check_key_pem,
        key_pems,
        (
            b"-----BEGIN PRIVATE KEY-----\n",
            b"-----END PRIVATE KEY-----",
            b"-----BEGIN PUBLIC KEY-----",
            b"=",
            b"MHc",
        ),
    ),
    Target(
        "bootloader-config",
        "what a twin's bootloader was built with",
        check_bootloader_config,
        bootloader_configs,
        (
            b"TWINBLD1",
            b'{"format":1}',
            b"null",
            b"true",
            b"1e999",
            b"NaN",
            b"[",
            b'{"a":',
            b"\\ud800",
            b"9" * 30,
        ),
    ),
    Target(
        "sdkconfig",
        "sdkconfig and Kconfig files",
        check_sdkconfig,
        sdkconfigs,
        (
            b"CONFIG_",
            b"=",
            b"=y\n",
            b" is not set",
            b"# ",
            b"config",
            b"default",
            b"choice",
            b"(ESP-IDF) ",
            b" ",
            b"\t",
        ),
    ),
    Target("ota-package", "OTA packages", check_ota_package, ota_packages, (b"RAWOTA1\0", b"\1\0", b"\0\1")),
)
