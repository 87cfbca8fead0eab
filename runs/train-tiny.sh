#!/usr/bin/env bash
# Rebuild the shipped tiny pipeline from nothing: about two and a half hours on two CPU cores.
# Every stage resumes: run it again after an interruption.
set -euo pipefail
out=${1:-out/train-tiny}
matrix=.venv/bin/matrix
python=.venv/bin/python

# What the model learns from, and what measures it. Lossless video, exact masks (unused here).
$matrix world --out "$out/base" --clips 12000 --seed 0 --split base
$matrix world --out "$out/val" --clips 400 --seed 0 --split val

# The VAE first: everything else is trained on its latents.
$python -m matrix_video.recipes.pretrain_tiny --base "$out/base" --val "$out/val" --out "$out" \
    --stages vae

# Text encoder and transformer, then a stock pipeline folder in $out/tiny.
$python -m matrix_video.recipes.pretrain_tiny --base "$out/base" --val "$out/val" --out "$out" \
    --stages dit export
