"""The part of the package's metadata that depends on where the project is published.

With EARMARK_REPOSITORY, the address of the repository on GitHub, the metadata has the project's addresses,
and the links and pictures of README.md are absolute, as an index needs them. The workflow `release` sets it.
Without it README.md is used as it is.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

_PICTURES = (".png", ".svg")


class PublishedMetadata(MetadataHookInterface):
    """Sets `readme` and `urls`."""

    def update(self, metadata: dict) -> None:
        """Set the fields; hatchling calls this."""
        text = Path(self.root, "README.md").read_text()
        repository = os.environ.get("EARMARK_REPOSITORY", "").rstrip("/")
        if repository:
            text = absolute_links(text, repository, f"v{metadata['version']}")
            metadata["urls"] = {
                "Repository": repository,
                "Documentation": f"{repository}/tree/v{metadata['version']}/docs",
                "Changelog": f"{repository}/blob/v{metadata['version']}/CHANGELOG.md",
                "Issues": f"{repository}/issues",
            }
        else:
            metadata["urls"] = {}
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def absolute_links(text: str, repository: str, tag: str) -> str:
    """Return Markdown in which links to files of the repository are links to GitHub, at a tag."""

    def absolute(match: re.Match[str]) -> str:
        path = match[1]
        view = "raw" if path.partition("#")[0].endswith(_PICTURES) else "blob"
        return f"]({repository}/{view}/{tag}/{path})"

    return re.sub(r"\]\((?!\w+:|#)([^)]+)\)", absolute, text)
