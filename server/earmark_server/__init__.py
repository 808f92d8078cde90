"""Earmark's gRPC server: the service earmark.v1.KeywordSpottingService, with health and reflection."""

from earmark_server.embedded import serve_in_thread
from earmark_server.setting_declaration import SettingsError
from earmark_server.settings import Settings

__all__ = ["Settings", "SettingsError", "serve_in_thread"]
