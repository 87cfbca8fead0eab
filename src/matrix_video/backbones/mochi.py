"""Mochi 1, text-to-video.

Shapes as in `backbones.base`; h w token rows and columns, each of ``patch_size`` latents. Every
conversion follows the stock pipeline of diffusers, which the tests compare with.

Mochi counts time from noise to clean: timestep 1000·(1 - σ), and it predicts clean - noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from diffusers.pipelines.mochi.pipeline_mochi import MochiPipeline
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
    posterior_latents,
)
from matrix_video.backbones.text import Text
from matrix_video.data.grid import TokenGrid, causal_frames
from matrix_video.data.spans import FastTokenizer
from matrix_video.services.errors import MatrixError

_MASK = "mask"
_VIDEO = ("to_q", "to_k", "to_v", r"to_out\.0")
_TEXT = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")


class MochiBackbone(Backbone):
    """Joint attention: queries and keys are [video, text], a call for each sample.

    A sample attends to its own valid text tokens alone; the others are not among its keys. In the
    last layer the text's own output is dropped, but video attends there as in all others.
    """

    family: ClassVar[str] = "Mochi"
    variants: ClassVar[tuple[str, ...]] = ("t2v",)
    tiny_clip: ClassVar[tuple[int, int, int]] = (13, 32, 48)
    dispatches: ClassVar[bool] = False
    guidance: ClassVar[Guidance] = "batched"

    def __init__(self, pipe: DiffusionPipeline) -> None:
        if not isinstance(pipe, MochiPipeline):
            raise MatrixError(
                f"{type(pipe).__name__} is not a Mochi pipeline that we know",
                remedy="load the model as MochiPipeline",
            )
        self.pipe = pipe
        self._mochi: Any = pipe  # diffusers' components are untyped
        self.transformer = self._mochi.transformer
        self._config: Any = self._mochi.transformer.config
        check_scheduler(self._mochi.scheduler, self.family, inverted=True)
        if self._mochi.tokenizer.padding_side != "right":
            raise MatrixError(
                "the tokenizer pads on the left, so a caption's tokens are not the first of a site",
                remedy="use the checkpoint's own tokenizer, which pads on the right",
                field="tokenizer.padding_side",
            )

    @classmethod
    def tiny(cls, variant: str, seed: int = 0) -> DiffusionPipeline:
        from matrix_video.backbones.tiny_mochi import tiny_mochi

        del variant
        return tiny_mochi(seed)

    # -- structure ---------------------------------------------------------------------------

    @property
    def num_layers(self) -> int:
        return int(self._config.num_layers)

    @property
    def num_text_tokens(self) -> int:
        """The longest that a caption can be; each sample's site has its own valid tokens."""
        return min(int(self._mochi.tokenizer.model_max_length), self._config.max_sequence_length)

    @property
    def tokenizer(self) -> FastTokenizer:
        return self._mochi.tokenizer

    @property
    def least_steps(self) -> int:
        return 2  # the first half of the stock schedule must have one

    @property
    def takes_image(self) -> bool:
        return False

    @property
    def latent_channels(self) -> int:
        return int(self._mochi.vae.config.latent_channels)

    def layer_names(self) -> tuple[str, ...]:
        return tuple(f"transformer_blocks.{i}" for i in range(self.num_layers))

    def site(self, layer: int, kind: Kind, grid: TokenGrid, num_text: int) -> Site:
        """The same place for both kinds: one softmax over video and text keys."""
        del kind
        name = self.layer_names()[self.check_layer(layer)]
        self.check_observable()
        length = grid.num_tokens + num_text
        return Site(
            module=f"{name}.attn1",
            num_queries=length,
            num_keys=length,
            video_start=0,
            num_video=grid.num_tokens,
            text_start=grid.num_tokens,
            num_text=num_text,
            per_sample=True,
        )

    def lora_targets(self, layers: Sequence[int]) -> str:
        """Projections of video and of text: text keys are half of what V2T maps are made from.

        The pooled text attention beside the timestep (``time_embed.pooler``) has projections of the
        same names, which are left alone.
        """
        chosen = "|".join(map(str, self.chosen_layers(layers)))
        projections = "|".join(_VIDEO + _TEXT)
        return rf"transformer_blocks\.(?:{chosen})\.attn1\.(?:{projections})"

    def condition_site(self) -> str:
        return "patch_embed.proj"

    # -- clips -------------------------------------------------------------------------------

    def grid(self, num_frames: int, height: int, width: int) -> TokenGrid:
        frames, _, rows, columns = self.latent_shape(num_frames, height, width)
        patch = self._config.patch_size
        return TokenGrid(causal_frames(frames, self._ratio), rows // patch, columns // patch)

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        scale = int(self._mochi.vae_spatial_scale_factor)
        step = scale * self._config.patch_size
        check_size(height, width, (step, step))
        frames = causal_latents(num_frames, self._ratio)
        return frames, self.latent_channels, height // scale, width // scale

    @torch.no_grad()
    def encode_video(
        self, frames_BTHWC: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        self.latent_shape(*clip_size(frames_BTHWC))
        found = posterior_latents(self._mochi.vae, frames_BTHWC, generator, device=self.device)
        mean, deviation = self._statistics(found)
        return ((found - mean) / deviation).transpose(1, 2)

    @torch.no_grad()
    def encode_image(
        self, frames_BHWC: Tensor, num_frames: int, generator: torch.Generator | None = None
    ) -> Tensor:
        frames, *_ = self.latent_shape(num_frames, *clip_size(frames_BHWC[:, None])[1:])
        first = self.encode_video(frames_BHWC[:, None], generator)
        rest = first.new_zeros(first.shape[0], frames - 1, *first.shape[2:])
        return torch.cat([first, rest], dim=1)

    @torch.no_grad()
    def encode_text(self, captions: Sequence[str], images_BHWC: Tensor | None = None) -> Text:
        del images_BHWC
        # One by one: the stock method blanks a whole batch whose last caption is empty
        # (`force_zeros_for_empty_prompt`, which is on in the checkpoint).
        parts: list[Text] = []
        for caption in captions:
            embeds, mask, _, _ = self._mochi.encode_prompt(
                caption,
                do_classifier_free_guidance=False,
                max_sequence_length=self.num_text_tokens,
            )
            parts.append(Text(cast("Tensor", embeds), {_MASK: cast("Tensor", mask)}))
        return Text.cat(parts)

    @torch.no_grad()
    def decode(self, latents_BFCHW: Tensor) -> Tensor:
        vae = self._mochi.vae
        latents = latents_BFCHW.transpose(1, 2).to(self.device)
        mean, deviation = self._statistics(latents)
        latents = (latents * deviation + mean).to(vae.dtype)
        return decoded(lambda part: vae.decode(part, return_dict=False)[0], latents)

    def call_arguments(
        self, noise_BFCHW: Tensor, clip: tuple[int, int, int], first_BHWC: Tensor | None
    ) -> dict[str, Any]:
        del first_BHWC
        frames, height, width = clip
        return {
            "height": height,
            "width": width,
            "num_frames": frames,
            "latents": noise_BFCHW.transpose(1, 2),
            "max_sequence_length": self.num_text_tokens,
            "output_type": "np",
        }

    # -- objective ---------------------------------------------------------------------------

    def sample_timesteps(self, batch: int, generator: torch.Generator) -> Tensor:
        """1000·(1 - σ) with σ uniform, as in Genmo's own fine-tuning (genmoai/mochi,
        demos/fine_tuner)."""
        return self._steps * (1 - torch.rand(batch, generator=generator))

    def noise_levels(self, count: int) -> Tensor:
        return self._steps * (1 - middles(count, self._steps))

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps_B: Tensor) -> Tensor:
        return noised(latents, noise, 1 - timesteps_B.float() / self._steps)

    def target(self, latents: Tensor, noise: Tensor, timesteps_B: Tensor) -> Tensor:
        """Velocity towards the clean latents, the same at every timestep."""
        del timesteps_B
        return latents.float() - noise.float()

    def weight(self, timesteps_B: Tensor) -> Tensor:
        """Ones: squared error on the velocity."""
        return torch.ones(timesteps_B.shape, device=timesteps_B.device)

    def predict(
        self,
        noisy_BFCHW: Tensor,
        timesteps_B: Tensor,
        text: Text,
        image_BFCHW: Tensor | None = None,
    ) -> Tensor:
        if image_BFCHW is not None:
            raise ValueError("takes_image is False, image is True")
        transformer = self._mochi.transformer
        device, dtype = self.device, transformer.dtype
        (prediction,) = transformer(
            hidden_states=noisy_BFCHW.transpose(1, 2).to(device, dtype),
            encoder_hidden_states=text.embeds_BLE.to(device, dtype),
            timestep=timesteps_B.to(device, dtype),
            encoder_attention_mask=text.extra[_MASK].to(device),
            return_dict=False,
        )
        return cast("Tensor", prediction).transpose(1, 2)

    # -- inside ------------------------------------------------------------------------------

    @property
    def _ratio(self) -> int:
        return int(self._mochi.vae_temporal_scale_factor)

    @property
    def _steps(self) -> int:
        """Timestep of clean latents."""
        return int(self._mochi.scheduler.config.num_train_timesteps)

    def _statistics(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Mean, and deviation over scaling factor, of each channel [1,C,1,1,1]."""
        config = self._mochi.vae.config
        mean, deviation = (
            torch.tensor(values).view(1, -1, 1, 1, 1).to(latents)
            for values in (config.latents_mean, config.latents_std)
        )
        return mean, deviation / config.scaling_factor
