#!/usr/bin/env bash
# Base, LoRA and MATRIX on the tiny pipeline, at equal data and steps. Every step resumes.
#   runs/compare-tiny.sh [OUT] [SPLIT …]
# Without a split it compares on val: settings are chosen there. `test-iid test-composition` are
# for the final rows alone, once each; docs/log.md counts them.
set -euo pipefail
out=${1:-out/compare-tiny}
shift || true
splits=("$@")
[ ${#splits[@]} -gt 0 ] || splits=(val)
matrix=.venv/bin/matrix
steps=2000

$matrix world --out "$out/data/train" --clips 2000 --split train
$matrix world --out "$out/data/analysis" --clips 128 --split analysis
for split in "${splits[@]}"; do
    $matrix world --out "$out/data/$split" --clips 200 --split "$split"
done
$matrix check "$out"/data/train $(printf "$out/data/%s " "${splits[@]}")

# Which layers: clips of the base itself, labelled by the judge.
$matrix generate --prompts "$out/data/analysis" --out "$out/base-analysis" --precision bf16
$matrix evaluate --videos "$out/base-analysis" --prompts "$out/data/analysis" \
    --out "$out/labels" --no-nulls --tracked "$out/data/tracked"
$matrix analyze --data "$out/data/tracked" --labels "$out/labels/scores.json" \
    --out "$out/analysis" --precision bf16

# Four adapters on the same layers, data and steps.
train() {
    $matrix train --data "$out/data/train" --layers "$out/analysis/layers.json" --steps $steps \
        --lr 1e-3 --precision bf16 --out "$out/train-$1" "${@:2}"
}
train lora --sga 0 --spa 0 --no-id-map
train lora-idmap --sga 0 --spa 0
train matrix-noid --sga 0.1 --spa 0.05 --no-id-map
train matrix --sga 0.1 --spa 0.05

# The contrast that counts is matrix against lora-idmap, and matrix-noid against lora.
for split in "${splits[@]}"; do
    for row in base lora lora-idmap matrix-noid matrix; do
        adapter=()
        [ "$row" = base ] || adapter=(--adapter "$out/train-$row/adapter")
        against=()
        [ "$row" = base ] || against=(--against "$out/$split/scores-base")
        [ "$row" != matrix-noid ] || against+=("$out/$split/scores-lora")
        [ "$row" != matrix ] || against+=("$out/$split/scores-lora-idmap")
        $matrix generate --prompts "$out/data/$split" --out "$out/$split/$row" --precision bf16 \
            "${adapter[@]}"
        $matrix evaluate --videos "$out/$split/$row" --prompts "$out/data/$split" \
            --out "$out/$split/scores-$row" --model tiny "${against[@]}"
    done
done
