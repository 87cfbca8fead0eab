"""CogVideoX 1.0 and 1.5, text-to-video and image-to-video.

Shapes as in `backbones.base`; r pixel frames per latent frame after the first, p_t latent frames
per token frame (1.5: two, and the model puts latents of its own in front to fill the first group).
Every conversion follows the stock pipeline of diffusers, which the tests compare with.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
from diffusers.pipelines.cogvideo.pipeline_cogvideox_image2video import (
    CogVideoXImageToVideoPipeline,
)
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor

from matrix_video.attention.site import Kind, Site
from matrix_video.backbones.base import Backbone, Guidance
from matrix_video.backbones.frames import (
    check_size,
    clip_size,
    decoded,
    pictures,
    posterior_latents,
)
from matrix_video.backbones.text import Text
from matrix_video.data.grid import TokenGrid, causal_frames
from matrix_video.data.spans import FastTokenizer
from matrix_video.services.errors import MatrixError

_OFS = 2.0  # the constant "offset" that 1.5 image-to-video was trained with


class CogVideoXBackbone(Backbone):
    """Joint attention: queries and keys are [text, video] in every layer."""

    family: ClassVar[str] = "CogVideoX"
    variants: ClassVar[tuple[str, ...]] = ("t2v", "i2v", "t2v-1.5", "i2v-1.5")
    dispatches: ClassVar[bool] = False
    guidance: ClassVar[Guidance] = "batched"

    def __init__(self, pipe: DiffusionPipeline) -> None:
        if not isinstance(pipe, CogVideoXPipeline | CogVideoXImageToVideoPipeline):
            raise MatrixError(
                f"{type(pipe).__name__} is not a CogVideoX pipeline that we know",
                remedy="load the model as CogVideoXPipeline or CogVideoXImageToVideoPipeline",
            )
        self.pipe = pipe
        self._cog: Any = pipe  # diffusers' components are untyped
        self.transformer = self._cog.transformer
        self._config: Any = self._cog.transformer.config
        self._rotary: dict[tuple[int, int, int, torch.device], Any] = {}
        assert (self._config.patch_size_t or 1) <= 2, "no CogVideoX groups more latents"
        prediction = self._cog.scheduler.config.prediction_type
        if prediction != "v_prediction":
            raise MatrixError(
                f"the scheduler predicts {prediction!r}, CogVideoX is trained on 'v_prediction'",
                remedy="use the checkpoint's own scheduler",
                field="scheduler.prediction_type",
            )
        positions = not self._config.use_rotary_positional_embeddings
        positions = positions or self._config.use_learned_positional_embeddings
        if positions and self.num_text_tokens != self._config.max_text_seq_length:
            raise MatrixError(
                f"the tokenizer gives {self.num_text_tokens} tokens, the position embedding has "
                f"{self._config.max_text_seq_length}",
                remedy="use the checkpoint's own tokenizer",
                field="tokenizer.model_max_length",
            )

    @classmethod
    def tiny(cls, variant: str, seed: int = 0) -> DiffusionPipeline:
        from matrix_video.backbones.tiny import tiny_pipeline

        i2v = variant.startswith("i2v")
        if not variant.endswith("1.5"):
            return tiny_pipeline(seed, i2v=i2v)
        return tiny_pipeline(
            seed, i2v=i2v, patch_size_t=2, ofs_dim=8 if i2v else None, invert_scale=True
        )

    # -- structure ---------------------------------------------------------------------------

    @property
    def num_layers(self) -> int:
        return int(self._config.num_layers)

    @property
    def num_text_tokens(self) -> int:
        return min(int(self._cog.tokenizer.model_max_length), self._config.max_text_seq_length)

    @property
    def tokenizer(self) -> FastTokenizer:
        return self._cog.tokenizer

    @property
    def takes_image(self) -> bool:
        return isinstance(self.pipe, CogVideoXImageToVideoPipeline)

    @property
    def latent_channels(self) -> int:
        return int(self._cog.vae.config.latent_channels)

    def layer_names(self) -> tuple[str, ...]:
        return tuple(f"transformer_blocks.{i}" for i in range(self.num_layers))

    def site(self, layer: int, kind: Kind, grid: TokenGrid, num_text: int) -> Site:
        """The same place for both kinds: one softmax over text and video keys."""
        del kind
        self.check_layer(layer)
        self.check_observable()
        length = num_text + grid.num_tokens
        return Site(
            module=f"{self.layer_names()[layer]}.attn1",
            num_queries=length,
            num_keys=length,
            video_start=num_text,
            num_video=grid.num_tokens,
            text_start=0,
            num_text=num_text,
        )

    def lora_targets(self, layers: Sequence[int]) -> str:
        chosen = "|".join(map(str, self.chosen_layers(layers)))
        projections = "|".join(map(re.escape, ("to_q", "to_k", "to_v", "to_out.0")))
        return rf"transformer_blocks\.(?:{chosen})\.attn1\.(?:{projections})"

    def condition_site(self) -> str:
        return "patch_embed.proj"

    # -- clips -------------------------------------------------------------------------------

    def grid(self, num_frames: int, height: int, width: int) -> TokenGrid:
        frames, _, rows, columns = self.latent_shape(num_frames, height, width)
        patch, patch_t = self._config.patch_size, self._config.patch_size_t or 1
        own = self._num_latents(num_frames)
        groups = causal_frames(own, self._ratio, patch_t, prepend=frames - own)
        return TokenGrid(groups, rows // patch, columns // patch)

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        scale = int(self._cog.vae_scale_factor_spatial)
        step = scale * self._config.patch_size
        check_size(height, width, (step, step))
        rows, columns = height // scale, width // scale
        own = self._num_latents(num_frames)
        sample = (self._config.sample_frames, self._config.sample_height, self._config.sample_width)
        if self._config.use_learned_positional_embeddings and sample != (num_frames, rows, columns):
            raise MatrixError(
                f"a clip of {num_frames} frames of {height} x {width}: this model's learned "
                f"positions know only {sample[0]} frames of {sample[1] * scale} x "
                f"{sample[2] * scale}",
                remedy="give it clips of this length and size",
                field="size",
            )
        padding = -own % (self._config.patch_size_t or 1)
        return own + padding, self.latent_channels, rows, columns

    @torch.no_grad()
    def encode_video(
        self, frames_BTHWC: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        frames, *_ = self.latent_shape(*clip_size(frames_BTHWC))
        latents = self._encode(frames_BTHWC, generator) * self._cog.vae_scaling_factor_image
        # As in the family's own fine-tuning: copies of the first latent fill the first group.
        padding = frames - latents.shape[1]
        return torch.cat([latents[:, :1].expand(-1, padding, -1, -1, -1), latents], dim=1)

    @torch.no_grad()
    def encode_image(
        self, frames_BHWC: Tensor, num_frames: int, generator: torch.Generator | None = None
    ) -> Tensor:
        _, height, width = clip_size(frames_BHWC[:, None])
        frames, *_ = self.latent_shape(num_frames, height, width)
        first = self._encode(frames_BHWC[:, None], generator)
        scaling = self._cog.vae_scaling_factor_image
        if self._cog.vae.config.invert_scale_latents:  # 1.5 was trained so
            first = 1 / scaling * first
        else:
            first = scaling * first
        rest = first.new_zeros(first.shape[0], frames - 1, *first.shape[2:])
        return torch.cat([first, rest], dim=1)

    @torch.no_grad()
    def encode_text(self, captions: Sequence[str], images_BHWC: Tensor | None = None) -> Text:
        del images_BHWC
        embeds, _ = self._cog.encode_prompt(
            list(captions),
            do_classifier_free_guidance=False,
            max_sequence_length=self.num_text_tokens,
        )
        return Text(cast("Tensor", embeds))

    @torch.no_grad()
    def decode(self, latents_BFCHW: Tensor) -> Tensor:
        # An even count of latents is an odd one with one of the model's own in front (1.5).
        padding = 1 - latents_BFCHW.shape[1] % 2
        if padding and (self._config.patch_size_t or 1) == 1:
            raise ValueError(f"{latents_BFCHW.shape[1]} latent frames, expected an odd number")
        own = latents_BFCHW[:, padding:]
        return decoded(self._cog.decode_latents, own.to(self.device, self._cog.vae.dtype))

    def tile(self) -> None:
        super().tile()
        vae, scale = self._cog.vae, int(self._cog.vae_scale_factor_spatial)
        for side in ("height", "width"):
            latents, pixels = (getattr(vae, f"tile_{of}_min_{side}") for of in ("latent", "sample"))
            factor = getattr(vae, f"tile_overlap_factor_{side}")
            # Overlaps are rounded in latents and in pixels; unless both agree, frames come out in
            # another size. Those of the published VAEs agree.
            strides = int(latents * (1 - factor)) * scale, pixels - int(pixels * factor)
            kept = int(pixels * (1 - factor)), (latents - int(latents * factor)) * scale
            if len({*strides, *kept}) > 1:
                even = max(2, latents // 2 * 2)
                own = {"latent_min": even, "sample_min": even * scale, "overlap_factor": 0.5}
                for name, value in own.items():
                    setattr(vae, f"tile_{name}_{side}", value)

    def call_arguments(
        self, noise_BFCHW: Tensor, clip: tuple[int, int, int], first_BHWC: Tensor | None
    ) -> dict[str, Any]:
        frames, height, width = clip
        arguments: dict[str, Any] = {
            "height": height,
            "width": width,
            "num_frames": frames,
            "latents": noise_BFCHW,
            "max_sequence_length": self.num_text_tokens,
            "output_type": "np",
        }
        if first_BHWC is not None:
            arguments["image"] = pictures(first_BHWC)
        return arguments

    # -- objective ---------------------------------------------------------------------------

    def sample_timesteps(self, batch: int, generator: torch.Generator) -> Tensor:
        return torch.randint(self._num_timesteps, (batch,), generator=generator)

    def noise_levels(self, count: int) -> Tensor:
        if not 1 <= count <= self._num_timesteps:
            raise MatrixError(
                f"{count} noise levels of a schedule with {self._num_timesteps} steps",
                remedy=f"choose 1 to {self._num_timesteps}",
                field="levels",
            )
        return ((torch.arange(count) + 0.5) * self._num_timesteps / count).long()

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps_B: Tensor) -> Tensor:
        # In float32: the scheduler would round its own schedule to the latents' dtype.
        noisy = self._cog.scheduler.add_noise(latents.float(), noise.float(), timesteps_B.long())
        return cast("Tensor", noisy).to(latents.dtype)

    def target(self, latents: Tensor, noise: Tensor, timesteps_B: Tensor) -> Tensor:
        velocity = self._cog.scheduler.get_velocity(
            latents.float(), noise.float(), timesteps_B.long()
        )
        return cast("Tensor", velocity)

    def weight(self, timesteps_B: Tensor) -> Tensor:
        """Ones: squared error on v is the reference loss, error on x0 weighted 1/(1 - ᾱ)."""
        return torch.ones(timesteps_B.shape, device=timesteps_B.device)

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
        transformer = self._cog.transformer
        device, dtype = self.device, transformer.dtype
        noisy = noisy_BFCHW.to(device, dtype)
        parts = [noisy] if image_BFCHW is None else [noisy, image_BFCHW.to(device, dtype)]
        _, frames, _, rows, columns = noisy.shape
        ofs = None if self._config.ofs_embed_dim is None else noisy.new_full((1,), _OFS)
        (prediction,) = transformer(
            hidden_states=torch.cat(parts, dim=2),
            encoder_hidden_states=text.embeds_BLE.to(device, dtype),
            timestep=timesteps_B.to(device),
            ofs=ofs,
            image_rotary_emb=self._rotary_embedding(frames, rows, columns, device),
            return_dict=False,
        )
        return cast("Tensor", prediction)

    # -- inside ------------------------------------------------------------------------------

    @property
    def _ratio(self) -> int:
        return int(self._cog.vae_scale_factor_temporal)

    @property
    def _num_timesteps(self) -> int:
        return int(self._cog.scheduler.config.num_train_timesteps)

    def _num_latents(self, num_frames: int) -> int:
        """Latent frames of a clip, which must be odd: the VAE decodes even counts wrongly."""
        step = 2 * self._ratio
        if num_frames < 1 or (num_frames - 1) % step:
            below = max(0, num_frames - 1) // step * step + 1
            raise MatrixError(
                f"a clip of {num_frames} frames; this VAE takes 1 + {step}k frames, since it "
                "decodes only odd numbers of latent frames rightly",
                remedy=f"use {below} or {below + step} frames",
                field="num_frames",
            )
        return (num_frames - 1) // self._ratio + 1

    def _encode(self, frames_BTHWC: Tensor, generator: torch.Generator | None) -> Tensor:
        """Unscaled latents [B,F,C,H',W'], in the VAE's dtype as the stock pipeline scales them."""
        vae = self._cog.vae
        found = posterior_latents(vae, frames_BTHWC, generator, device=self.device)
        return found.to(vae.dtype).transpose(1, 2)

    def _rotary_embedding(self, frames: int, rows: int, columns: int, device: torch.device) -> Any:
        if not self._config.use_rotary_positional_embeddings:
            return None
        key = (frames, rows, columns, device)
        if key not in self._rotary:
            scale = self._cog.vae_scale_factor_spatial
            self._rotary = {
                key: self._cog._prepare_rotary_positional_embeddings(
                    rows * scale, columns * scale, frames, device
                )
            }
        return self._rotary[key]
