"""Cuts the power of a virtual board at every operation of its flash and eFuses, and looks at what is left.

A clean run is recorded once, every operation with its data. What the supply leaves at a cut is then computed by the
very functions that the twin's flash and eFuses use, without running up to it again; from there the board is switched
on, the native firmware runs, and must take its next update. Two stored states that agree in every sector that such a
recovery reads before it erases it, and in all eFuses, take the same way: only the first of them is run, unless asked
otherwise.

A process of its own, as every twin: ``python -m harness.twin.explorer`` reads a job and prints lines of JSON.
"""
