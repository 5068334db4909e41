"""Release-mode acceptance of somebody's own app, handler and unit: from a qualify.yaml to a verdict that can be signed.

Nothing is built and nothing is provisioned here: what the unit runs, and what it is to be updated to, come by path and
SHA-256. What is concluded comes from the unit's log, from the server's journal, and from what its owner's witnesses
say; never from the companion firmware's own events.
"""
