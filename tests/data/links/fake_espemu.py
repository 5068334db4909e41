"""Stands in for esp-emu: listens on its UART port, keeps flash and eFuses in memory, writes both at SIGINT.

On the UART ``burn`` sets one eFuse bit and ``flash`` clears the first flash byte; everything is echoed.
"""

import pathlib
import signal
import socket
import sys


def option(name):
    return sys.argv[sys.argv.index(name) + 1]


def main():
    host, port = option("--uart-tcp").split(":")
    flash = bytearray(pathlib.Path(option("--firmware")).read_bytes())
    efuses = bytearray(pathlib.Path(option("--efuse")).read_bytes())

    def end(*_):
        pathlib.Path(option("--efuse")).write_bytes(efuses)
        if "--save-state" in sys.argv:
            pathlib.Path(option("--firmware")).write_bytes(flash)
        sys.exit(0)

    signal.signal(signal.SIGINT, end)
    taken = pathlib.Path(option("--efuse")).with_name("refuse-once")
    if taken.exists():
        taken.unlink()
        sys.stderr.write("error: address already in use\n")
        return 1
    with socket.create_server((host, int(port))) as server:
        client = server.accept()[0]
        client.sendall(f"strap {option('--strap-mode')} chip {option('--chip')}\n".encode())
        while True:
            data = client.recv(4096)
            if not data:
                client = server.accept()[0]
            if b"burn" in data:
                efuses[0x70] |= 1
            if b"flash" in data:
                flash[0] = 0
            client.sendall(data)


if __name__ == "__main__":
    sys.exit(main())
