"""A whole fine-tuning run: from a config to an adapter folder.

<out>/config.yaml, environment.json, metrics.jsonl     see `services.run`
<out>/checkpoints/step-XXXXXXXX.safetensors             the newest state
<out>/adapter/                                          see `backbones.adapter`
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from matrix_video.attention.tap import Captures
from matrix_video.backbones.adapter import ModuleFiles, save_adapter
from matrix_video.backbones.loading import backbone_for, load_pipeline
from matrix_video.services.run import RunFolder
from matrix_video.training.config import TrainConfig
from matrix_video.training.heldout import decoder_absorbed, heldout_aas
from matrix_video.training.inputs import chosen_layers, encoded_set, read_clips
from matrix_video.training.loop import Outcome, Trainer
from matrix_video.training.student import Layers, Student, make_student

ADAPTER = "adapter"
STAGE = "train"


@dataclass(frozen=True)
class TrainResult:
    """``adapter`` is None where SIGTERM stopped the run, which then resumes when run again.

    ``absorbed``: the alignment loss fell, the held-out score did not; None: not measured.
    """

    adapter: Path | None
    steps: int
    absorbed: bool | None


def train(config: TrainConfig, pipe: DiffusionPipeline | None = None) -> TrainResult:
    """Fine-tune ``config.model`` (or ``pipe``, which is left frozen, with nothing on it) and save
    the adapter.

    A finished run returns at once; a stopped or killed one goes on from its last checkpoint.
    Raises `MatrixError` for whatever is wrong with data, layers, model or settings.
    """
    accelerator = Accelerator()
    if not accelerator.is_main_process:
        return _train(config, pipe, None, accelerator)
    with RunFolder.open(config.out, config, command="train") as run:
        return _train(config, pipe, run, accelerator)


def _train(
    config: TrainConfig,
    pipe: DiffusionPipeline | None,
    run: RunFolder | None,
    accelerator: Accelerator,
) -> TrainResult:
    folder = RunFolder(config.out)
    if folder.done(STAGE):
        facts = folder.facts(STAGE)
        return TrainResult(config.out / ADAPTER, facts["steps"], facts.get("absorbed"))
    data, held = read_clips(config)
    dtype = torch.bfloat16 if config.weights == "bf16" else torch.float32
    if pipe is None:
        loaded = load_pipeline(config.model, dtype=dtype, device=accelerator.device)
    else:
        loaded = pipe.to(accelerator.device)
    backbone = backbone_for(loaded)
    layers = chosen_layers(config, backbone)
    first = data.video(0)
    student = make_student(backbone, config, layers, (len(first), *first.size))
    try:
        encoded = encoded_set(student, data, config, "encode")
        heldout = encoded_set(student, held, config, "encode held-out")
        with torch.no_grad():
            empty = backbone.encode_text([""]).to("cpu")
        trainer = Trainer(student, encoded, empty, config, run, accelerator)

        def validate(calls: Captures) -> Mapping[str, float]:
            return heldout_aas(
                student,
                heldout,
                calls,
                seed=config.seed,
                levels=config.heldout_levels,
                autocast=trainer.autocast,
            )

        outcome = trainer.fit(validate)
        return _finish(config, student, layers, outcome, run)
    finally:
        student.detach()


def _finish(
    config: TrainConfig, student: Student, layers: Layers, outcome: Outcome, run: RunFolder | None
) -> TrainResult:
    if outcome.stopped or run is None:
        adapter = None if outcome.stopped else config.out / ADAPTER
        return TrainResult(adapter, outcome.step, None)
    absorbed = decoder_absorbed(run.metrics()) if student.decoder is not None else None
    facts = {
        "steps": outcome.step,
        "v2t": list(layers.v2t),
        "v2v": list(layers.v2v),
        "sga": config.sga,
        "spa": config.spa,
        "id_map": config.id_map,
        "mentions": config.mentions,
        "decoder_absorbed": absorbed,
    }
    decoder = None
    if student.decoder is not None:
        decoder = ModuleFiles(student.decoder.config.model_dump(), student.decoder.state_dict())
    save_adapter(
        config.out / ADAPTER,
        student.backbone.transformer,
        condition=student.condition,
        decoder=decoder,
        facts=facts,
    )
    known = {} if absorbed is None else {"absorbed": absorbed}
    run.mark_done(STAGE, steps=outcome.step, **known)
    return TrainResult(config.out / ADAPTER, outcome.step, absorbed)
