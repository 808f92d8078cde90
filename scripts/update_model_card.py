#!/usr/bin/env python
"""Write the figures of an evaluation to a model card: update_model_card.py METRICS.json [CARD.md].

METRICS.json is the output of `earmark-train evaluate --out` or `earmark-train export`. CARD.md defaults to
the card of the bundled model.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from earmark_training.reporting.model_card import update_card

CARD = Path(__file__).parents[1] / "server/earmark_spotter/models/MODEL_CARD.md"

if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    update_card(Path(sys.argv[2]) if len(sys.argv) == 3 else CARD, json.loads(Path(sys.argv[1]).read_text()))
