#!/usr/bin/env bash
# Train a tiny Wan from nothing: VAE, then text encoder and transformer. The stock pipeline ends up in
# OUT/dit/tiny. It is to replace the shipped pipeline once it passes its gate (docs/log.md). Hours on
# two CPU cores; every stage resumes. To go on from what is kept in experiments/tiny:
#   mkdir -p OUT/dit && cp -r experiments/tiny/trained_vae OUT/vae_final
#   cp experiments/tiny/trained_dit/kept.safetensors OUT/dit/
# and `--dit.image-dropout 0.4 --clips 2000`, which it was trained with.
#   runs/train-tiny-wan.sh [OUT] [further options of experiments/tiny]
set -euo pipefail
out=${1:-out/train-tiny-wan}
shift || true
export PYTHONPATH=experiments
.venv/bin/python -m tiny --out "$out" "$@"
