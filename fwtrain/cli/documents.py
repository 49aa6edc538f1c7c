"""What every command of `fwtrain` prints with `--json`, by command; see `fwdata.cli.documents`."""

from __future__ import annotations

_ANSWERS = "fwtrain.cli.answers:"
_BENCH = "fwtrain.cli.bench_answers:"

DOCUMENTS: dict[str, tuple[str, ...]] = {
    "run": ("fwtrain.cli.run:OutcomeJson", "fwtrain.train.run:Planned"),
    "compare": (f"{_ANSWERS}ComparedJson", f"{_ANSWERS}ComparePlanJson"),
    "report": (f"{_ANSWERS}RunPageJson",),
    "distil": (f"{_ANSWERS}DistilJson",),
    "plan": (f"{_ANSWERS}TrainingPlanJson",),
    "predict": ("fwtrain.infer.predict:PredictionJson",),
    "eval": (f"{_ANSWERS}SampleEvalJson", f"{_ANSWERS}TrialsJson"),
    "export": (f"{_ANSWERS}ExportRunJson",),
    "push": (f"{_ANSWERS}PushRunJson",),
    "import": (f"{_ANSWERS}ImportJson",),
    "recipes": (f"{_ANSWERS}RecipesJson", "fwtrain.recipe:Recipe"),
    "check-reference": (f"{_ANSWERS}ReferenceJson",),
    "check-mask": (f"{_ANSWERS}MaskJson",),
    "schema": ("fwdata.report.json_documents:SchemaDocument",),
    "serve": (f"{_ANSWERS}ServedJson",),
    "bench train": (f"{_BENCH}BenchTrainJson", f"{_BENCH}BenchComputedJson", f"{_BENCH}BenchPeersJson"),
    "bench latency": (f"{_BENCH}BenchLatencyJson",),
    "bench serve": ("fwtrain.serve.load:LoadResult",),
}
