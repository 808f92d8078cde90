"""The options --keyword and --threshold, and the keyword settings that they mean."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from earmark_client.audio import KeywordSetting

from earmark_cli.options import number, probability

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_client.sync_client import SyncClient


def keyword_options() -> argparse.ArgumentParser:
    """Return a parent parser with --keyword and --threshold."""
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group("model and keywords")
    group.add_argument(
        "--keyword",
        type=_keyword_setting,
        action="append",
        default=[],
        metavar="WORD[=THRESHOLD]",
        help="a keyword to detect, and its threshold between 0 and 1; may be repeated; of one of several "
        "models: MODEL/WORD (default: all keywords of the model, with calibrated thresholds)",
    )
    group.add_argument(
        "--threshold",
        type=probability,
        metavar="T",
        help="the threshold of all keywords for which --keyword gives none, between 0 and 1 "
        "(default: calibrated)",
    )
    return parser


def keyword_settings(
    client: SyncClient, args: argparse.Namespace, models: Sequence[str]
) -> list[KeywordSetting]:
    """Return the settings of all chosen keywords; an empty list means all keywords, as calibrated."""
    several = len(models) > 1
    chosen = [_of_model(one, models) if several else one for one in args.keyword]
    if args.threshold is None:
        return chosen
    chosen = chosen or [
        KeywordSetting(active.keyword, model=model if several else "")
        for model in models or [""]
        for active in client.get_model(model).keywords
    ]
    return [
        setting if setting.threshold is not None else replace(setting, threshold=args.threshold)
        for setting in chosen
    ]


def _of_model(setting: KeywordSetting, models: Sequence[str]) -> KeywordSetting:
    """Return a setting whose keyword is that of one model if it is written as MODEL/WORD."""
    model, slash, keyword = setting.keyword.partition("/")
    return replace(setting, model=model, keyword=keyword) if slash and model in models else setting


def _keyword_setting(text: str) -> KeywordSetting:
    keyword, equals, threshold = text.rpartition("=")
    if not equals:
        return KeywordSetting(text)
    value = number(threshold)
    if not keyword or value is None or not 0 < value < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r}: give a keyword, or a keyword and its threshold between 0 and 1, such as stop=0.8"
        )
    return KeywordSetting(keyword, threshold=value)
