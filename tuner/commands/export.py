import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import IO

import torch
from torch import Tensor, nn

from tuner.errors import UserError
from tuner.results import load_model
from tuner.storage import bring, fetch_model
from tuner.text import shown

SUFFIXES = {"onnx": ".onnx", "torchscript": ".pt"}
TOLERANCE = 1e-3
"""How far an exported model's outputs may be from the model's own, relative to the largest."""


def export(best: str, form: str, output: Path | None) -> None:
    """Write the model for use without tuner, compare its outputs, and print how far they differ.

    The model takes one tensor and returns one, with examples along the first axis; the exported one
    takes any number of them. What such a tensor looks like the model says by a method
    ``example_input(batch_size)`` that returns one.

    Raises:
        UserError: there is no such form, the model cannot be exported, or a package is missing.

    """
    if form not in SUFFIXES:
        raise UserError(f"--format is {form!r}; it must be one of {', '.join(SUFFIXES)}")
    if form == "onnx" and not (find_spec("onnx") and find_spec("onnxscript")):
        raise UserError(
            "--format is 'onnx', which needs packages that are not installed: pip install "
            "'tuner[onnx]'"
        )
    model = load_model(best)
    path = output or fetch_model(best) / f"model{SUFFIXES[form]}"
    example = _example(model, 2)
    beside = path.with_name(f".{path.name}")  # renamed when whole and compared
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(model, example, beside, form)
        compared = _compare(model, beside, form)
        beside.replace(path)
        bring(path)
    except OSError as error:
        raise UserError(
            f"--output is {str(path)!r}, which cannot be written ({error.strerror}); give another"
        ) from error
    finally:
        with suppress(OSError):
            beside.unlink()
    print(f"{shown(path)}: {path.stat().st_size / 1e6:.1f} MB, takes {_describe(example)}")
    print(compared)


def _example(model: nn.Module, batch_size: int) -> Tensor:
    if make := getattr(model, "example_input", None):
        batch = make(batch_size)
        assert isinstance(batch, Tensor)
        return batch
    raise UserError(
        f"{type(model).__name__} does not say what it takes: give it a method "
        "example_input(batch_size) that returns a tensor for forward()"
    )


def _write(model: nn.Module, example: Tensor, path: Path, form: str) -> None:
    try:
        with _quiet(), path.open("wb") as file:
            (_write_onnx if form == "onnx" else _write_torchscript)(model, example, file)
    except OSError:
        raise
    except Exception as error:  # whatever torch cannot express
        raise UserError(
            f"{type(model).__name__} cannot be exported as {form}: {_reason(error)}"
        ) from error


def _write_onnx(model: nn.Module, example: Tensor, file: IO[bytes]) -> None:
    program = torch.onnx.export(
        model,
        (example,),
        dynamo=True,
        input_names=["input"],
        output_names=["output"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    assert program is not None
    file.write(program.model_proto.SerializeToString())


def _write_torchscript(model: nn.Module, example: Tensor, file: IO[bytes]) -> None:
    with torch.inference_mode():
        torch.jit.save(torch.jit.trace(model, example), file)  # type: ignore[no-untyped-call]


def _compare(model: nn.Module, path: Path, form: str) -> str:
    """Run the file on a batch of another size; returns what came of it.

    Raises:
        UserError: its outputs are not the model's.

    """
    if form == "onnx" and not find_spec("onnxruntime"):
        return "not compared: that needs onnxruntime (pip install 'tuner[onnx]')"
    batch = _example(model, 3)
    lost = f"{type(model).__name__} does not survive as {form}, so nothing was written:"
    try:
        with torch.inference_mode():
            wanted = model(batch)
        got = _run_onnx(path, batch) if form == "onnx" else _run_torchscript(path, batch)
        difference = float((wanted - got).abs().max())
    except Exception as error:  # a size of the first batch was taken for fixed, most likely
        raise UserError(f"{lost} it fails on a batch of 3: {_reason(error)}") from error
    if not difference <= TOLERANCE * max(1.0, float(wanted.abs().max())):
        raise UserError(f"{lost} its outputs differ from the model's by up to {difference:.2g}")
    return f"compared on 3 random inputs: outputs differ by at most {difference:.2g}"


def _run_onnx(path: Path, batch: Tensor) -> Tensor:
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)  # what is wrong comes as an exception, too
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"input": batch.numpy()})[0])


def _run_torchscript(path: Path, batch: Tensor) -> Tensor:
    with _quiet(), torch.inference_mode():
        outputs = torch.jit.load(str(path))(batch)  # type: ignore[no-untyped-call]
    assert isinstance(outputs, Tensor)
    return outputs


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch, which warns of deprecation and of what tracing may miss: that is compared.

    Where it fails it prints graphs, too; the reason is in its exception.
    """
    with warnings.catch_warnings(), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def _reason(error: BaseException) -> str:
    """The first line of the first cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _describe(example: Tensor) -> str:
    shape = ", ".join(["batch", *map(str, example.shape[1:])])
    return f"{str(example.dtype).removeprefix('torch.')} ({shape})"
