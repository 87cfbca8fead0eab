#!/usr/bin/env bash
# Train a tiny Wan from nothing: VAE, then text encoder and transformer. The stock pipeline ends up in
# OUT/dit/tiny. It is to replace the shipped pipeline once it passes its gate (docs/log.md). Hours on
# two CPU cores; every stage resumes. To start from the trained VAE: cp -r experiments/tiny/trained_vae
# OUT/vae_final
#   runs/train-tiny-wan.sh [OUT] [further options of experiments/tiny]
set -euo pipefail
out=${1:-out/train-tiny-wan}
shift || true
export PYTHONPATH=experiments
.venv/bin/python -m tiny --out "$out" "$@"
