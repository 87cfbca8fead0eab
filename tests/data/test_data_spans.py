from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Tokenizer

from matrix_video.data.sample import Instance, Interaction, Sample, Span
from matrix_video.data.spans import FastTokenizer, Phrase, phrase_tokens, phrases, token_indices
from matrix_video.services.errors import MatrixError

WORDS = ["the", "small", "red", "blue", "ball", "box", "pushes", "man", "re", "-"]


def word_level(side: str = "right", padding: str = "right") -> FastTokenizer:
    """One token a word or punctuation mark, [CLS] in front, [SEP] behind."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", ",", *WORDS]
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        truncation_side=side,
        padding_side=padding,
    )


def unigram() -> FastTokenizer:
    """Sentence pieces as T5 has them: some words whole, some in parts, </s> behind."""
    pieces = ["▁the", "▁red", "▁ball", "▁ba", "ll", "▁push", "es", "▁", ",", ".", "s", "k", "ate"]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    return T5Tokenizer(vocab=vocabulary + [(piece, -1.0) for piece in pieces], extra_ids=0)


def spans_of(caption: str, *words: str) -> list[Span]:
    return [Span(start=caption.index(word), end=caption.index(word) + len(word)) for word in words]


@pytest.mark.parametrize(
    ("caption", "words", "wanted"),
    [
        ("the red ball pushes the box", ["red ball", "pushes", "box"], [(2, 3), (4,), (6,)]),
        # Punctuation that touches the phrase is no part of it; inside it, it is.
        ("red ball, the box.", ["red ball", "box"], [(1, 2), (5,)]),
        ("the small, red ball", ["small, red ball"], [(2, 3, 4, 5)]),
        # Spans with white space at their ends, and runs of it inside.
        ("the  red   ball box", ["  red   ball "], [(2, 3)]),
        # A word cut by the span still counts: the token shares characters with it.
        ("the ball box", ["all"], [(2,)]),
        # Words that are not known are tokens all the same.
        ("the zebra pushes", ["zebra"], [(2,)]),
    ],
)
def test_word_tokens(caption: str, words: list[str], wanted: list[tuple[int, ...]]) -> None:
    found = token_indices(word_level(), caption, spans_of(caption, *words), max_length=12)
    assert list(found) == wanted


@pytest.mark.parametrize(
    ("caption", "words", "wanted"),
    [
        ("the red ball pushes", ["red ball", "pushes"], [(1, 2), (3, 4)]),
        ("the red ball, the ball.", ["red ball"], [(1, 2)]),
        ("  the   red ball", ["red", "ball"], [(1,), (2,)]),
        # "skate" has no piece with the word mark: the mark is a piece of its own before "s".
        ("red skate", ["red", "skate"], [(0,), (1, 2, 3, 4)]),
    ],
)
def test_sentence_pieces(caption: str, words: list[str], wanted: list[tuple[int, ...]]) -> None:
    found = token_indices(unigram(), caption, spans_of(caption, *words), max_length=12)
    assert list(found) == wanted


def test_tokens_of_white_space_alone_belong_to_no_phrase() -> None:
    tokenizer = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
    spaced = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"
    )
    # the, space, red, space, ball: the second space lies inside the phrase
    assert token_indices(spaced, "the red ball", [Span(start=3, end=12)], max_length=9) == ((2, 4),)


def test_repeated_words_are_told_apart_by_place() -> None:
    caption = "red ball pushes red ball"
    found = token_indices(
        word_level(), caption, [Span(start=0, end=8), Span(start=16, end=24)], max_length=9
    )
    assert found == ((1, 2), (4, 5))


def test_padding_in_front_shifts_the_tokens() -> None:
    caption = "the red ball"
    found = token_indices(
        word_level(padding="left"), caption, spans_of(caption, "red ball"), max_length=9
    )
    assert found == ((6, 7),)


def encode_by_hand(caption: str) -> list[tuple[int, int]]:
    """Offsets of words in a caption of words and single spaces."""
    offsets, start = [], 0
    for word in caption.split(" "):
        offsets.append((start, start + len(word)))
        start += len(word) + 1
    return offsets


@given(st.lists(st.sampled_from(WORDS[:8]), min_size=1, max_size=12), st.data())
def test_any_span_against_words_counted_by_hand(words: list[str], data: st.DataObject) -> None:
    caption = " ".join(words)
    start = data.draw(st.integers(0, len(caption) - 1))
    end = data.draw(st.integers(start + 1, len(caption)))
    limit = data.draw(st.integers(3, 16))
    wanted = [
        k + 1
        for k, (first, last) in enumerate(encode_by_hand(caption))
        if any(first <= place < last for place in range(start, end))
    ]
    span = Span(start=start, end=end)
    if not wanted:
        with pytest.raises(MatrixError, match="maps to no token"):
            token_indices(word_level(), caption, [span], max_length=limit)
    elif wanted[-1] > limit - 2:
        with pytest.raises(MatrixError, match=r"is cut off.* reads"):
            token_indices(word_level(), caption, [span], max_length=limit)
    else:
        assert token_indices(word_level(), caption, [span], max_length=limit) == (tuple(wanted),)


def test_phrase_cut_by_truncation_names_phrase_and_limit() -> None:
    caption = "the small red ball pushes the blue box"
    spans = spans_of(caption, "small red ball", "blue box")
    assert token_indices(word_level(), caption, spans, max_length=10)[1] == (7, 8)
    message = (
        r"caption: the phrase 'blue box' is cut off: the caption has 10 tokens, but the model "
        r"reads 9, and 1 of the phrase's 2 are lost\. Shorten"
    )
    with pytest.raises(MatrixError, match=message):
        token_indices(word_level(), caption, spans, max_length=9)
    with pytest.raises(MatrixError, match="the phrase 'small red ball' is cut off"):
        token_indices(word_level(side="left"), caption, spans, max_length=8)


def test_phrase_without_a_token() -> None:
    caption = "the red \u200b\u3000 ball"
    with pytest.raises(MatrixError, match=r"\(characters 7 to 8\) maps to no token of the"):
        token_indices(word_level(), caption, [Span(start=7, end=8)], max_length=9)


# Phrases


def two_interactions() -> Sample:
    """id1 pushes id2, then id2 pushes id3; id3 has no mention, id4 acts in nothing."""
    caption = "the red ball pushes the box, the ball pushes, the man"
    first, second = caption.index("pushes"), caption.rindex("pushes")

    def at(text: str, start: int = 0) -> Span:
        place = caption.index(text, start)
        return Span(start=place, end=place + len(text))

    return Sample(
        id="two",
        file_name="videos/two.mp4",
        caption=caption,
        instances=(
            Instance(
                id="id1",
                noun="ball",
                phrase="red ball",
                mentions=(at("red ball"), at("ball", 20)),
                noun_spans=(at("ball"), at("ball", 20)),
            ),
            Instance(id="id2", noun="box", phrase="box", mentions=(at("box"),)),
            Instance(id="id3", noun="box", phrase="blue box"),
            Instance(id="id4", noun="man", phrase="man", mentions=(at("man"),)),
        ),
        interactions=(
            Interaction(
                subject="id1",
                verb="push",
                object="id2",
                verb_span=Span(start=first, end=first + 6),
            ),
            Interaction(
                subject="id2",
                verb="push",
                object="id3",
                verb_span=Span(start=second, end=second + 6),
            ),
            Interaction(subject="id3", verb="leave", object="id1"),
        ),
    )


def test_phrases_by_interaction() -> None:
    sample = two_interactions()
    found = phrases(sample)
    assert [(phrase.role, phrase.instances, phrase.text) for phrase in found] == [
        ("subject", ("id1",), "red ball"),
        ("object", ("id2",), "box"),
        ("verb", ("id1", "id2"), "pushes"),
        ("verb", ("id2", "id3"), "pushes"),
    ]
    assert [phrase.spans for phrase in found[2:]] == [
        (sample.interactions[0].verb_span,),
        (sample.interactions[1].verb_span,),
    ]


def test_mentions() -> None:
    sample = two_interactions()
    ball = sample.instances[0]
    assert phrases(sample, "full")[0].spans == ball.mentions[:1]
    assert phrases(sample, "noun")[0].spans == ball.noun_spans[:1]
    assert phrases(sample, "all")[0].spans == ball.mentions
    assert phrases(sample, "all")[0].text == "red ball, ball"
    # id2 has no noun span: nothing to point at in that mode.
    assert [phrase.role for phrase in phrases(sample, "noun")] == ["subject", "verb", "verb"]


def test_instance_acting_on_itself_counts_once() -> None:
    sample = two_interactions()
    alone = sample.model_copy(
        update={"interactions": (sample.interactions[0].model_copy(update={"object": "id1"}),)}
    )
    assert [(p.role, p.instances) for p in phrases(alone)] == [
        ("subject", ("id1",)),
        ("verb", ("id1",)),
    ]


def test_sample_without_interactions_has_no_phrases(
    make_sample: Callable[[str], Sample],
) -> None:
    assert phrases(make_sample("0001").model_copy(update={"interactions": ()})) == ()


def test_phrase_tokens_join_all_mentions() -> None:
    sample = two_interactions()
    found = phrase_tokens(word_level(), sample, phrases(sample, "all"), max_length=20)
    assert found == ((2, 3, 9), (6,), (4,), (10,))


def test_phrase_tokens_name_the_sample() -> None:
    sample = two_interactions()
    noun = Phrase("object", ("id2",), sample.instances[1].mentions, "box")
    with pytest.raises(MatrixError, match="two: caption: the phrase 'box' is cut off"):
        phrase_tokens(word_level(), sample, [noun], max_length=5)
