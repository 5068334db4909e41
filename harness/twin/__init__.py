"""The twin: a virtual board whose UART the vendor's own tools drive.

It is a process of its own (``python -m harness.twin``); nothing else of the harness imports it.

Known differences from silicon, none of which makes the twin accept what a chip refuses:

- Time stamps of ROM and bootloader are modelled; the rhythm of watchdog loops, and of the loops of a chip whose download
  mode is off, is chosen.
- The flasher stub is a dialect: what esptool uploads is recognised by its load address and entry, not executed.
- Only the mask ROMs of ESP32 and ESP32-C3 were looked into. Those of the other chips are taken to do as ESP32-C3's; their
  lines are from logs and documentation (`harness.twin.rom_facts`).
- A C3 that gets FLASH_DATA without FLASH_BEGIN answers with an error; the mask ROM uses what lies on its stack.
- Not modelled: secure boot v1, ESP32's 3/4 coding, UART_PRINT_CONTROL, direct boot, deep sleep, UART overruns, faults on
  bad addresses (they read 0), watchdog resets through registers.
- Secure boot v2 in ROM was held against the mask ROMs of ESP32 and ESP32-C3 in QEMU, RSA only. Other chips are taken to
  do as ESP32-C3; of ECDSA blocks version and curve must fit, on no evidence. R squared and m' of an RSA block must be
  right where the ROM or the bootloader verifies; QEMU's accelerator does without them.
- With encryption forbidden by fuse, what an enciphered write leaves in flash is a guess; esptool refuses it before.
- A C3 whose counter is set without a key reads noise that is not bit-exact.
- The second-stage bootloader, ``esp_ota_*`` and the HTTP client are models of ESP-IDF v5.5; the handler is the real one.
  What bootloader and ``esp_ota_*`` do to flash is held against recordings (``tests/data/flash``), of ESP32-C3 only.
- One call of the flash driver is one operation: block erases and page programs that it is cut into are not told apart.
- ESP32 enciphers rows of 32 bytes: ESP-IDF writes the other half of a row again, as it was; the twin writes what it was
  given.
"""
