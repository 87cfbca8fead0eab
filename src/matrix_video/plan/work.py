"""The work of each command, run on fakes: what is counted is what the commands' own code does.

Shapes: B batch, T pixel frames, H W pixels, L text tokens, N video tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from matrix_video.alignment.objectives import Term
from matrix_video.analysis.records import KINDS
from matrix_video.analysis.targets import clip_targets, region_weights, text_weights
from matrix_video.attention.readout import v2t_maps, v2v_maps
from matrix_video.attention.site import Call, Captured, Kind, Site
from matrix_video.attention.tap import tap
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.precision import autocast
from matrix_video.backbones.text import Text
from matrix_video.data.clip import Clip
from matrix_video.plan.config import PlanConfig
from matrix_video.plan.meter import MAPS, Meter, Segment
from matrix_video.plan.phantom import Phantom, as_on_gpu, layers_marked
from matrix_video.training.batches import Draw, make_batch
from matrix_video.training.encode import Encoded, encode_clip
from matrix_video.training.step import Losses, compute_losses
from matrix_video.training.student import Student

SETUP: Final = "encode"
ONCE: Final = "once"
STEP: Final = "step"
CHECK: Final = "check of the first update"
FINISH: Final = "decode"


@dataclass(frozen=True)
class Phase:
    """Part of a run; ``name`` is what its segments do together."""

    name: str
    title: str
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Stage:
    """A (shortened) model on fakes, and what runs on it."""

    backbone: Backbone
    phantom: Phantom
    clip: Clip
    config: PlanConfig
    batch: int

    @property
    def meter(self) -> Meter:
        return self.phantom.meter

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.clip.video), *self.clip.video.size

    @contextmanager
    def running(self) -> Generator[None]:
        """Within, code runs on fakes, as on the machine that is planned for."""
        gpu = self.meter.machine.gpu
        norms = as_on_gpu(self.backbone.transformer) if gpu else nullcontext()
        with norms, self.phantom:
            yield

    def autocast(self) -> AbstractContextManager[object]:
        """As on the machine that is planned for; fakes are all on the CPU."""
        precision = self.config.precision
        if precision == "auto" and self.meter.machine.gpu:
            precision = "bf16"
        return autocast("cpu", precision)

    def blocks(self) -> Mapping[int, torch.nn.Module]:
        """The transformer's layers by number."""
        transformer = self.backbone.transformer
        names = self.backbone.layer_names()
        return {i: transformer.get_submodule(name) for i, name in enumerate(names)}


def training(
    stage: Stage, student: Student, known: Encoded | None, trained: int
) -> tuple[list[Phase], Encoded]:
    """Encoding a clip (unless it is ``known``), and an update on a batch of such clips.

    Between the two the encoders go, and what is ``trained`` comes, with its optimiser: so many
    bytes, of which the student's own are not counted here.
    """
    config, meter = stage.config, stage.meter
    phases: list[Phase] = []
    with stage.running():
        if known is None:
            meter.mark("encode a clip")
            known = encode_clip(stage.backbone, stage.clip, mentions="full", up=2)
            phases.append(Phase(SETUP, "encode a clip", meter.take()))
        meter.mark("encode the empty caption")
        with torch.no_grad():
            empty = stage.backbone.encode_text([""])
        meter.mark("drop the encoders")
        stage.backbone.release_encoders()
        attach = Segment("attach LoRA", grew=trained, peak=trained)
        phases.append(Phase(ONCE, "encode the empty caption", (*meter.take(), attach)))
        for parameter in student.parameters.values():
            parameter.register_post_accumulate_grad_hook(_gradient(meter))
        weights: dict[Term, float] = dict.fromkeys(("sga", "spa"), float(config.aligned))
        draw = Draw(0, student.condition is not None, 0.0, 0.0)
        view = student.view(stage.shape)
        with tap(stage.backbone.transformer, view.sites) as calls:
            meter.mark("batch")
            samples = [known] * stage.batch
            batch = make_batch(stage.backbone, samples, [*range(stage.batch)], empty, draw)
            meter.mark("before the layers")
            with layers_marked(meter, stage.blocks(), stage.backbone.transformer) as only_again:
                losses = compute_losses(student, view, batch, weights, calls, stage.autocast)
                total = losses.total(weights)
                only_again()
                meter.mark(CHECK)
                _check(losses, calls)
                meter.mark("backward of the losses")
                total.backward()
            calls.clear()
            del losses, total, batch
        once = [replace(s, flops=0, seconds=0) if s.name == CHECK else s for s in meter.take()]
        phases.append(Phase(STEP, "forward, backward", tuple(once)))
    return phases, known


@torch.no_grad()
def analysis(stage: Stage, layers: Sequence[int]) -> list[Phase]:
    """Encoding a clip, and one forward pass at some noise levels that ``layers`` are read in."""
    meter, backbone = stage.meter, stage.backbone
    grid = backbone.grid(*stage.shape)
    targets = clip_targets(backbone, stage.clip, grid, "full")
    weights: dict[Kind, Tensor] = {
        "v2t": text_weights(targets, backbone.num_text_tokens).expand(stage.batch, -1, -1),
        "v2v": region_weights(targets, grid.num_tokens).expand(stage.batch, -1, -1),
    }
    with stage.running():
        meter.mark("encode a clip")
        text, latents, image = _encoded(stage)
        phases = [Phase(SETUP, "encode a clip", meter.take())]
        sites: dict[tuple[int, Kind], Site] = {
            (i, kind): backbone.site(i, kind, grid, backbone.num_text_tokens)
            for i in layers
            for kind in KINDS
        }
        meter.mark("before the layers")
        noisy = latents.repeat_interleave(stage.batch, dim=0)
        tapped = {f"{i} {kind}": site for (i, kind), site in sites.items()}
        with (
            tap(backbone.transformer, tapped) as calls,
            layers_marked(meter, stage.blocks(), backbone.transformer),
            stage.autocast(),
        ):
            _predict(stage, noisy, text.expand(stage.batch), image)
        for (i, kind), site in sites.items():
            meter.mark(MAPS, i)
            read = v2t_maps if kind == "v2t" else v2v_maps
            read(calls[f"{i} {kind}"], site, weights[kind])
        meter.mark("after")
        calls.clear()
        return [*phases, Phase(STEP, "noise levels", meter.take())]


@torch.no_grad()
def generation(stage: Stage) -> list[Phase]:
    """Encoding prompts, one denoising step with guidance, decoding videos."""
    config, meter, backbone = stage.config, stage.meter, stage.backbone
    guided = config.guidance > 1
    with stage.running():
        meter.mark("encode the prompts")
        first = _first(stage, stage.batch)
        text = backbone.encode_text([stage.clip.sample.caption] * stage.batch, first)
        empty = backbone.encode_text([""] * stage.batch, first) if guided else None
        prompts = meter.take()
        # Pictures are encoded one by one.
        image = _image(stage, 1)
        phases = [Phase(SETUP, "encode the prompts", (*prompts, *meter.take() * stage.batch))]
        image = None if image is None else image.repeat(stage.batch, 1, 1, 1, 1)
        latents = stage.phantom.fake(
            torch.empty(stage.batch, *backbone.latent_shape(*stage.shape), device="meta")
        )
        meter.mark("before the layers")
        with (
            layers_marked(meter, stage.blocks(), backbone.transformer),
            stage.autocast(),
        ):
            if empty is None:
                _predict(stage, latents, text, image)
            elif backbone.guidance == "batched":
                noisy = torch.cat([latents, latents])
                twice = None if image is None else torch.cat([image, image])
                _predict(stage, noisy, Text.cat([empty, text]), twice)
            else:
                kept = _predict(stage, latents, text, image)
                _predict(stage, latents, empty, image)
                del kept
        phases.append(Phase(STEP, "denoising step", meter.take()))
        meter.mark("decode")
        frames = backbone.decode(latents[:1])
        # Clip by clip, each as the last, while the others' frames wait; at the end all are joined.
        waiting = (stage.batch - 1) * frames.numel() * torch.float32.itemsize
        once = meter.take()
        decode = (Segment("decode", grew=waiting, peak=waiting), *once * stage.batch)
        joined = Segment("join the frames", grew=waiting, peak=2 * waiting)
        return [*phases, Phase(FINISH, "decode", (*decode, joined))]


def _encoded(stage: Stage) -> tuple[Text, Tensor, Tensor | None]:
    frames = torch.from_numpy(stage.clip.video.frames_THWC)
    latents = stage.backbone.encode_video(frames[None])
    text = stage.backbone.encode_text([stage.clip.sample.caption], frames[:1])
    return text, latents, _image(stage, 1)


def _first(stage: Stage, count: int) -> Tensor:
    return torch.from_numpy(stage.clip.video.frames_THWC[:1]).expand(count, -1, -1, -1)


def _image(stage: Stage, count: int) -> Tensor | None:
    if not stage.backbone.takes_image:
        return None
    return stage.backbone.encode_image(_first(stage, count), stage.shape[0])


def _predict(stage: Stage, noisy: Tensor, text: Text, image: Tensor | None) -> Tensor:
    backbone, size = stage.backbone, len(noisy)
    t = backbone.noise_levels(1).expand(size)
    if image is not None and len(image) != size:
        image = image.expand(size, *image.shape[1:])
    return backbone.predict(noisy, t, text, image)


def _check(losses: Losses, calls: Mapping[str, Captured]) -> None:
    """What `alignment.objectives.require_gradient` does in the first update, which keeps the graph:
    checkpointing then keeps the layers that it runs again."""
    for alignment in losses.terms.values():
        for name, loss in alignment.layers.items():
            found = calls[name]
            each = (found,) if isinstance(found, Call) else found
            wanted = [x for call in each for x in (call.q, call.k) if x.requires_grad]
            torch.autograd.grad(
                loss.total_B.sum(), wanted, retain_graph=True, materialize_grads=True
            )


def _gradient(meter: Meter) -> Callable[[Tensor], None]:
    def count(parameter: Tensor) -> None:
        if parameter.grad is not None:
            meter.gradient(parameter.grad)

    return count
