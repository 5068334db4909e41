"""Takes one place from a labgrid coordinator, watches over it, and gives it back however its harness ends.

A program of its own, run by the Python that labgrid is installed in: it imports nothing of the harness, and the harness
never imports it. JSON lines both ways: `task.Task` comes first on standard input, then ``{"action": "on", "id": 1}`` for
each switch of the supply. When standard input ends, the harness has released the place or is dead, and the place is given
back: this process is the guard, so it ignores the signals of a terminal.

It says, under the key ``event``: ``waiting`` (for a place that is held), ``held``, ``refused``, ``away`` (the coordinator
does not answer), ``back``, ``port`` (the serial port moved, or its exporter is gone), ``lost`` (the place is somebody
else's now), ``done`` (a switch), ``note``, ``released``.

labgrid is used where it is meant to be used from outside: `labgrid.remote.client.ClientSession`, the calls of its gRPC
interface (versioned with the protocol that clients and coordinator of a site must share anyway), and the program
``labgrid-client power``. The other text that ``labgrid-client`` prints is for people and changes from release to release;
and it is a process for each question, while a lease has to be watched all the time.
"""
