"""A whole fine-tuning run: from a config to an adapter folder.

<out>/config.yaml, environment.json, metrics.jsonl     see `services.run`
<out>/checkpoints/step-XXXXXXXX.safetensors             the newest state
<out>/adapter/                                          see `backbones.adapter`
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from matrix_video.backbones.adapter import ModuleFiles, save_adapter, under
from matrix_video.backbones.fingerprint import Fingerprint, fingerprint
from matrix_video.backbones.loading import backbone_for, load_pipeline
from matrix_video.backbones.precision import dtype_of
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import clear_temporary, sha256_text
from matrix_video.services.run import RunFolder
from matrix_video.training.config import MAY_CHANGE, TrainConfig
from matrix_video.training.heldout import decoder_absorbed, heldout_aas
from matrix_video.training.inputs import (
    check_regions,
    chosen_layers,
    encoded_set,
    read_clips,
    trainable,
)
from matrix_video.training.loop import Calls, Outcome, Trainer, Watch
from matrix_video.training.parallel import Parallel, make_accelerator
from matrix_video.training.student import Student, check_id_map, make_student

ADAPTER = "adapter"
STAGE = "train"
_DAY = 86400.0


@dataclass(frozen=True)
class TrainResult:
    """``adapter`` is None where SIGTERM stopped the run, which then resumes when run again.

    ``absorbed``: the alignment loss fell, the held-out score did not; None: not measured.
    """

    adapter: Path | None
    steps: int
    absorbed: bool | None


def train(
    config: TrainConfig, pipe: DiffusionPipeline | None = None, watch: Watch | None = None
) -> TrainResult:
    """Fine-tune ``config.model`` (or ``pipe``) and save the adapter.

    ``pipe`` is left frozen, with nothing on it but
    ``config.tiling``; where ``config.shard`` or accelerate's launcher
    asks for that, its transformer stays split over the processes.

    ``watch`` is called every ``config.sample_every`` updates, by the main process alone.
    A finished run returns at once; a stopped or killed one goes on from its last checkpoint.
    Raises `MatrixError` for whatever is wrong with data, layers, model or settings.
    """
    parallel = Parallel(make_accelerator(config), shard=config.shard)
    if not parallel.accelerator.is_main_process:
        return _train(config, pipe, watch, None, parallel)
    with RunFolder.open(config.out, config, command="train", may_change=MAY_CHANGE) as run:
        return _train(config, pipe, watch, run, parallel)


def _train(
    config: TrainConfig,
    pipe: DiffusionPipeline | None,
    watch: Watch | None,
    run: RunFolder | None,
    parallel: Parallel,
) -> TrainResult:
    folder = RunFolder(config.out)
    if folder.done(STAGE):
        facts = folder.facts(STAGE)
        return TrainResult(config.out / ADAPTER, facts["steps"], facts.get("absorbed"))
    if config.sample_every and parallel.shard:
        raise MatrixError(
            "videos of a student whose parameters are split cannot be made while it trains",
            remedy="leave out --sample-every, or --shard (of the launcher: --use_fsdp)",
            field="sample_every",
        )
    data, held = read_clips(config)
    backbone = backbone_for(_loaded(config, pipe, parallel))
    if config.tiling:
        backbone.tile()
    layers = chosen_layers(config, backbone)
    check_id_map(backbone, config)
    data, held = (trainable(backbone, clips, config) for clips in (data, held))
    base = fingerprint(backbone.transformer)
    if parallel.processes > 1 and config.cache is None:
        warnings.warn(
            f"each of the {parallel.processes} processes encodes and keeps all clips: with --cache "
            "they share the work",
            stacklevel=2,
        )
    if run is not None and config.cache is not None and config.cache.is_dir():
        clear_temporary(config.cache, age=_DAY)
    share = {"process": parallel.index, "processes": parallel.processes}
    encoded = encoded_set(backbone, data, config, "encode", **share)
    heldout = encoded_set(backbone, held, config, "encode held-out", **share)
    check_regions(encoded, config)
    with torch.no_grad():
        empty = backbone.encode_text([""]).to("cpu")
    if pipe is None and not config.sample_every:
        backbone.release_encoders()
    student = make_student(backbone, config, layers, encoded.clip(0))
    try:
        told = [sample.model_dump_json() for sample in (*data.samples, *held.samples)]
        origin = sha256_text(base.architecture, base.weights, *told)
        trainer = Trainer(student, encoded, empty, config, run, parallel, watch, origin)

        def validate(calls: Calls) -> Mapping[str, float]:
            return heldout_aas(
                trainer.student,
                heldout,
                calls,
                seed=config.seed,
                levels=config.heldout_levels,
                autocast=trainer.autocast,
                forward=parallel.run,
            )

        outcome = trainer.fit(validate)
        return _finish(config, student, base, outcome, run)
    finally:
        student.detach()
        parallel.end()


def _loaded(
    config: TrainConfig, pipe: DiffusionPipeline | None, parallel: Parallel
) -> DiffusionPipeline:
    """The pipeline on this process's device: ``pipe``, or the config's model."""
    device = parallel.accelerator.device
    if config.quantize != "none" and (parallel.processes > 1 or parallel.shard):
        raise MatrixError(
            "a quantised base trains in one process, unsplit: neither DDP nor sharding takes its "
            "parameters",
            remedy="leave out --quantize, or --shard and the launcher",
            field="quantize",
        )
    if pipe is not None:
        return pipe.to(device)
    dtype = dtype_of(config.weights)
    return load_pipeline(config.model, dtype=dtype, device=device, quantize=config.quantize)


def _finish(
    config: TrainConfig,
    student: Student,
    base: Fingerprint,
    outcome: Outcome,
    run: RunFolder | None,
) -> TrainResult:
    if outcome.stopped or run is None:
        adapter = None if outcome.stopped else config.out / ADAPTER
        return TrainResult(adapter, outcome.step, None)
    absorbed = decoder_absorbed(run.metrics()) if student.decoder is not None else None
    facts = {
        "steps": outcome.step,
        "v2t": list(student.layers.v2t),
        "v2v": list(student.layers.v2v),
        "sga": config.sga,
        "spa": config.spa,
        "id_map": config.id_map,
        "mentions": config.mentions,
        "decoder_absorbed": absorbed,
    }
    decoder = None
    if student.decoder is not None:
        weights = under("decoder.", outcome.weights)
        decoder = ModuleFiles(student.decoder.config.model_dump(), weights)
    save_adapter(
        config.out / ADAPTER,
        student.backbone.transformer,
        condition=student.condition,
        decoder=decoder,
        facts=facts,
        base=base,
        weights=outcome.weights,
    )
    known = {} if absorbed is None else {"absorbed": absorbed}
    run.mark_done(STAGE, steps=outcome.step, **known)
    return TrainResult(config.out / ADAPTER, outcome.step, absorbed)
