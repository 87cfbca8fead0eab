"""What each verb demands of its two participants, as geometry of their tracks.

Every rule reads positions and outlines of a *generated* video and nothing else. Here a
is the subject, b the object, d the direction in which a came, R the sum of both radii.

=======  ======================  =======================================  ====================
verb     contact                 the change runs                          the end state
=======  ======================  =======================================  ====================
push     they touch              b goes on along d ahead of a, a keeps    b farther along d, a
                                 up, they stay close                      close behind it
pull     they touch              a goes back along -d, b follows close    b back along -d, a
                                                                          ahead of it, close
hit      they touch              b goes off along d while a stays         apart, b farther
                                                                          along d
bump     they touch              both go back the way they came           apart, on own sides
carry    b sits on a's upper     both travel, b on top, not slipping      b elsewhere, on a
         side
squash   they touch              b's height falls to 3/4 or less and it   b flat, under a
                                 spreads while a presses down
chase    a has gained 2 pixels   both go the same way, b ahead            b elsewhere, a
                                                                          behind, not far back
hug      they touch              they stay together                       together, own sides
=======  ======================  =======================================  ====================
"""

from __future__ import annotations

from typing import Final

from matrix_video.evaluation.oracle.bodies import CARRY, SQUASH
from matrix_video.evaluation.oracle.course import Rule
from matrix_video.evaluation.oracle.forces import HIT, PULL, PUSH
from matrix_video.evaluation.oracle.meetings import BUMP, HUG
from matrix_video.evaluation.oracle.pursuit import CHASE

RULES: Final[dict[str, Rule]] = {
    "push": PUSH,
    "pull": PULL,
    "hit": HIT,
    "bump": BUMP,
    "carry": CARRY,
    "squash": SQUASH,
    "chase": CHASE,
    "hug": HUG,
}
"""By base verb."""
