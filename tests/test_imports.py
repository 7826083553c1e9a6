"""The direction of dependencies: which part of the package may import which."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "bootstrapnas_ext"
PACKAGE = ROOT.name

# Each part and what it may import, besides what those may import in turn. A part is a module or a folder.
BASE: dict[str, set[str]] = {
    "errors": set(),
    "registry": {"errors"},
    "space": {"errors"},
    "modes": set(),
    "writing": set(),
    "differences": set(),
    "processes": {"errors"},
    "inputs": {"errors"},
    "model_checks": {"errors"},
    "cost": {"graph", "registry"},
    "config": {"errors", "writing"},
    "search": {"differences", "space", "registry", "config"},
    "graph": {"errors", "registry"},
    "functions": {"errors"},
    "_nncf": {"functions", "inputs", "marks"},
    "elasticity": {"graph", "space", "config"},
    "caches": set(),
    "marks": {"graph"},
    "refusals": {"errors", "space"},
    "ports": {"elasticity"},
    "skipping": {"graph"},
    "shadows": {"ports"},
    "execution": {"_nncf", "shadows", "skipping"},
    "self_check": {"execution"},
    "summary": {"elasticity", "cost"},
    "statistics": {"shadows"},
    "supernet": {"statistics", "caches", "model_checks", "modes", "refusals", "self_check", "cost", "summary"},
    "extraction": {"supernet"},
    "unheeded": {"supernet"},
    "example": {"config", "inputs", "modes"},
    "export": {"extraction", "modes"},
    "evaluation": {"export", "processes", "search"},
    "training": {"differences", "space", "registry", "config", "inputs", "modes", "processes", "writing"},
    "report": {"search", "graph", "writing"},
}
"""The stages."""
FLOW = {"calibration", "deployment", "flow", "algorithms", "compat", "inside_nncf2", ""}
"""What is on top and may import anything below; `` is the package's own ``__init__``."""
WITHOUT_TORCH = ("errors", "registry", "space", "config", "search", "graph", "cost")


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def files() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def module_of(path: Path) -> str:
    return ".".join([PACKAGE, *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """Full names of all modules that a file imports, at its top, in functions, or for types only."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found.add(str(node.module))
            if node.module == PACKAGE:
                found.update(f"{PACKAGE}.{alias.name}" for alias in node.names)
    return found


def allowed(part: str) -> set[str]:
    """All parts that a part may import, directly or through others."""
    found: set[str] = set()
    pending = [part]
    while pending:
        for below in BASE[pending.pop()] - found:
            found.add(below)
            pending.append(below)
    return found


def test_the_allowed_edges_have_no_cycle() -> None:
    assert not [part for part in BASE if part in allowed(part)]


def test_every_part_of_the_package_is_known() -> None:
    assert {part_of(module_of(path)) for path in files()} == BASE.keys() | FLOW


@pytest.mark.parametrize("part", BASE)
def test_a_part_imports_only_what_is_below_it(part: str) -> None:
    for path in files():
        if part_of(module_of(path)) == part:
            used = {part_of(name) for name in imports(path) if name.startswith(f"{PACKAGE}.")} - {part}
            assert used <= allowed(part), path


def test_one_part_knows_the_inside_of_nncf() -> None:
    for path in files():
        names = {name for name in imports(path) if name.split(".")[0] == "nncf"}
        if part_of(module_of(path)) != "_nncf":
            assert names <= {"nncf"}, path  # the public face, as for quantization


@pytest.mark.parametrize("part", WITHOUT_TORCH)
def test_parts_without_torch_do_not_name_it(part: str) -> None:
    for below in {part, *allowed(part)}:
        for path in files():
            if part_of(module_of(path)) == below:
                assert not {name for name in imports(path) if name.split(".")[0] in ("torch", "nncf", "openvino")}, path


def test_parts_without_torch_do_not_load_it() -> None:
    modules = ", ".join(f"{PACKAGE}.{part}" for part in WITHOUT_TORCH)
    code = f"import sys, {modules}; print(sorted({{'torch', 'nncf', 'openvino'}} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_package_itself_loads_nothing_heavy() -> None:
    code = f"import sys, {PACKAGE}; print(sorted({{'torch', 'numpy', 'nncf', 'openvino'}} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
