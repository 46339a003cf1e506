from __future__ import annotations

from dataclasses import replace

import pytest

from build_engine.outcome import Built
from build_engine.report.headline import headline


def with_figures(built: Built, reference: dict[str, float], *others: dict[str, float]) -> str:
    """The last part of the headline, had the metric said this of the float graph and of the others."""
    figures = (reference, *others, *[others[-1]] * (len(built.accuracy) - 1 - len(others)))
    accuracy = tuple(replace(one, metric=said) for one, said in zip(built.accuracy, figures, strict=True))
    return headline(replace(built, accuracy=accuracy)).rpartition(", ")[2]


def test_what_was_fused_and_lost_is_one_sentence(built: Built) -> None:
    said = headline(built)
    assert said.startswith("4 blocks fused, ") and "less activation memory" in said
    assert "INT8 loses " in said and said.endswith(".")


@pytest.mark.parametrize(
    ("reference", "others", "said"),
    [
        ({"mAP50": 0.8}, [{"mAP50": 0.79}, {"mAP50": 0.798}], "INT8 loses at most 1.0 points in mAP50."),
        ({"mAP50": 0.8}, [{"mAP50": 0.85}], "INT8 loses nothing in any figure."),
        ({"mAP50": 0.8, "iou": 0.9}, [{"mAP50": 0.85, "iou": 0.898}], "INT8 loses at most 0.2 points in iou."),
        ({"mAP50": 0.8}, [{"mAP50": 0.7996}], "INT8 loses less than 0.1 points in mAP50."),
        ({"depth_rmse": 4.0}, [{"depth_rmse": 3.0}, {"depth_rmse": 4.2}], "INT8 loses at most 5.0 % in depth_rmse."),
        ({"depth_rmse": 4.0}, [{"depth_rmse": 3.0}], "INT8 loses nothing in any figure."),
    ],
    ids=["worst graph", "better", "worst figure", "small", "smaller is better", "and smaller"],
)
def test_a_loss_is_called_a_loss_and_an_improvement_none(
    built: Built, reference: dict[str, float], others: list[dict[str, float]], said: str
) -> None:
    assert with_figures(built, reference, *others) == said


def test_one_figure_of_one_graph_is_no_most(built: Built) -> None:
    one = replace(built, accuracy=built.accuracy[:2])
    assert with_figures(one, {"mAP50": 0.8}, {"mAP50": 0.79}) == "INT8 loses 1.0 points in mAP50."
    assert with_figures(one, {"mAP50": 0.8}, {"mAP50": 0.81}) == "INT8 loses nothing in mAP50."


def test_without_a_metric_agreement_is_told(built: Built) -> None:
    assert with_figures(built, {}, {}).startswith("INT8 detections match FP32's at F1 ")
