"""The shape of the code, held by a ratchet: sizes of files and functions, the public surface, one name per model."""

import ast
from pathlib import Path

import genrep

ROOT = Path(genrep.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))


def test_files_and_functions_stay_small():
    for path in FILES:
        text = path.read_text(encoding="utf8")
        assert len(text.splitlines()) <= 420, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                docstring = ast.get_docstring(node, clean=False)
                length -= len(docstring.splitlines()) if docstring else 0
                assert length <= 60, f"{path}: {node.name} has {length} lines"


def test_every_module_says_what_it_is():
    for path in FILES:
        text = path.read_text(encoding="utf8")
        assert not text.strip() or ast.get_docstring(ast.parse(text)), path


def test_nothing_loads_a_pickle_or_torchvision():
    for path in FILES:
        text = path.read_text(encoding="utf8")
        for forbidden in ("torch.load(", "import pickle", "allow_pickle=True", "torchvision", "import dill"):
            assert forbidden not in text, f"{path}: {forbidden}"
