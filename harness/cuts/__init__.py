"""Cuts on any board, honestly named: what kind of cut it was, what triggered it, and what may not be cut where.

Weaker than the twin's explorer, which cuts at every operation and inside of it: here a cut comes at a byte of the
download, at a line of the log, or at an operation that the firmware counts itself. Nothing here is exhaustive.
"""
