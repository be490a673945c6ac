"""No line of the package can run what a file or a message says, but for a few audited ones."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent.parent / "src" / "marginface"
# modules that unpickle or run code, and functions that do
UNSAFE = {
    "pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "runpy",
    "torch.load", "torch.jit.load", "torch.export.load", "torch.hub.load", "torch.package", "torch.serialization.load",
    "torch.distributed.checkpoint", "pandas.read_pickle", "os.system", "os.popen", "subprocess.getoutput",
    "subprocess.getstatusoutput", "builtins.eval", "builtins.exec",
    *(f"yaml.{name}" for name in ("full_load", "full_load_all", "unsafe_load", "unsafe_load_all")),
    *(
        f"torch.distributed.{name}"
        for name in (
            "all_gather_object", "gather_object", "broadcast_object_list", "scatter_object_list", "send_object_list",
            "recv_object_list",
        )
    ),
}  # fmt: skip
BUILTINS = {"eval", "exec", "compile", "__import__"}
AUDITED = {
    ("readers/bin_writer.py", "pickle"),  # writes InsightFace's format and reads nothing
    ("export/exporting.py", "torch.export.load"),  # what it has written itself in the same call
    ("processes.py", "torch.distributed.all_gather_object"),  # between the processes of one run
}


def unsafe(source: str) -> set[str]:
    """What a module uses of UNSAFE and BUILTINS under any name, and calls without the argument that makes them safe."""
    tree, names = ast.parse(source), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {a.asname or a.name.partition(".")[0]: a.name if a.asname else "" for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}

    def full(node: ast.AST) -> str:
        """Dotted name, with what imports have renamed."""
        if isinstance(node, ast.Attribute):
            return f"{full(node.value)}.{node.attr}"
        return names.get(node.id) or node.id if isinstance(node, ast.Name) else ""

    used = {full(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.Name)}
    used |= set(names.values()) | {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    found = {name for name in UNSAFE if any(one == name or one.startswith(f"{name}.") for one in used)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name, given = full(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
        if isinstance(node.func, ast.Name) and name in BUILTINS:
            found.add(name)
        if name == "numpy.load" and given.get("allow_pickle") != "False":
            found.add(name)
        if name in ("yaml.load", "yaml.load_all"):
            loader = given.get("Loader") or (ast.unparse(node.args[1]) if len(node.args) > 1 else "")
            if not loader.endswith("SafeLoader"):
                found.add(name)
        if name.startswith("subprocess.") and given.get("shell", "False") != "False":
            found.add("subprocess with a shell")
        if name == "torch.load" and given.get("weights_only") != "True":
            found.add("torch.load without weights_only")
    return found


def test_the_package_has_only_the_audited_ones() -> None:
    found = {
        (file.relative_to(PACKAGE).as_posix(), name)
        for file in PACKAGE.rglob("*.py")
        for name in unsafe(file.read_text(encoding="utf-8"))
    }
    assert found == AUDITED


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as p",
        "from pickle import loads",
        "def f():\n from cloudpickle import load as g",
        "import torch\ntorch.load(f)",
        "import torch as t\nt.load(f, weights_only=True)",
        "from torch import load as get\nget(f)",
        "import torch\nread = torch.load",
        "import torch.export\ntorch.export.load(f)",
        "from torch.export import load",
        "from torch import jit\njit.load(f)",
        "import torch.distributed as dist\ndist.broadcast_object_list([1])",
        "import torch.distributed.checkpoint as dcp",
        "from torch.distributed.checkpoint.filesystem import FileSystemReader",
        "eval('1')",
        "exec(text)",
        "compile(text, 'f', 'exec')",
        "__import__('os')",
        "import yaml\nyaml.load(f)",
        "import yaml\nyaml.load(f, Loader=yaml.Loader)",
        "import yaml\nyaml.load(f, yaml.UnsafeLoader)",
        "from yaml import full_load",
        "import numpy as np\nnp.load(f)",
        "import numpy as np\nnp.load(f, allow_pickle=True)",
        "from numpy import load\nload(f, mmap_mode='r')",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "from subprocess import Popen\nPopen('ls', shell=flag)",
        "import os\nos.system('ls')",
        "import joblib",
    ],
)
def test_every_way_is_seen(source: str) -> None:
    assert unsafe(source)


@pytest.mark.parametrize(
    "source",
    [
        "import re\nre.compile('a')",
        "model.eval()",
        "import torch\ntorch.compile(f)\ntorch.save(x, f)",
        "import yaml\nyaml.safe_load(f)\nyaml.load(f, Loader=yaml.CSafeLoader)",
        "import numpy as np\nnp.load(f, allow_pickle=False)",
        "import subprocess\nsubprocess.run(['ls'])",
        "from marginface.readers import safe_pickle\nsafe_pickle.load(data)",
        "import json\njson.load(f)",
    ],
)
def test_what_is_harmless_is_not(source: str) -> None:
    assert not unsafe(source)
