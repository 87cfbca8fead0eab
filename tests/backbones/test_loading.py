"""From names to pipelines and backbones, and what is said when it fails."""

from __future__ import annotations

import io
import json
import shutil
import time
from importlib.metadata import EntryPoint
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from diffusers import (
    CogVideoXImageToVideoPipeline,
    CogVideoXPipeline,
    CogVideoXVideoToVideoPipeline,
)
from sentencepiece import SentencePieceTrainer

from matrix_video.backbones import loading
from matrix_video.backbones.blueprint import blueprint
from matrix_video.backbones.cogvideox import CogVideoXBackbone
from matrix_video.backbones.fingerprint import fingerprint
from matrix_video.backbones.loading import backbone_for, families, load_pipeline
from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.data.spans import find_phrases
from matrix_video.services.errors import MatrixError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "i2v"
    tiny_pipeline().save_pretrained(path)
    return path


def changed_index(folder: Path, to: Path, change: dict[str, Any]) -> Path:
    to.mkdir()
    index = json.loads((folder / "model_index.json").read_text())
    (to / "model_index.json").write_text(json.dumps({**index, **change}))
    return to


def test_round_trip(folder: Path) -> None:
    pipe: Any = load_pipeline(str(folder))
    assert type(pipe) is CogVideoXImageToVideoPipeline
    assert pipe.transformer.dtype == pipe.text_encoder.dtype == pipe.vae.dtype == torch.float32
    assert not pipe.transformer.training
    backbone = backbone_for(pipe)
    assert isinstance(backbone, CogVideoXBackbone)
    original = backbone_for(tiny_pipeline())
    assert fingerprint(backbone.transformer) == fingerprint(original.transformer)
    captions = ["the red ball hits the box", ""]
    mine, theirs = backbone.encode_text(captions), original.encode_text(captions)
    assert torch.equal(mine.embeds_BLE, theirs.embeds_BLE)
    assert backbone.num_text_tokens == 32


def test_a_tokenizer_as_models_are_published(tmp_path: Path) -> None:
    """``spiece.model`` and no ``tokenizer.json``: transformers converts it, with offsets."""
    path = tmp_path / "model"
    tiny_pipeline().save_pretrained(path)
    words = ["the", "red", "ball", "hits", "box", "pushes", "a", "blue", "and", "lifts", "cone"]
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(words[i:] + words[:i]) for i in range(len(words))]),
        model_writer=model,
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    shutil.rmtree(path / "tokenizer")
    (path / "tokenizer").mkdir()
    (path / "tokenizer" / "spiece.model").write_bytes(model.getvalue())
    settings = {"tokenizer_class": "T5Tokenizer", "model_max_length": 32, "extra_ids": 0}
    (path / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(settings))
    index = json.loads((path / "model_index.json").read_text())
    index["tokenizer"] = ["transformers", "T5Tokenizer"]
    (path / "model_index.json").write_text(json.dumps(index))
    backbone = backbone_for(load_pipeline(str(path)))
    caption = "the red ball hits the blue box"
    found = find_phrases(caption, ["red ball", "blue box"])
    assert backbone.phrase_tokens(caption, found) == ((1, 2), (5, 6))
    assert backbone.num_text_tokens == 32


def test_dtype_and_text_to_video(tmp_path: Path) -> None:
    tiny_pipeline(i2v=False).save_pretrained(tmp_path / "t2v")
    pipe: Any = load_pipeline(str(tmp_path / "t2v"), dtype=torch.bfloat16)
    assert type(pipe) is CogVideoXPipeline
    assert pipe.transformer.dtype == pipe.text_encoder.dtype == pipe.vae.dtype == torch.bfloat16
    same = backbone_for(tiny_pipeline(i2v=False))
    assert fingerprint(backbone_for(pipe).transformer) == fingerprint(same.transformer)


def test_tiny_is_looked_up_in_the_package(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "files", lambda package: tmp_path)
    with pytest.raises(MatrixError, match="the tiny pipeline is not in this installation"):
        load_pipeline("tiny")
    shutil.copytree(folder, tmp_path / "models" / "tiny")
    assert type(load_pipeline("tiny")) is CogVideoXImageToVideoPipeline


@pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks`:UserWarning")
@pytest.mark.parametrize("look", [load_pipeline, blueprint])
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nobody/nothing", r"nothing of nobody/nothing in the cache .*HF_HUB_OFFLINE"),
        ("tinny", r"no folder \S+/tinny, nothing of tinny in the cache"),
        ("./runs/nothing", r"no folder \S+/runs/nothing, and no name on the hub is like this"),
        ("a/b/c", r"no name on the hub is like this"),
    ],
)
def test_a_model_that_is_not_there_is_told_at_once(look: Any, name: str, told: str) -> None:
    with pytest.raises(MatrixError, match=rf"model: the model '{name}' was .*{told}.*\btiny\b"):
        look(name)


@pytest.mark.parametrize("answer", ["refused", "silent"])
def test_without_a_network_nobody_waits(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    """Whether connections are refused, or neither they nor names are answered."""
    released = Event()

    def connect(*_: object, **__: object) -> None:
        if answer == "silent":
            released.wait(20)
        raise OSError("unreachable")

    monkeypatch.setattr(loading.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(loading, "getproxies", dict)
    monkeypatch.setattr(loading.socket, "create_connection", connect)
    monkeypatch.setattr(loading, "_PATIENCE", 0.1)
    began = time.monotonic()
    with pytest.raises(MatrixError, match=r"no answer from http\S+ in 0\.1 s"):
        load_pipeline("nobody/nothing")
    released.set()
    assert time.monotonic() - began < 5


def test_folder_without_index(tmp_path: Path) -> None:
    with pytest.raises(MatrixError, match=r"not a complete pipeline .*model_index\.json") as info:
        load_pipeline(str(tmp_path))
    assert info.value.file == tmp_path


def test_pickled_weights_are_not_read(folder: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bin"
    shutil.copytree(folder, bad)
    weights = bad / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    torch.save({}, weights.with_suffix(".bin"))
    with pytest.raises(MatrixError, match=r"not a complete pipeline .* with safetensors weights"):
        load_pipeline(str(bad))


@pytest.mark.parametrize(
    "text", ["", "{", "{}", '"text"', '{"_class_name": "P", "transformer": 3}']
)
def test_broken_index(tmp_path: Path, text: str) -> None:
    (tmp_path / "model_index.json").write_text(text)
    with pytest.raises(MatrixError, match="not a complete pipeline"):
        load_pipeline(str(tmp_path))


def test_unknown_family_is_refused_before_weights(folder: Path, tmp_path: Path) -> None:
    other = changed_index(
        folder,
        tmp_path / "other",
        {"_class_name": "LattePipeline", "transformer": ["diffusers", "LatteTransformer3DModel"]},
    )
    message = (
        r"LattePipeline has a transformer of an unknown family \(LatteTransformer3DModel\)\. "
        r"use a model with one of CogVideoXTransformer3DModel, .*, or register "
        r".*matrix_video\.backbones"
    )
    with pytest.raises(MatrixError, match=message):
        load_pipeline(str(other))
    pipe: Any = tiny_pipeline()
    pipe.register_modules(transformer=pipe.vae)
    with pytest.raises(MatrixError, match=r"unknown family \(AutoencoderKLCogVideoX\)"):
        backbone_for(pipe)


def test_a_family_without_softmax_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    index = {
        "_class_name": "SanaVideoPipeline",
        "transformer": ["diffusers", "SanaVideoTransformer3DModel"],
    }
    message = (
        r"SanaVideoPipeline cannot be used \(SanaVideoTransformer3DModel\): its self-attention is "
        r"linear: there is no softmax.*use a model with one of CogVideoXTransformer3DModel"
    )
    with pytest.raises(MatrixError, match=message):
        load_pipeline(str(changed_index(folder, tmp_path / "sana", index)))


def test_unknown_pipeline_of_a_known_family() -> None:
    pipe: Any = tiny_pipeline(i2v=False)
    other = CogVideoXVideoToVideoPipeline(**pipe.components)
    with pytest.raises(MatrixError, match="CogVideoXVideoToVideoPipeline is not a CogVideoX"):
        backbone_for(other)


class Registered(CogVideoXBackbone):
    """A family of somebody else's."""


def test_families_of_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("AutoencoderKLCogVideoX", "somewhere:Registered", loading.GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda self: Registered)
    monkeypatch.setattr(loading, "entry_points", lambda group: (point,))
    assert set(families()) >= {"AutoencoderKLCogVideoX", "CogVideoXTransformer3DModel"}
    pipe: Any = tiny_pipeline()
    assert isinstance(backbone_for(pipe), Registered)
