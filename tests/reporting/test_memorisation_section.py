"""What the page says of memorisation in a whole pool, beside held-out real images."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from dermaflux import reporting
from dermaflux.audit.memorisation.figures import memorisation_figures
from dermaflux.reporting import pages


def rendered(pool: pd.DataFrame, held_out: pd.DataFrame) -> tuple[dict[str, list[str]], str]:
    """Cells by the head of their row, and the page's sentence on the C_T test."""
    points = tuple(np.zeros((count, 3)) for count in (30, len(pool), len(held_out)))
    figures = memorisation_figures(pool, held_out, points)
    page = pages.environment(Path(reporting.__file__).parent)
    text = page.get_template("sections/audit/memorisation.html").render(part=figures)
    rows = [re.findall(r"<t[dh](?: [^>]*)?>(.*?)</t[dh]>", line) for line in text.splitlines()]
    return {row[0]: row[1:] for row in rows if row}, re.sub("<.*?>", "", text.splitlines()[-1])


def judged(count: int, distance: float) -> pd.DataFrame:
    numbers = np.arange(count)
    return pd.DataFrame(
        {
            "distance": distance + numbers,
            "ratio": 1 + numbers / 10,
            "copy": numbers < 3,
            "too near": numbers < 1,
            "rejected": numbers < 3,
            "authentic": numbers % 2 == 0,
        }
    )


def test_every_figure_stands_beside_that_of_held_out_images() -> None:
    rows, tested = rendered(judged(30, 0.0), judged(20, 1000.0))
    assert rows["Figure"] == ["30 synthetic images", "20 held-out real images"]
    assert rows["show the same photograph"] == ["10.0 % (2.1 to 26.5)", "15.0 % (3.2 to 37.9)"]
    assert rows["equal to a training image at the size compared"][0] == "3.3 % (0.1 to 17.2)"
    assert rows["median of the distance ratio"][0].startswith("2.450 (")
    # All synthetic images are nearer: U is 0, so Z = -(m n / 2) / sqrt(m n (m + n + 1) / 12).
    z = -300 / np.sqrt(600 * 51 / 12)
    assert f"gives {z:.2f}".replace("-", "−") in tested
    assert "over 1 cells" not in tested


def test_a_pool_without_held_out_images_says_so() -> None:
    rows, tested = rendered(judged(30, 0.0), judged(0, 0.0))
    assert rows["show the same photograph"][1] == "there are no images"
    assert "needs 20 synthetic and held-out images in one cell" in tested
