"""What every command of `fwdata` prints with `--json`, by command: "module:Class" of a typed document.

Names and not classes, so that nothing is imported before a schema is asked for.
"""

from __future__ import annotations

_ANSWERS = "fwdata.cli.answers:"
_CONVERSION = "fwdata.report.conversion:"

DOCUMENTS: dict[str, tuple[str, ...]] = {
    "convert": (f"{_ANSWERS}ConvertJson", f"{_CONVERSION}DryRunJson"),
    "regenerate": ("fwdata.regenerate.answers:RegenerationJson", "fwdata.regenerate.answers:RegenerationPlanJson"),
    "inspect": ("fwdata.report.inspect_store:StoreDescription", "fwdata.report.inspect_episode:EpisodeJson"),
    "verify": (f"{_ANSWERS}VerifyJson",),
    "preview": (f"{_ANSWERS}PreviewJson",),
    "report": (f"{_ANSWERS}StorePageJson",),
    "doctor": (f"{_ANSWERS}DoctorJson",),
    "view": ("fwdata.cli.view:ViewJson",),
    "repair": (f"{_ANSWERS}RepairJson",),
    "plan": ("fwdata.encode.estimate:LatentPlanJson",),
    "stitch": (f"{_ANSWERS}StitchJson",),
    "stats": ("fwdata.store.caches.stats:OfficialStatistics",),
    "encode-text": (f"{_ANSWERS}TextJson",),
    "encode-latents": (f"{_ANSWERS}LatentsJson", f"{_ANSWERS}LatentsDryRunJson"),
    "merge": (f"{_ANSWERS}MergeJson", f"{_ANSWERS}MergeDryRunJson"),
    "copy": (f"{_ANSWERS}CopyJson",),
    "sample": (f"{_ANSWERS}SampleJson", f"{_ANSWERS}SimulatedJson"),
    "quickstart": (f"{_ANSWERS}QuickstartJson",),
    "init": (f"{_ANSWERS}InitJson",),
    "check-converter": ("fwdata.scaffold.check:ConverterReport",),
    "status": (f"{_ANSWERS}StatusJson",),
    "clean": (f"{_ANSWERS}CleanJson",),
    "slurm": (f"{_ANSWERS}SlurmJson",),
    "schema": ("fwdata.report.json_documents:SchemaDocument",),
    "push": (f"{_ANSWERS}TransferJson",),
    "pull": (f"{_ANSWERS}TransferJson",),
    "export lerobot": (f"{_ANSWERS}ExportLerobotJson",),
    "export fastwam-text": (f"{_ANSWERS}ExportTextJson",),
    "bench convert": ("fwdata.bench.convert:BenchConvertJson",),
    "bench evidence": ("fwdata.bench.evidence:BenchEvidenceJson",),
    "bench read": (f"{_ANSWERS}BenchReadJson",),
    "bench storage": ("fwdata.bench.storage:BenchStorageJson",),
    "bench video": ("fwdata.bench.video:BenchVideoJson",),
    "bench encode": (f"{_ANSWERS}BenchEncodeJson",),
}
