"""A generation run: a prompt set in, a data set of generated clips out.

The run folder holds ``dataset/`` (lossless videos, since they will be measured; each sample is its
prompt's, with ``source`` naming this run), ``generation.json`` (model, adapter, settings) and,
where masks are found by phrases, ``id_maps/``. Mask tracks of a generated video are unknown until
somebody tracks it, so the data set has none; the prompt set, which ``generation.json`` names, keeps
the first-frame masks.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from matrix_video.backbones.adapter import CONDITION_NAME, LORA_FILE, Adapter, load_adapter
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.condition import check_ids
from matrix_video.backbones.fingerprint import fingerprint
from matrix_video.backbones.loading import backbone_for, held_as, load_pipeline
from matrix_video.backbones.precision import dtype_of, resolved
from matrix_video.data.dataset import Dataset, DatasetWriter, fitting, open_clips
from matrix_video.data.tracks import State, first_masks
from matrix_video.data.transform import ClipTransform
from matrix_video.generation.config import GenerateConfig
from matrix_video.generation.facts import (
    FACTS,
    GenerationFacts,
    ModelFacts,
    read_facts,
    write_facts,
)
from matrix_video.generation.find import ID_MAPS, check_findable, find_masks
from matrix_video.generation.idmaps import read_id_map
from matrix_video.generation.sampler import Prompt, Sampling, sample
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import sha256_file
from matrix_video.services.progress import progress
from matrix_video.services.run import RunFolder

_WHAT: Final = "used as prompts"
_TOLD: Final = 10
"""Prompts that a warning names."""
DATASET = "dataset"
STAGE = "generate"


def generate(config: GenerateConfig, backbone: Backbone | None = None) -> Path:
    """Generate every prompt's video and return the data set folder.

    ``backbone`` saves loading the pipeline again; it must be of ``config.model`` and carry no
    adapter. A stopped run goes on: batches are always cut at the same prompts, and one with a video
    missing is made again whole, so that the result is that of a run that was never stopped. Raises
    `MatrixError` for an empty prompt set, prompts that a batch cannot hold together, and whatever
    is wrong with a prompt or with the adapter.
    """
    with RunFolder.open(config.out, config, command="generate") as run:
        folder = run.path / DATASET
        # Length and frame rate are those of what is generated, not of the prompts' own videos.
        prompts = open_clips(
            config.prompts,
            ClipTransform(size=config.size),
            config.limit,
            leave_out=config.leave_out,
        )
        if run.done(STAGE):
            return folder
        prompts = _complete(config, prompts)
        id_maps = _id_maps(config, prompts, run)
        if backbone is None:
            dtype = dtype_of(config.weights)
            pipe = load_pipeline(config.model, dtype=dtype, quantize=config.quantize)
            backbone = backbone_for(pipe)
        if config.tiling:
            backbone.tile()
        prompts = _sampleable(backbone, config, prompts, id_maps)
        _tell_cut(backbone, prompts)
        adapter: Adapter | None = None
        if config.adapter is not None:
            adapter = load_adapter(backbone.pipe, config.adapter, config.lora_scale)
        try:
            _settle_facts(run.path, _facts(config, backbone, adapter, len(prompts)))
            _generate_all(config, backbone, adapter, prompts, id_maps, folder)
        finally:
            if adapter is not None:
                adapter.detach()
        run.mark_done(STAGE, videos=len(prompts))
        return folder


def _complete(config: GenerateConfig, prompts: Dataset) -> Dataset:
    """The prompts that say how long their videos are to be, and have the masks or the phrases that
    the id map needs; before any model is loaded."""

    def check(index: int) -> None:
        if config.num_frames is None and prompts.shape(index).num_frames == 1:
            raise MatrixError(
                "a picture does not say how long its video is to be",
                remedy="Give --num-frames, and --fps",
                field="num_frames",
            )
        if not _has_id_map(config):
            return
        if config.finds:
            check_findable(prompts.samples[index])
        elif config.id_maps is None:
            tracks = prompts.stored_tracks(index).values()
            check_ids(sum(track.states[0] is State.VISIBLE for track in tracks), "it")

    return fitting(prompts, check, _WHAT, leave_out=config.leave_out)


def _sampleable(
    backbone: Backbone, config: GenerateConfig, prompts: Dataset, id_maps: Path | None
) -> Dataset:
    """The prompts that the model takes and, where ``id_maps`` are pictures, that have one.

    `MatrixError` too where lengths or sizes of a batch differ."""
    shapes: dict[str, tuple[int, int, int]] = {}

    def check(index: int) -> None:
        known, shape = prompts.samples[index], prompts.shape(index)
        clip = (config.num_frames or shape.num_frames, shape.height, shape.width)
        backbone.grid(*clip)
        if id_maps is not None:
            read_id_map(id_maps / f"{known.id}.png", clip[1:])
        shapes[known.id] = clip

    prompts = fitting(prompts, check, _WHAT, leave_out=config.leave_out)
    order = [known.id for known in prompts.samples]
    for index, name in enumerate(order):
        first = order[index - index % config.batch]
        if shapes[name] != shapes[first]:
            one, other = ("{} frames of {}x{}".format(*shapes[i]) for i in (first, name))
            raise MatrixError(
                f"prompts {first} and {name} differ in size or length ({one} and {other})",
                remedy="Give all one shape with --num-frames, --height and --width, or --batch 1",
                file=config.prompts,
            )
    return prompts


def _tell_cut(backbone: Backbone, prompts: Dataset) -> None:
    """Warn of the prompts that the model does not read to their end."""
    cut = {one.id: backbone.cut_text(one.caption) for one in prompts.samples}
    lost = [f"{name}: {text!r}" for name, text in cut.items() if text]
    if lost:
        warnings.warn(
            f"{len(lost)} of {len(cut)} prompts are longer than the {backbone.num_text_tokens} "
            f"tokens that the model reads; lost are {'; '.join(lost[:_TOLD])}"
            + (" ..." if len(lost) > _TOLD else ""),
            stacklevel=2,
        )


def _has_id_map(config: GenerateConfig) -> bool:
    """Whether the adapter was trained with an id map, and it is wanted."""
    if config.adapter is None or not config.id_map:
        return False
    return (config.adapter / f"{CONDITION_NAME}.json").exists()


def _id_maps(config: GenerateConfig, prompts: Dataset, run: RunFolder) -> Path | None:
    """The folder of pictures, filled where masks are to be found; None: masks from tracks."""
    if config.adapter is None or not (config.finds or config.id_maps):
        return None
    # Without a LoRA `load_adapter` says what is wrong.
    if not _has_id_map(config) and (config.adapter / LORA_FILE).exists():
        raise MatrixError(
            "id maps are given, but this adapter was trained without",
            remedy="Leave out --id-maps and --masks, or give an adapter that was trained with them",
            file=config.adapter,
            field="adapter",
        )
    if not config.finds:
        return config.id_maps
    folder = run.path / ID_MAPS
    found, total = find_masks(config, prompts, folder)
    run.mark_done("find", found=found, instances=total)
    return folder


def _generate_all(
    config: GenerateConfig,
    backbone: Backbone,
    adapter: Adapter | None,
    prompts: Dataset,
    id_maps: Path | None,
    folder: Path,
) -> None:
    condition = adapter.condition if adapter is not None and config.id_map else None
    sampling = Sampling(config.seed, config.steps, config.guidance, config.precision)
    order = [known.id for known in prompts.samples]
    with DatasetWriter(folder, order) as writer, progress("generate", len(prompts)) as advance:
        for start in range(0, len(prompts), config.batch):
            indices = range(start, min(start + config.batch, len(prompts)))
            missing = [i for i in indices if not writer.has(prompts.sample(i).id)]
            if missing:
                loaded = [load_prompt(prompts, i, condition is not None, id_maps) for i in indices]
                frames = config.num_frames or loaded[0].num_frames
                videos = sample(backbone, [p.prompt for p in loaded], frames, sampling, condition)
                for i, part, video_THWC in zip(indices, loaded, videos, strict=True):
                    if i in missing:
                        _write(writer, config, prompts, i, part.fps, video_THWC)
            advance(len(indices))


@dataclass(frozen=True)
class Loaded:
    """A prompt with what its video takes over from the prompt's own."""

    prompt: Prompt
    num_frames: int
    fps: float


def load_prompt(
    prompts: Dataset, index: int, with_masks: bool, id_maps: Path | None = None
) -> Loaded:
    """A prompt of a set; ``with_masks``: for an id map, from its tracks or a folder of pictures."""
    known = prompts.sample(index)
    shape = prompts.shape(index)
    height, width = shape.height, shape.width
    masks_IHW: NDArray[np.bool_] | None = None
    if with_masks and id_maps is not None:
        masks_IHW = read_id_map(id_maps / f"{known.id}.png", (height, width))
    elif with_masks:
        first = first_masks(prompts.tracks(index)).values()
        masks_IHW = np.stack([*first]) if first else np.zeros((0, height, width), dtype=bool)
    prompt = Prompt(known.id, known.caption, prompts.first_frame(index), masks_IHW)
    return Loaded(prompt, shape.num_frames, shape.fps)


def _write(
    writer: DatasetWriter,
    config: GenerateConfig,
    prompts: Dataset,
    index: int,
    fps: float,
    video_THWC: NDArray[np.uint8],
) -> None:
    known = prompts.sample(index)
    changed = {"file_name": f"videos/{known.id}.mp4", "source": f"matrix generate: {config.out}"}
    made = known.model_copy(update=changed)
    writer.add(made, video_THWC, config.fps or fps, {}, lossless=True)


def _settle_facts(folder: Path, facts: GenerationFacts) -> None:
    """Store them; `MatrixError` where a stopped run made its videos with something else."""
    file = folder / FACTS
    if file.exists():
        known = read_facts(folder).model_dump()
        ours = facts.model_dump()
        for name in ("model", "adapter_sha256", "condition_sha256", "weights", "videos"):
            if known[name] is not None and known[name] != ours[name]:
                raise MatrixError(
                    "the run began with another model, adapter or prompt set: its videos so far "
                    "would not be those of the rest",
                    remedy="Restore it, or give another output folder",
                    file=file,
                    field=name,
                )
    write_facts(folder, facts)


def _condition_hash(adapter: Path | None) -> str | None:
    file = None if adapter is None else adapter / f"{CONDITION_NAME}.safetensors"
    return sha256_file(file) if file is not None and file.exists() else None


def _facts(
    config: GenerateConfig, backbone: Backbone, adapter: Adapter | None, videos: int
) -> GenerationFacts:
    return GenerationFacts(
        model=ModelFacts(
            name=config.model,
            family=backbone.family,
            fingerprint=fingerprint(backbone.transformer),
        ),
        adapter=None if config.adapter is None else str(config.adapter),
        adapter_sha256=None if config.adapter is None else sha256_file(config.adapter / LORA_FILE),
        condition_sha256=_condition_hash(config.adapter),
        lora_scale=config.lora_scale,
        id_map=adapter is not None and adapter.condition is not None and config.id_map,
        masks="pictures" if config.id_maps is not None else config.masks,
        prompts=str(config.prompts),
        videos=videos,
        seed=config.seed,
        steps=config.steps,
        guidance=config.guidance,
        precision=resolved(backbone.device, config.precision),
        weights=held_as(backbone),
        tiling=backbone.tiled,
    )
