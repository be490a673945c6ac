"""Deployable models out: ONNX, OpenVINO, torch programs, safetensors, InsightFace. Called by `marginface export`."""

from marginface.export.exporting import FORMATS, Int8, Report, export

__all__ = ["FORMATS", "Int8", "Report", "export"]
