"""Who may import whom, and what a command may load: each in a fresh interpreter."""

import ast
import importlib.util
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from answering import make_row

from probe.results import write_row

OURS = {"cache", "extract", "probe", "finetune"}

ROOT = Path(__file__).parents[1]
FILES = sorted(f.relative_to(ROOT) for name in OURS for f in (ROOT / name).rglob("*.py"))
N_LINES = 470  # a longer file says in its docstring what it is "long because" of


def import_graph():
    """Module -> modules of ours that it imports: at its top, under TYPE_CHECKING, in functions."""
    names = {file: ".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in FILES}
    modules = set(names.values())
    graph = {}
    for file, name in names.items():
        found = set()
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= inner & modules or {node.module}
        graph[name] = found & modules - {name}
    return graph


def check_downward(graph):
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"imports go round: {' <- '.join(error.args[1])}")


def loaded_by(code):
    """Top-level modules that are loaded after running code."""
    code += "\nimport sys; print(' '.join({name.partition('.')[0] for name in sys.modules}))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return set(result.stdout.splitlines()[-1].split())


def submodules(package):
    import importlib
    import pkgutil

    path = importlib.import_module(package).__path__
    names = [m.name for m in pkgutil.walk_packages(path, f"{package}.")]
    return [name for name in names if not name.endswith("__main__")]


@pytest.mark.parametrize(
    ("package", "allowed"),
    [("cache", set()), ("probe", {"cache"}), ("extract", {"cache"}), ("finetune", OURS)],
)
def test_imports_flow_one_way(package, allowed):
    code = f"import {', '.join([package, *submodules(package)])}"
    assert loaded_by(code) & OURS <= allowed | {package}


# What finetune takes of probe: what asks, measures and writes rows, and what a head learns.
FROM_PROBE = {
    "answer", "cost", "results", "row", "row_names", "report.pages.listing",
    "metrics.classification", "metrics.metric", "metrics.patients",
    "questions.describe", "questions.leaks", "questions.overlay", "questions.question", "episodes.draw", "episodes.prior", "solvers.epochs", "solvers.outputs",
    "protocols", "questions.laying",
    # Heads on masks are the probe's, on maps that are made on the way.
    "arrays", "choosing.plan", "kinds.decoder", "kinds.kind", "maps", "places", "questions.masks",
    "solvers.decoders",
}  # fmt: skip
# A head that begins with a probe's weights; where a row keeps none, the probe is fitted again.
OF_FIRST_HEADS = {"refit", "solvers.head"}


def imported_from(package, path):
    """The modules of a package that a file imports, wherever in it."""
    known = set(submodules(package))
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not {alias.name for alias in node.names} & known
        elif isinstance(node, ast.ImportFrom) and node.module in {*known, package}:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from (n.removeprefix(f"{package}.") for n in names & known or {node.module})


def test_finetune_takes_of_probe_what_measures_and_writes_rows():
    root = Path(importlib.util.find_spec("finetune").origin).parent
    found = {path: {*imported_from("probe", path)} for path in root.rglob("*.py")}
    of_head = found.pop(root / "start" / "head.py")
    assert OF_FIRST_HEADS <= of_head <= FROM_PROBE | OF_FIRST_HEADS
    assert {name for names in found.values() for name in names} == FROM_PROBE


def test_probe_loads_no_model_code():
    heavy = {"torch", "timm", "open_clip", "torchvision", "medmnist", "sklearn", "pandas", "scipy"}
    heavy |= {"matplotlib", "plotly"}
    own = ("probe.report.rows.frame", "probe.report.figures.drawn")  # pandas', matplotlib's
    names = [name for name in submodules("probe") if not name.startswith(own)]
    assert not loaded_by(f"import {', '.join(names)}") & heavy


@pytest.mark.parametrize("package", ["probe", "cache", "extract", "probe.report"])
def test_help_is_quick_because_it_loads_little(package):
    code = (
        f"from {package}.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert not end.code"
    )
    heavy = {"torch", "timm", "h5py", "faiss", "sklearn", "pandas", "scipy", "medmnist", "rich"}
    assert not loaded_by(code) & heavy


# What tables, their statistics and formats do without: extras among them.
NO_TABLE_LOADS = (
    "torch",
    "timm",
    "pandas",
    "plotly",
    "matplotlib",
    "pyarrow",
    "h5py",
    "scipy",
    "sklearn",
)


@pytest.mark.parametrize(
    "words",
    [
        "",
        "--metric auc",
        "--where auc>0 --sort=-auc --columns +C",
        "--format latex",
        "--format html",
    ],
)
def test_tables_need_no_extra_and_no_feature_file(tmp_path, words):
    """Each of these imports is refused, and the table is there."""
    write_row(tmp_path, make_row())
    arguments = ["table", "--results", str(tmp_path), *words.split()]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({NO_TABLE_LOADS}))\n"
        f"from probe.report.cli import main; assert main({arguments}) == 0"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "0.800" in result.stdout


def test_processes_that_decode_files_load_no_torch():
    modules = "extract.datasets.files.images, extract.datasets.files.index, extract.machine.workers"
    assert not loaded_by(f"import {modules}") & {"torch", "timm", "medmnist", "rich"}


def test_extract_loads_only_the_library_of_its_encoder(tmp_path, write_npz):
    images = write_npz(tmp_path / "x.npz", side=8)
    arguments = ["--model", "test_vit", "--weights", "random", "--data", f"npz:{images}"]
    code = f"from extract.cli import main\nassert main({arguments}) == 0"
    assert not loaded_by(code) & {"open_clip", "transformers"}


@pytest.mark.parametrize("package", ["probe", "cache", "extract", "probe.report"])
def test_python_m_is_the_command(package):
    result = subprocess.run(
        [sys.executable, "-m", package, "--help"], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith(f"usage: {package.rpartition('.')[2]} ")


def test_no_import_goes_round():
    graph = import_graph()
    assert "cache.format.spec" in graph["cache.store"]
    check_downward(graph)


@pytest.mark.parametrize("package", sorted(OURS))
def test_no_room_imports_upward(package):
    """A room is a folder or a file right below the package."""
    rooms = {}
    for name, found in import_graph().items():
        if name.startswith(f"{package}."):
            below = {other.split(".")[1] for other in found if other.startswith(f"{package}.")}
            room = name.split(".")[1]
            rooms.setdefault(room, set()).update(below - {room})
    check_downward(rooms)


def test_a_round_of_imports_is_found():
    with pytest.raises(pytest.fail.Exception, match="imports go round"):
        check_downward({"a": {"b"}, "b": {"a"}})


def test_no_folder_is_deeper_than_three():
    assert max(len(file.parts) for file in FILES) - 2 <= 3


def test_a_long_file_says_why():
    for file in FILES:
        text = (ROOT / file).read_text(encoding="utf-8")
        if text.count("\n") > N_LINES:
            words = " ".join((ast.get_docstring(ast.parse(text)) or "").split())
            assert "long because" in words.lower(), f"{file} is long, and doesn't say why"
