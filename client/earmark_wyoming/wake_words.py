"""The wake words that the bridge offers: every keyword of every model of the server."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING

from earmark_client.audio import KeywordSetting
from earmark_client.errors import InvalidRequestError
from wyoming.info import Attribution, Info, WakeModel, WakeProgram

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from earmark_client.events import ModelInfo

_ATTRIBUTION = Attribution(name="Earmark", url="")


@dataclass(frozen=True, slots=True)
class WakeWord:
    """A keyword of a model, under the name that satellites use.

    `is_default`: whether it is detected for a satellite that names no wake words.
    """

    name: str
    model: str
    model_version: str
    setting: KeywordSetting
    is_default: bool


def wake_words(
    models: Iterable[ModelInfo],
    names: Sequence[str],
    settings: Sequence[KeywordSetting],
    threshold: float | None,
) -> list[WakeWord]:
    """Return the wake words of models, the default model's first.

    `names`: the models to offer, by default all of them; those of the first one are then the default.
    `settings`: the keywords to offer, by default all of them; the keyword of one model is written MODEL/WORD,
    and is a default too. `threshold`: of all keywords without one of their own. A keyword that an earlier
    model has too is named with its model: `stop (noisy)`. Raises InvalidRequestError for two settings of one
    keyword.
    """
    words: dict[str, WakeWord] = {}
    offered = [model for model in models if not names or model.name in names]
    for model in offered:
        for active in model.keywords:
            keyword, written = active.keyword, f"{model.name}/{active.keyword}"
            chosen = [one for one in settings if one.keyword in {keyword, written}]
            if settings and not chosen:
                continue
            if len(chosen) > 1:
                raise InvalidRequestError(
                    f"the keyword {keyword!r} of the model {model.name!r} is given twice: give it once",
                    reason="UNKNOWN_KEYWORD",
                )
            setting = chosen[0] if chosen else KeywordSetting(keyword)
            setting = replace(setting, keyword=keyword, model=model.name)
            if setting.threshold is None:
                setting = replace(setting, threshold=threshold)
            name = f"{keyword} ({model.name})" if keyword in words else keyword
            is_default = bool(names) or model is offered[0] or written in {one.keyword for one in chosen}
            words[name] = WakeWord(name, model.name, model.version, setting, is_default)
    return list(words.values())


def info(words: Iterable[WakeWord]) -> Info:
    """Return the answer to `describe`."""
    models = [
        WakeModel(
            name=word.name,
            attribution=_ATTRIBUTION,
            installed=True,
            description=f"{word.setting.keyword} ({word.model})",
            version=word.model_version,
            languages=[],
            phrase=word.setting.keyword,
        )
        for word in words
    ]
    program = WakeProgram(
        name="earmark",
        attribution=_ATTRIBUTION,
        installed=True,
        description="Keyword spotting in live audio",
        version=version("earmark"),
        models=models,
    )
    return Info(wake=[program])


def find(words: Iterable[WakeWord], name: str) -> WakeWord | None:
    """Return the wake word of a name, in which case and underscores do not matter."""
    return next((word for word in words if _normalized(word.name) == _normalized(name)), None)


def _normalized(name: str) -> str:
    return name.replace("_", " ").casefold().strip()
