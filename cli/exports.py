"""The command that writes networks for other programs: ``export-model``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pseudolabel.options import ExportModelOptions

from .flags import command_of

if TYPE_CHECKING:
    from pseudolabel.runtime.progress import RichProgress


def _export(options: ExportModelOptions, progress: RichProgress, *, as_json: bool) -> None:
    from pseudolabel.export.onnx_model import export_model as run_export

    from .render import show_result

    show_result("export-model", run_export(options, progress), as_json=as_json)


export_model = command_of("export-model", ExportModelOptions, _export)
