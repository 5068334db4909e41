"""How a board's UART is reached: a byte stream, and a way to reset into boot or download mode.

One file per link. TCP carries no reset lines, so a link is always both.
"""
