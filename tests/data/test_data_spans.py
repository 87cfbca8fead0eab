from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Tokenizer

from matrix_video.data.sample import Instance, Interaction, Sample, Span
from matrix_video.data.spans import FastTokenizer, find_phrases, phrases, token_indices
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


def spaced() -> FastTokenizer:
    """White space is a token of its own."""
    tokenizer = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")


def spans_of(caption: str, *words: str) -> list[list[Span]]:
    """The first place of each of the words."""
    return [
        [Span(start=caption.index(word), end=caption.index(word) + len(word))] for word in words
    ]


@pytest.mark.parametrize(
    ("tokenizer", "caption", "words", "wanted"),
    [
        (word_level(), "the red ball pushes a box", ["red ball", "pushes"], [(2, 3), (4,)]),
        # Punctuation that touches the phrase is no part of it; inside it, it is.
        (word_level(), "red ball, the box.", ["red ball", "box"], [(1, 2), (5,)]),
        (word_level(), "the small, red ball", ["small, red ball"], [(2, 3, 4, 5)]),
        # Spans with white space at their ends, and runs of it inside.
        (word_level(), "the  red   ball box", ["  red   ball "], [(2, 3)]),
        # A word cut by the span still counts: the token shares characters with it.
        (word_level(), "the ball box", ["all"], [(2,)]),
        # Words that are not known are tokens all the same.
        (word_level(), "the zebra pushes", ["zebra"], [(2,)]),
        # Padding in front shifts the tokens.
        (word_level(padding="left"), "the red ball", ["red ball"], [(9, 10)]),
        (unigram(), "the red ball pushes", ["red ball", "pushes"], [(1, 2), (3, 4)]),
        (unigram(), "the red ball, the ball.", ["red ball"], [(1, 2)]),
        (unigram(), "  the   red ball", ["red", "ball"], [(1,), (2,)]),
        # "skate" has no piece with the word mark: the mark is a piece of its own before "s".
        (unigram(), "red skate", ["red", "skate"], [(0,), (1, 2, 3, 4)]),
        # Tokens of white space alone belong to no phrase, also inside of it.
        (spaced(), "the red ball", [" red ball"], [(2, 4)]),
    ],
)
def test_tokens_of_phrases(
    tokenizer: FastTokenizer, caption: str, words: list[str], wanted: list[tuple[int, ...]]
) -> None:
    found = token_indices(tokenizer, caption, spans_of(caption, *words), max_length=12)
    assert list(found) == wanted


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
            token_indices(word_level(), caption, [[span]], max_length=limit)
    elif wanted[-1] > limit - 2:
        with pytest.raises(MatrixError, match=r"is cut off.* reads"):
            token_indices(word_level(), caption, [[span]], max_length=limit)
    else:
        assert token_indices(word_level(), caption, [[span]], max_length=limit) == (tuple(wanted),)


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
        token_indices(word_level(), caption, [[Span(start=7, end=8)]], max_length=9)


# Phrases


def two_interactions() -> Sample:
    """id1 pushes id2, then id2 pushes id3; id3 has no mention, id4 acts in nothing."""
    caption = "the red ball pushes the box, the ball pushes, the man"

    def at(text: str, start: int = 0) -> Span:
        place = caption.index(text, start)
        return Span(start=place, end=place + len(text))

    balls = (at("red ball"), at("ball", 20)), (at("ball"), at("ball", 20))
    return Sample(
        id="two",
        file_name="videos/two.mp4",
        caption=caption,
        instances=(
            Instance(
                id="id1", noun="ball", phrase="red ball", mentions=balls[0], noun_spans=balls[1]
            ),
            Instance(id="id2", noun="box", phrase="box", mentions=(at("box"),)),
            Instance(id="id3", noun="box", phrase="blue box"),
            Instance(id="id4", noun="man", phrase="man", mentions=(at("man"),)),
        ),
        interactions=(
            Interaction(subject="id1", verb="push", object="id2", verb_span=at("pushes")),
            Interaction(subject="id2", verb="push", object="id3", verb_span=at("pushes", 20)),
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


def test_an_instance_that_acts_on_itself_counts_once() -> None:
    sample = two_interactions()
    itself = sample.interactions[0].model_copy(update={"object": "id1"})
    alone = sample.model_copy(update={"interactions": (itself,)})
    assert [(p.role, p.instances) for p in phrases(alone)] == [
        ("subject", ("id1",)),
        ("verb", ("id1",)),
    ]
    assert phrases(sample.model_copy(update={"interactions": ()})) == ()


def test_tokens_of_all_mentions_together() -> None:
    sample = two_interactions()
    spans = [phrase.spans for phrase in phrases(sample, "all")]
    found = token_indices(word_level(), sample.caption, spans, max_length=20)
    assert found == ((2, 3, 9), (6,), (4,), (10,))


# From words to characters


@pytest.mark.parametrize(
    ("caption", "wanted", "found"),
    [
        ("a caterpillar and a cat", ["cat"], [["20 cat"]]),
        ("The cat's ball. A CAT", ["cat"], [["4 cat", "18 CAT"]]),
        ("the red ball hits the ball", ["ball", "red ball"], [["22 ball"], ["4 red ball"]]),
        ("a man and a man", ["man", "Man"], [["2 man"], ["12 man"]]),
        ("red  \n ball", ["red ball"], [["0 red  \n ball"]]),
        ("a T‑shirt, a t-shirt", ["t-shirt"], [["2 T‑shirt", "13 t-shirt"]]),
        ("the cat’s toy", ["cat's toy"], [["4 cat’s toy"]]),
        ("l’homme", ["homme"], [["2 homme"]]),
        ("café, café", ["café"], [["0 café", "6 café"]]),
        ("die STRASSE, die Straße", ["straße"], [["4 STRASSE", "17 Straße"]]),
        ("a soft­ball", ["softball"], [["2 soft­ball"]]),
        ("一个红球推", ["红球"], [["2 红球"]]),
        ("공을 찬다", ["공"], [["0 공"]]),
        ("ball 12, ball 1", ["ball 1"], [["9 ball 1"]]),
    ],
)
def test_phrases_are_found_as_whole_words(
    caption: str, wanted: list[str], found: list[list[str]]
) -> None:
    spans = find_phrases(caption, wanted)
    assert [[f"{span.start} {span.of(caption)}" for span in one] for one in spans] == found


@pytest.mark.parametrize(
    ("caption", "wanted", "message"),
    [
        ("a caterpillar", ["cat"], "says 'cat' only as a part of 'caterpillar'"),
        ("a cat-like thing", ["cat"], "says 'cat' only as a part of 'cat-like'"),
        ("a cat-like thing", ["like"], "says 'like' only as a part of 'cat-like'"),
        ("it can't roll", ["can"], "says 'can' only as a part of \"can't\""),
        ("he doesn't", ["doesn"], "says 'doesn' only as a part of"),
        ("ball_1", ["ball"], "only as a part of 'ball_1'"),
        ("a café", ["cafe"], "says 'cafe' only as a part of"),
        ("Straße", ["stras"], "says 'stras' only as a part of"),
        ("공", ["고"], "only as a part of '공'"),  # its letters, not its syllable
        ("the red ball rolls", ["red ball", "ball"], "says 'ball' only as a part of"),
        ("a box", ["ball"], "does not say 'ball'. Give each phrase"),
        ("a box", [" "], "does not say ' '"),
        ("a man", ["man", "man"], "says 'man' 1 times, but it is given 2 times"),
        ("a man, a man, a man", ["man", "man"], "says 'man' 3 times, but it is given 2 times"),
    ],
)
def test_words_that_are_not_said(caption: str, wanted: list[str], message: str) -> None:
    with pytest.raises(MatrixError) as error:
        find_phrases(caption, wanted)
    assert message in str(error.value)


@given(st.text(max_size=30), st.text(min_size=1, max_size=3))
def test_what_is_found_reads_as_it_was_asked(caption: str, phrase: str) -> None:
    try:
        (spans,) = find_phrases(caption, [phrase])
    except MatrixError:
        return
    assert all(find_phrases(span.of(caption), [phrase]) for span in spans)
    assert list(spans) == sorted(spans, key=lambda span: span.start)
