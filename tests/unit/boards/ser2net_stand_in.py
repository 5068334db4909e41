"""Stands for ser2net, as labgrid's exporter starts it: lends the "device" /dev/twin-PORT on the TCP port it is told."""

from __future__ import annotations

import contextlib
import re
import socket
import sys
import threading


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Until either end closes."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def serve(words: str) -> None:
    """One client after the other; each gets the wire of the twin at PORT."""
    listening, device = re.search(r"tcp,(\d+)", words), re.search(r"/dev/twin-(\d+)", words)
    assert listening is not None
    assert device is not None
    listener = socket.create_server(("127.0.0.1", int(listening[1])))
    while True:
        client, _ = listener.accept()
        wire = socket.create_connection(("127.0.0.1", int(device[1])))
        for end in (client, wire):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for ends in ((client, wire), (wire, client)):
            threading.Thread(target=pump, args=ends, daemon=True).start()


if __name__ == "__main__":
    if sys.argv[1:] == ["-v"]:
        print("ser2net version 4.6.2")  # noqa: T201
    else:
        serve(" ".join(sys.argv[1:]))
