"""Nouns of everyday prompts."""

from __future__ import annotations

import pytest

from matrix_video.data.convert.prompts import derive_instances, read_prompt
from matrix_video.data.sample import Instance

SEEN = [
    ("a <id1> man threw the ball to a <id2> woman", "man woman"),
    ("a <id1> tall bearded man hugs a <id2> woman in red", "man woman"),
    ("two <id1> boys kicked a <id2> ball", "boys ball"),
    ("a <id1> hot dog falls on the floor next to a <id2> cat", "dog cat"),
    ("a <id1> man cut the <id2> rope", "man rope"),
    ("an <id1> elderly woman pushes a <id2> red shopping cart", "woman cart"),
    ("a <id1> golden retriever puppy licks a <id2> little child", "puppy child"),
    ("a <id1> woman wearing a blue hat pours tea for an <id2> old man", "woman man"),
    ("an <id1> injured soldier is carried by another <id2> soldier", "soldier soldier"),
    ("two <id1> sumo wrestlers push each other", "wrestlers"),
    ("a <id1> well-dressed gentleman opens the door for a <id2> lady", "gentleman lady"),
    ("the <id1> children's teacher hugs the <id2> crying child", "teacher child"),
    ("a <id1> woman <id2> man dance together", "woman man"),
    ("the <id1> woman in red dances with the <id2> man in black", "woman man"),
    ("the <id1> drone hovers above a <id2> red sports car", "drone car"),
    ("<id1> Mr. Smith shook hands with <id2> Dr. Jones", "Smith Jones"),
]
"""The rules were made with these before our eyes."""

BEHIND = [
    ("a man<id1> and woman <id2> danced", "man woman"),
    ("a MAN<ID1> hits a dog<id02>", "MAN dog"),
    ("a <id1> man and woman <id2> danced", "man woman"),
    ("Sarah <id1> hugs John <id2>", "Sarah John"),
    ("two men<id1> chase the tall young woman<id2>.", "men woman"),
    ("the man hugs woman<id2>", "woman"),
    ("a person <id1> hands a cup to another person <id2> in red", "person person"),
    ("a tall man<id1> wearing a hat pushes an old car<id2>", "man car"),
    ("a white horse <id1> pulled a cart <id2> up a hill", "horse cart"),
    ("an old woman <id1>, smiling, feeds a duck <id2>", "woman duck"),
    ("kids<id1> push big boxes<id2>", "kids boxes"),
]
"""Tags behind their nouns."""

UNSEEN = [
    ("a <id1> carpenter hammers a <id2> nail into a board", "carpenter nail"),
    ("the <id1> goalkeeper caught the <id2> ball", "goalkeeper ball"),
    ("an <id1> angry customer shouts at a <id2> cashier", "customer cashier"),
    ("two <id1> wolves attack a <id2> deer", "wolves deer"),
    ("a <id1> little girl in a pink dress pets a <id2> fluffy rabbit", "girl rabbit"),
    ("the <id1> bus driver waved to the <id2> passengers", "driver passengers"),
    ("a <id1> construction worker lifts a <id2> steel beam", "worker beam"),
    ("<id1> Anna throws a <id2> snowball at <id3> Peter", "Anna snowball Peter"),
    ("a <id1> nurse bandaged the <id2> patient's arm", "nurse patient's"),
    ("a <id1> karate fighter kicked his <id2> rival", "fighter rival"),
    ("the <id1> toy robot bumps into a <id2> glass bottle", "robot bottle"),
    ("an <id1> astronaut floats toward the <id2> space station", "astronaut station"),
    ("a <id1> shirtless man lifts a <id2> heavy barbell", "man barbell"),
    ("a <id1> swimming turtle bites the <id2> jellyfish", "turtle jellyfish"),
    ("a <id1> man with a beard slapped another <id2> man", "man man"),
    ("the <id1> bride and the <id2> groom cut the <id3> wedding cake", "bride groom cake"),
    ("a <id1> street vendor gives an <id2> ice cream to a <id3> boy", "vendor cream boy"),
    ("a <id1> young couple feed <id2> pigeons in a park", "couple pigeons"),
    ("the <id1> cheetah ran after the <id2> gazelle", "cheetah gazelle"),
    ("a woman <id1> holds the hand of a child <id2>", "woman child"),
    ("a <id1> masked thief stole the <id2> handbag", "thief handbag"),
    ("a <id1> violinist bows to the <id2> conductor", "violinist conductor"),
    ("several <id1> students surround their <id2> teacher", "students teacher"),
    ("a <id1> broken chair hits the <id2> window", "chair window"),
    ("a <id1> hand holds a <id2> smartphone", "hand smartphone"),
    ("the <id1> black dog jumped on the <id2> grey sofa", "dog sofa"),
    ("a <id1> referee separates two <id2> ice hockey players", "referee players"),
    ("an <id1> old lady knits a <id2> scarf for her <id3> grandson", "lady scarf grandson"),
    ("a <id1> delivery man drops a <id2> cardboard box", "man box"),
    ("a <id1> boxer punches a <id2> punching bag", "boxer bag"),
    ("the <id1> ship rams the <id2> iceberg", "ship iceberg"),
    ("a <id1> painter paints a <id2> portrait", "painter portrait"),
    ("a <id1> surfer wearing black shorts falls off a <id2> surfboard", "surfer surfboard"),
    ("a <id1> blonde woman brushes a <id2> long-haired cat", "woman cat"),
    ("the <id1> farmer milks the <id2> cow", "farmer cow"),
    ("a <id1> race car overtakes a <id2> motorcycle", "car motorcycle"),
    ("a <id1> person in a bear costume high-fives a <id2> kid", "person kid"),
    ("a <id1> clown juggles three <id2> balls", "clown balls"),
    ("the <id1> security guard stops a <id2> running man", "guard man"),
    ("a <id1> father lets his <id2> son drive the <id3> tractor", "father son tractor"),
]
"""Written when the rules stood, and measured once: 83 of 85 nouns, one of the two others marked as
doubtful. ("scarf for": the word was missing among the function words and has been added since.)"""


def instances(prompt: str) -> tuple[Instance, ...]:
    return derive_instances(read_prompt(prompt), ())


@pytest.mark.parametrize(("prompt", "nouns"), SEEN + BEHIND)
def test_everyday_prompts(prompt: str, nouns: str) -> None:
    assert [one.noun for one in instances(prompt)] == nouns.split()


def test_prompts_that_the_rules_were_not_made_for() -> None:
    wanted = [noun for _, nouns in UNSEEN for noun in nouns.split()]
    found = [one for prompt, _ in UNSEEN for one in instances(prompt)]
    wrong = {noun: one.noun for noun, one in zip(wanted, found, strict=True) if one.noun != noun}
    assert wrong == {"patient's": "arm"}
    assert [one.noun for one in found if one.doubtful] == ["arm", "robot"]


@pytest.mark.parametrize(
    ("prompt", "noun"),
    [
        ("the <id1> old fisherman's dog barks", "dog"),  # or is it the fisherman?
        ("the <id1> toy robot bumps into it", "robot"),  # or is it the bumps of a toy robot?
        ("a <id1> blonde wearing jeans waits", "jeans"),
        ("eine <id1> Frau gibt, ihm", "gibt"),
        ("a <id1> tall threw it", "tall"),
        ("woman <id1> holds child", "child"),  # or is it the woman?
    ],
)
def test_what_the_rules_do_not_settle_is_marked(prompt: str, noun: str) -> None:
    (one,) = instances(prompt)
    assert (one.noun, one.doubtful) == (noun, True)
