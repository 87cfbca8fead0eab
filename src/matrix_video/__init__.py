"""MATRIX: mask track alignment for interaction-aware video generation (arXiv 2510.07310).

The names that most programs need, each imported when it is first asked for, so that
``import matrix_video`` itself loads neither torch nor diffusers:

    load_pipeline, backbone_for    a model, and how its family computes       backbones
    tap, v2t_maps, v2v_maps        attention of chosen layers, exact maps     attention
    Dataset, DatasetWriter         clips with captions and mask tracks        data
    Sample, Instance, Interaction  who is in a clip and does what to whom     data
    find_phrases                   where a caption says a phrase              data
    Span, MaskTrack                where the caption says it, where they are  data
    analyze, AnalyzeConfig         which layers follow the masks              analysis
    train, TrainConfig             LoRA with SGA and SPA                      training
    load_adapter                   what training left behind, on a pipeline   backbones
    generate, GenerateConfig       videos of a prompt set                     generation
    evaluate, EvaluateConfig       InterGenEval                               evaluation
    MatrixError                    what was expected, what came, what to do   services
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from matrix_video.analysis.config import AnalyzeConfig
    from matrix_video.analysis.run import analyze
    from matrix_video.attention.readout import v2t_maps, v2v_maps
    from matrix_video.attention.tap import tap
    from matrix_video.backbones.adapter import load_adapter
    from matrix_video.backbones.loading import backbone_for, load_pipeline
    from matrix_video.data.dataset import Dataset
    from matrix_video.data.sample import Instance, Interaction, Sample, Span
    from matrix_video.data.spans import find_phrases
    from matrix_video.data.tracks import MaskTrack
    from matrix_video.data.writer import DatasetWriter
    from matrix_video.evaluation.config import EvaluateConfig
    from matrix_video.evaluation.run import evaluate
    from matrix_video.generation.config import GenerateConfig
    from matrix_video.generation.run import generate
    from matrix_video.services.errors import MatrixError
    from matrix_video.training.config import TrainConfig
    from matrix_video.training.run import train

__version__ = "0.1.0"

__all__ = [
    "AnalyzeConfig",
    "Dataset",
    "DatasetWriter",
    "EvaluateConfig",
    "GenerateConfig",
    "Instance",
    "Interaction",
    "MaskTrack",
    "MatrixError",
    "Sample",
    "Span",
    "TrainConfig",
    "analyze",
    "backbone_for",
    "evaluate",
    "find_phrases",
    "generate",
    "load_adapter",
    "load_pipeline",
    "tap",
    "train",
    "v2t_maps",
    "v2v_maps",
]

_HOME: Final = {
    "AnalyzeConfig": "analysis.config",
    "Dataset": "data.dataset",
    "DatasetWriter": "data.writer",
    "EvaluateConfig": "evaluation.config",
    "GenerateConfig": "generation.config",
    "Instance": "data.sample",
    "Interaction": "data.sample",
    "MaskTrack": "data.tracks",
    "MatrixError": "services.errors",
    "Sample": "data.sample",
    "Span": "data.sample",
    "TrainConfig": "training.config",
    "analyze": "analysis.run",
    "backbone_for": "backbones.loading",
    "evaluate": "evaluation.run",
    "find_phrases": "data.spans",
    "generate": "generation.run",
    "load_adapter": "backbones.adapter",
    "load_pipeline": "backbones.loading",
    "tap": "attention.tap",
    "train": "training.run",
    "v2t_maps": "attention.readout",
    "v2v_maps": "attention.readout",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
