"""Stands in for uhubctl: one USB 3 hub in two halves (1-1 and 2-1), one hub that switches all ports together (3).

State and calls are kept in files beside it. ``stuck`` beside it: ports do not switch.
"""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
HUBS = {
    "1-1": "2109:2817 VIA Labs USB2.0 Hub, USB 2.10, 4 ports, ppps",
    "2-1": "2109:0817 VIA Labs USB3.0 Hub, USB 3.20, 4 ports, ppps",
    "3": "1d6b:0002 Linux xhci-hcd, USB 2.00, 4 ports, ganged",
}


def say(line):
    sys.stdout.write(line + "\n")


def main():
    words = sys.argv[1:]
    with (HERE / "calls").open("a") as calls:
        calls.write(" ".join(words) + "\n")
    where = words[words.index("-l") + 1]
    shown = {"1-1": ["1-1", "2-1"], "3": ["3"] if "-f" in words else []}.get(where, [])
    if not shown:
        sys.stderr.write(
            f"No compatible devices detected at location {where}!\nRun with -h to get usage info.\n"
        )
        return 1
    off = HERE / "off"
    port = words[words.index("-p") + 1] if "-p" in words else None

    def show(head):
        for hub in shown:
            say(f"{head} status for hub {hub} [{HUBS[hub]}]")
            for number in range(1, 5):
                if port and str(number) != port:
                    continue
                dead = off.exists() and str(number) in off.read_text().split()
                alive = "0203 power 5gbps U0 enable connect [0403:6001 power adapter]"
                say(f"  Port {number}: {'0000 off' if dead else alive}")

    show("Current")
    if "-a" in words:
        action = words[words.index("-a") + 1]
        if not (HERE / "stuck").exists():
            off.write_text(port if action == "off" else "")
        say(f"Sent power {action} request")
        show("New")
    return 0


if __name__ == "__main__":
    sys.exit(main())
