"""The twin: a virtual board whose UART the vendor's own tools drive.

It is a process of its own (``python -m harness.twin``); nothing else of the harness imports it.
"""
