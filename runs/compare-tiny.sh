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
# Denoising steps of every clip, and updates of every training.
sampling=${SAMPLING_STEPS:-50}
steps=${TRAIN_STEPS:-2000}

$matrix world --out "$out/data/train" --clips 2000 --split train
$matrix world --out "$out/data/analysis" --clips 128 --split analysis
for split in "${splits[@]}"; do
    $matrix world --out "$out/data/$split" --clips 200 --split "$split"
done
$matrix check "$out/data/train" "${splits[@]/#/$out/data/}"

# Which layers: clips of the base itself, labelled by the judge.
$matrix generate --prompts "$out/data/analysis" --out "$out/base-analysis" \
    --steps "$sampling" --precision auto
$matrix evaluate --videos "$out/base-analysis" --prompts "$out/data/analysis" \
    --out "$out/labels" --no-nulls --tracked
$matrix analyze --data "$out/labels/tracked" --labels "$out/labels/scores.json" \
    --out "$out/analysis" --precision auto

# Four adapters on the same layers, data and steps.
train() {
    $matrix train --recipe tiny --data "$out/data/train" \
        --layers "$out/analysis/layers.json" --out "$out/train-$1" \
        --cache "$out/cache" --steps "$steps" "${@:2}"
}
train lora --sga 0 --spa 0 --no-id-map
train lora-idmap --sga 0 --spa 0
train matrix-noid --no-id-map
train matrix

# The contrast that counts is matrix against lora-idmap, and matrix-noid against lora. Null rows and
# ceiling are the prompts' own: base's evaluation has them for all rows of a split.
for split in "${splits[@]}"; do
    scores=$out/$split/scores
    for row in base lora lora-idmap matrix-noid matrix; do
        adapter=(--adapter "$out/train-$row/adapter")
        compare=(--no-nulls --against "$scores-base")
        case $row in
            base) adapter=() compare=(--model tiny) ;;
            matrix-noid) compare+=("$scores-lora") ;;
            matrix) compare+=("$scores-lora-idmap") ;;
        esac
        $matrix generate --prompts "$out/data/$split" --out "$out/$split/$row" \
            --steps "$sampling" --precision auto "${adapter[@]}"
        $matrix evaluate --videos "$out/$split/$row" --prompts "$out/data/$split" \
            --out "$scores-$row" "${compare[@]}"
    done
done
