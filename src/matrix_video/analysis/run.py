"""An analysis from data set to ``layers.json``.

The run folder holds ``attention.parquet`` (all measurements, see `analysis.records`),
``sinks.parquet`` (see `analysis.sink_records`), ``layers.json`` (see `analysis.layers`), ``plots/``
and ``overlays/``. ``parts/`` has two Parquet files for each measured sample, named after its
content and the model, from which a stopped run goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from matrix_video.analysis.caption import Caption
from matrix_video.analysis.choose import choose_layers
from matrix_video.analysis.collect import level_maps, measure_clip, sample_phrases
from matrix_video.analysis.config import AnalyzeConfig
from matrix_video.analysis.labels import read_labels
from matrix_video.analysis.layers import (
    CHOICE,
    DataFacts,
    LayerChoice,
    ModelFacts,
    read_choice,
    write_choice,
)
from matrix_video.analysis.overlays import overlay_video, write_overlay
from matrix_video.analysis.plots import draw_plots
from matrix_video.analysis.probe import Probe, Replay
from matrix_video.analysis.records import (
    KINDS,
    join_tables,
    read_table,
    to_table,
    write_table,
)
from matrix_video.analysis.sink_records import (
    join_sinks,
    read_sinks,
    to_sink_table,
    write_sinks,
)
from matrix_video.analysis.targets import clip_targets
from matrix_video.attention.site import Kind
from matrix_video.backbones.adapter import load_adapter
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.fingerprint import Fingerprint, fingerprint
from matrix_video.backbones.loading import backbone_for, load_pipeline
from matrix_video.backbones.precision import dtype_of
from matrix_video.backbones.processes import Processes, processes
from matrix_video.data.dataset import Dataset, fitting, open_clips
from matrix_video.data.sample import Sample
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import sha256_file, sha256_text
from matrix_video.services.progress import progress
from matrix_video.services.run import RunFolder

TABLE = "attention.parquet"
SINKS = "sinks.parquet"

OpenReplay = Callable[[Backbone, Sequence[Sample]], AbstractContextManager[Replay]]
"""Opens a generation run's sampling for these samples, e.g. `generation.replay.replay`."""


def analyze(
    config: AnalyzeConfig, backbone: Backbone | None = None, replay: OpenReplay | None = None
) -> LayerChoice:
    """Run the analysis and return the choice that ``layers.json`` holds.

    ``backbone`` saves loading the pipeline again; it must be of ``config.model``, without an
    adapter. ``replay`` opens ``config.trajectory``. Of several processes (`backbones.processes`)
    each measures a share of the samples; the main one does the rest. Raises `MatrixError` for a
    data set without samples, for labels of other videos, and for whatever is wrong with a sample.
    """
    if (config.trajectory is None) != (replay is None):
        raise ValueError("a trajectory and what opens it belong together")
    crew = processes()
    with ExitStack() as stack:
        run = RunFolder(config.out)
        if crew.main:
            run = stack.enter_context(RunFolder.open(config.out, config, command="analyze"))
        crew.wait()  # until settings are compared and remains of a killed run cleared away
        if backbone is None:
            dtype, place = dtype_of(config.weights), crew.device
            pipe = load_pipeline(config.model, dtype=dtype, device=place, quantize=config.quantize)
            backbone = backbone_for(pipe)
        if config.tiling:
            backbone.tile()
        data = open_clips(config.data, config.transform(), config.limit, leave_out=config.leave_out)
        data = _measurable(backbone, data, config)
        labels = None if config.labels is None else _labels(config.labels, config, data)
        model = fingerprint(backbone.transformer)
        made_by = [*model.model_dump().values(), backbone.encoders_key()]
        probe = make_probe(config)
        if replay is not None:
            again = stack.enter_context(replay(backbone, data.samples))
            probe = replace(probe, replay=again)
            made_by.append(again.key)
        elif config.adapter is not None:
            adapter = load_adapter(backbone.pipe, config.adapter)
            stack.callback(adapter.detach)
            probe = replace(probe, condition=adapter.condition)
            made_by.append(_adapter_key(config.adapter))
        hashes = [data.content_key(i) for i in range(len(data))]
        parts = [
            run.path / "parts" / f"{sample.id}-{sha256_text(sha256_text(*made_by), digest)[:12]}"
            for sample, digest in zip(data.samples, hashes, strict=True)
        ]
        _measure(backbone, data, probe, parts, crew)
        crew.wait()
        if crew.main:
            table = join_tables([read_table(_rows_part(part)) for part in parts])
            sinks = join_sinks([read_sinks(_sinks_part(part)) for part in parts])
            write_table(run.path / TABLE, table)
            write_sinks(run.path / SINKS, sinks)
            choice = choose_layers(
                table,
                num_layers=backbone.num_layers,
                model=_model_facts(config.model, backbone, model),
                data=DataFacts(path=str(config.data), samples=len(data), hash=sha256_text(*hashes)),
                labels=labels,
                sinks=sinks,
                seed=config.seed,
                draws=config.draws,
            )
            draw_plots(run.path / "plots", table, choice, sinks)
            for i in range(min(config.overlays, len(data))):
                draw_overlays(run.path / "overlays", backbone, data, i, probe, choice)
            write_choice(run.path / CHOICE, choice)
            run.mark_done("analyze", samples=len(data), rows=len(table))
        crew.wait()
    return read_choice(config.out / CHOICE)


def _measurable(backbone: Backbone, data: Dataset, config: AnalyzeConfig) -> Dataset:
    """The clips that the model takes and that have phrases; the others are refused or left out."""

    def check(index: int) -> None:
        sample, shape = data.samples[index], data.shape(index)
        data.stored_tracks(index)
        backbone.grid(shape.num_frames, shape.height, shape.width)
        sample_phrases(backbone, sample, config.mentions)

    return fitting(data, check, "measured", leave_out=config.leave_out)


def _measure(
    backbone: Backbone, data: Dataset, probe: Probe, parts: Sequence[Path], crew: Processes
) -> None:
    """This process's share of the samples, but for those that a stopped run has measured."""
    share = crew.share(len(data))
    quiet: AbstractContextManager[Callable[[int], None]] = nullcontext(lambda _: None)
    with progress("analyze", len(share)) if crew.main else quiet as advance:
        for i in share:
            rows, sinks = _rows_part(parts[i]), _sinks_part(parts[i])
            if not (rows.exists() and sinks.exists()):
                measured = measure_clip(backbone, data[i], probe)
                write_sinks(sinks, to_sink_table(measured.sinks))
                write_table(rows, to_table(measured.rows))
            advance(1)


def _rows_part(part: Path) -> Path:
    return part.with_name(f"{part.name}.parquet")


def _sinks_part(part: Path) -> Path:
    return part.with_name(f"{part.name}.sinks.parquet")


def _adapter_key(folder: Path) -> str:
    """Changes with the adapter's weights."""
    return sha256_text(*(sha256_file(file) for file in sorted(folder.glob("*.safetensors"))))


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

    Writes ``<sample>_<kind>_layer<NN>.mp4``, ``.png`` and ``.gif`` and returns their paths.
    """
    clip = data[index]
    grid = backbone.clip_grid(clip)
    targets = clip_targets(backbone, clip, grid, probe.mentions)
    chosen: Mapping[Kind, int] = {
        kind: layers[0] for kind in KINDS if (layers := choice.layers(kind))
    }
    whole = replace(probe, per_head=False, layers_at_once=None)  # two layers at most
    found = list(level_maps(backbone, clip, targets, whole, sorted(set(chosen.values()))))
    masks = np.stack([target.own.mask_Fhw.numpy() for target in targets])
    caption = Caption(clip.sample.caption, tuple(t.phrase.spans for t in targets))
    paths: list[Path] = []
    for kind, layer in chosen.items():
        maps_PRFhw = torch.cat([part.maps[layer, kind] for part in found])
        maps_RFhw = maps_PRFhw.double().mean(dim=0).numpy()
        labels = [
            t.phrase.text + ("" if kind == "v2t" or t.region_N is not None else " (not in frame 0)")
            for t in targets
        ]
        path = folder / f"{clip.sample.id}_{kind}_layer{layer:02d}.mp4"
        frames = clip.video.frames_THWC
        video = overlay_video(frames, maps_RFhw, grid, labels, masks_RFhw=masks)
        paths += write_overlay(path, video, grid, clip.video.fps, caption)
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
