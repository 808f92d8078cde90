"""The wake words that the bridge offers: every keyword of every model of the server."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING

from earmark_client.audio import KeywordSetting
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
    `settings`: the keywords to offer, by default all of them. `threshold`: of all keywords without one of
    their own. A keyword that an earlier model has too is named with its model: `stop (noisy)`.
    """
    chosen = {setting.keyword: setting for setting in settings}
    words: dict[str, WakeWord] = {}
    offered = [model for model in models if not names or model.name in names]
    for model in offered:
        for active in model.keywords:
            keyword = active.keyword
            if chosen and keyword not in chosen:
                continue
            setting = chosen.get(keyword) or KeywordSetting(keyword)
            if setting.threshold is None:
                setting = KeywordSetting(keyword, threshold)
            name = f"{keyword} ({model.name})" if keyword in words else keyword
            setting = replace(setting, model=model.name)
            is_default = bool(names) or model is offered[0]
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
