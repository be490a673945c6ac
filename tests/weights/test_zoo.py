"""Every row of the zoo can be built and imported, and a file finds its row."""

import re
from urllib.parse import urlparse

import pytest
import torch

from marginface.backbones import list_backbones
from marginface.weights import SOURCES, ImportedModel, Usage
from marginface.weights.zoo import candidates, name_of, rows


def test_the_table_covers_the_projects_and_is_sound() -> None:
    assert {row.project.split()[0] for row in rows()} >= {
        "ElasticFace", "AdaFace", "XAIface", "OpenVINO", "face-embeddings", "InsightFace", "CVLface", "MagFace",
    }  # fmt: skip
    assert len({row.name for row in rows()}) == len(rows()) >= 50
    for row in rows():
        assert re.match(r"CC BY|MIT|Apache-2\.0|non-commercial|not stated by its authors", row.licence), row.licence
        assert row.data_terms
        assert urlparse(row.where).scheme == "https" or "none published" in row.where
        assert all(20 < value <= 100 for value in row.figures.values()), row.name
        if row.source is None:
            assert row.why
        else:
            assert row.source in SOURCES
            assert row.backbone in list_backbones()
            assert row.command.startswith("marginface import ")


def imported(source: str, backbone: str, num_features: int = 512, people: int | None = None) -> ImportedModel:
    head = None if people is None else torch.empty(people, num_features, device="meta")
    return ImportedModel(source, backbone, num_features, {}, Usage(), {}, head)


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (imported("adaface", "ir18", people=10_572), ["adaface-ir18-casia"]),
        (imported("adaface", "ir101", people=70_722), ["adaface-ir101-ms1mv2"]),
        (imported("openvino", "mobilefacenet-se", 256), ["openvino-mobilenet-se-focal"]),
        (imported("openvino", "mobilefacenet-se", 128), []),
        (imported("insightface", "iresnet200"), ["insightface-wf42m-pfc03-r200"]),
        (imported("insightface", "iresnet18", people=7), []),
    ],
)
def test_a_file_finds_its_rows(model: ImportedModel, names: list[str]) -> None:
    assert [row.name for row in candidates(model)] == names


def test_squeeze_and_excitation_is_another_network() -> None:
    model = imported("insightface", "iresnet100")
    assert len(candidates(model)) > 4
    model.options["se"] = True
    assert name_of(model) == "iresnet100-se"
    assert not candidates(model)
