"""ONNX files: every operator beside ONNX's own evaluator, files of torch's exporter, and damage."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from axonal.convert import convert, from_onnx
from axonal.convert.onnx.rules import RULES
from axonal.convert.outputs import leaves
from axonal.core.errors import AxonalError, FileError, InputError

onnx = pytest.importorskip("onnx")
helper, numpy_helper, FLOAT = onnx.helper, onnx.numpy_helper, onnx.TensorProto.FLOAT
RANDOM = np.random.default_rng(0)


def weights(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


def written(path, nodes, shape, constants=None, opset=20, outputs=("y",), batch=None):
    """A file of `nodes` that read "x" [N, *shape]."""
    initial = [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", FLOAT, [batch or "n", *shape])],
        [helper.make_tensor_value_info(name, FLOAT, ["n"]) for name in outputs],
        initial,
    )
    imports = [helper.make_opsetid("", opset)]
    path.write_bytes(helper.make_model(graph, opset_imports=imports).SerializeToString())
    return path


IMAGE, ROW = (4, 6, 6), (5,)
FUNCTIONS = "Neg", "Relu", "Sigmoid", "Tanh", "Softplus", "HardSwish"
CASES = [  # operator, shape of a sample, constants, attributes, opset
    (
        "Conv",
        IMAGE,
        {"w": weights(6, 2, 3, 3), "b": weights(6)},
        {"group": 2, "strides": [2, 1]},
        20,
    ),
    ("Conv", IMAGE, {"w": weights(2, 4, 3, 3)}, {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, 11),
    ("Conv", IMAGE, {"w": weights(2, 4, 2, 2)}, {"pads": [0, 1, 1, 0]}, 20),
    (
        "Conv",
        (2, 9),
        {"w": weights(3, 2, 3), "b": weights(3)},
        {"pads": [1, 1], "dilations": [2]},
        9,
    ),
    ("ConvTranspose", IMAGE, {"w": weights(4, 3, 2, 2)}, {"strides": [2, 2]}, 20),
    ("Gemm", ROW, {"w": weights(3, 5), "b": weights(3)}, {"transB": 1, "alpha": 0.5}, 20),
    ("Gemm", ROW, {"w": weights(5, 2), "b": weights(1)}, {"beta": 2.0}, 11),
    ("MatMul", (3, 5), {"w": weights(5, 2)}, {}, 20),
    ("BatchNormalization", IMAGE, {k: np.abs(weights(4)) for k in "wbmv"}, {"epsilon": 0.1}, 15),
    ("LayerNormalization", (3, 5), {"w": weights(5), "b": weights(5)}, {"axis": -1}, 17),
    ("GroupNormalization", IMAGE, {"w": weights(4), "b": weights(4)}, {"num_groups": 2}, 21),
    ("InstanceNormalization", IMAGE, {"w": weights(4), "b": weights(4)}, {}, 20),
    ("MaxPool", IMAGE, {}, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, 20),
    ("MaxPool", IMAGE, {}, {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}, 11),
    ("AveragePool", IMAGE, {}, {"kernel_shape": [2, 3], "strides": [2, 3]}, 20),
    ("AveragePool", (4, 8), {}, {"kernel_shape": [2], "strides": [2]}, 20),
    ("GlobalAveragePool", IMAGE, {}, {}, 20),
    ("PRelu", IMAGE, {"slope": np.abs(weights(4, 1, 1))}, {}, 20),
    ("Clip", ROW, {"low": np.float32(0), "high": np.float32(1)}, {}, 13),
    ("Clip", ROW, {}, {"min": 0.0, "max": 6.0}, 9),
    ("ReduceMean", IMAGE, {}, {"axes": [2, 3], "keepdims": 0}, 13),
    ("ReduceMean", IMAGE, {"axes": np.array([-1, -2])}, {}, 18),
    ("ReduceSum", IMAGE, {"axes": np.array([1])}, {}, 13),
    ("Reshape", IMAGE, {"shape": np.array([0, 8, -1])}, {}, 20),
    ("Flatten", IMAGE, {}, {}, 20),
    ("Squeeze", (1, 5), {"axes": np.array([1])}, {}, 13),
    ("Unsqueeze", ROW, {}, {"axes": [1, 3]}, 11),
    ("Transpose", IMAGE, {}, {"perm": [0, 2, 3, 1]}, 20),
    ("Concat", (3, 5), {"w": weights(1, 1, 5)}, {"axis": 1}, 20),
    ("Split", IMAGE, {}, {"axis": 1, "num_outputs": 2}, 18),
    ("Split", IMAGE, {"split": np.array([1, 3])}, {"axis": 1}, 13),
    ("Slice", IMAGE, {"s": [1, -3], "e": [9, -1], "a": [1, 3], "t": [2, 1]}, {}, 20),
    ("Gather", IMAGE, {"i": np.array(-1)}, {"axis": 1}, 20),
    ("Pad", IMAGE, {"pads": np.array([0, 0, 1, 2, 0, 0, 0, 1])}, {}, 13),
    ("Pad", IMAGE, {}, {"pads": [0, 0, 1, 1, 0, 0, 1, 1]}, 9),
    ("Resize", IMAGE, {"r": weights(0), "s": np.float32([1, 1, 2, 2])}, {"mode": "nearest"}, 13),
    ("Resize", IMAGE, {"r": weights(0), "s": np.float32([1, 1, 2, 2])}, {"mode": "linear"}, 13),
    ("Upsample", IMAGE, {"s": np.float32([1, 1, 2, 2])}, {"mode": "nearest"}, 9),
    ("DepthToSpace", IMAGE, {}, {"blocksize": 2, "mode": "CRD"}, 20),
    ("DepthToSpace", (8, 2, 3), {}, {"blocksize": 2}, 20),
    ("Expand", IMAGE, {"shape": np.array([1, 4, 6, 6])}, {}, 20),
    ("Cast", ROW, {}, {"to": FLOAT}, 20),
    ("Div", ROW, {"w": np.float32(3)}, {}, 20),
    ("Identity", ROW, {}, {}, 20),
    ("Dropout", ROW, {}, {}, 20),
    ("Add", ROW, {"w": weights(5)}, {}, 20),
    ("Sub", ROW, {"w": weights(1, 5)}, {}, 20),
    ("Mul", ROW, {"w": np.float32(2)}, {}, 20),
    ("Pow", ROW, {"w": np.float32(2)}, {}, 20),
    *(
        (name, ROW, {}, {}, 20)
        for name in ("Neg", "Relu", "Sigmoid", "Tanh", "Softplus", "HardSwish")
    ),
    ("LeakyRelu", ROW, {}, {"alpha": 0.2}, 20),
    ("Elu", ROW, {}, {}, 20),
    ("Gelu", ROW, {}, {"approximate": "tanh"}, 20),
    ("Softmax", (3, 5), {}, {"axis": 1}, 20),
    ("HardSigmoid", ROW, {}, {"alpha": 1 / 6}, 20),
]
ON_SHAPES = {"Constant", "ConstantOfShape", "Shape", "Mod", "Sqrt"}  # tested with shapes, below


@pytest.mark.parametrize("case", CASES, ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)])
def test_an_operator_is_what_onnx_says(case, tmp_path):
    kind, shape, constants, attributes, opset = case
    outputs = (
        [f"y{i}" for i in range(attributes.get("num_outputs", 2))] if kind == "Split" else ["y"]
    )
    node = helper.make_node(kind, ["x", *constants], outputs, **attributes)
    batch = 1 if kind == "Concat" else None  # a constant for one sample
    module = from_onnx(
        written(tmp_path / "a.onnx", [node], shape, constants, opset, outputs, batch)
    )
    x = torch.randn(7, *shape)
    whole, alone = module(x), module(x[:1])
    if kind == "Split":
        assert [*whole] == outputs
        whole, alone = whole["y1"], alone["y1"]
    torch.testing.assert_close(whole[:1], alone)


def test_every_operator_has_a_case():
    assert {kind for kind, *_ in CASES} | ON_SHAPES == {*RULES}


def test_what_is_computed_with_shapes_holds_for_any_number_of_samples(tmp_path):
    make = helper.make_node
    nodes = [
        make("Shape", ["x"], ["shape"]),
        make("Gather", ["shape", "zero"], ["n"], axis=0),
        make("Constant", [], ["five"], value=numpy_helper.from_array(np.array(12))),
        make("Mod", ["five", "seven"], ["rest"]),
        make("Unsqueeze", ["n", "zeros"], ["n1"]),
        make("Unsqueeze", ["rest", "zeros"], ["rest1"]),
        make("Concat", ["n1", "rest1"], ["sizes"], axis=0),
        make("Reshape", ["x", "sizes"], ["flat"]),
        make("ConstantOfShape", ["sizes"], ["nought"]),
        make("Concat", ["nought", "flat"], ["both"], axis=1),
        make("Sqrt", ["four"], ["two"]),
        make("Mul", ["both", "two"], ["y"]),
    ]
    constants = {"zero": np.array(0), "seven": np.array(7), "zeros": np.array([0])}
    constants["four"] = np.float32(4)
    module = from_onnx(written(tmp_path / "a.onnx", nodes, (5, 1), constants))
    x = torch.randn(3, 5, 1)
    assert torch.equal(module(x), torch.cat([torch.zeros(3, 5), 2 * x.flatten(1)], 1))


def test_a_file_for_one_sample_is_read_for_any_number(tmp_path):
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    constants = {"shape": np.array([1, 20])}
    module = from_onnx(written(tmp_path / "a.onnx", [node], (4, 5), constants, batch=1))
    assert module(torch.zeros(3, 4, 5)).shape == (3, 20)


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(1, 4, 3, padding=1)
        self.boxes, self.score = nn.Conv2d(4, 2, 1), nn.Linear(64, 3)

    def forward(self, x):
        y = torch.relu(self.body(x))
        return self.boxes(y), self.score(y.flatten(1))


@pytest.mark.parametrize("network", ["vit", "heads"])
def test_what_torch_exports_converts_as_the_module_does(network, tmp_path):
    from axonal.models.vit import ViT, ViTConfig

    torch.manual_seed(0)
    config = ViTConfig(channels=1, size=4, classes=3, patch=2, width=8, depth=1, heads=2)
    model = (ViT(config) if network == "vit" else Heads()).eval()
    x, path = torch.randn(40, 1, 4, 4), tmp_path / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sizes = ({0: torch.export.Dim("n")},)
        torch.onnx.export(model, (x,), path, dynamic_shapes=sizes, verbose=False)
    method = "transformer" if network == "vit" else "graded"
    with torch.no_grad():
        theirs, expected = convert(model, x, method=method, T=4)
        ours, certificate = convert(from_onnx(path), x, method=method, T=4)
        pairs = zip(leaves(ours.answer(x)).values(), leaves(theirs.answer(x)).values(), strict=True)
        assert all(a.shape == b.shape and (a - b).norm() < 0.05 * b.norm() for a, b in pairs)
    assert len(certificate.outputs) == len(expected.outputs) == (2 if network == "heads" else 0)
    assert certificate.output_error == pytest.approx(expected.output_error, rel=0.2)


def refused(path, nodes, shape=ROW, **about):
    with pytest.raises(InputError) as caught:
        from_onnx(written(path, nodes, shape, **about))
    return str(caught.value)


def test_what_is_not_read_is_named(tmp_path):
    path, make = tmp_path / "net.onnx", helper.make_node
    unknown = [make("Erf", ["x"], ["a"]), make("NonZero", ["a"], ["y"])]
    assert "Erf, NonZero; export with opset_version=20" in refused(path, unknown)
    turned = [make("Transpose", ["x"], ["y"], perm=[1, 0])]
    assert "Transpose y can't be read: it moves samples" in refused(path, turned)
    still = [make("Constant", [], ["y"], value=numpy_helper.from_array(weights(3)))]
    assert "its output y does not depend on the input" in refused(path, still)
    assert "must be fixed numbers" in refused(path, [make("Relu", ["x"], ["y"])], ("h", 3))
    wrong = {"w": weights(4, 2)}
    assert "can't be read" in refused(path, [make("MatMul", ["x", "w"], ["y"])], constants=wrong)
    slope = [make("HardSigmoid", ["x"], ["y"])]
    assert "its slope is not that of torch" in refused(path, slope)
    huge = {"shape": np.array([1, 1 << 30, 5])}
    with pytest.raises(FileError, match="asks for"):
        from_onnx(written(path, [make("Expand", ["x", "shape"], ["y"])], (1, 5), huge))


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(FileError, match="there is no file"):
        from_onnx(tmp_path / "none.onnx")
    path = written(tmp_path / "a.onnx", [helper.make_node("Relu", ["x"], ["y"])], ROW)
    whole = path.read_bytes()
    path.write_bytes(b"")
    with pytest.raises(FileError, match="is empty"):
        from_onnx(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileError, match=r"can't read .*a\.onnx"):
        from_onnx(path)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_file_is_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "a.onnx"
    constants = {"w": weights(2, 4, 3, 3), "b": weights(2)}
    make = helper.make_node
    nodes = [make("Conv", ["x", "w", "b"], ["a"]), make("Relu", ["a"], ["y"])]
    content = bytearray(written(path, nodes, IMAGE, constants).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        module = from_onnx(path)
    except AxonalError:
        return
    assert isinstance(module, nn.Module)
