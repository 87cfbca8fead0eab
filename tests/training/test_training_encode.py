"""A clip encoded for training: what the masks and weights mean."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from matrix_video.backbones.loading import backbone_for
from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.data.clip import Clip
from matrix_video.data.dataset import Dataset
from matrix_video.data.sample import Interaction
from matrix_video.data.tracks import MaskTrack
from matrix_video.services.errors import MatrixError
from matrix_video.training.encode import Encoded, encode_clip


def test_shapes(encoded: list[Encoded]) -> None:
    one = encoded[0]
    assert one.latents_FCHW.shape == (3, 4, 8, 8)
    assert one.image_FCHW is not None
    assert one.image_FCHW.shape == (3, 4, 8, 8)
    assert not one.image_FCHW[1:].any()
    assert one.text.embeds_BLE.shape == (1, 32, 32)
    assert one.ids_IHW.shape == (2, 32, 32)
    assert one.phrase_PL.shape == (3, 32)
    assert one.region_PN.shape == (3, 48)
    assert one.tokens_PFhw.shape == (3, 3, 4, 4)
    assert one.target_PTHW.shape == (3, 9, 8, 8)
    assert one.known_PT.all()
    assert one.visible_PF.all()
    assert not one.repeated_P.any()


def test_phrases_weigh_their_own_tokens(encoded: list[Encoded]) -> None:
    # the red ball pushes the blue box </s>
    weights = torch.zeros(3, 32)
    weights[0, 1:3], weights[1, 5:7], weights[2, 3] = 0.5, 0.5, 1
    assert torch.equal(encoded[0].phrase_PL, weights)


def test_a_verb_is_the_union(encoded: list[Encoded]) -> None:
    for one in encoded:
        assert torch.equal(one.tokens_PFhw[2], one.tokens_PFhw[0] | one.tokens_PFhw[1])
        assert torch.equal(one.target_PTHW[2], one.target_PTHW[0] | one.target_PTHW[1])


def test_regions_average_over_the_first_frame(encoded: list[Encoded]) -> None:
    for one in encoded:
        torch.testing.assert_close(one.region_PN.sum(dim=1), torch.ones(3))
        assert not one.region_PN[:, 16:].any()
        assert torch.equal(one.region_PN[:, :16] > 0, one.tokens_PFhw[:, 0].flatten(1))


def clip_of(data_path: Path, index: int = 0) -> Clip:
    return Dataset(data_path)[index]


def changed(clip: Clip, **tracks: MaskTrack) -> Clip:
    return Clip(clip.sample, clip.video, clip.tracks | tracks)


def test_unknown_and_absent_frames(data_path: Path) -> None:
    backbone = backbone_for(tiny_pipeline(0))
    clip = clip_of(data_path)
    masks = clip.tracks["id1"].masks()
    masks[0] = False  # absent in the first frame: no region
    clip = changed(clip, id1=MaskTrack.from_masks(masks, unknown=[6]))
    one = encode_clip(backbone, clip, mentions="full", up=2)
    assert one.known_PT[0].tolist() == [t != 6 for t in range(9)]
    assert one.known_PT[1].all()
    assert one.known_PT[2].tolist() == [t != 6 for t in range(9)]
    assert not one.target_PTHW[0, 0].any()
    assert not one.target_PTHW[:, 6][[0, 2]].any()
    assert one.visible_PF[0].tolist() == [False, True, False]
    assert not one.region_PN[0].any()
    torch.testing.assert_close(one.region_PN[2], one.region_PN[1])  # the verb's: what is there
    assert one.ids_IHW.shape[0] == 1


def test_the_same_instances_twice(data_path: Path) -> None:
    clip = clip_of(data_path)
    interactions = (*clip.sample.interactions, Interaction(
        subject="id2", verb="touch", object="id1", verb_span=clip.sample.interactions[0].verb_span
    ))  # fmt: skip
    sample = clip.sample.model_copy(update={"interactions": interactions})
    one = encode_clip(
        backbone_for(tiny_pipeline(0)), Clip(sample, clip.video, clip.tracks), mentions="full", up=1
    )
    assert one.repeated_P.tolist() == [False, False, False, True]
    assert one.target_PTHW.shape[2:] == (4, 4)


def test_a_sample_without_interaction(data_path: Path) -> None:
    clip = clip_of(data_path)
    sample = clip.sample.model_copy(update={"interactions": ()})
    one = encode_clip(
        backbone_for(tiny_pipeline(0)), Clip(sample, clip.video, clip.tracks), mentions="full", up=2
    )
    assert one.phrase_PL.shape == (0, 32)
    assert one.target_PTHW.shape == (0, 9, 8, 8)
    assert one.ids_IHW.shape == (2, 32, 32)


def test_text_to_video_has_no_image(data_path: Path) -> None:
    backbone = backbone_for(tiny_pipeline(0, i2v=False))
    assert encode_clip(backbone, clip_of(data_path), mentions="full", up=2).image_FCHW is None


def test_a_first_frame_behind_the_models_own_padding(data_path: Path) -> None:
    """CogVideoX 1.5: two latents a token frame, one prepended; the first shows frame 0."""
    backbone = backbone_for(tiny_pipeline(0, patch_size_t=2, ofs_dim=8, invert_scale=True))
    one = encode_clip(backbone, clip_of(data_path), mentions="full", up=2)
    assert one.visible_PF[:, 0].all()
    assert one.known_PT.all()
    assert one.region_PN[:, :16].any()
    assert not one.region_PN[:, 16:].any()


def test_errors_name_the_sample(data_path: Path) -> None:
    backbone = backbone_for(tiny_pipeline(0, text_length=4))
    with pytest.raises(MatrixError, match=r"0000.*the phrase 'blue box' is cut off"):
        encode_clip(backbone, clip_of(data_path), mentions="full", up=2)
    backbone = backbone_for(tiny_pipeline(0))
    clip = clip_of(data_path)
    missing = Clip(clip.sample, clip.video, {"id1": clip.tracks["id1"]})
    with pytest.raises(
        MatrixError, match="sample 0000: 'blue box' is id2, which has no mask track"
    ):
        encode_clip(backbone, missing, mentions="full", up=2)
    short = Clip(
        clip.sample,
        type(clip.video)(clip.video.frames_THWC[:5], clip.video.times[:5], clip.video.fps),
        {name: track.take(range(5)) for name, track in clip.tracks.items()},
    )
    with pytest.raises(MatrixError, match="sample 0000: a clip of 5 frames"):
        encode_clip(backbone, short, mentions="full", up=2)
