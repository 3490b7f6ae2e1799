"""Tables of precisions as comparisons leave them: passed or failed, simulated or of engines."""

from __future__ import annotations

from typing import Any

import msgspec

from pointrend_deploy.parity.gates import drop_gates, readable_gate, ungated
from pointrend_deploy.parity.record.detections import AccuracyRow, Measure
from pointrend_deploy.parity.record.precisions import (
    LabelFigures,
    MatchFigures,
    PrecisionColumn,
    PrecisionName,
    PrecisionTable,
    StageNoise,
    StepOverlap,
)

STAGES = ("stem", *(f"blocks.{number}" for number in range(11)))
SNR = {"fp16": 66.0, "int8": 36.0}


def noise(precision: PrecisionName, prefix: str = "backbone.bottom_up.") -> tuple[StageNoise, ...]:
    """It falls by 1.5 dB a stage: int8 is below 30 dB from the sixth on."""
    if precision == "fp32":
        return ()
    return tuple(
        StageNoise(
            stage=f"{prefix}{stage}",
            rms=1.0,
            noise=10 ** (-(SNR[precision] - 1.5 * number) / 20),
            snr_db=SNR[precision] - 1.5 * number,
        )
        for number, stage in enumerate(STAGES)
    )


def steps(precision: PrecisionName) -> tuple[StepOverlap, ...]:
    share = {"fp32": 1.0, "fp16": 0.998, "int8": 0.93}[precision]
    if precision == "fp32":
        return ()
    return tuple(
        StepOverlap(step=n, k=2048, sets=16, share=share**n, least=share**n / 2, jaccard=0.9)
        for n in (1, 2, 3)
    )


def scores(precision: PrecisionName, lost: float) -> LabelFigures:
    drop = {"fp32": 0.0, "fp16": 0.0004, "int8": lost}[precision]
    return LabelFigures(
        miou=0.7654 - drop, boundary_iou={"2 %": 0.6789 - drop, "2 px": 0.5432 - drop}
    )


def column(precision: PrecisionName, **fields: Any) -> PrecisionColumn:
    made = {
        "precision": precision,
        "runner": "onnx",
        "graphs": {f"model.{precision}.onnx": "d4" * 32},
        "graph_bytes": {"fp32": 190_668_068, "fp16": 95_400_000, "int8": 48_100_000}[precision],
        "points": steps(precision),
        "stages": noise(precision),
        "engines": {f"rtx-sm86-{precision}-plugin": 101_000_000},
    }
    if precision == "int8":
        made |= {
            "fallback": "fp16",
            "int8_layers": 118,
            "int8_flops": 0.987,
            "left_out": {"sem_seg_head.point_head.predictor": "a predictor"},
            "method": "entropy",
            "pictures": 32,
        }
    return PrecisionColumn(**{**made, **fields})


def semantic(lost: float = 0.003, truth: bool = True, **fields: Any) -> PrecisionTable:
    """``lost`` is what int8 loses; ``fields`` go to its column."""
    columns = []
    names: tuple[PrecisionName, ...] = ("fp32", "fp16", "int8")
    for name in names:
        found = {f: scores(name, lost) for f in ("truth", "beside_reference")}
        gates = drop_gates(
            name,
            {"mIoU": 0.7654, "boundary IoU, 2 px": 0.5432},
            {
                "mIoU": found["truth"].miou,
                "boundary IoU, 2 px": found["truth"].boundary_iou["2 px"],
            },
        )
        if not truth:
            found, gates = {"beside_reference": found["beside_reference"]}, ()
        more = fields if name == "int8" else {}
        columns.append(
            column(
                name,
                labels_compared=524_288,
                agrees_reference=0.9999,
                **{
                    "agrees_fp32": None if name == "fp32" else 0.9995,
                    "gates": gates,
                    **found,
                    **more,
                },
            )
        )
    return PrecisionTable(
        task="semantic",
        created="2026-03-04T05:06:07Z",
        pictures=36,
        stage_pictures=16,
        truth=truth,
        columns=tuple(columns),
        reference_truth=scores("fp32", 0) if truth else None,
        notes=() if truth else ungated({"fp32": True, "int8": False}, "--labels"),
    )


def instance() -> PrecisionTable:
    measures: tuple[Measure, ...] = ("box", "mask", "boundary")

    def accuracy(who: str, drop: float) -> tuple[AccuracyRow, ...]:
        return tuple(
            AccuracyRow(
                prediction=who,
                measure=measure,
                ap=0.4321 - drop,
                ap50=0.6,
                ap75=0.5,
                small=None,
                medium=0.3,
                large=0.6,
            )
            for measure in measures
        )

    beside = MatchFigures(
        matched=404,
        only_here=3,
        only_there=2,
        box_px=1.5,
        box_median_px=0.25,
        mask_iou_mean=0.991,
        mask_iou_min=0.71,
    )
    columns = tuple(
        column(
            name,
            found_reference=beside,
            found_fp32=None if name == "fp32" else beside,
            accuracy=accuracy(name, drop),
            gates=drop_gates(name, {"mask AP": 0.4321}, {"mask AP": 0.4321 - drop})
            + (() if name == "fp32" else (readable_gate(0),)),
        )
        for name, drop in (("fp32", 0.0), ("fp16", -0.0005), ("int8", 0.002))
    )
    return PrecisionTable(
        task="instance",
        created="2026-03-04T05:06:07Z",
        pictures=36,
        stage_pictures=16,
        truth=True,
        columns=columns,  # type: ignore[arg-type]
        reference_accuracy=accuracy("reference", 0.0),
    )


def engines(table: PrecisionTable) -> PrecisionTable:
    """The same of engines, which give outputs only."""
    columns = tuple(
        msgspec.structs.replace(
            each,
            runner="tensorrt",
            engine=f"orin-{each.precision}",
            stages=(),
            points=(),
            stages_note="engines give outputs only",
        )
        for each in table.columns
    )
    return msgspec.structs.replace(table, columns=columns)
