"""An analysis from data set to ``layers.json``.

The run folder holds ``attention.parquet`` (all measurements, see `analysis.records`),
``layers.json`` (see `analysis.layers`), ``plots/`` and ``overlays/``. ``parts/`` has one Parquet
file for each measured sample, named after its content and the model, from which a stopped run
goes on.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from matrix_video.analysis.collect import Probe, level_maps, measure_clip
from matrix_video.analysis.config import AnalyzeConfig
from matrix_video.analysis.labels import read_labels
from matrix_video.analysis.layers import (
    DataFacts,
    LayerChoice,
    ModelFacts,
    choose_layers,
    write_choice,
)
from matrix_video.analysis.overlays import overlay_strip, overlay_video
from matrix_video.analysis.plots import draw_plots
from matrix_video.analysis.records import (
    KINDS,
    join_tables,
    read_table,
    to_table,
    write_table,
)
from matrix_video.analysis.targets import clip_targets
from matrix_video.attention.site import Kind
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.fingerprint import Fingerprint, fingerprint
from matrix_video.backbones.loading import backbone_for, load_pipeline
from matrix_video.data.dataset import Dataset, open_clips
from matrix_video.data.video import write_video
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import sha256_text, write_atomic
from matrix_video.services.progress import progress
from matrix_video.services.run import RunFolder

TABLE = "attention.parquet"
CHOICE = "layers.json"


def analyze(config: AnalyzeConfig, backbone: Backbone | None = None) -> LayerChoice:
    """Run the analysis and return the choice that ``layers.json`` holds.

    ``backbone`` saves loading the pipeline again; it must be of ``config.model``. Raises
    `MatrixError` for a data set without samples, for labels of other videos, and for whatever is
    wrong with a sample.
    """
    with RunFolder.open(config.out, config, command="analyze") as run:
        if backbone is None:
            backbone = backbone_for(load_pipeline(config.model))
        data = open_clips(config.data, config.transform(), config.limit)
        labels = None if config.labels is None else _labels(config.labels, config, data)
        probe = make_probe(config)
        model = fingerprint(backbone.transformer)
        hashes = [data.content_key(i) for i in range(len(data))]
        made_by = sha256_text(*model.model_dump().values(), backbone.encoders_key())
        parts = [
            run.path / "parts" / f"{sample.id}-{sha256_text(made_by, digest)[:12]}.parquet"
            for sample, digest in zip(data.samples, hashes, strict=True)
        ]
        with progress("analyze", len(data)) as advance:
            for i, part in enumerate(parts):
                if not part.exists():
                    write_table(part, to_table(measure_clip(backbone, data[i], probe)))
                advance(1)
        table = join_tables([read_table(part) for part in parts])
        write_table(run.path / TABLE, table)
        choice = choose_layers(
            table,
            num_layers=backbone.num_layers,
            model=_model_facts(config.model, backbone, model),
            data=DataFacts(path=str(config.data), samples=len(data), hash=sha256_text(*hashes)),
            labels=labels,
            seed=config.seed,
            draws=config.draws,
        )
        draw_plots(run.path / "plots", table, choice)
        for i in range(min(config.overlays, len(data))):
            draw_overlays(run.path / "overlays", backbone, data, i, probe, choice)
        write_choice(run.path / CHOICE, choice)
        run.mark_done("analyze", samples=len(data), rows=len(table))
        return choice


def make_probe(config: AnalyzeConfig) -> Probe:
    """The settings of the measurement."""
    return Probe(
        levels=config.levels,
        seed=config.seed,
        batch=config.batch,
        layers_at_once=config.layers_at_once,
        per_head=config.per_head,
        mentions=config.mentions,
        precision=config.precision,
    )


def draw_overlays(
    folder: Path, backbone: Backbone, data: Dataset, index: int, probe: Probe, choice: LayerChoice
) -> list[Path]:
    """Maps of one sample in the first chosen layer of each kind, meaned over noise levels.

    Writes ``<sample>_<kind>_layer<NN>.mp4`` and ``.png`` and returns their paths.
    """
    clip = data[index]
    grid = backbone.clip_grid(clip)
    targets = clip_targets(backbone, clip, grid, probe.mentions)
    chosen: Mapping[Kind, int] = {"v2t": choice.v2t[0], "v2v": choice.v2v[0]}
    whole = replace(probe, per_head=False, layers_at_once=None)  # two layers at most
    found = list(level_maps(backbone, clip, targets, whole, sorted(set(chosen.values()))))
    masks = np.stack([target.own.mask_Fhw.numpy() for target in targets])
    paths: list[Path] = []
    for kind in KINDS:
        layer = chosen[kind]
        maps_PRFhw = torch.cat([part.maps[layer, kind] for part in found])
        maps_RFhw = maps_PRFhw.double().mean(dim=0).numpy()
        labels = [
            t.phrase.text + ("" if kind == "v2t" or t.region_N is not None else " (not in frame 0)")
            for t in targets
        ]
        path = folder / f"{clip.sample.id}_{kind}_layer{layer:02d}.mp4"
        frames = clip.video.frames_THWC
        video = overlay_video(frames, maps_RFhw, grid, labels, masks_RFhw=masks)
        write_video(path, video, clip.video.fps)
        strip = overlay_strip(video, grid)
        image = io.BytesIO()
        Image.fromarray(strip).save(image, format="PNG")
        write_atomic(path.with_suffix(".png"), image.getvalue())
        paths += [path, path.with_suffix(".png")]
    return paths


def _labels(path: Path, config: AnalyzeConfig, data: Dataset) -> dict[str, bool]:
    labels = read_labels(path, success_at=config.success_at)
    names = {sample.id for sample in data.samples}
    if not names & labels.keys():
        raise MatrixError(
            f"none of its videos ({', '.join(sorted(labels)[:3])}, …) is among the samples of "
            f"{config.data} ({', '.join(sorted(names)[:3])}, …)",
            remedy="Give labels of these very videos",
            file=path,
        )
    return labels


def _model_facts(name: str, backbone: Backbone, model: Fingerprint) -> ModelFacts:
    return ModelFacts(
        name=name,
        family=backbone.family,
        num_layers=backbone.num_layers,
        fingerprint=model,
    )
