from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from earmark_audio.endpointing import locate_word
from earmark_training.keyword.recordings import KeywordRecording
from earmark_training.keyword.voices import ONE_VOICE_DB, voice_spread_db
from support.synthetic_words import COMPUTER, RATE, say

if TYPE_CHECKING:
    import numpy as np


def recording_of(samples: np.ndarray) -> KeywordRecording:
    word = locate_word(samples, RATE)
    assert word is not None
    return KeywordRecording(Path("x.wav"), samples, word)


def test_the_spread_of_one_voice_is_lower_than_that_of_several():
    several = [recording_of(say(COMPUTER, i, i)) for i in range(10)]
    one = [recording_of(say(COMPUTER, 1, i)) for i in range(10)]
    assert voice_spread_db(one) < ONE_VOICE_DB < voice_spread_db(several)
