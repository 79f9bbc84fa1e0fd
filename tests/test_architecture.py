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
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):  # what runs: messages may name them
            imported = [a.name for a in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
            imported += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {"pickle", "dill", "torchvision"} & {name.split(".")[0] for name in imported}, path
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) != "torch.load", path
                assert not any(k.arg == "allow_pickle" and ast.unparse(k.value) != "False" for k in node.keywords), path
