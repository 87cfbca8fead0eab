#!/usr/bin/env bash
# Rebuild the shipped tiny pipeline from nothing: VAE, then text encoder and transformer; the stock
# pipeline folder ends up in OUT/tiny. Hours on two CPU cores, and more when anything else runs on
# them. Every stage resumes: run it again after an interruption.
#   runs/train-tiny.sh [OUT] [further options of matrix_video.recipes.pretrain_tiny]
set -euo pipefail
out=${1:-out/train-tiny}
shift || true

# What the model learns from, and what measures it. Lossless video, exact masks (unused here).
.venv/bin/matrix world --out "$out/base" --clips 12000 --seed 0 --split base
.venv/bin/matrix world --out "$out/val" --clips 400 --seed 0 --split val
.venv/bin/python -m matrix_video.recipes.pretrain_tiny \
    --base "$out/base" --val "$out/val" --out "$out" "$@"
