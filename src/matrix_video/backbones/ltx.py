"""LTX-Video 0.9 to 0.9.8, text-to-video and image-to-video.

Shapes as in `backbones.base`; N video tokens. A token is one latent position, and the transformer
takes latents packed, [B,N,C]. Every conversion follows the stock pipelines of diffusers, which the
tests compare with.

Image-to-video gives the model latent frame 0 clean, with timestep 0 for its tokens, and keeps
nothing of what it predicts there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from diffusers.pipelines.ltx.pipeline_ltx import LTXPipeline
from diffusers.pipelines.ltx.pipeline_ltx_image2video import LTXImageToVideoPipeline
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

_TEXT_LENGTH = 128  # of the stock call
_SIZE_STEP = 32  # the stock call takes no other sizes, whatever the VAE
_FRAME_RATE = 25  # of the stock call, in frames a second: positions in time are seconds
_MASK = "mask"


class LTXBackbone(Backbone):
    """Separate attention: V2V in ``attn1`` over video, V2T in ``attn2`` over text alone.

    A mask keeps padding out of ``attn2``. Positions in time count seconds at 25 frames a second,
    the default of the stock call, whatever the clip's own rate.
    """

    family: ClassVar[str] = "LTX-Video"
    variants: ClassVar[tuple[str, ...]] = ("t2v", "i2v")
    tiny_clip: ClassVar[tuple[int, int, int]] = (17, 64, 96)
    guidance: ClassVar[Guidance] = "batched"

    def __init__(self, pipe: DiffusionPipeline) -> None:
        if not isinstance(pipe, LTXPipeline | LTXImageToVideoPipeline):
            raise MatrixError(
                f"{type(pipe).__name__} is not an LTX-Video pipeline that we know",
                remedy="load the model as LTXPipeline or LTXImageToVideoPipeline, or convert it, "
                "e.g. LTXImageToVideoPipeline(**pipe.components)",
            )
        self.pipe = pipe
        self._ltx: Any = pipe  # diffusers' components are untyped
        self.transformer = self._ltx.transformer
        self._config: Any = self._ltx.transformer.config
        check_scheduler(self._ltx.scheduler, self.family, inverted=False)
        patch = (self._config.patch_size_t, self._config.patch_size, self._config.patch_size)
        if patch != (1, 1, 1):
            raise MatrixError(
                f"the transformer groups latents {patch}; every LTX-Video takes them one by one",
                remedy="use a checkpoint with patch_size 1 and patch_size_t 1",
                field="transformer.patch_size",
            )
        if self._ltx.vae.config.scaling_factor != 1:
            # The stock image-to-video call divides by it in decoding but never multiplies.
            raise MatrixError(
                f"the VAE scales latents by {self._ltx.vae.config.scaling_factor}; LTX-Video only "
                "normalises them by mean and deviation",
                remedy="use the checkpoint's own VAE",
                field="vae.scaling_factor",
            )

    @classmethod
    def tiny(cls, variant: str, seed: int = 0) -> DiffusionPipeline:
        from matrix_video.backbones.tiny_ltx import tiny_ltx

        return tiny_ltx(seed, i2v=variant == "i2v")

    # -- structure ---------------------------------------------------------------------------

    @property
    def num_layers(self) -> int:
        return int(self._config.num_layers)

    @property
    def num_text_tokens(self) -> int:
        return min(int(self._ltx.tokenizer.model_max_length), _TEXT_LENGTH)

    @property
    def tokenizer(self) -> FastTokenizer:
        return self._ltx.tokenizer

    @property
    def least_steps(self) -> int:
        """To stretch a schedule to its last sigma divides by zero where that is the only one."""
        return 2 if self._ltx.scheduler.config.get("shift_terminal") else 1

    @property
    def one_prompt_a_call(self) -> bool:
        """diffusers cannot decode clip by clip with a decoder that takes a timestep."""
        return bool(self._ltx.vae.config.timestep_conditioning)

    @property
    def takes_image(self) -> bool:
        return isinstance(self.pipe, LTXImageToVideoPipeline)

    @property
    def latent_channels(self) -> int:
        return int(self._ltx.vae.config.latent_channels)

    def layer_names(self) -> tuple[str, ...]:
        return tuple(f"transformer_blocks.{i}" for i in range(self.num_layers))

    def site(self, layer: int, kind: Kind, grid: TokenGrid, num_text: int) -> Site:
        """``attn1`` or ``attn2`` of the layer."""
        name = self.layer_names()[self.check_layer(layer)]
        self.check_observable()
        tokens = grid.num_tokens
        if kind == "v2v":
            return Site(f"{name}.attn1", tokens, tokens, video_start=0, num_video=tokens)
        return Site(
            f"{name}.attn2",
            tokens,
            num_text,
            video_start=0,
            num_video=tokens,
            num_text=num_text,
            video_keys=False,
        )

    def lora_targets(self, layers: Sequence[int]) -> str:
        chosen = "|".join(map(str, self.chosen_layers(layers)))
        return rf"transformer_blocks\.(?:{chosen})\.attn[12]\.(?:to_q|to_k|to_v|to_out\.0)"

    def condition_site(self) -> str:
        return "proj_in"

    # -- clips -------------------------------------------------------------------------------

    def grid(self, num_frames: int, height: int, width: int) -> TokenGrid:
        frames, _, rows, columns = self.latent_shape(num_frames, height, width)
        return TokenGrid(causal_frames(frames, self._ratio), rows, columns)

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        scale = int(self._ltx.vae_spatial_compression_ratio)
        step = math.lcm(scale, _SIZE_STEP)
        check_size(height, width, (step, step))
        frames = causal_latents(num_frames, self._ratio)
        return frames, self.latent_channels, height // scale, width // scale

    @torch.no_grad()
    def encode_video(
        self, frames_BTHWC: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        self.latent_shape(*clip_size(frames_BTHWC))
        found = posterior_latents(self._ltx.vae, frames_BTHWC, generator, device=self.device)
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
        embeds, mask, _, _ = self._ltx.encode_prompt(
            list(captions),
            do_classifier_free_guidance=False,
            max_sequence_length=self.num_text_tokens,
        )
        return Text(cast("Tensor", embeds), {_MASK: cast("Tensor", mask)})

    @torch.no_grad()
    def decode(self, latents_BFCHW: Tensor) -> Tensor:
        vae = self._ltx.vae
        latents = latents_BFCHW.transpose(1, 2).to(self.device)
        mean, deviation = self._statistics(latents)
        latents = (latents * deviation + mean).to(vae.dtype)
        # Newer decoders can denoise a little themselves; the stock call by default asks for none.
        step = latents.new_zeros(1) if vae.config.timestep_conditioning else None
        return decoded(lambda part: vae.decode(part, step, return_dict=False)[0], latents)

    def call_arguments(
        self, noise_BFCHW: Tensor, clip: tuple[int, int, int], first_BHWC: Tensor | None
    ) -> dict[str, Any]:
        """First frames are in the latents, as the posterior's mode.

        The stock call encodes no image when it is given latents to start from.
        """
        frames, height, width = clip
        latents = noise_BFCHW
        if first_BHWC is not None:
            latents = _with_first(latents, self.encode_image(first_BHWC, frames))
        return {
            "height": height,
            "width": width,
            "num_frames": frames,
            "frame_rate": _FRAME_RATE,
            # There already: the stock call makes its mask of the first frame where these are.
            "latents": _packed(latents).to(self.device),
            "max_sequence_length": self.num_text_tokens,
            "output_type": "np",
        }

    # -- objective ---------------------------------------------------------------------------

    def sample_timesteps(self, batch: int, generator: torch.Generator) -> Tensor:
        """1000 σ, logit-normal with mean 0 and deviation 1, as the LTX-Video recipe of finetrainers
        draws them: unshifted.

        Lightricks' own trainer moves the mean to 0.95 ... 2.05 by the number of tokens, which is
        not known here (our choice: the same σ for clips of any size).
        """
        return self._steps * torch.sigmoid(torch.randn(batch, generator=generator))

    def noise_levels(self, count: int) -> Tensor:
        return self._steps * middles(count, self._steps)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps_B: Tensor) -> Tensor:
        return noised(latents, noise, timesteps_B.float() / self._steps)

    def target(self, latents: Tensor, noise: Tensor, timesteps_B: Tensor) -> Tensor:
        """Velocity towards noise, the same at every timestep."""
        del timesteps_B
        return noise.float() - latents.float()

    def weight(self, timesteps_B: Tensor) -> Tensor:
        """Ones: squared error on the velocity."""
        return torch.ones(timesteps_B.shape, device=timesteps_B.device)

    def supervised(self, num_latents: int) -> Tensor:
        predicted_F = super().supervised(num_latents)
        predicted_F[:1] = not self.takes_image
        return predicted_F

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
        transformer = self._ltx.transformer
        device, dtype = self.device, transformer.dtype
        noisy = noisy_BFCHW.to(device, dtype)
        _, frames, _, rows, columns = noisy.shape
        timesteps = timesteps_B.to(device, torch.float32)
        if image_BFCHW is not None:
            noisy = _with_first(noisy, image_BFCHW)
            later_N = torch.ones(frames * rows * columns, device=device)
            later_N[: rows * columns] = 0
            timesteps = timesteps[:, None] * later_N
        scale = self._ltx.vae_spatial_compression_ratio
        (packed_BNC,) = transformer(
            hidden_states=_packed(noisy),
            encoder_hidden_states=text.embeds_BLE.to(device, dtype),
            timestep=timesteps,
            encoder_attention_mask=text.extra[_MASK].to(device),
            num_frames=frames,
            height=rows,
            width=columns,
            rope_interpolation_scale=(self._ratio / _FRAME_RATE, scale, scale),
            return_dict=False,
        )
        prediction = cast("Tensor", packed_BNC).unflatten(1, (frames, rows, columns))
        return prediction.permute(0, 1, 4, 2, 3)

    # -- inside ------------------------------------------------------------------------------

    @property
    def _ratio(self) -> int:
        return int(self._ltx.vae_temporal_compression_ratio)

    @property
    def _steps(self) -> int:
        """Timestep of pure noise."""
        return int(self._ltx.scheduler.config.num_train_timesteps)

    def _statistics(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each channel [1,C,1,1,1], as the checkpoint's VAE holds them."""
        vae = self._ltx.vae
        mean, deviation = (v.view(1, -1, 1, 1, 1) for v in (vae.latents_mean, vae.latents_std))
        return mean.to(latents), deviation.to(latents)


def _packed(latents_BFCHW: Tensor) -> Tensor:
    """Tokens [B,N,C], frame-major."""
    return latents_BFCHW.permute(0, 1, 3, 4, 2).flatten(1, 3)


def _with_first(latents_BFCHW: Tensor, image_BFCHW: Tensor) -> Tensor:
    """The latents with frame 0 as the image has it."""
    return torch.cat([image_BFCHW[:, :1].to(latents_BFCHW), latents_BFCHW[:, 1:]], dim=1)
