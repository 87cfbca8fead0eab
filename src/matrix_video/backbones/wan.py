"""Wan 2.1 and 2.2, text-to-video and image-to-video, with one transformer or two experts.

Shapes as in `backbones.base`; r pixel frames per latent frame after the first, N video tokens.
Every conversion follows the stock pipelines of diffusers, which the tests compare with.

Wan 2.2 of 14 B parameters has an expert for high noise (``pipe.transformer``) and one for low noise
(``pipe.transformer_2``), parted at ``boundary_ratio`` of the schedule. A backbone is one of them:
layers, LoRA and drawn noise levels are its own. `WanBackbone.predict` runs it at any noise.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.pipelines.wan.pipeline_wan import WanPipeline, prompt_clean
from diffusers.pipelines.wan.pipeline_wan_i2v import WanImageToVideoPipeline
from torch import Tensor

from matrix_video.attention.site import Kind, Site
from matrix_video.backbones.base import Backbone, Guidance
from matrix_video.backbones.cleaned import cleaned_phrases
from matrix_video.backbones.flow import noised
from matrix_video.backbones.frames import (
    causal_latents,
    check_size,
    clip_size,
    decoded,
    pictures,
    posterior_latents,
)
from matrix_video.backbones.text import Text, TokenKind
from matrix_video.backbones.wan_inputs import (
    check_given,
    denormalised,
    join_channels,
    normalised,
    replace_first,
    token_times,
)
from matrix_video.backbones.wan_schedule import Expert, WanSchedule
from matrix_video.data.grid import TokenGrid, causal_frames
from matrix_video.data.sample import Span
from matrix_video.data.spans import FastTokenizer
from matrix_video.services.errors import MatrixError

_TEXT_LENGTH = 512  # of every checkpoint; layers with image tokens split their keys by it
_IMAGE_EMBEDS = "image_embeds"


class WanBackbone(Backbone):
    """Separate attention: V2V in ``attn1`` over video, V2T in ``attn2`` over text alone.

    Wan 2.1 image-to-video attends in ``attn2`` once more, to CLIP's tokens of the first frame, in a
    softmax of its own. So P of the text sums to 1 over text there as elsewhere.
    """

    family: ClassVar[str] = "Wan"
    variants: ClassVar[tuple[str, ...]] = (
        "t2v",
        "i2v",
        "t2v-2.2",
        "i2v-2.2",
        "ti2v-5b",
        "t2v-5b",
    )
    tiny_clip: ClassVar[tuple[int, int, int]] = (9, 64, 96)
    guidance: ClassVar[Guidance] = "separate"
    one_image_a_call: ClassVar[bool] = True

    def __init__(self, pipe: DiffusionPipeline, expert: Expert = "high") -> None:
        if not isinstance(pipe, WanPipeline | WanImageToVideoPipeline):
            raise MatrixError(
                f"{type(pipe).__name__} is not a Wan pipeline that we know",
                remedy="load the model as WanPipeline or WanImageToVideoPipeline",
            )
        self.pipe = pipe
        self.expert: Expert = expert
        self._wan: Any = pipe  # diffusers' components are untyped
        boundary = self._wan.config.boundary_ratio
        if expert == "low" and boundary is None:
            raise MatrixError(
                "the pipeline has no boundary_ratio, so it never runs a low-noise expert",
                remedy="take expert='high', which is the only transformer",
                field="expert",
            )
        chosen: Any = self._wan.transformer if expert == "high" else self._wan.transformer_2
        if chosen is None:
            raise MatrixError(
                f"the pipeline was loaded without its transformer for {expert} noise",
                remedy="load the whole pipeline, or take the other expert",
                field="expert",
            )
        self.transformer = chosen
        self._config: Any = chosen.config
        self._per_token = bool(self._wan.config.expand_timesteps)
        _ = self._schedule.shift
        check_given(pipe, self._config, image=self.takes_image, replaced=self._per_token)

    @classmethod
    def tiny(cls, variant: str, seed: int = 0) -> DiffusionPipeline:
        from matrix_video.backbones.tiny_wan import VARIANTS, tiny_wan

        return tiny_wan(seed, **VARIANTS[variant])

    # -- structure ---------------------------------------------------------------------------

    @property
    def num_layers(self) -> int:
        return int(self._config.num_layers)

    @property
    def num_text_tokens(self) -> int:
        if self._has_clip:
            return _TEXT_LENGTH
        return min(int(self._wan.tokenizer.model_max_length), _TEXT_LENGTH)

    @property
    def tokenizer(self) -> FastTokenizer:
        return self._wan.tokenizer

    @property
    def takes_image(self) -> bool:
        return isinstance(self.pipe, WanImageToVideoPipeline)

    @property
    def latent_channels(self) -> int:
        return int(self._wan.vae.config.z_dim)

    def layer_names(self) -> tuple[str, ...]:
        return tuple(f"blocks.{i}" for i in range(self.num_layers))

    def site(self, layer: int, kind: Kind, grid: TokenGrid, num_text: int) -> Site:
        """``attn1`` or ``attn2`` of the layer."""
        name = self.layer_names()[self.check_layer(layer)]
        self.check_observable()
        tokens = grid.num_tokens
        if kind == "v2v":
            return Site(f"{name}.attn1", tokens, tokens, video_start=0, num_video=tokens)
        if self._has_clip and num_text != _TEXT_LENGTH:
            raise MatrixError(
                f"{num_text} text tokens; a transformer with image tokens takes the last "
                f"{_TEXT_LENGTH} of its keys for text",
                remedy=f"encode captions to {_TEXT_LENGTH} tokens",
                field="num_text",
            )
        return Site(
            f"{name}.attn2",
            num_queries=tokens,
            num_keys=num_text,
            video_start=0,
            num_video=tokens,
            num_text=num_text,
            video_keys=False,
            calls=2 if self._has_clip else 1,
            call=1 if self._has_clip else 0,
        )

    def lora_targets(self, layers: Sequence[int]) -> str:
        """Both attentions, without the projections of image tokens.

        Those (``add_k_proj``, ``add_v_proj``) have no part in the P of either kind, and the
        authors' LoRA on Wan leaves them alone (q, k, v, o, ffn).
        """
        chosen = "|".join(map(str, self.chosen_layers(layers)))
        projections = "|".join(map(re.escape, ("to_q", "to_k", "to_v", "to_out.0")))
        return rf"blocks\.(?:{chosen})\.attn[12]\.(?:{projections})"

    def condition_site(self) -> str:
        return "patch_embedding"

    def phrase_tokens(
        self, caption: str, phrases: Sequence[Sequence[Span]]
    ) -> tuple[tuple[int, ...], ...]:
        """In the caption as the pipeline cleans it."""
        return super().phrase_tokens(*cleaned_phrases(caption, phrases, prompt_clean))

    def token_kinds(self, caption: str) -> tuple[TokenKind, ...]:
        return super().token_kinds(prompt_clean(caption))

    def cut_text(self, caption: str) -> str:
        return super().cut_text(prompt_clean(caption))

    # -- clips -------------------------------------------------------------------------------

    def grid(self, num_frames: int, height: int, width: int) -> TokenGrid:
        frames, _, rows, columns = self.latent_shape(num_frames, height, width)
        patch_t, patch_h, patch_w = self._config.patch_size
        groups = causal_frames(frames, self._ratio, patch_t)
        return TokenGrid(groups, rows // patch_h, columns // patch_w)

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        scale = int(self._wan.vae_scale_factor_spatial)
        _, patch_h, patch_w = self._config.patch_size
        check_size(height, width, (scale * patch_h, scale * patch_w))
        latents = causal_latents(num_frames, self._ratio)
        return latents, self.latent_channels, height // scale, width // scale

    @torch.no_grad()
    def encode_video(
        self, frames_BTHWC: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """In float32, as the stock pipelines normalise latents."""
        self.latent_shape(*clip_size(frames_BTHWC))
        vae = self._wan.vae
        found = posterior_latents(vae, frames_BTHWC, generator, device=self.device)
        return normalised(vae, found).transpose(1, 2)

    @torch.no_grad()
    def encode_image(
        self, frames_BHWC: Tensor, num_frames: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Latents of the first frame before grey ones; with timesteps per token (2.2 of 5 B
        parameters), of the first frame alone, before zeros that are not read.

        Always the posterior's mode, as the stock pipeline: ``generator`` is not drawn from.
        """
        del generator
        _, height, width = clip_size(frames_BHWC[:, None])
        self.latent_shape(num_frames, height, width)
        if self._per_token:  # alone before zeros, as an id map
            return self.encode_id_map(frames_BHWC, num_frames)
        first = frames_BHWC[:, None]
        unit = first.float() / 255 if first.dtype == torch.uint8 else first.float()
        grey = unit.new_full((1,), 0.5).expand(len(unit), num_frames - 1, height, width, 3)
        return self.encode_video(torch.cat([unit, grey], dim=1))

    @torch.no_grad()
    def encode_id_map(self, images_BHWC: Tensor, num_frames: int) -> Tensor:
        """Before zeros in every variant; stock pipelines put grey frames behind a first frame."""
        _, height, width = clip_size(images_BHWC[:, None])
        frames, *_ = self.latent_shape(num_frames, height, width)
        latents = self.encode_video(images_BHWC[:, None])
        rest = latents.new_zeros(latents.shape[0], frames - 1, *latents.shape[2:])
        return torch.cat([latents, rest], dim=1)

    @torch.no_grad()
    def image_extra(self, frames_BHWC: Tensor) -> dict[str, Tensor]:
        """CLIP's tokens of the first frames (Wan 2.1 image-to-video); floats become bytes first,
        since CLIP's processor takes images."""
        if not self._has_clip:
            return {}
        embeds = self._wan.encode_image(pictures(frames_BHWC))
        return {_IMAGE_EMBEDS: cast("Tensor", embeds)}

    @torch.no_grad()
    def encode_text(self, captions: Sequence[str], images_BHWC: Tensor | None = None) -> Text:
        """Zeros behind each caption's last token; these are attended to, there is no mask.

        First frames do not change a caption's embeddings; their `image_extra` is put beside.
        """
        embeds, _ = self._wan.encode_prompt(
            list(captions),
            do_classifier_free_guidance=False,
            max_sequence_length=self.num_text_tokens,
        )
        text = Text(cast("Tensor", embeds))
        return text if images_BHWC is None else text.given(self.image_extra(images_BHWC))

    @torch.no_grad()
    def decode(self, latents_BFCHW: Tensor) -> Tensor:
        vae = self._wan.vae
        latents = denormalised(vae, latents_BFCHW.transpose(1, 2).to(self.device, vae.dtype))
        return decoded(lambda part: vae.decode(part, return_dict=False)[0], latents)

    def call_arguments(
        self, noise_BFCHW: Tensor, clip: tuple[int, int, int], first_BHWC: Tensor | None
    ) -> dict[str, Any]:
        """`MatrixError` for several first frames: the stock call would multiply them."""
        frames, height, width = clip
        arguments: dict[str, Any] = {
            "height": height,
            "width": width,
            "num_frames": frames,
            "latents": noise_BFCHW.transpose(1, 2),
            "max_sequence_length": self.num_text_tokens,
            "output_type": "np",
        }
        if first_BHWC is not None:
            if bool((first_BHWC != first_BHWC[:1]).any()):
                raise MatrixError(
                    f"{len(first_BHWC)} different first frames; WanImageToVideoPipeline takes one "
                    "image a call",
                    remedy="call the pipeline once for each first frame",
                    field="image",
                )
            (arguments["image"],) = pictures(first_BHWC[:1])
        return arguments

    # -- objective ---------------------------------------------------------------------------

    def sample_timesteps(self, batch: int, generator: torch.Generator) -> Tensor:
        """Float32; see `WanSchedule.sample`."""
        return self._schedule.sample(batch, generator)

    def noise_levels(self, count: int) -> Tensor:
        """Float32; see `WanSchedule.levels`."""
        return self._schedule.levels(count)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps_B: Tensor) -> Tensor:
        return noised(latents, noise, timesteps_B.float() / self._schedule.steps)

    def target(self, latents: Tensor, noise: Tensor, timesteps_B: Tensor) -> Tensor:
        """Noise - latents, whatever the timestep."""
        del timesteps_B
        return noise.float() - latents.float()

    def weight(self, timesteps_B: Tensor) -> Tensor:
        """Ones: the report's loss is the plain squared error on the velocity."""
        return torch.ones(timesteps_B.shape, device=timesteps_B.device)

    def supervised(self, num_latents: int) -> Tensor:
        counted = super().supervised(num_latents)
        if self._per_token and self.takes_image:
            counted[0] = False
        return counted

    def predict(
        self,
        noisy_BFCHW: Tensor,
        timesteps_B: Tensor,
        text: Text,
        image_BFCHW: Tensor | None = None,
    ) -> Tensor:
        """As in the interface. Any timestep is taken, also one of the other expert's.

        Wan 2.1 image-to-video needs `image_extra` in ``text``.
        """
        if (image_BFCHW is not None) != self.takes_image:
            raise ValueError(
                f"takes_image is {self.takes_image}, image is {image_BFCHW is not None}"
            )
        transformer: Any = self.transformer
        device, dtype = self.device, transformer.dtype
        hidden = noisy_BFCHW.transpose(1, 2).to(device, dtype)
        times = timesteps_B.to(device)
        if image_BFCHW is not None:
            image = image_BFCHW.transpose(1, 2).to(device, dtype)
            join = replace_first if self._per_token else join_channels
            hidden = join(hidden, image)
        if self._per_token:
            sizes = zip(hidden.shape[2:], self._config.patch_size, strict=True)
            frames, rows, columns = (size // patch for size, patch in sizes)
            times = token_times(times, (frames, rows, columns), clean_first=self.takes_image)
        image_embeds = None
        if self._has_clip:
            if _IMAGE_EMBEDS not in text.extra:
                raise ValueError(
                    "this model also attends to CLIP's tokens of the first frame: give it "
                    "text.given(backbone.image_extra(first_frames))"
                )
            image_embeds = text.extra[_IMAGE_EMBEDS].to(device, dtype)
        (prediction,) = transformer(
            hidden_states=hidden.contiguous(),
            timestep=times,
            encoder_hidden_states=text.embeds_BLE.to(device, dtype),
            encoder_hidden_states_image=image_embeds,
            return_dict=False,
        )
        return cast("Tensor", prediction).transpose(1, 2)

    # -- inside ------------------------------------------------------------------------------

    @property
    def _schedule(self) -> WanSchedule:
        # Made anew, since users give the pipeline a scheduler of another shift.
        return WanSchedule(self._wan.scheduler, self.expert, self._wan.config.boundary_ratio)

    @property
    def _has_clip(self) -> bool:
        return self._config.image_dim is not None

    @property
    def _ratio(self) -> int:
        return int(self._wan.vae_scale_factor_temporal)
