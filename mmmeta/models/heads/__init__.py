"""Heads on top of those of MMPretrain and MMSegmentation; each is imported when a config names it."""
