"""The commented `qualify.yaml` that `harness qualify --init` writes. It must itself be a valid file."""

from __future__ import annotations

EXAMPLE = """\
# What `harness qualify` demands of a unit, and how it gets at your app. See docs/qualify.md.
version: 1
product: Door lock 3

# ship: nothing but a good update is ever written, and the unit ends as stated below.
# sacrificial: also bad updates, cuts, rollback. Never ship such a unit.
unit: ship

# board: ship-042            # or --board
profile: release             # release | release+sbv2 | development | development+sbv2 | open

# Nothing is built. Every file is named with its SHA-256 (sha256sum FILE); another one is refused.
running:                     # what the unit runs when it comes
  path: app-1.0.0.bin
  sha256: "0000000000000000000000000000000000000000000000000000000000000000"
update:                      # what it is updated to: plaintext, signed if secure boot is on
  path: app-1.1.0.bin
  sha256: "0000000000000000000000000000000000000000000000000000000000000000"

# ciphertext: enciphered here for the slot, with the key in this vault (a raw handler)
# plaintext:  served as it is; the unit enciphers (esp_https_ota, esp_ota_write)
# file:       served as somebody else made it: see 'served'
image: plaintext
# served:
#   ota_1: {path: app-1.1.0.ota_1.enc, sha256: "…"}     # or 'any' for both slots

# there_and_back: true       # after the update, update to 'running' again
# rollback: true             # sacrificial only: an unconfirmed version must give way

server:
  by: harness                # HTTP; HTTPS with a certificate
  # path: /firmware.bin      # where the app's URL is compiled in
  # port: 8070
  # certificate: server.pem
  # key: server.key
# server: {by: external, url: "https://updates.example/app.bin", publish: [./put, "{file}"]}

# Secrets for actions, as {secret:wifi}: the one line of a file. They are in no log.
# secrets:
#   wifi: {file: wifi.password}

# What is done once, before the first update (provisioning, say).
# prepare:
#   - {by: uart, after: "prov>", send: "wifi my-net {secret:wifi}"}
#   - {by: await, line: "got ip"}

# How an update is begun. by: uart | http | command | prompt | reset | await
# In braces: {url} {host} {port} {path} {version} {sha256} {size} {slot} {mac} {board}
trigger:
  - {by: uart, after: "Starting OTA example task", send: "{url}"}
# - {by: http, method: POST, url: "http://lock.local/update", body: '{"url": "{url}"}'}
# - {by: prompt, text: "start the update to {version} in the app"}
# - {by: reset}              # an app that looks for an update at its start

# After the new version is up; leave it out for apps that confirm themselves.
# confirm:
#   - {by: uart, send: "confirm"}

# What your app says of itself. ESP-IDF's start-up prints version and ELF digest anyway; nothing is needed where that
# is left on. The first group of each pattern is the value. 'run' reads a command's output instead of the log.
witness:
  # Without a group: a line like this means that it is confirmed.
  confirmed: "Diagnostics completed successfully"
  # confirmed: {pattern: "image state (\\w+)", is: valid}
  # version: "firmware ([0-9.]+) ready"
  # slot: {pattern: '"slot":"(ota_\\d)"', run: [curl, -s, "http://lock.local/status"]}
  # image: "SHA-256 for current firmware:\\\\s+:?\\\\s*([0-9a-f]{64})"
  # failed: "Firmware upgrade failed"

reset: link                  # link (DTR/RTS) | power | none

# How the unit must be left. Default for a ship unit: 'update', or 'running' after there_and_back.
end:
  otadata: valid             # undefined: the app is built without rollback
  # image: update
  # slot: ota_1

# times: {boot_s: 60, update_s: 300, settle_s: 10, confirm_s: 60}

# requirements:              # ids of your specification, and the claims that meet them
#   OTA-1: [update-served, good-update, survives-reset]
#   SEC-1: release-mode
"""
