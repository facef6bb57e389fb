"""Complexity, tables of the papers, curves."""
