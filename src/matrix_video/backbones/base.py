"""What every family of video transformers tells the rest: where attention is, latents, targets.

Shapes: B batch, T pixel frames, H W pixels; F' latent frames as the transformer gets them (with
padding of the model's own), C latent channels, H' W' latent rows and columns; L text tokens; F
token frames, h w token rows and columns.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from diffusers.models.cache_utils import CacheMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor, nn
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.tokenization_utils_tokenizers import PreTrainedTokenizerFast

from matrix_video.attention.site import Kind, Site
from matrix_video.backbones.fingerprint import config_text, fingerprint
from matrix_video.backbones.text import Text, TokenKind
from matrix_video.data.clip import Clip
from matrix_video.data.grid import TokenGrid
from matrix_video.data.sample import Span
from matrix_video.data.spans import FastTokenizer, token_indices
from matrix_video.services.errors import MatrixError, naming
from matrix_video.services.files import sha256_text

Guidance = Literal["batched", "separate"]
"""``batched``: one forward of [unconditional, conditional]; ``separate``: one forward each, the
conditional first."""


class Backbone(ABC):
    """One pipeline, seen through its family's conventions. The pipeline stays as it is.

    Tensors come back on the device, and in the dtype, of the part that made them; inputs may be
    anywhere. Layers are counted from 0; a layer out of range is a `MatrixError` naming the range.
    """

    family: ClassVar[str]
    variants: ClassVar[tuple[str, ...]]
    """Names that `tiny` knows: every kind of checkpoint that the family's code treats apart."""
    tiny_clip: ClassVar[tuple[int, int, int]] = (9, 32, 32)
    """Frames, rows and columns of a clip that the pipelines of `tiny` take."""
    dispatches: ClassVar[bool] = True
    """Whether attention goes through diffusers' dispatcher, so that a backend can be set for it."""
    guidance: ClassVar[Guidance]
    """How the stock pipeline calls the transformer under classifier-free guidance."""
    one_image_a_call: ClassVar[bool] = False
    """Whether the stock image-to-video call takes a single first frame for all its prompts."""
    pipe: DiffusionPipeline
    transformer: nn.Module

    @classmethod
    @abstractmethod
    def tiny(cls, variant: str, seed: int = 0) -> DiffusionPipeline:
        """A complete stock pipeline with random weights, small enough for tests; it takes clips of
        `tiny_clip`, and captions of at least a dozen words of `backbones.tiny.WORDS`."""

    # -- structure ---------------------------------------------------------------------------

    @property
    @abstractmethod
    def num_layers(self) -> int:
        """Layers whose attention can be read."""

    @property
    def least_steps(self) -> int:
        """Fewest denoising steps that the stock call can make."""
        return 1

    @property
    def one_prompt_a_call(self) -> bool:
        """Whether the stock call must be made for each prompt alone."""
        return self.takes_image and self.one_image_a_call

    @property
    def dropped_frames(self) -> int:
        """Pixel frames at its start that the stock call leaves out of a video that it sampled."""
        return 0

    @property
    @abstractmethod
    def num_text_tokens(self) -> int:
        """Text tokens L of a site: those of every caption, with padding and whatever else the
        family puts among them."""

    @property
    @abstractmethod
    def tokenizer(self) -> FastTokenizer:
        """The tokenizer of the captions."""

    @property
    @abstractmethod
    def takes_image(self) -> bool:
        """Whether the model is conditioned on a first frame (image-to-video)."""

    @property
    @abstractmethod
    def latent_channels(self) -> int:
        """C."""

    @abstractmethod
    def layer_names(self) -> tuple[str, ...]:
        """Name of each layer's block in the transformer, e.g. "transformer_blocks.0"."""

    @abstractmethod
    def site(self, layer: int, kind: Kind, grid: TokenGrid, num_text: int) -> Site:
        """Where the layer's P of this kind is, for clips of ``grid`` and ``num_text`` tokens.

        `MatrixError` where the transformer is set up so that attention cannot be observed.
        """

    @abstractmethod
    def lora_targets(self, layers: Sequence[int]) -> str:
        """Regular expression (full match) on the attention projections of ``layers`` alone."""

    @abstractmethod
    def condition_site(self) -> str:
        """Module that turns latents into tokens; the id map's projection joins its output."""

    def sites(self, layers: Sequence[int], kind: Kind, grid: TokenGrid) -> dict[str, Site]:
        """`site` of several layers, in their order, by the name of the attention module.

        Where one softmax serves both kinds the same name is the same site.
        """
        found = [self.site(i, kind, grid, self.num_text_tokens) for i in layers]
        return {site.module: site for site in found}

    def phrase_tokens(
        self, caption: str, phrases: Sequence[Sequence[Span]]
    ) -> tuple[tuple[int, ...], ...]:
        """Each phrase's tokens among the text tokens of a site; a phrase is one or more spans.

        ``phrases`` as `data.spans.find_phrases` gives them. Raises `MatrixError` for a phrase
        without a token, or cut by truncation.
        """
        return token_indices(self.tokenizer, caption, phrases, max_length=self.num_text_tokens)

    def token_kinds(self, caption: str) -> tuple[TokenKind, ...]:
        """What each of the L text tokens of a site is, for one caption."""
        encoded = self.tokenizer(
            caption,
            padding="max_length",
            truncation=True,
            max_length=self.num_text_tokens,
            return_offsets_mapping=True,
            verbose=False,
        )
        return tuple(
            TokenKind.PADDING
            if not attended
            else (TokenKind.WORD if end > start else TokenKind.SPECIAL)
            for attended, (start, end) in zip(
                encoded["attention_mask"], encoded["offset_mapping"], strict=True
            )
        )

    def cut_text(self, caption: str) -> str:
        """What of a caption the model does not read, because it reads no more tokens; mostly ""."""
        encoded = self.tokenizer(
            caption,
            padding=False,
            truncation=True,
            max_length=self.num_text_tokens,
            return_offsets_mapping=True,
            verbose=False,
        )
        return caption[max((end for _, end in encoded["offset_mapping"]), default=0) :].strip()

    # -- clips -------------------------------------------------------------------------------

    @abstractmethod
    def grid(self, num_frames: int, height: int, width: int) -> TokenGrid:
        """Token grid of a clip of T frames of H x W pixels.

        `MatrixError` for a length or size that the model cannot take, with the nearest that it can.
        """

    @abstractmethod
    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(F', C, H', W') of such a clip; errors as `grid`."""

    @abstractmethod
    def encode_video(
        self, frames_BTHWC: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Scaled latents [B,F',C,H',W'] of uint8 frames, or floats in [0, 1].

        The posterior's mode, or a sample with ``generator``. Errors as `grid`.
        """

    @abstractmethod
    def encode_image(
        self, frames_BHWC: Tensor, num_frames: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Condition latents [B,F',C,H',W'] of first frames, for clips of ``num_frames`` frames.

        As the stock image-to-video pipeline makes them, except that the posterior's mode is taken
        where no ``generator`` is given.
        """

    def encode_id_map(self, images_BHWC: Tensor, num_frames: int) -> Tensor:
        """Condition latents [B,F',C,H',W'] of first-frame id maps: in latent frame 0, without
        sampling, before zeros (paper section 5).

        As first frames, where those lie before zeros too.
        """
        return self.encode_image(images_BHWC, num_frames)

    def image_extra(self, frames_BHWC: Tensor) -> dict[str, Tensor]:
        """What the transformer takes of first frames beside their latents, batch first.

        `encode_text` puts it among the text's extra tensors where it is given the frames;
        `Text.given` does so for a caption encoded without, e.g. the empty one. Nothing, unless the
        family has an image encoder besides its VAE.
        """
        del frames_BHWC
        return {}

    @abstractmethod
    def encode_text(self, captions: Sequence[str], images_BHWC: Tensor | None = None) -> Text:
        """Encoded captions, as the stock pipeline makes them.

        ``images_BHWC`` are their first frames, which families ignore whose text encoder reads text
        alone. The others read each caption together with its frame, or, without any, with a black
        one, as their stock pipelines do for the unconditional branch.
        """

    @abstractmethod
    def decode(self, latents_BFCHW: Tensor) -> Tensor:
        """Frames uint8 [B,T,H,W,3], as the stock pipeline makes them."""

    @abstractmethod
    def call_arguments(
        self, noise_BFCHW: Tensor, clip: tuple[int, int, int], first_BHWC: Tensor | None
    ) -> dict[str, Any]:
        """Arguments of the stock pipeline's call, besides prompt, steps, guidance and generator.

        They make it start from ``noise`` (standard normal, of `latent_shape`), for clips of
        (T, H, W) pixels whose first frames are uint8 ``first_BHWC`` (exactly where `takes_image`),
        with text as `encode_text` makes it, and return videos as uint8 or floats ("np").
        """

    # -- objective ---------------------------------------------------------------------------

    @abstractmethod
    def sample_timesteps(self, batch: int, generator: torch.Generator) -> Tensor:
        """Training timesteps [B], drawn as the model's own training draws them, on the CPU."""

    @abstractmethod
    def noise_levels(self, count: int) -> Tensor:
        """``count`` timesteps evenly spaced in the schedule, least noise first, on the CPU.

        The middles of equal parts of the schedule, so that neither the clean clip nor pure noise
        is among them (our choice).
        """

    @abstractmethod
    def add_noise(self, latents: Tensor, noise: Tensor, timesteps_B: Tensor) -> Tensor:
        """Latents at ``timesteps``, in the dtype of ``latents``."""

    @abstractmethod
    def target(self, latents: Tensor, noise: Tensor, timesteps_B: Tensor) -> Tensor:
        """What `predict` should return, float32."""

    @abstractmethod
    def weight(self, timesteps_B: Tensor) -> Tensor:
        """Weights [B] under which squared error on `target` is the model's own objective."""

    def supervised(self, num_latents: int) -> Tensor:
        """Bool [F'], on the CPU: latent frames that the model's own objective covers.

        All, unless the model is given some clean and does not predict them.
        """
        return torch.ones(num_latents, dtype=torch.bool)

    @abstractmethod
    def predict(
        self,
        noisy_BFCHW: Tensor,
        timesteps_B: Tensor,
        text: Text,
        image_BFCHW: Tensor | None = None,
    ) -> Tensor:
        """One forward of the transformer, [B,F',C,H',W'], with gradients where they are on.

        ``image_BFCHW`` is needed exactly where `takes_image`.
        """

    # -- common ------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the pipeline computes. Under offloading its parts lie elsewhere between their
        turns."""
        pipe: Any = self.pipe
        return pipe._execution_device

    @property
    def tiled(self) -> bool:
        """Whether the VAE encodes and decodes in tiles."""
        return bool(getattr(self.pipe.components["vae"], "use_tiling", False))

    def tile(self) -> None:
        """Let the VAE encode and decode in overlapping tiles, whose size is the VAE's own.

        `MatrixError` for a VAE that has no tiling.
        """
        vae: Any = self.pipe.components["vae"]
        try:
            vae.enable_tiling()
        except (AttributeError, NotImplementedError) as error:
            raise MatrixError(
                f"{type(vae).__name__}, the VAE of {type(self.pipe).__name__}, has no tiling",
                remedy="Leave out --tiling, or give smaller or shorter clips",
                field="tiling",
            ) from error

    def check_layer(self, layer: int) -> int:
        """``layer`` itself; `MatrixError` naming the range where there is none of this index."""
        if not 0 <= layer < self.num_layers:
            raise MatrixError(
                f"layer {layer} does not exist: {type(self.transformer).__name__} here has layers "
                f"0 to {self.num_layers - 1}",
                remedy="choose layers in this range, e.g. with `matrix analyze` on this model",
                field="layers",
            )
        return layer

    def chosen_layers(self, layers: Sequence[int]) -> tuple[int, ...]:
        """``layers`` ascending, each once, checked; `MatrixError` for none. For `lora_targets`."""
        if not layers:
            raise MatrixError(
                "no layer was chosen for LoRA", remedy="name at least one layer", field="layers"
            )
        return tuple(sorted({self.check_layer(i) for i in layers}))

    def check_observable(self) -> None:
        """`MatrixError` where a cache is enabled, which leaves out attention calls; for `site`."""
        if isinstance(self.transformer, CacheMixin) and self.transformer.is_cache_enabled:
            raise MatrixError(
                "the transformer has a cache enabled, which skips attention",
                remedy="call transformer.disable_cache() first",
                field="transformer",
            )

    def clip_grid(self, clip: Clip) -> TokenGrid:
        """`grid` of a clip in memory; its errors name the sample."""
        with naming(f"sample {clip.sample.id}"):
            return self.grid(len(clip.video), *clip.video.size)

    def release_encoders(self) -> None:
        """Free the memory of text and image encoders, once all that they are for is encoded.

        The pipeline can then neither encode captions nor be called; its VAE stays.
        """
        for name in self.pipe.components:
            if name.startswith(("text_encoder", "image_encoder")):
                self.pipe.register_modules(**{name: None})

    def encoders_key(self) -> str:
        """Hash of all that turns clips and captions into latents and embeddings, and of the noise
        schedule: every part of the pipeline but its transformers. Part of cache keys."""
        parts: list[str] = []
        for name, part in sorted(self.pipe.components.items()):
            if isinstance(part, type(self.transformer)):
                continue
            if isinstance(part, nn.Module):
                dtype = next((str(p.dtype) for p in part.parameters()), "")
                parts += [name, *fingerprint(part).model_dump().values(), dtype]
            elif isinstance(part, PreTrainedTokenizerBase):
                parts += [name, type(part).__name__, _tokenizer_text(part)]
            else:
                parts += [name, type(part).__name__, config_text(part)]
        parts += ["tiled"] * self.tiled
        return sha256_text(*parts)


def _tokenizer_text(tokenizer: PreTrainedTokenizerBase) -> str:
    """Everything that decides which tokens a caption becomes."""
    length = str(tokenizer.model_max_length)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return length + json.dumps(tokenizer.get_vocab(), sort_keys=True)
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    for state in ("truncation", "padding"):  # of its latest call
        rules.pop(state, None)
    return length + json.dumps(rules, sort_keys=True)
