"""What every backbone keeps, whatever its family: one suite over all variants of all of them.

No test asks which family it runs on. What a model cannot do is declared where anybody can read it,
by the backbone (``dispatches``, ``guidance``) or by diffusers (`AttentionMixin`: fused projections;
`CacheMixin`: caches; ``_repeated_blocks``: regional compilation); see docs/skips.md.

Shapes: B batch, R rows of weights, N video tokens, L text tokens.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from diffusers import attention_backend
from diffusers.hooks import FirstBlockCacheConfig
from diffusers.models.attention import AttentionMixin
from diffusers.models.cache_utils import CacheMixin
from peft import LoraConfig
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from matrix_video.attention.readout import v2t_maps, v2v_maps
from matrix_video.attention.site import Captured, Kind, Site, parts
from matrix_video.attention.tap import tap
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.loading import backbone_for, families
from matrix_video.backbones.text import Text, TokenKind
from matrix_video.data.sample import Instance, Interaction, Sample, Span
from matrix_video.data.spans import phrases
from matrix_video.services.errors import MatrixError
from matrix_video.training.lora import projected

CAPTIONS = ("a small red ball pushes the box", "the cat follows a dog and a man")
KINDS: tuple[Kind, ...] = ("v2t", "v2v")
CASES = [(name, variant) for name, point in families().items() for variant in point.load().variants]


FIRST = [(name, point.load().variants[0]) for name, point in families().items()]
"""One variant of each family: blocks are compiled alike in all of them, and it takes seconds."""


class Case:
    """A random pipeline of one variant, and the inputs of one forward of two clips.

    Layers are the first and the last. Weights: two phrases and two regions of each clip, and a row
    of padding; phrases lie on the captions' own words, which every family attends to.
    """

    def __init__(self, family: str, variant: str, dtype: torch.dtype = torch.float32) -> None:
        self.pipe: Any = families()[family].load().tiny(variant)
        self.backbone: Backbone = backbone_for(self.pipe)
        self.transformer: Any = self.backbone.transformer
        self.transformer.to(dtype).requires_grad_(False)
        self.clip = self.backbone.tiny_clip
        self.grid = self.backbone.grid(*self.clip)
        self.layers = (0, self.backbone.num_layers - 1)
        g = torch.Generator().manual_seed(0)
        frames, height, width = self.clip
        first = torch.randint(0, 256, (2, height, width, 3), generator=g, dtype=torch.uint8)
        self.first = first if self.backbone.takes_image else None
        shape = (2, *self.backbone.latent_shape(*self.clip))
        self.noisy = torch.randn(shape, generator=g, dtype=dtype)
        self.image = (
            self.backbone.encode_image(first, frames) if self.backbone.takes_image else None
        )
        self.text = self.backbone.encode_text(CAPTIONS, self.first)
        self.t = self.backbone.noise_levels(2)
        self.sites = {
            f"{layer}/{kind}": self.backbone.site(
                layer, kind, self.grid, self.backbone.num_text_tokens
            )
            for layer in self.layers
            for kind in KINDS
        }
        kinds = [self.backbone.token_kinds(caption) for caption in CAPTIONS]
        words = [[i for i, k in enumerate(own) if k is TokenKind.WORD] for own in kinds]
        self.text_BRL = torch.zeros(2, 3, self.backbone.num_text_tokens)
        self.video_BRN = torch.zeros(2, 3, self.grid.num_tokens)
        for b, own in enumerate(words):
            self.text_BRL[b, 0, own[1:3]] = 1 / 2
            self.text_BRL[b, 1, own[-1]] = 1
            start = self.grid.first * self.grid.height * self.grid.width
            self.video_BRN[b, 0, start : start + 2] = 1 / 2
            self.video_BRN[b, 1, start + 1 + b] = 1

    def predict(self, rows: slice = slice(None)) -> Tensor:
        image = None if self.image is None else self.image[rows]
        text = Text(
            self.text.embeds_BLE[rows], {n: value[rows] for n, value in self.text.extra.items()}
        )
        return self.backbone.predict(self.noisy[rows], self.t[rows], text, image)

    def maps(self, captured: Captured, site: Site, kind: Kind, per_head: bool = False) -> Tensor:
        if kind == "v2t":
            return v2t_maps(captured, site, self.text_BRL, per_head=per_head)
        return v2v_maps(captured, site, self.video_BRN, per_head=per_head, chunk=5)

    def dense(self, dense: Any, captured: Captured, site: Site, kind: Kind) -> Tensor:
        """[B,A,R,N] in float64."""
        found: list[Tensor] = []
        each = parts(captured, site)
        for i, (call, own) in enumerate(each):
            rows = slice(None) if len(each) == 1 else slice(i, i + 1)
            if kind == "v2t":
                weights = self.text_BRL[rows, :, : own.num_text]
                found.append(dense.v2t(call, own, weights))
            else:
                found.append(dense.v2v(call, own, self.video_BRN[rows]))
        return torch.cat(found)

    def add_lora(self) -> None:
        targets = self.backbone.lora_targets(self.layers)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.transformer.add_adapter(
                LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
            )

    def gradients(self) -> dict[str, Tensor]:
        """Of a loss on the prediction and on all maps, by parameter."""
        with tap(self.transformer, self.sites, require_grad=True) as captures:
            loss = self.predict().float().square().mean()
            for name, site in self.sites.items():
                kind = KINDS[name.endswith("v2v")]
                loss = loss + self.maps(captures[name], site, kind).square().sum()
            loss.backward()
        return {n: p.grad for n, p in self.transformer.named_parameters() if p.grad is not None}

    def untapped_gradients(self) -> dict[str, Tensor]:
        """Of a loss on the prediction alone."""
        self.transformer.zero_grad()
        self.predict().float().square().mean().backward()
        return {n: p.grad for n, p in self.transformer.named_parameters() if p.grad is not None}


@pytest.fixture(params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(*request.param)


def test_maps_are_the_model_s_own_softmax(dense: Any, case: Case) -> None:
    """Outputs stay bit for bit; q, k, v give the layer's own output; maps and their gradients with
    respect to q and k are those of a dense softmax in float64, in both engines."""
    with torch.no_grad():
        plain = case.predict()
    for engine in ("auto", "portable"):
        with tap(case.transformer, case.sites, keep_output=True, engine=engine) as captures:  # type: ignore[arg-type]
            with torch.no_grad():
                assert torch.equal(plain, case.predict()), engine
            for name, site in case.sites.items():
                kind = KINDS[name.endswith("v2v")]
                for call, own in parts(captures[name], site):
                    assert dense.error(call.out, dense.p(call) @ call.v.double()) < 1e-5
                    assert call.q.shape[-2] == own.num_queries
                expected = case.dense(dense, captures[name], site, kind)
                found = case.maps(captures[name], site, kind, per_head=True)
                assert dense.error(found, expected) < 1e-5, (name, engine)
                found = case.maps(captures[name], site, kind)
                assert dense.error(found, expected.mean(1)) < 1e-5, (name, engine)
                assert not found[:, 2].any()  # the row of padding


def test_gradients_of_maps_are_those_of_dense_softmax(dense: Any, case: Case) -> None:
    case.add_lora()
    names = [n for n, p in case.transformer.named_parameters() if p.requires_grad]
    trained = [p for p in case.transformer.parameters() if p.requires_grad]
    with tap(case.transformer, case.sites, require_grad=True) as captures:
        case.predict()
        for name, site in case.sites.items():
            kind = KINDS[name.endswith("v2v")]
            found, expected = (
                torch.autograd.grad(
                    (maps.double() - 0.01).square().sum(),
                    trained,
                    retain_graph=True,
                    allow_unused=True,
                )
                for maps in (
                    case.maps(captures[name], site, kind),
                    case.dense(dense, captures[name], site, kind).mean(1),
                )
            )
            top = max(float(g.abs().max()) for g in expected if g is not None)
            assert top > 0
            for own, mine, reference in zip(names, found, expected, strict=True):
                assert (mine is None) == (reference is None), own
                if reference is not None:
                    # Rounding: keys that are many and alike (512 tokens, mostly padding) add up.
                    assert float((mine - reference).abs().max()) <= 3e-5 * top, (name, own)


@pytest.mark.parametrize("family_case", CASES, ids="-".join)
def test_checkpointing_changes_no_gradient(family_case: tuple[str, str]) -> None:
    found: list[dict[str, Tensor]] = []
    for checkpointing in (False, True):
        case = Case(*family_case)
        case.add_lora()
        if checkpointing:
            case.transformer.enable_gradient_checkpointing()
        found.append(case.gradients())
    plain, again = found
    blocks = {case.backbone.layer_names()[i] for i in case.layers}
    reached = {b for b in blocks for n in plain if n.startswith(f"{b}.") and plain[n].any()}
    assert reached == blocks
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        assert torch.equal(gradient, again[name]), name


def _compiled_equals_plain(family_case: tuple[str, str], backend: str, limit: float) -> None:
    """Regional compilation as the class offers it, else each block of the chosen layers."""
    plain, compiled = Case(*family_case), Case(*family_case)
    for case in (plain, compiled):
        case.add_lora()
    torch.compiler.reset()
    try:
        if compiled.transformer._repeated_blocks:
            compiled.transformer.compile_repeated_blocks(backend=backend)
        else:
            for index in compiled.layers:
                name = compiled.backbone.layer_names()[index]
                compiled.transformer.get_submodule(name).compile(backend=backend)
        error = _difference(plain.gradients(), compiled.gradients())
        if error >= limit:  # no more than a compiler changes the model's own gradients
            own = _difference(plain.untapped_gradients(), compiled.untapped_gradients())
            assert error < own
    finally:
        torch.compiler.reset()


def _difference(expected: dict[str, Tensor], found: dict[str, Tensor]) -> float:
    """Largest, over the largest gradient."""
    assert expected.keys() == found.keys()
    top = max(float(g.abs().max()) for g in expected.values())
    return max(float((g - found[name]).abs().max()) for name, g in expected.items()) / top


@pytest.mark.parametrize("first", FIRST, ids="-".join)
def test_compiled_blocks_change_no_gradient(first: tuple[str, str]) -> None:
    _compiled_equals_plain(first, "aot_eager", 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("first", FIRST, ids="-".join)
def test_blocks_compiled_by_inductor_change_no_gradient(first: tuple[str, str]) -> None:
    _compiled_equals_plain(first, "inductor", 1e-3)


def test_a_sample_s_maps_do_not_depend_on_its_batch(case: Case) -> None:
    """So padding, masked or cut, and the other caption's length reach no map."""
    with tap(case.transformer, case.sites) as captures, torch.no_grad():
        case.predict()
        whole = {
            name: case.maps(captures[name], site, KINDS[name.endswith("v2v")])
            for name, site in case.sites.items()
        }
        for b in range(2):
            rows = slice(b, b + 1)
            case.predict(rows)
            for name, site in case.sites.items():
                read = (v2t_maps, v2v_maps)[name.endswith("v2v")]
                weights = (case.text_BRL, case.video_BRN)[name.endswith("v2v")][rows]
                alone = read(captures[name], site, weights)
                torch.testing.assert_close(alone, whole[name][rows], rtol=1e-4, atol=1e-7)


def test_inside_the_stock_call_with_guidance(case: Case) -> None:
    """The maps of the conditional branch at every step, wherever the family puts it."""
    backbone = case.backbone
    site = case.sites["0/v2t"]
    if backbone.guidance == "batched":
        site = replace(site, keep=slice(1, None))
    seen: list[Tensor] = []
    forwards = 0

    def read(*_: object) -> None:
        nonlocal forwards
        if backbone.guidance == "batched" or forwards % 2 == 0:
            seen.append(v2t_maps(captures["site"], site, case.text_BRL[:1]))
        forwards += 1

    noise = torch.randn(1, *case.noisy.shape[1:], generator=torch.Generator().manual_seed(4))
    first = None if case.first is None else case.first[:1]
    arguments = backbone.call_arguments(noise, case.clip, first)
    with tap(case.transformer, {"site": site}) as captures:
        handle = case.transformer.register_forward_hook(read)
        with torch.no_grad():
            case.pipe(
                prompt=CAPTIONS[0],
                num_inference_steps=2,
                guidance_scale=3.0,
                generator=torch.Generator().manual_seed(3),
                **arguments,
            )
        handle.remove()
    assert seen
    assert len(seen) == forwards // (1 if backbone.guidance == "batched" else 2)
    for maps in seen:
        assert maps.shape == (1, 3, case.grid.num_tokens)
        assert float(maps[:, :2].min()) > 0


def test_nothing_is_left_behind(case: Case) -> None:
    """After the end, an error inside the forward, and in a copy."""
    classes = [type(module) for module in case.transformer.modules()]
    state = list(case.transformer.state_dict())
    with tap(case.transformer, case.sites) as captures:
        twin = copy.deepcopy(case.transformer)
        with _failing(case.transformer.get_submodule(case.backbone.layer_names()[-1])):
            case.predict()
        assert not captures
        with torch.no_grad():
            case.predict()
        assert len(captures) == len(case.sites)
        assert list(case.transformer.state_dict()) == state
    assert [type(module) for module in case.transformer.modules()] == classes
    assert [type(module) for module in twin.modules()] == classes
    hooks = (case.transformer._forward_hooks, case.transformer._forward_pre_hooks)
    assert not any(hooks)


@contextmanager
def _failing(block: torch.nn.Module) -> Iterator[None]:
    def fail(*_: object) -> None:
        raise ArithmeticError("planted")

    handle = block.register_forward_hook(fail)
    try:
        with pytest.raises(ArithmeticError, match="planted"):
            yield
    finally:
        handle.remove()


def test_fused_projections_give_the_same_maps(dense: Any, case: Case) -> None:
    if not isinstance(case.transformer, AttentionMixin):
        assert not hasattr(case.transformer, "fuse_qkv_projections")
        return
    with tap(case.transformer, case.sites) as captures, torch.no_grad():
        case.predict()
        plain = {
            name: case.maps(captures[name], site, KINDS[name.endswith("v2v")])
            for name, site in case.sites.items()
        }
        case.transformer.fuse_qkv_projections()
        case.predict()
        for name, site in case.sites.items():
            fused = case.maps(captures[name], site, KINDS[name.endswith("v2v")])
            assert dense.error(fused, plain[name]) < 1e-4


def test_a_backend_that_hides_attention_is_refused(case: Case) -> None:
    with (
        tap(case.transformer, case.sites),
        torch.no_grad(),
        _hidden(case),
        pytest.raises(MatrixError, match=r"0 calls of scaled_dot_product_attention"),
    ):
        case.predict()


@contextmanager
def _hidden(case: Case) -> Iterator[None]:
    """Attention that is not PyTorch's own: flex, or where none can be set, a layer's own way."""
    if case.backbone.dispatches:
        with attention_backend("flex"):
            yield
        return
    module = case.transformer.get_submodule(case.sites["0/v2v"].module)

    class Other:
        def __call__(self, attn: object, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
            text = kwargs.get("encoder_hidden_states", args[0] if args else None)
            return hidden_states, text

    before, module.processor = module.processor, Other()
    try:
        yield
    finally:
        module.processor = before


def test_an_enabled_cache_is_refused(case: Case) -> None:
    assert isinstance(case.transformer, CacheMixin)
    case.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    for kind in KINDS:
        with pytest.raises(MatrixError, match="cache enabled, which skips attention"):
            case.backbone.site(0, kind, case.grid, case.backbone.num_text_tokens)


def test_reentrant_checkpointing_is_refused(case: Case) -> None:
    case.add_lora()
    case.transformer.enable_gradient_checkpointing(partial(checkpoint, use_reentrant=True))
    with (
        tap(case.transformer, case.sites, require_grad=True),
        pytest.raises(MatrixError, match=r"carry no gradient.*use_reentrant=False"),
    ):
        case.predict()


def test_an_id_map_lies_in_latent_frame_0_before_zeros(case: Case) -> None:
    frames, height, width = case.backbone.tiny_clip
    pictures = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    pictures[0, : height // 2, :, 0] = 255
    latents = case.backbone.encode_id_map(pictures, frames)
    assert latents.shape == (2, *case.backbone.latent_shape(frames, height, width))
    assert latents[:, 0].any()
    assert not torch.equal(latents[0, 0], latents[1, 0])
    assert not latents[:, 1:].any()


def test_layers_blocks_and_lora_targets(case: Case) -> None:
    backbone, names = case.backbone, case.backbone.layer_names()
    assert len(names) == len(set(names)) == backbone.num_layers >= 2
    linear = [n for n, m in case.transformer.named_modules() if isinstance(m, torch.nn.Linear)]
    for index, name in enumerate(names):
        case.transformer.get_submodule(name)
        pattern = re.compile(backbone.lora_targets([index]))
        hit = [n for n in linear if pattern.fullmatch(n)]
        modules = {
            backbone.site(index, kind, case.grid, backbone.num_text_tokens).module for kind in KINDS
        }
        assert all(module.startswith(f"{name}.") for module in modules)
        assert hit
        assert all(any(n.startswith(f"{module}.") for module in modules) for n in hit)
        assert all(any(n.startswith(f"{module}.") for n in hit) for module in modules)
        narrow = re.compile(projected(pattern.pattern, "qk"))
        kept = [n for n in linear if narrow.fullmatch(n)]
        assert {*kept} < {*hit}
        assert all(f"{module}.{part}" in kept for module in modules for part in ("to_q", "to_k"))
        assert not [n for n in kept if "v" in n.rpartition(".")[2] or "out" in n]
        rest = [n for n in hit if n not in kept]
        assert not [n for n in rest if {"q", "k"} & {*n.rpartition(".")[2].split("_")}]
    for wrong in (-1, backbone.num_layers):
        with pytest.raises(MatrixError, match=f"has layers 0 to {backbone.num_layers - 1}"):
            backbone.site(wrong, "v2t", case.grid, backbone.num_text_tokens)
    with pytest.raises(MatrixError, match="no layer was chosen for LoRA"):
        backbone.lora_targets([])
    case.transformer.get_submodule(backbone.condition_site())


def test_phrases_are_words_of_the_text_tokens(case: Case) -> None:
    caption = CAPTIONS[0]

    def span(words: str) -> Span:
        return Span(start=caption.index(words), end=caption.index(words) + len(words))

    sample = Sample(
        id="one",
        file_name="videos/one.mp4",
        caption=caption,
        instances=(
            Instance(id="id1", noun="ball", phrase="red ball", mentions=(span("red ball"),)),
            Instance(id="id2", noun="box", phrase="box", mentions=(span("box"),)),
        ),
        interactions=(
            Interaction(subject="id1", verb="pushes", object="id2", verb_span=span("pushes")),
        ),
    )
    kinds = case.backbone.token_kinds(caption)
    assert len(kinds) == case.backbone.num_text_tokens
    words = [i for i, kind in enumerate(kinds) if kind is TokenKind.WORD]
    assert len(words) == len(caption.split())  # the tiny tokenizers know these words whole
    ball, box, pushes = case.backbone.phrase_tokens(
        caption, [phrase.spans for phrase in phrases(sample)]
    )
    assert ball == tuple(words[2:4])
    assert pushes == (words[4],)
    assert box == (words[6],)


def test_the_schedule(case: Case) -> None:
    backbone = case.backbone
    levels = backbone.noise_levels(4)
    assert len(levels) == 4
    latents, noise = case.noisy[:1].float(), torch.randn_like(case.noisy[:1].float())
    share = [
        float((backbone.add_noise(latents, noise, t[None]) - latents).square().mean())
        for t in levels
    ]
    assert share == sorted(share)  # least noise first
    assert share[0] > 0
    drawn = [
        backbone.sample_timesteps(64, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert drawn[0].shape == backbone.weight(drawn[0]).shape == (64,)
    assert bool((backbone.weight(drawn[0]) > 0).all())
    for t in (*levels, *drawn[0][:4]):
        target = backbone.target(latents, noise, t[None])
        assert target.dtype == torch.float32
        # Noised latents move along the target: linear in latents and noise, as every objective is.
        twice = backbone.target(2 * latents, 2 * noise, t[None])
        torch.testing.assert_close(twice, 2 * target)


def test_a_clip_s_shapes(case: Case) -> None:
    backbone = case.backbone
    frames, height, width = case.clip
    g = torch.Generator().manual_seed(0)
    clip = torch.randint(0, 256, (1, *case.clip, 3), generator=g, dtype=torch.uint8)
    latents = backbone.encode_video(clip)
    assert latents.shape == (1, *backbone.latent_shape(*case.clip))
    assert latents.shape[2] == backbone.latent_channels
    assert torch.equal(latents, backbone.encode_video(clip.float() / 255))
    decoded = backbone.decode(latents)
    assert decoded.shape == clip.shape
    assert decoded.dtype == torch.uint8
    supervised = backbone.supervised(latents.shape[1])
    assert supervised.dtype == torch.bool
    assert supervised.shape == latents.shape[1:2]
    assert bool(supervised[1:].all())
    pixel = [t for group in case.grid.frames for t in group]
    assert pixel == list(range(frames))  # every frame once, in order
    for wrong in ((frames + 1, height, width), (frames, height + 1, width)):
        with pytest.raises(MatrixError) as error:
            backbone.grid(*wrong)
        assert error.value.remedy
