"""Heads on top of those of MMPretrain, MMDetection and MMSegmentation, imported when a config names them."""
