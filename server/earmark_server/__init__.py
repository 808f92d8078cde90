"""Earmark's gRPC server: the service earmark.v1.KeywordSpottingService, with health and reflection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from earmark_audio.lazy_names import lazy_names

if TYPE_CHECKING:
    from earmark_server.embedded import serve_in_thread
    from earmark_server.setting_declaration import SettingsError
    from earmark_server.settings import Settings

__all__ = ["Settings", "SettingsError", "serve_in_thread"]
_MODULES = ("embedded", "setting_declaration", "settings")


# What takes long to import is imported only after the command has arranged for Ctrl-C.
__getattr__ = lazy_names(__name__, __all__, _MODULES)
