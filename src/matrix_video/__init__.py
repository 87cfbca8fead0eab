"""MATRIX: mask track alignment for interaction-aware video generation (arXiv 2510.07310)."""

__version__ = "0.1.0"
