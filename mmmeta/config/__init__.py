"""Configs of any OpenMMLab package: read, inspect, adapt and build them."""
