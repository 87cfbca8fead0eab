"""Pretraining of the shipped tiny pipeline, from rendered clips to a stock diffusers folder.

``runs/train-tiny.sh`` runs it. Nothing here is imported by the package.
"""
