"""Shell completion: what a person may type next, told in the time of a keystroke.

The commands import half of the ecosystem, which takes a second. So what they are called and take is kept in a table
(`table`), from which click's own completion answers (`answer`).
"""
