"""Stands in for ESP-IDF's idf.py in tests: "builds" by copying a prepared folder, and notes how it was called."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path


def say(line: str) -> None:
    """One line, as ninja prints it."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


IDF = Path(__file__).resolve().parent.parent
arguments = sys.argv[1:]
with (IDF / "calls.jsonl").open("a") as file:
    file.write(
        json.dumps({"arguments": arguments, "environment": dict(os.environ), "python": sys.executable}) + "\n"
    )
defines = dict(each[2:].split("=", 1) for each in arguments if each.startswith("-D"))
mode = (IDF / "mode").read_text() if (IDF / "mode").exists() else "works"
say("-- Configuring")
say("[1/3] Building C object esp-idf/main/CMakeFiles/main.dir/raw_ota_errors.c.obj")
if mode == "fails":
    say("FAILED: esp-idf/main/CMakeFiles/main.dir/commands.c.obj")
    say("/opt/gcc -Werror=all -c ../main/commands.c")
    say("../main/commands.c:12:5: error: 'nonsense' undeclared (first use in this function)")
    say("ninja: build stopped: subcommand failed.")
    sys.exit(2)
if mode == "hangs-below":
    below = subprocess.Popen(["sleep", "60"])
    say(f"[1/2] idf.py and ninja: {os.getpid()} {below.pid}")
    time.sleep(60)
if mode == "hangs":
    time.sleep(60)
build = Path(arguments[arguments.index("-B") + 1])
shutil.copytree(IDF / "template", build, dirs_exist_ok=True)
shutil.copy(IDF / "images" / f"{defines['COMPANION_VERSION']}.bin", build / "otaapp.bin")
texts = [Path(path).read_text() for path in defines["SDKCONFIG_DEFAULTS"].split(";")]
if mode == "drops":
    texts = [text.replace("CONFIG_RAW_OTA_ALLOW_BARE=y", "") for text in texts]
heading = "# Espressif IoT Development Framework (ESP-IDF) 5.5.5 Project Configuration\n"
Path(defines["SDKCONFIG"]).write_text(heading + "".join(texts) + "CONFIG_PARTITION_TABLE_OFFSET=0xc000\n")
say("[1/1] Building the bootloader inside")
say("[3/3] Generating binary image")
