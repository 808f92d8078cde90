"""Japanese and Mandarin in the symbols of the package misaki, with which Kokoro's voices were trained.

Japanese is divided into words and read by MeCab with the dictionary UniDic, Mandarin by jieba and pypinyin.
"""

from __future__ import annotations

import functools
import logging
import tempfile
import warnings
from typing import TYPE_CHECKING

from earmark_audio.extras import install_command

from earmark_training.keyword.voice_files import SynthesisError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TONES = "→↗↓↘"
"""The first to the fourth tone of Mandarin, after the vowel."""
_KANA = (6, 7)
"""MeCab's types of characters: hiragana and katakana, which are read even if no dictionary has the word."""


def misaki_spelling(texts: Sequence[str], language: str) -> list[str]:
    """Return each text in misaki's symbols, a space between words; `language` is ja or zh.

    A character that has no reading remains as it is. Raises SynthesisError if a package is missing.
    """
    try:
        speller = {"ja": _japanese, "zh": _mandarin}[language]()
    except ImportError as error:
        raise SynthesisError(
            f"--language {language} needs packages that are missing: {install_command('voices-ja-zh')}, with "
            "Python 3.11 or 3.12"
        ) from error
    return list(map(speller, texts))


@functools.cache
def _japanese() -> Callable[[str], str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # misaki uses a function that Python 3.11 calls deprecated
        # Not misaki.ja, which imports another reader that is not needed, and must be compiled.
        from misaki.cutlet import Cutlet
    cutlet = Cutlet()

    def spell(text: str) -> str:
        # misaki leaves out a word that the dictionary lacks, unless it is written in kana.
        unread = "".join(w.surface for w in cutlet.tagger(text) if w.is_unk and w.char_type not in _KANA)
        return f"{cutlet(text)[0]} {unread}"

    return spell


@functools.cache
def _mandarin() -> Callable[[str], str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # jieba uses a module that setuptools calls deprecated
        import jieba
        from misaki.zh import ZHG2P
        from pypinyin import Style, lazy_pinyin
    jieba.setLogLevel(logging.WARNING)
    # It would read its dictionary from a file in /tmp, which another user may have written.
    with tempfile.TemporaryDirectory(prefix="earmark-jieba-") as folder:
        jieba.dt.tmp_dir = folder
        jieba.initialize()
    symbols = functools.cache(ZHG2P.py2ipa)  # it needs some milliseconds

    def syllable(pinyin: str) -> str:
        try:
            # As misaki does: the mark of the second half of a diphthong goes.
            return str(symbols(pinyin)).replace("\u032f", "")
        except ValueError:  # a punctuation mark, or a character without a reading
            return pinyin

    def spell(text: str) -> str:
        # As misaki does for Kokoro 1.0, and without tone sandhi: the voices were trained on this.
        words = (lazy_pinyin(w, style=Style.TONE3, neutral_tone_with_five=True) for w in jieba.lcut(text))
        return " ".join("".join(map(syllable, word)) for word in words)

    return spell
