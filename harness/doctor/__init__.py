"""Looks at the bench and says what is wrong, each with the sentence that mends it.

``probe_*`` functions look and never judge; ``check_*`` functions judge and never look, so that every judgement can be
tried without the machine it is about.
"""
