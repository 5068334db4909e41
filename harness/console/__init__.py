"""One reader per board: time-stamped lines, the firmware's events, and a record of every boot.

`reader.Console` reads a port; everything else here is pure and works on any captured log as well.
"""
