"""OpenVINO's training toolbox: snapshots {epoch, state_dict} or {model}, RGB in [0, 1], own template."""

from marginface.weights.base import Family, Usage

FAMILY = Family(
    name="openvino",
    prefixes=("",),
    layouts=("mobilefacenet-se",),
    usage=Usage(mean=0.0, std=255.0, template="openvino"),
    heads={"fc_angular.weight": True},
)
