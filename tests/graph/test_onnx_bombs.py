"""Small ONNX files that ask for endless work or memory: refused in time and in one line."""

import gzip
import os
import resource
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tests.graph.onnx_models import helper, model, node, numpy_helper, onnx
from tests.graph.test_onnx_operators import check, f, i64

import certus

pytest.importorskip("onnxruntime")
LINEAR = [node("MatMul", ["x", "w"])]
WEIGHT = {"w": f(6, 3)}
SUM = [node("ReduceSum", "c", "s", keepdims=0), node("Add", ["x", "s"])]  # of a constant c


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    """Every case of this file takes less than 5 s and 700 MiB beside what is there."""
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 700 * 1024


def refused(source: object, message: str, **arguments: object) -> None:
    with pytest.raises(certus.CertusError, match=message) as caught:
        certus.load(source, **arguments)  # type: ignore[arg-type]
    text = str(caught.value)
    assert len(text) < 300 and text.isprintable()


def changed(change: Callable[[onnx.ModelProto], object], nodes=LINEAR, constants=WEIGHT) -> bytes:
    made = onnx.load_from_string(model(nodes, constants=constants))
    change(made)
    return made.SerializeToString()


def functions(bodies: list[list[str]]) -> bytes:
    """Functions F0, F1, ..., each calling those that are named in a row; the network calls F0."""
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("d", 1)]
    made = []
    for number, names in enumerate(bodies):
        between = [f"m{k}" for k in range(len(names) - 1)]
        steps = zip(names, ["a", *between], [*between, "b"], strict=True)
        inner = [
            helper.make_node(n, [i], [o], domain="" if n == "Relu" else "d") for n, i, o in steps
        ]
        made.append(helper.make_function("d", f"F{number}", ["a"], ["b"], inner, opsets))
    raw = changed(lambda m: None, [helper.make_node("F0", ["x"], ["y"], domain="d")], {})
    whole = onnx.load_from_string(raw)
    whole.functions.extend(made)
    whole.opset_import.append(opsets[1])
    return whole.SerializeToString()


def branches(depth: int) -> bytes:
    out = helper.make_tensor_value_info("r", 1, None)
    part = helper.make_graph([helper.make_node("Relu", ["x"], ["r"])], "g", [], [out])
    for _ in range(depth):
        both = helper.make_node("If", ["c"], ["r"], then_branch=part, else_branch=part)
        part = helper.make_graph([both], "g", [], [out])
    return model(
        [node("If", "c", then_branch=part, else_branch=part)], constants={"c": np.array(True)}
    )


def doubled(value: str, axis: int, times: int) -> list:
    names = [value, *(f"d{k}" for k in range(times - 1)), "c"]
    return [node("Concat", [a, a], b, axis=axis) for a, b in pairwise(names)]


def outer(op: str, **attributes) -> bytes:
    return model(
        [node(op, ["u", "v"], "c", **attributes), *SUM],
        constants={"u": np.ones((10**5, 1), "f4"), "v": np.ones((1, 10**5), "f4")},
    )


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "functions that double": (
        lambda: functions([[f"F{k + 1}"] * 2 for k in range(29)] + [["Relu"]]),
        "more than 30,000 nodes",
    ),
    "a function of itself": (lambda: functions([["F1"], ["F0"]]), "calls itself"),
    "a chain of functions": (
        lambda: functions([[f"F{k + 1}"] for k in range(2000)] + [["Relu"]]),
        "calls itself, or too many others",
    ),
    "branches in branches": (lambda: branches(11), "more than 1,000 branches"),
    "nodes": (
        lambda: changed(lambda m: m.graph.node.extend(list(m.graph.node) * 100_000)),
        "a network of 100,001 nodes",
    ),
    "doubled constant": (
        lambda: model([*doubled("w", 0, 40), *SUM], constants=WEIGHT),
        "Concat .a value of shape",
    ),
    "doubled data": (
        lambda: model([*doubled("x", 1, 40), node("ReduceSum", "c", keepdims=0)]),
        "Concat .a value of shape",
    ),
    "outer sum": (lambda: outer("Add"), "Add .a value of shape"),
    "outer product": (lambda: outer("MatMul"), "MatMul .a value of shape"),
    "outer letters": (lambda: outer("Einsum", equation="ij,jk->ik"), "Einsum .a value of shape"),
    "gathered": (
        lambda: model(
            [node("Gather", ["u", "k"], "c"), *SUM],
            constants={"u": np.ones((2, 10**5), "f4"), "k": np.zeros(10**5, np.int64)},
        ),
        "Gather .a value of shape",
    ),
    "one-hot": (
        lambda: model(
            [node("OneHot", ["k", "n", "v"], "c"), *SUM],
            constants={"k": i64(1, 2), "n": i64(10**12), "v": f(2)},
        ),
        "OneHot .a value of shape",
    ),
    "channels": (
        lambda: model(
            [node("Conv", ["x", "w"])], (1, 1, 500, 500), constants={"w": f(10**5, 1, 1, 1)}
        ),
        "Conv .a value of shape",
    ),
    "padding": (
        lambda: model(
            [node("Conv", ["x", "w"], pads=[10**9] * 4)],
            (1, 1, 4, 4),
            constants={"w": f(1, 1, 3, 3)},
        ),
        "Conv .a value of shape",
    ),
    "many constants": (
        lambda: model(
            [
                *(node("ConstantOfShape", "n", f"c{k}") for k in range(60)),
                node("Sum", [f"c{k}" for k in range(60)], "c"),
                *SUM,
            ],
            constants={"n": i64(2**20)},
        ),
        "constants of the network are too large together",
    ),
    "input": (lambda: model([node("Relu", "x")], (1, 10**6, 10**6)), "inputs of 1,000,000,000,000"),
    "sizes": (
        lambda: changed(
            lambda m: m.graph.initializer[0].dims.__setitem__(slice(None), [2**40] * 2)
        ),
        "'w' is damaged",
    ),
    "negative size": (
        lambda: changed(lambda m: m.graph.initializer[0].dims.__setitem__(0, -1)),
        "'w' is damaged",
    ),
    "no output": (lambda: changed(lambda m: m.graph.ClearField("output")), "no output"),
    "complex weights": (
        lambda: model(LINEAR, constants={"w": np.ones((6, 3), "c8")}),
        "'w' holds complex numbers",
    ),
    "a name of a megabyte": (lambda: model([node("Magic" * 200_000, "x")]), "MagicMagic"),
    "a name with control characters": (
        lambda: model([node("Ma\ngic\x1b[31m", "x")]),
        r"Ma\\ngic\\x1b\[31m",
    ),
    "archive": (lambda: gzip.compress(bytes(1 << 29), 1, mtime=0), "unpacks to more than"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_cannot_ask_for_much(name: str) -> None:
    make, message = BOMBS[name]
    refused(make(), message)


def test_functions_and_branches_of_ordinary_size_load() -> None:
    assert len(certus.load(functions([["F1", "F1"], ["Relu", "Relu"]])).nodes) == 5
    assert len(certus.load(branches(3)).nodes) == 2


PLACES = {
    "a pipe": ({"location": "pipe"}, "is a pipe"),
    "a device": ({"location": "zero"}, "outside the model's folder"),
    "the folder": ({}, "is a folder"),
    "a sparse file": ({"location": "sparse"}, "1,099,511,627,776 bytes, its shape"),
    "beyond the end": ({"location": "a.onnx", "length": str(10**30)}, "ends early"),
    "an endless piece": ({"location": "sparse", "length": str(2**39)}, "its shape"),
    "far behind": ({"location": "a.onnx", "offset": str(10**30), "length": "72"}, "ends early"),
    "before the start": ({"location": "a.onnx", "offset": "-1"}, "ends early"),
    "a number of 5000 digits": ({"location": "a.onnx", "length": "9" * 5000}, "cannot be read"),
    "a long name": ({"location": "a" * 5000}, "cannot be read"),
    "a zero in the name": ({"location": "a\0b"}, "cannot be read"),
}


@pytest.mark.parametrize("name", PLACES)
def test_external_data_that_are_none(tmp_path: Path, name: str) -> None:
    entries, message = PLACES[name]
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)

    def outside(made: onnx.ModelProto) -> None:
        tensor = made.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = 1
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)

    (tmp_path / "a.onnx").write_bytes(changed(outside))
    refused(tmp_path / "a.onnx", message)


def test_files_that_are_no_models(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    refused(tmp_path / "pipe.onnx", "is a pipe, not a file")
    (tmp_path / "zero.onnx").symlink_to("/dev/zero")
    refused(tmp_path / "zero.onnx", "is a device, not a file")
    for size, message in ((1 << 40, "at most"), ((1 << 31) - 1, "not an ONNX model")):
        with (tmp_path / "sparse.onnx").open("wb") as file:
            file.truncate(size)
        refused(tmp_path / "sparse.onnx", message)


def test_what_no_output_needs_hinders_nothing() -> None:
    """Damaged, missing, unknown, endless: all of it beside the one output that is asked for."""
    nodes = [*LINEAR, node("Magic", ["y", "nan", "lost"], "z"), node("Relu", "endless", "e")]
    bad = {"nan": np.array([np.nan], "f4"), "text": np.array(["a"], object), "lost": f(2)}
    made = onnx.load_from_string(
        model(nodes, constants=WEIGHT | bad | {"endless": f(2)}, outputs=["y", "z", "e"])
    )
    by_name = {t.name: t for t in made.graph.initializer}
    by_name["lost"].data_location = 1
    by_name["lost"].external_data.add(key="location", value="/dev/zero")
    by_name["endless"].dims[0] = 2**60
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(f(1), "holes"), numpy_helper.from_array(i64(0), "at"), [9]
    )
    made.graph.sparse_initializer.append(sparse)
    made.graph.value_info.append(helper.make_tensor_value_info("y", 7, [99]))
    graph = certus.load(made.SerializeToString(), output="y")
    check(graph)
    assert graph.output_shape == (3,)
    refused(made.SerializeToString(), "several outputs")
