"""What a device survives: the power cut at every operation of its flash and eFuses, and what is left looked at.

The cutting is done by a process of its own on a copy of a twin (`harness.twin.explorer`); here is what it needs to know:
which sequences there are, how a board gets to where one begins, and what came of it.
"""
