"""Writes docs/leaderboard.schema.json, the JSON Schema of what `dermaflux results` ranks."""

from __future__ import annotations

import json
from pathlib import Path

from dermaflux.sweeps.leaderboard.schema import Leaderboard

if __name__ == "__main__":
    target = Path(__file__).parent / "leaderboard.schema.json"
    target.write_text(json.dumps(Leaderboard.model_json_schema(), indent=1) + "\n")
