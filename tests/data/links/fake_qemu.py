"""Stands in for QEMU where only its process, its sockets and its protocol matter.

It connects to the sockets in its arguments, speaks enough QMP, prints one line per boot and echoes what it is sent.
``--misbehave WORD`` makes it fail in one way.
"""

import json
import os
import select
import socket
import sys


def option(name, default=""):
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


def connected(device):
    kind, rest = device.split(":", 1)
    if kind == "unix":
        client = socket.socket(socket.AF_UNIX)
        client.connect(rest.replace(",,", ","))
        return client
    host, port = rest.split(",")[0].split(":")
    return socket.create_connection((host, int(port)))


def main():
    bad = option("--misbehave")
    if bad == "machine":
        sys.stderr.write("qemu-system-riscv32: unsupported machine type\n")
        return 1
    strap = next((word.rpartition("=")[2] for word in sys.argv if "strap_mode" in word), "default")
    uart = connected(option("-serial"))
    qmp = connected(option("-qmp"))
    address = "1.2.3.4:5" if bad == "alien" else "{}:{}".format(*uart.getsockname())
    boots = 0

    def say(message):
        qmp.sendall(json.dumps(message).encode() + b"\n")

    def boot():
        uart.sendall(f"boot {boots} strap {strap}\n".encode())

    say({"QMP": {"version": {}}})
    buffered = b""
    while True:
        for ready in select.select([uart, qmp], [], [])[0]:
            data = ready.recv(4096)
            if not data:
                return 0
            if ready is uart:
                if b"die" in data:
                    sys.stderr.write("Segmentation fault\n")
                    sys.stderr.flush()
                    os._exit(3)
                uart.sendall(data)
                continue
            buffered += data
            while b"\n" in buffered:
                line, _, buffered = buffered.partition(b"\n")
                command = json.loads(line)["execute"]
                if command == "query-chardev":
                    say({"return": [{"label": "serial0", "filename": f"tcp:127.0.0.1:1 <-> {address}"}]})
                    continue
                if command == "system_reset" and bad == "no-reset":
                    say({"error": {"class": "GenericError", "desc": "not now"}})
                    continue
                say({"event": "NOISE"})
                say({"return": {}})
                if command in ("cont", "system_reset"):
                    boots += 1
                    boot()
                if command == "system_reset":
                    say({"event": "RESET", "data": {"guest": False}})


if __name__ == "__main__":
    sys.exit(main())
