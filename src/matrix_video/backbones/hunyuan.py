"""HunyuanVideo, text-to-video and both kinds of image-to-video.

Shapes as in `backbones.base`; r pixel frames per latent frame after the first. Every conversion
follows the stock pipelines of diffusers, which the tests compare with.

Image-to-video comes in two kinds. ``latent_concat`` (33 input channels) gets the first frame's
latent and a mask as further channels. ``token_replace`` gets it in the place of latent frame 0, and
modulates those tokens as clean ones; what it predicts there is never used. Both also read the frame
with the caption, in the text encoder.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar, Final, cast

import torch
from diffusers.pipelines.hunyuan_video import pipeline_hunyuan_video as stock_t2v
from diffusers.pipelines.hunyuan_video import pipeline_hunyuan_video_image2video as stock_i2v
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor

from matrix_video.attention.site import Kind, Site
from matrix_video.backbones.base import Backbone, Guidance
from matrix_video.backbones.flow import check_scheduler, middles, noised
from matrix_video.backbones.frames import (
    causal_latents,
    check_size,
    clip_size,
    decoded,
    pictures,
    posterior_latents,
)
from matrix_video.backbones.hunyuan_prompt import (
    MASK,
    POOLED,
    CaptionTokenizer,
    Prompts,
    Template,
)
from matrix_video.backbones.text import Text, TokenKind
from matrix_video.data.grid import TokenGrid, causal_frames
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import sha256_text

_INTERLEAVE: Final = {None: None, "latent_concat": 2, "token_replace": 4}  # the stock call's choice
_JOINT = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj")
_DOUBLE: Final = (*_JOINT, "to_add_out")
_SINGLE: Final = ("to_q", "to_k", "to_v")


class HunyuanVideoBackbone(Backbone):
    """Joint attention: queries and keys are [video, text] in every layer, padded text masked.

    Layers count through the double blocks and on through the single ones.

    Checkpoints are distilled for guidance, which is one of their inputs and costs no second
    forward. (With ``true_cfg_scale`` above 1 and a negative prompt the stock pipeline makes one.)
    ``embedded_guidance`` is what `predict` gives there. The default is that of the stock
    text-to-video call and of ``matrix generate``, so that analysis and training see attention as it
    is when videos are made. On real videos the plain objective then also teaches the model to do
    without its guidance; 1.0, where prediction and objective agree, is what other trainers of
    HunyuanVideo (e.g. FastVideo) take for long fine-tuning.
    """

    family: ClassVar[str] = "HunyuanVideo"
    variants: ClassVar[tuple[str, ...]] = ("t2v", "i2v-concat", "i2v-replace")
    tiny_clip: ClassVar[tuple[int, int, int]] = (9, 32, 48)
    guidance: ClassVar[Guidance] = "separate"

    def __init__(
        self,
        pipe: DiffusionPipeline,
        *,
        template: Template | None = None,
        embedded_guidance: float = 6.0,
    ) -> None:
        """``template`` replaces the stock pipeline's default ``prompt_template``."""
        known = stock_t2v.HunyuanVideoPipeline | stock_i2v.HunyuanVideoImageToVideoPipeline
        if not isinstance(pipe, known):
            raise MatrixError(
                f"{type(pipe).__name__} is not a HunyuanVideo pipeline that we know",
                remedy="load the model as HunyuanVideoPipeline or HunyuanVideoImageToVideoPipeline",
            )
        self.pipe = pipe
        self._hunyuan: Any = pipe  # diffusers' components are untyped
        self.transformer = self._hunyuan.transformer
        self._config: Any = self._hunyuan.transformer.config
        self._embedded_guidance = embedded_guidance
        assert self._config.patch_size_t == 1, "no HunyuanVideo groups latents"
        self._check_scheduler()
        self._check_inputs()
        stock = stock_i2v if self.takes_image else stock_t2v
        default = cast("Template", stock.DEFAULT_PROMPT_TEMPLATE)
        interleave = _INTERLEAVE[self._config.image_condition_type]
        self._prompts = Prompts(self._hunyuan, template or default, interleave)

    @classmethod
    def tiny(cls, variant: str, seed: int = 0) -> DiffusionPipeline:
        from matrix_video.backbones.tiny_hunyuan import CONDITIONS, tiny_hunyuan

        return tiny_hunyuan(seed, condition=CONDITIONS[variant])

    # -- structure ---------------------------------------------------------------------------

    @property
    def num_layers(self) -> int:
        return int(self._config.num_layers + self._config.num_single_layers)

    @property
    def num_text_tokens(self) -> int:
        return self._prompts.num_tokens

    @property
    def tokenizer(self) -> CaptionTokenizer:
        return self._prompts.tokenizer

    @property
    def takes_image(self) -> bool:
        return isinstance(self.pipe, stock_i2v.HunyuanVideoImageToVideoPipeline)

    @property
    def latent_channels(self) -> int:
        return int(self._hunyuan.vae.config.latent_channels)

    def layer_names(self) -> tuple[str, ...]:
        double = (f"transformer_blocks.{i}" for i in range(self._config.num_layers))
        single = (f"single_transformer_blocks.{i}" for i in range(self._config.num_single_layers))
        return (*double, *single)

    def site(self, layer: int, kind: Kind, grid: TokenGrid, num_text: int) -> Site:
        """The same place for both kinds: one softmax over video and text keys."""
        del kind
        self.check_layer(layer)
        self.check_observable()
        length = grid.num_tokens + num_text
        return Site(
            module=f"{self.layer_names()[layer]}.attn",
            num_queries=length,
            num_keys=length,
            video_start=0,
            num_video=grid.num_tokens,
            text_start=grid.num_tokens,
            num_text=num_text,
            # The stock call thins a negative prompt's image tokens by its own default.
            others_keys=grid.num_tokens + self._prompts.negative_tokens
            if self._replaces_first
            else None,
        )

    def lora_targets(self, layers: Sequence[int]) -> str:
        """Every projection into and out of the joint attention, video's and text's.

        Text keys are half of what V2T maps are made from, and in families with shared projections
        LoRA reaches them too. The output of single blocks is left alone: one matrix there also
        projects the feed-forward part.
        """
        chosen = self.chosen_layers(layers)
        names = self.layer_names()
        patterns: list[str] = []
        for projections, single in ((_DOUBLE, False), (_SINGLE, True)):
            blocks = [names[i] for i in chosen if (i >= self._config.num_layers) == single]
            if blocks:
                block, part = ("|".join(map(re.escape, some)) for some in (blocks, projections))
                patterns.append(rf"(?:{block})\.attn\.(?:{part})")
        return "|".join(patterns)

    def condition_site(self) -> str:
        return "x_embedder.proj"

    def token_kinds(self, caption: str) -> tuple[TokenKind, ...]:
        kinds = super().token_kinds(caption)
        count = self._prompts.tokenizer.image_tokens
        return (TokenKind.IMAGE,) * count + kinds[count:]

    # -- clips -------------------------------------------------------------------------------

    @property
    def dropped_frames(self) -> int:
        return 4 if self._config.image_condition_type == "latent_concat" else 0

    def grid(self, num_frames: int, height: int, width: int) -> TokenGrid:
        frames, _, rows, columns = self.latent_shape(num_frames, height, width)
        patch = self._config.patch_size
        return TokenGrid(causal_frames(frames, self._ratio), rows // patch, columns // patch)

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        scale = int(self._hunyuan.vae_scale_factor_spatial)
        step = scale * self._config.patch_size
        check_size(height, width, (step, step))
        frames = causal_latents(num_frames, self._ratio)
        return frames, self.latent_channels, height // scale, width // scale

    @torch.no_grad()
    def encode_video(
        self, frames_BTHWC: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        self.latent_shape(*clip_size(frames_BTHWC))
        return self._encode(frames_BTHWC, generator)

    @torch.no_grad()
    def encode_image(
        self, frames_BHWC: Tensor, num_frames: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """As in the interface; the stock pipeline takes the posterior's mode in any case."""
        del generator
        _, height, width = clip_size(frames_BHWC[:, None])
        frames, *_ = self.latent_shape(num_frames, height, width)
        first = self._encode(frames_BHWC[:, None])
        rest = first.new_zeros(first.shape[0], frames - 1, *first.shape[2:])
        return torch.cat([first, rest], dim=1)

    @torch.no_grad()
    def encode_text(self, captions: Sequence[str], images_BHWC: Tensor | None = None) -> Text:
        return self._prompts.encode(captions, images_BHWC)

    @torch.no_grad()
    def decode(self, latents_BFCHW: Tensor) -> Tensor:
        """As in the interface, every frame, `dropped_frames` too."""
        vae = self._hunyuan.vae
        latents = latents_BFCHW.transpose(1, 2).to(self.device, vae.dtype)
        latents = latents / vae.config.scaling_factor
        return decoded(lambda part: vae.decode(part, return_dict=False)[0], latents)

    def call_arguments(
        self, noise_BFCHW: Tensor, clip: tuple[int, int, int], first_BHWC: Tensor | None
    ) -> dict[str, Any]:
        """As in the interface.

        Image-to-video calls add a thousandth of the first frame's latent to the noise themselves.
        """
        frames, height, width = clip
        arguments: dict[str, Any] = {
            "height": height,
            "width": width,
            "num_frames": frames,
            "latents": noise_BFCHW.transpose(1, 2),
            "max_sequence_length": self._prompts.max_sequence_length,
            "prompt_template": self._prompts.template,
            "output_type": "np",
        }
        if first_BHWC is not None:
            arguments["image"] = pictures(first_BHWC)
        return arguments

    def encoders_key(self) -> str:
        template = (f"{name}={value}" for name, value in sorted(self._prompts.template.items()))
        return sha256_text(super().encoders_key(), *template)

    # -- objective ---------------------------------------------------------------------------

    def sample_timesteps(self, batch: int, generator: torch.Generator) -> Tensor:
        """Logit-normal, as HunyuanVideo was trained (arXiv 2412.03603, training objective).

        That the checkpoint's shift comes on top is our choice: it is where sampling goes.
        """
        return self._timesteps(torch.randn(batch, generator=generator).sigmoid())

    def noise_levels(self, count: int) -> Tensor:
        """As in the interface, evenly spaced before the shift."""
        return self._timesteps(middles(count, self._steps))

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps_B: Tensor) -> Tensor:
        return noised(latents, noise, timesteps_B.float() / self._steps)

    def target(self, latents: Tensor, noise: Tensor, timesteps_B: Tensor) -> Tensor:
        """The velocity, noise - latents, whatever the timestep."""
        del timesteps_B
        return noise.float() - latents.float()

    def weight(self, timesteps_B: Tensor) -> Tensor:
        """Ones: the report's loss is the plain squared error on the velocity."""
        return torch.ones(timesteps_B.shape, device=timesteps_B.device)

    def supervised(self, num_latents: int) -> Tensor:
        counted = super().supervised(num_latents)
        counted[: int(self._replaces_first)] = False
        return counted

    def predict(
        self,
        noisy_BFCHW: Tensor,
        timesteps_B: Tensor,
        text: Text,
        image_BFCHW: Tensor | None = None,
    ) -> Tensor:
        if (image_BFCHW is not None) != self.takes_image:
            raise ValueError(
                f"takes_image is {self.takes_image}, image is {image_BFCHW is not None}"
            )
        transformer: Any = self.transformer
        device, dtype = self.device, transformer.dtype
        hidden = noisy_BFCHW.transpose(1, 2).to(device, dtype)
        if image_BFCHW is not None:
            hidden = self._with_image(hidden, image_BFCHW.transpose(1, 2).to(device, dtype))
        guidance = None
        if self._config.guidance_embeds:  # in the transformer's dtype and times 1000, as stock
            guidance = hidden.new_full((len(hidden),), self._embedded_guidance) * 1000
        (prediction,) = transformer(
            hidden_states=hidden,
            timestep=timesteps_B.to(device, torch.float32),
            encoder_hidden_states=text.embeds_BLE.to(device, dtype),
            encoder_attention_mask=text.extra[MASK].to(device, dtype),
            pooled_projections=text.extra[POOLED].to(device, dtype),
            guidance=guidance,
            return_dict=False,
        )
        return cast("Tensor", prediction).transpose(1, 2)

    # -- inside ------------------------------------------------------------------------------

    @property
    def _ratio(self) -> int:
        return int(self._hunyuan.vae_scale_factor_temporal)

    @property
    def _replaces_first(self) -> bool:
        return self._config.image_condition_type == "token_replace"

    @property
    def _steps(self) -> int:
        """Timestep of pure noise."""
        return int(self._hunyuan.scheduler.config.num_train_timesteps)

    def _timesteps(self, position: Tensor) -> Tensor:
        """Timesteps of positions in [0, 1], which are spaced evenly before the shift."""
        shift = float(self._hunyuan.scheduler.shift)
        return self._steps * shift * position / (1 + (shift - 1) * position)

    def _encode(self, frames_BTHWC: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Scaled latents [B,F',C,H',W']."""
        vae = self._hunyuan.vae
        latents = posterior_latents(vae, frames_BTHWC, generator) * vae.config.scaling_factor
        return latents.transpose(1, 2)

    def _with_image(self, noisy: Tensor, image: Tensor) -> Tensor:
        """What image-to-video takes for ``noisy`` [B,C,F',H',W']."""
        if self._replaces_first:
            return torch.cat([image[:, :, :1], noisy[:, :, 1:]], dim=2)
        given = torch.zeros_like(noisy[:, :1])
        given[:, :, 0] = 1
        return torch.cat([noisy, image, given], dim=1)

    def _check_scheduler(self) -> None:
        scheduler = self._hunyuan.scheduler
        check_scheduler(scheduler, self.family, inverted=False)
        if scheduler.config.use_dynamic_shifting:
            raise MatrixError(
                "the scheduler's shift depends on the clip, HunyuanVideo's is fixed",
                remedy="use the checkpoint's own scheduler",
                field="scheduler.use_dynamic_shifting",
            )

    def _check_inputs(self) -> None:
        """Refuse a transformer that is made for another pipeline."""
        condition = self._config.image_condition_type
        channels = self.latent_channels * (2 if condition == "latent_concat" else 1)
        channels += condition == "latent_concat"  # the mask
        if (condition is not None) == self.takes_image and self._config.in_channels == channels:
            return
        raise MatrixError(
            f"{type(self.pipe).__name__} with a transformer of {self._config.in_channels} input "
            f"channels and image_condition_type {condition!r}",
            remedy="load a text-to-video checkpoint as HunyuanVideoPipeline, and one with an "
            "image_condition_type as HunyuanVideoImageToVideoPipeline, each with its own VAE",
            field="transformer",
        )
