"""Videos of a student while it trains, and their scores.

Training does not know generation or evaluation; here the three meet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from matrix_video.data.tracks import first_masks
from matrix_video.data.video import Video, write_video
from matrix_video.evaluation.oracle import OracleJudge
from matrix_video.evaluation.scores import METRICS, VideoScore
from matrix_video.evaluation.scoring import score_video, summarise
from matrix_video.evaluation.verdict import Judge
from matrix_video.generation.run import load_prompt
from matrix_video.generation.sampler import Sampling, sample
from matrix_video.services.errors import MatrixError
from matrix_video.training.config import TrainConfig
from matrix_video.training.inputs import read_clips

if TYPE_CHECKING:
    from matrix_video.backbones.base import Backbone
    from matrix_video.backbones.condition import Condition

FOLDER = "samples"


class StudentVideos:
    """A `training.loop.Watch`: ``<out>/samples/step-XXXXXXXX/<id>.mp4`` of held-out prompts.

    Each video starts from the same noise at every step, so that they can be compared. ``judge``
    takes the place of the oracle. Raises `MatrixError` where the config holds no sample back.
    """

    def __init__(self, config: TrainConfig, judge: Judge | None = None) -> None:
        self.config = config
        self.judge = OracleJudge() if judge is None else judge
        self.prompts = read_clips(config)[1][: config.samples]
        if not len(self.prompts):
            raise MatrixError(
                "there is no held-out sample to make videos of",
                remedy="give --heldout-samples or --val-data, or leave out --sample-every",
                field="sample_every",
            )

    def __call__(
        self, backbone: Backbone, condition: Condition | None, step: int
    ) -> Mapping[str, float]:
        """Means of the judge's scores by ``sample/<metric>``, where it is asked."""
        config = self.config
        folder = config.out / FOLDER / f"step-{step:08d}"
        sampling = Sampling(config.seed, config.sample_steps, precision=config.precision)
        scores: list[VideoScore] = []
        for index in range(len(self.prompts)):
            loaded = load_prompt(self.prompts, index, condition is not None)
            made = sample(backbone, [loaded.prompt], loaded.num_frames, sampling, condition)
            name = loaded.prompt.id
            write_video(folder / f"{name}.mp4", made[0], loaded.fps, lossless=True)
            if config.sample_judge == "oracle":
                known = self.prompts.sample(index)
                times = np.arange(len(made[0])) / loaded.fps
                video = Video(made[0], times, loaded.fps)
                masks = first_masks(self.prompts.tracks(index))
                verdict = self.judge.judge(video, known, masks)
                scores.append(score_video(known, verdict))
        if not scores:
            return {}
        found = summarise(scores)
        means = {metric: found[metric].mean for metric in METRICS}
        return {f"sample/{metric}": mean for metric, mean in means.items() if mean is not None}
