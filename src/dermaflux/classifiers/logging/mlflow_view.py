"""A view of the MLflow experiment that draws AUC against ratio, found in the UI under *Views*.

MLflow keeps named views as tags of the experiment (from 3.17 on); a tag of that form is all this
writes. A view that somebody changed and saved under the same name is left as it is.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

KEY = "ratio-auc"
"""In addresses: `/#/experiments/<id>/runs?viewStateShareKey=ratio-auc&compareRunsMode=CHART`."""
NAME = "Ratio against AUC"
_TAG = f"mlflow.sharedViewState.{KEY}"
_SECTION = "dermaflux"


def offer(client: MlflowClient, experiment_id: str) -> None:
    """Add the view to an experiment without it."""
    tags = client.get_experiment(experiment_id).tags
    if _TAG not in tags:
        now = int(time.time() * 1000)
        envelope = {"name": NAME, "createdAt": now, "updatedAt": now, "state": json.dumps(state())}
        client.set_experiment_tag(experiment_id, _TAG, json.dumps(envelope))


def state() -> dict[str, Any]:
    """What the page shows: runs over all seeds, AUC and accuracy against ratio, and the table."""
    charts = [
        _scatter("ratio", "AUC"),
        _scatter("ratio", "accuracy"),
        _scatter("n_real", "AUC"),
        _bars("AUC"),
    ]
    columns = [
        *(f"params.`{name}`" for name in ("architecture", "arm", "n_real", "ratio")),
        *(
            f"metrics.`{name}`"
            for name in ("AUC", "AUC_sd", "seeds", "accuracy", "majority_accuracy")
        ),
        "tags.`DVC_EXP_NAME`",
    ]
    return {
        "searchFilter": "tags.over = 'seeds'",
        "orderByKey": "metrics.`AUC`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": columns,
        "columnOrder": [],
        "columnWidths": {},
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": charts,
        "compareRunSections": [
            {
                "uuid": _SECTION,
                "name": "Model metrics",
                "display": True,
                "isReordered": True,
                "deleted": False,
                "isGenerated": False,
                "columns": 2,
                "cardHeight": 420,
            }
        ],
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,
        "groupBy": None,
        "groupsExpanded": {},
        "autoRefreshEnabled": True,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
    }


def _scatter(parameter: str, metric: str) -> dict[str, Any]:
    return {
        **_card("SCATTER", f"{parameter}-{metric}"),
        "runsCountToCompare": 100,
        "xaxis": {"key": parameter, "type": "PARAM"},
        "yaxis": {"key": metric, "type": "METRIC"},
    }


def _bars(metric: str) -> dict[str, Any]:
    return {**_card("BAR", metric), "metricKey": metric, "runsCountToCompare": 100}


def _card(kind: str, name: str) -> dict[str, Any]:
    return {
        "uuid": f"{_SECTION}-{name}",
        "type": kind,
        "metricSectionId": _SECTION,
        "deleted": False,
        "isGenerated": False,
    }
