"""Signing before encryption: what is signed, with which keys, and what is left alone or refused."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import espsecure
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from esptool.bin_image import LoadFirmwareImage
from idf_folder import app_image, bootloader_image, write_idf_folder

from harness.build import boot_key as boot_key_module
from harness.build.app_dir import AppDirectory, is_signed, read_app_dir
from harness.build.board_keys import KeySources, digests_of, keys_for
from harness.build.boot_key import BootKey, from_pem, from_private
from harness.build.firmware_source import GivenFirmware, SignedFirmware
from harness.build.signing import ImageSigner, append_signatures, digests_in, sign
from harness.chips import CHIPS, ESP32, ESP32C3, Chip, SigningScheme
from harness.errors import FormatError, HarnessError, LabError, UsageError
from harness.formats.app_image import parse_app_image, secure_padded
from harness.formats.signature_block import PrivateKey, blocks_of, unsigned_length, verify
from harness.inventory.entry import SecureBoot, TwinEntry
from harness.vault import KeyFile, UnsafePermissionsError, Vault

P256 = SigningScheme.ECDSA_P256
SMALL = replace(ESP32C3, secure_boot=replace(ESP32C3.secure_boot, schemes=(P256, SigningScheme.RSA_3072)))
"""A chip that signs with ECDSA, whose keys are made at once."""


def private(number: int) -> PrivateKey:
    return ec.derive_private_key(0x5EC0DE + number, ec.SECP256R1())


def key(number: int = 0) -> BootKey:
    return from_private(f"key {number}", private(number))


def public_only(number: int) -> BootKey:
    return BootKey(f"key {number}", private(number).public_key())


def pem_file(path: Path, number: int, *, public: bool = False) -> Path:
    if public:
        data = (
            private(number)
            .public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    else:
        data = private(number).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    path.write_bytes(data)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("chip", [SMALL, ESP32C3, ESP32], ids=["p256", "esp32c3", "esp32"])
def test_an_app_is_filled_to_64_kib_and_signed_as_espsecure_verifies_it(chip: Chip) -> None:
    signer = key() if chip is SMALL else from_private("rsa", boot_key_module.generate(SigningScheme.RSA_3072))
    signed = sign(app_image(chip=chip), [signer], chip)
    assert len(signed) == 0x11000
    assert signed[:0x10000] == secure_padded(app_image(chip=chip))
    assert [block.key_digest for block in verify(signed)] == [signer.digest]
    pem = signer.public_key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    espsecure.verify_signature("2", False, None, io.BytesIO(pem), io.BytesIO(signed))
    assert LoadFirmwareImage(chip.name, signed).append_digest


def test_a_bootloader_is_filled_to_whole_sectors_and_not_changed() -> None:
    plain = bootloader_image()
    signed = sign(plain, [key()], SMALL)
    assert signed.startswith(plain)
    assert len(signed) == -(-len(plain) // 0x1000) * 0x1000 + 0x1000
    assert set(signed[len(plain) : unsigned_length(signed)]) <= {0xFF}
    assert (
        sign(plain + b"\xff" * 100, [key()], SMALL)[: unsigned_length(signed)]
        == signed[: unsigned_length(signed)]
    )


def test_every_key_signs_in_the_order_of_the_slots() -> None:
    keys = [key(number) for number in range(3)]
    assert [block.key_digest for block in verify(sign(app_image(), keys, SMALL))] == [k.digest for k in keys]


def test_an_image_that_is_signed_already_stays_as_it_is() -> None:
    signed = sign(app_image(), [key(1)], SMALL)
    assert sign(signed, [key(0), key(1)], SMALL) is signed


WRONG = {
    "signed by somebody else": (
        lambda: sign(sign(app_image(), [key(7)], SMALL), [key()], SMALL),
        UsageError,
        "a key that the board does not have",
    ),
    "a damaged signature": (
        lambda: sign(_flipped(sign(app_image(), [key()], SMALL), -0xF00), [key()], SMALL),
        FormatError,
        "signature of the image is damaged: the block's CRC",
    ),
    "an image that changed": (
        lambda: sign(_flipped(sign(bootloader_image(), [key()], SMALL), -0x1001), [key()], SMALL),
        FormatError,
        "image digest differs",
    ),
    "more keys than signatures": (
        lambda: sign(app_image(chip=ESP32), [key(), key(1)], ESP32),
        UsageError,
        "ESP32 takes 1 to 1",
    ),
    "no key": (lambda: sign(app_image(), [], SMALL), UsageError, "cannot have 0 signatures"),
    "a scheme that the ROM lacks": (
        lambda: sign(app_image(), [key()], ESP32C3),
        UsageError,
        "does not verify ecdsa256",
    ),
    "only the public half": (
        lambda: sign(app_image(), [public_only(0)], SMALL),
        UsageError,
        "only its public half",
    ),
    "no image": (lambda: sign(b"\x00" * 100, [key()], SMALL), FormatError, "magic"),
    "an app with something behind it": (
        lambda: sign(app_image() + b"more", [key()], SMALL),
        FormatError,
        "something follows it",
    ),
    "a bootloader with something behind it": (
        lambda: sign(bootloader_image() + b"more", [key()], SMALL),
        FormatError,
        "something follows the image",
    ),
}


def _flipped(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_signed_is_refused_and_says_why(name: str) -> None:
    make, kind, message = WRONG[name]
    with pytest.raises(kind, match=message):
        make()


def test_a_signer_that_signs_wrongly_is_found_out() -> None:
    liar = BootKey("liar", private(0).public_key(), key(1).add_signature)
    with pytest.raises(LabError, match="do not verify"):
        sign(app_image(), [liar], SMALL)


def test_signatures_are_added_to_a_signed_image_once_each() -> None:
    first = sign(app_image(), [key(0)], SMALL)
    both = append_signatures(first, [key(0), key(1)], SMALL)
    assert [block.key_digest for block in verify(both)] == [key(0).digest, key(1).digest]
    assert append_signatures(both, [key(0), key(1)], SMALL) == both
    with pytest.raises(UsageError, match="2 more do not fit"):
        append_signatures(both, [key(2), key(3)], SMALL)
    with pytest.raises(UsageError, match="is not signed"):
        append_signatures(app_image(), [key(0)], SMALL)
    with pytest.raises(FormatError, match="is damaged"):
        append_signatures(_flipped(first, -0xF00), [key(1)], SMALL)


# ---- keys of a board ---------------------------------------------------------------------------------------


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault.open(tmp_path / "vault", KeyFile.create(tmp_path / "vault.key"), create=True)


def test_a_board_has_one_key_of_its_vault_unless_its_entry_says_more(vault: Vault, tmp_path: Path) -> None:
    sources = KeySources.of_entry(TwinEntry(chip="esp32c3"), tmp_path)
    assert (sources.sources, sources.scheme, sources.chosen) == (("vault",), SigningScheme.RSA_3072, False)
    (only,) = KeySources(P256).open(vault)
    assert only.name == "vault ecdsa256-0"
    assert only.signs
    assert KeySources(P256).open(vault)[0].digest == only.digest


def test_keys_come_from_vault_and_files_by_slot(vault: Vault, tmp_path: Path) -> None:
    pem_file(tmp_path / "mine.pem", 1)
    pem_file(tmp_path / "offline.pem", 2, public=True)
    keys = KeySources(P256, ("vault", "mine.pem", "./offline.pem"), tmp_path, chosen=True).open(vault)
    assert [k.name for k in keys] == ["vault ecdsa256-0", "mine.pem", "offline.pem"]
    assert [k.signs for k in keys] == [True, True, False]
    assert [each.slot for each in digests_of(keys)] == [0, 1, 2]
    assert "PRIVATE" not in repr(keys)


def test_a_vault_key_belongs_to_the_slot_where_it_is_named(vault: Vault, tmp_path: Path) -> None:
    pem_file(tmp_path / "mine.pem", 1)
    keys = KeySources(P256, ("mine.pem", "vault"), tmp_path).open(vault)
    assert keys[1].name == "vault ecdsa256-1"


def test_wrong_keys_of_a_board_name_the_slot(vault: Vault, tmp_path: Path) -> None:
    pem_file(tmp_path / "mine.pem", 1)
    pem_file(tmp_path / "open.pem", 1).chmod(0o644)
    (tmp_path / "same.pem").write_bytes((tmp_path / "mine.pem").read_bytes())
    (tmp_path / "same.pem").chmod(0o600)
    (tmp_path / "rubbish.pem").write_text("x")
    cases = (
        ((P256, ("absent.pem",)), UsageError, r"slot 0: .*absent\.pem cannot be read"),
        ((P256, ("vault", "rubbish.pem")), FormatError, r"slot 1: .*rubbish\.pem is no key"),
        ((P256, ("mine.pem", "same.pem")), UsageError, "the same as that of an earlier slot"),
        ((P256, ("open.pem",)), UnsafePermissionsError, r"open\.pem may be read"),
        (
            (SigningScheme.ECDSA_P192, ("mine.pem",)),
            UsageError,
            "is for ecdsa256, the board's scheme is ecdsa192",
        ),
        (
            (P256, ("pkcs11:absent.ini",)),
            UsageError,
            r"slot 0: the token's file .*absent\.ini cannot be read",
        ),
    )
    for (scheme, names), kind, message in cases:
        with pytest.raises(kind, match=message):
            KeySources(scheme, names, tmp_path).open(vault)


@pytest.mark.parametrize(
    ("chip", "number", "said", "todo"),
    [
        ("esp32c3", 1, "is for ecdsa256, the board's scheme is rsa3072", "name a key for rsa3072"),
        ("esp32c3", "ed25519", "is a key for Ed25519", "name a key for rsa3072"),
        ("esp32c3", "rsa2048", "does not sign with RSA with 2048 bits", "name a key for rsa3072"),
        (
            "esp32c6",
            1,
            "is for ecdsa256, the board's scheme is rsa3072",
            "set secure_boot: scheme: ecdsa256 in",
        ),
        ("esp32c2", "rsa2048", "does not sign with RSA", "name a key for ecdsa256 or ecdsa192"),
    ],
)
def test_of_a_wrong_kind_of_key_only_the_schemes_of_the_chip_are_named(
    vault: Vault, tmp_path: Path, chip: str, number: int | str, said: str, todo: str
) -> None:
    file = tmp_path / "wrong.pem"
    if isinstance(number, int):
        pem_file(file, number)
    else:
        key = Ed25519PrivateKey.generate() if number == "ed25519" else rsa.generate_private_key(65537, 2048)
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        file.write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
        file.chmod(0o600)
    entry = TwinEntry(chip=chip, secure_boot=SecureBoot(keys=["wrong.pem"]))
    with pytest.raises(HarnessError, match=said) as caught:
        KeySources.of_entry(entry, tmp_path).open(vault)
    assert (caught.value.todo or "").startswith(todo)
    others = set(SigningScheme) - set(CHIPS[chip].secure_boot.schemes)
    assert not [scheme for scheme in others if scheme.value in (caught.value.todo or "")]


@pytest.mark.parametrize(
    ("keys", "known", "said"),
    [
        ([2], [2], r"nothing can be signed here: secure boot key offline2\.pem is only a public half$"),
        ([2, 3], [2, 3], r"secure boot keys offline2\.pem, offline3\.pem are only public halves$"),
        ([2, 1], [2], r"the board will not know the secure boot key\(s\) at hand: mine1\.pem$"),
    ],
)
def test_where_nothing_can_be_signed_one_reason_is_given(
    vault: Vault, tmp_path: Path, keys: list[int], known: list[int], said: str
) -> None:
    names = {1: "mine1.pem", 2: "offline2.pem", 3: "offline3.pem"}
    for number in keys:
        pem_file(tmp_path / names[number], number, public=number > 1)
    opened = KeySources(P256, tuple(names[number] for number in keys), tmp_path).open(vault)
    trusted = [each for each, number in zip(digests_of(opened), keys, strict=True) if number in known]
    with pytest.raises(UsageError) as caught:
        keys_for(SMALL, opened, trusted)
    assert re.search(said, caught.value.message)


# ---- builds of a board -------------------------------------------------------------------------------------


@pytest.fixture
def build(tmp_path: Path) -> AppDirectory:
    return read_app_dir(write_idf_folder(tmp_path / "build", "secure-boot"))


def signer(tmp_path: Path, *keys: BootKey, chosen: bool = False) -> ImageSigner:
    return ImageSigner(SMALL, keys or (key(),), chosen, tmp_path / "kept")


def with_signed(build: AppDirectory, number: int, *, app: bool = True) -> AppDirectory:
    """The build as somebody with key `number` would give it."""
    given = replace(build, bootloader=sign(build.bootloader, [key(number)], SMALL))
    image = sign(build.release.image, [key(number)], SMALL) if app else build.release.image
    return replace(given, release=replace(build.release, image=image))


def test_bootloader_app_and_every_update_are_signed(build: AppDirectory, tmp_path: Path) -> None:
    firmware = SignedFirmware(GivenFirmware((build,)), signer(tmp_path))
    (made,) = firmware.all("1.0.0")
    assert [block.key_digest for block in verify(made.bootloader)] == [key().digest]
    assert made.release.image == firmware.release(build.version).image == firmware.first("").release.image
    assert [block.key_digest for block in verify(made.release.image)] == [key().digest]
    assert [(each.slot, each.digest) for each in firmware.digests] == [(0, key().digest)]
    assert made.version == build.version
    assert (firmware.kind, firmware.versions, firmware.any_version) == ("target", (build.version,), False)


def test_the_same_image_has_the_same_signature_in_every_run(build: AppDirectory, tmp_path: Path) -> None:
    one = signer(tmp_path).release(build.release, digests_of([key()]))
    other = signer(tmp_path).release(build.release, digests_of([key()]))
    assert one.image == other.image
    (file,) = (tmp_path / "kept").iterdir()
    file.write_bytes(_flipped(file.read_bytes(), 100))
    again = signer(tmp_path).release(build.release, digests_of([key()]))
    assert again.image != one.image
    assert verify(again.image)


def test_a_build_that_somebody_signed_brings_its_own_keys(build: AppDirectory, tmp_path: Path) -> None:
    given = with_signed(build, 5)
    firmware = SignedFirmware(GivenFirmware((given,)), signer(tmp_path))
    assert firmware.first("").bootloader == given.bootloader
    assert firmware.first("").release.image == given.release.image
    assert [(each.slot, each.digest) for each in firmware.digests] == [(0, key(5).digest)]
    assert "signature 0 of the bootloader" in firmware.digests[0].name


def test_a_build_signed_with_a_key_of_the_board_is_taken_with_the_boards_keys(
    build: AppDirectory, tmp_path: Path
) -> None:
    firmware = SignedFirmware(
        GivenFirmware((with_signed(build, 1),)), signer(tmp_path, key(0), public_only(1))
    )
    firmware.first("")
    assert [each.digest for each in firmware.digests] == [key(0).digest, key(1).digest]


def test_where_keys_are_named_no_other_signature_will_do(build: AppDirectory, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a key that the board does not have"):
        SignedFirmware(GivenFirmware((with_signed(build, 5),)), signer(tmp_path, chosen=True)).first("")


def test_an_unsigned_app_under_a_strange_bootloader_is_refused(build: AppDirectory, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the board will not know the secure boot key.*: key 0"):
        SignedFirmware(GivenFirmware((with_signed(build, 5, app=False),)), signer(tmp_path)).first("")


def test_an_app_of_another_signer_than_the_bootloaders_is_refused(
    build: AppDirectory, tmp_path: Path
) -> None:
    given = replace(with_signed(build, 5), release=with_signed(build, 6).release)
    with pytest.raises(UsageError, match=r"the app in .* is signed with a key"):
        SignedFirmware(GivenFirmware((given,)), signer(tmp_path)).first("")


def test_a_damaged_signature_of_a_given_bootloader_is_refused(build: AppDirectory, tmp_path: Path) -> None:
    given = with_signed(build, 5)
    spoilt = replace(given, bootloader=_flipped(given.bootloader, -0xF00))
    with pytest.raises(FormatError, match=r"signature of the bootloader in .* is damaged"):
        SignedFirmware(GivenFirmware((spoilt,)), signer(tmp_path)).first("")


def test_keys_that_only_others_have_cannot_sign(build: AppDirectory, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="key 0 is only a public half"):
        SignedFirmware(GivenFirmware((build,)), signer(tmp_path, public_only(0))).first("")


def test_a_signed_app_that_no_longer_fits_its_partition_is_refused(tmp_path: Path) -> None:
    folder = write_idf_folder(tmp_path / "build", "secure-boot")
    (folder / "otaapp.bin").write_bytes(app_image(size=0x17FF00))
    with pytest.raises(UsageError, match="its partition ota_0"):
        SignedFirmware(GivenFirmware((read_app_dir(folder),)), signer(tmp_path)).first("")


def test_the_keys_in_an_image_are_found_by_place(build: AppDirectory) -> None:
    signed = sign(build.bootloader, [key(3), key(4)], SMALL)
    found = digests_in(signed, SMALL, name="it")
    assert [(each.slot, each.digest) for each in found] == [(0, key(3).digest), (1, key(4).digest)]
    # The ESP32 has room for one key, and looks at one signature.
    assert len(digests_in(signed, ESP32, name="it")) == 1


def test_a_pem_file_signs_or_is_known_only(tmp_path: Path) -> None:
    assert from_pem(pem_file(tmp_path / "a.pem", 1)).signs
    assert not from_pem(pem_file(tmp_path / "b.pem", 1, public=True)).signs
    assert is_signed(sign(app_image(), [from_pem(tmp_path / "a.pem")], SMALL))
    assert parse_app_image(app_image()).is_intact
    assert blocks_of(app_image()) == ()
