"""Published properties: every file of 29 VNN-COMP families, and counterexamples known to be true."""

import gzip
import re
import time
from collections import defaultdict

import numpy as np
import pytest
import torch
from tests.properties.texts import SHARED, satisfied

from certus.properties import load_property

# files, (inputs, outputs), boxes in all files, conjunctions in all files
FAMILIES = {
    "acasxu_2023": (8, {(5, 5)}, 9, 21),
    "carvana_unet_2022": (2, {(5828, 1)}, 2, 2),
    "cctsdb_yolo_2023": (4, {(12296, 1)}, 4, 4),
    "cgan_2023": (6, {(5, 1)}, 6, 12),
    "cifar10_resnet_2021": (12, {(3072, 10)}, 12, 108),
    "cifar_biasfield_2022": (2, {(16, 10)}, 2, 18),
    "collins_rul_cnn_2023": (12, {(400, 1), (800, 1)}, 12, 24),
    "cora": (12, {(784, 10)}, 12, 108),
    "dist_shift_2023": (12, {(792, 10)}, 12, 12),
    "eran_2021": (10, {(784, 10)}, 10, 90),
    "linearizenn": (12, {(4, 2)}, 12, 24),
    "lsnc": (12, {(8, 10)}, 12, 204),
    "marabou_cifar10_2021": (8, {(3072, 10)}, 8, 8),
    "metaroom_2023": (2, {(5376, 20)}, 2, 38),
    "ml4acopf_2024": (11, {(22, 186), (198, 1696)}, 11, 119),
    "mnist_fc_2022": (12, {(784, 10)}, 12, 108),
    "nn4sys_2023": (14, {(1, 1), (48, 6), (96, 1), (154, 1), (308, 1)}, 2249, 4251),
    "oval21": (12, {(3072, 10)}, 12, 108),
    "reach_prob_density_2022": (12, {(3, 3), (5, 5), (14, 14)}, 12, 12),
    "rl_benchmarks_2022": (12, {(4, 2), (8, 4), (8, 8)}, 12, 12),
    "safenlp": (24, {(30, 2)}, 24, 24),
    "sri_resnet_a_2022": (8, {(3072, 10)}, 8, 72),
    "sri_resnet_b_2022": (6, {(3072, 10)}, 6, 54),
    "test": (4, {(1, 1), (5, 5)}, 4, 4),
    "tllverifybench_2023": (10, {(2, 1)}, 10, 10),
    "traffic_signs_recognition_2023": (6, {(2700, 43), (6912, 43)}, 6, 252),
    "verivital_2021": (12, {(784, 10)}, 12, 108),
    "vit_2023": (12, {(3072, 10)}, 12, 108),
    "yolo_2023": (3, {(8112, 21125)}, 3, 3),
}
BOUND = re.compile(r"\((<=|>=)\s+X_(\d+)\s+(-?[\d.eE+-]+)\)")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_file_of_a_family_is_read(family):
    folder = SHARED / "vnncomp" / family
    if not folder.exists():
        pytest.skip("the shared data are absent")
    files = sorted(folder.rglob("*.vnnlib.gz"))
    problems = [load_property(path) for path in files]
    sizes = {(p.inputs, p.outputs) for p in problems}
    conjunctions = sum(len(case.conditions) for p in problems for case in p.cases)
    boxes = sum(len(p.cases) for p in problems)
    assert (len(files), sizes, boxes, conjunctions) == FAMILIES[family]
    for path, problem in zip(files, problems, strict=True):
        if len(problem.cases) == 1:
            lower, upper = limits(gzip.decompress(path.read_bytes()).decode(), problem.inputs)
            assert problem.cases[0].lower.tolist() == lower
            assert problem.cases[0].upper.tolist() == upper


def limits(source: str, inputs: int) -> tuple[list[float], list[float]]:
    """The box of a text with one box, read by a regular expression."""
    found = defaultdict(list)
    for relation, index, value in BOUND.findall(source):
        found[relation, int(index)].append(float(value))
    lower = [max(found[">=", i]) for i in range(inputs)]
    return lower, [min(found["<=", i]) for i in range(inputs)]


@pytest.mark.parametrize(
    "family",
    ["acasxu_2023", "test", "lsnc", "linearizenn", "safenlp", "cgan_2023", "tllverifybench_2023"],
)
def test_samples_agree_with_the_text(family):
    """Points of the boxes with random outputs, decided by an independent reading of the text."""
    folder = SHARED / "vnncomp" / family
    if not folder.exists():
        pytest.skip("the shared data are absent")
    for path in sorted(folder.rglob("*.vnnlib.gz"))[:4]:
        source, problem = gzip.decompress(path.read_bytes()).decode(), load_property(path)
        x = problem.sample(40, seed=1)
        y = torch.randn(40, problem.outputs, generator=torch.Generator().manual_seed(2)).double()
        x[::5] += 10.0  # outside every box
        expected = [satisfied(source, a, b) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
        assert problem.satisfied(x, y).tolist() == expected
        assert not any(expected[::5])


def test_known_counterexamples_satisfy_their_properties():
    folder = SHARED / "soundness" / "realadv_mnist"
    if not folder.exists():
        pytest.skip("the shared data are absent")
    onnxruntime = pytest.importorskip("onnxruntime")
    network = gzip.decompress((folder / "onnx" / "realadv_mnist.onnx.gz").read_bytes())
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    shape = [size if isinstance(size, int) else 1 for size in entry.shape]
    points = np.load(folder / "counterexamples.npz")
    assert len(points.files) == 13
    for name in points.files:
        (path,) = folder.glob(f"vnnlib/*_{name[2:]}_*.vnnlib.gz")
        problem = load_property(path)
        x = points[name]
        y = session.run(None, {entry.name: x.reshape(shape)})[0]
        flat, outputs = torch.from_numpy(x), torch.from_numpy(y)
        assert problem.cases[0].contains(flat).tolist() == [True]
        assert problem.satisfied(flat, outputs).tolist() == [True]
        assert (
            problem.cases[0]
            .inner((1, 28, 28), torch.float32)
            .contains(flat.view(1, 1, 28, 28))
            .all()
        )
        outside = flat + 0.25 * (flat - 0.5).sign()
        assert problem.satisfied(outside, outputs).tolist() == [False]
        assert satisfied(
            gzip.decompress(path.read_bytes()).decode(), x.tolist(), y.ravel().tolist()
        )


def test_large_property_is_read_quickly(tmp_path):
    """A tenth of the largest published file, 1,100 boxes of 308 inputs: no more than a few seconds."""
    rng = np.random.default_rng(0)
    low = np.where(
        rng.random((1100, 308)) < 0.8, rng.integers(0, 2, (1100, 308)), rng.random((1100, 308))
    )
    lines = []
    for row in low.tolist():
        atoms = " ".join(f"(>= X_{i} {v!r}) (<= X_{i} {v!r})" for i, v in enumerate(row))
        lines.append(f"(and {atoms} (<= Y_0 {row[0]}))")
    names = [*(f"X_{i}" for i in range(308)), "Y_0"]
    head = "".join(f"(declare-const {name} Real)\n" for name in names)
    (tmp_path / "p.vnnlib").write_text(f"{head}(assert (or\n" + "\n".join(lines) + "\n))\n")
    start = time.process_time()
    problem = load_property(tmp_path / "p.vnnlib")
    assert time.process_time() - start < 5.0  # 0.4 s on an idle machine; token by token it takes 10
    assert len(problem.cases) == len({row.tobytes() for row in low})
    assert torch.equal(torch.stack([case.lower for case in problem.cases]), torch.from_numpy(low))
