"""Data sets and metrics that the stack lacks; imported when a config names one of them."""
