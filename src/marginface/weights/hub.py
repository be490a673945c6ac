"""The Hugging Face Hub: models by "org/name", and ours published with a card. An optional extra, `hub`."""

import os
from pathlib import Path
from typing import Any

from marginface.embedder import CONFIG, WEIGHTS, Embedder
from marginface.errors import InputError
from marginface.filenames import as_text
from marginface.files import naming, temporary_folder
from marginface.optional_imports import load_library
from marginface.weights.figures import markdown


def download(name: str) -> Path:
    """The folder in the Hub's cache with the model "org/name" or "org/name@revision".

    Raises InputError where there is no such model, it is not to be had, or the Hub cannot be reached.
    """
    hub = _hub(f"{name} is neither a file nor a folder here, and the Hugging Face Hub")
    repository, _, revision = name.partition("@")
    try:
        folder = hub.snapshot_download(
            repository,
            revision=revision or None,
            allow_patterns=[CONFIG, WEIGHTS],
            cache_dir=hub.constants.HF_HUB_CACHE,
            endpoint=os.environ.get("HF_ENDPOINT"),
        )
    except (hub.errors.HfHubHTTPError, hub.errors.HFValidationError, OSError, ValueError) as error:
        raise InputError(_reason(hub, error, name)) from error
    if not (Path(folder) / WEIGHTS).is_file():
        raise InputError(
            f"{name} on the Hugging Face Hub holds no {WEIGHTS} of ours; download its checkpoint and give the file"
        )
    return Path(folder)


def push(model: Embedder, name: str, results: list[dict[str, Any]], licence: str, private: bool = False) -> str:
    """Publishes safetensors, config.json and a model card as "org/name"; returns the address of the commit.

    results: from `figures`, for the card. licence: of the weights, as the Hub spells it: "apache-2.0", "other".
    Raises InputError where the Hub refuses, mostly for want of a token.
    """
    hub = _hub("publishing")
    api = hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    with temporary_folder() as folder:
        with naming(folder):
            model.write(folder)
            (folder / "README.md").write_text(as_text(card(model, name, results, licence)), encoding="utf-8")
        try:
            api.create_repo(name, private=private, exist_ok=True)
            files = [hub.CommitOperationAdd(file.name, file) for file in sorted(folder.iterdir())]
            commit = api.create_commit(name, files, commit_message="A face embedding model, from marginface")
        except (hub.errors.HfHubHTTPError, hub.errors.HFValidationError, OSError, ValueError) as error:
            raise InputError(_reason(hub, error, name)) from error
    return str(commit.commit_url)


def card(model: Embedder, name: str, results: list[dict[str, Any]], licence: str) -> str:
    """The README of a model on the Hub: how to use it, what it expects, how good it is."""
    height, width = model.preprocessing.image_size
    preprocessing = model.preprocessing
    flip = {"add": "added to", "concat": "put behind", "none": "left out of"}[preprocessing.flip]
    origin = "\n".join(f"- {key}: {value}" for key, value in model.notes.items() if isinstance(value, str))
    quality = "The length of a raw embedding tells the image's quality.\n" if preprocessing.quality else ""
    table = markdown(results) or "Not measured; `marginface evaluate` does it."
    return f"""---
license: {licence}
library_name: marginface
pipeline_tag: image-feature-extraction
tags: [face-recognition, face-verification, marginface]
---

# {name.partition("/")[2]}

A {model.config.backbone} that turns faces into {model.length()} numbers whose cosine tells who is the same person.

```python
import marginface

model = marginface.load("{name}")
embeddings = model.embed(images)  # RGB uint8 (N, {height}, {width}, 3) -> float32 (N, {model.length()}), length 1
```

Faces are aligned by five points (`marginface align --template {preprocessing.template} --size {height}`); pixels become
(v - {preprocessing.mean:g}) / {preprocessing.std:g} inside. The mirror image's embedding is {flip} the image's own.
{quality}
## Figures
{table}

## Origin
{origin or "Trained with marginface."}

Face recognition touches people's rights: have their consent, and know the error rates for everyone it will meet.
"""


def _hub(purpose: str) -> Any:
    load_library("huggingface_hub.errors", purpose)
    return load_library("huggingface_hub", purpose)


def _reason(hub: Any, error: Exception, name: str) -> str:
    """One sentence for what the Hub answered."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, hub.errors.GatedRepoError):
        return f"{name} is gated on the Hugging Face Hub: accept its terms there, then log in with: hf auth login"
    if isinstance(error, hub.errors.RevisionNotFoundError):
        return f"{name}: the Hugging Face Hub has the model but not this revision"
    if isinstance(error, hub.errors.HFValidationError):
        return f"{name} is no name of a model on the Hugging Face Hub; give org/name"
    if isinstance(error, hub.errors.RepositoryNotFoundError) or status in (401, 403, 404):
        return (
            f"{name} is neither a file nor a folder here, and the Hugging Face Hub does not give it to you "
            f"({status or 404}); check the name, or log in with: hf auth login"
        )
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return f"{name} is neither a file nor a folder here, and the Hugging Face Hub could not be asked: {first}"
