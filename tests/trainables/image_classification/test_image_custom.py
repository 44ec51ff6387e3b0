import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trainables.image_classification import custom
from trainables.image_classification.config import Settings

EXAMPLES = Path(__file__).parents[2] / "examples"
SETTINGS = Settings(data="digits", image_size=20)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(EXAMPLES)


@pytest.fixture
def images() -> torch.Tensor:
    """As stored: uint8, channels last in memory."""
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (32, 23, 23, 3), dtype=torch.uint8)
    return pixels.permute(0, 3, 1, 2)


def test_a_callable_is_given_the_batch(images: torch.Tensor):
    mirrored = custom.build("own_transforms:mirrored", SETTINGS)

    assert torch.equal(mirrored(images), images.flip(-1))


def test_an_albumentations_transform_is_applied_to_each_image(images: torch.Tensor):
    inverted = custom.build("own_transforms:inverted", SETTINGS)

    assert torch.equal(inverted(images), 255 - images)


def test_albumentations_draws_for_each_image_and_each_part_of_it_by_itself(images: torch.Tensor):
    flips = custom.build("own_transforms:flips", SETTINGS)

    flipped = flips(images)

    seen = set()
    for before, after in zip(images, flipped, strict=True):
        ways = {
            (across, down): before.flip([-1] * across + [-2] * down)
            for across in (0, 1)
            for down in (0, 1)
        }
        seen |= {way for way, expected in ways.items() if torch.equal(after, expected)}
    assert seen == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_albumentations_draws_from_torchs_seed(images: torch.Tensor):
    flips = custom.build("own_transforms:flips", SETTINGS)

    def draw(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.stack([flips(images), flips(images)])

    first = draw(1)
    assert torch.equal(draw(1), first)
    assert not torch.equal(draw(2), first)
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("function", ["mirrored", "noisy", "module", "flips", "inverted"])
def test_what_works_is_accepted(function: str):
    custom.check(f"own_transforms:{function}", SETTINGS)


@pytest.mark.parametrize(
    ("name", "rest"),
    [
        ("own_transforms", ": it must be package.module:function"),
        (":mirrored", ": it must be package.module:function"),
        (
            "no_such:thing",
            (
                ", but 'no_such' cannot be imported (ModuleNotFoundError: No module named "
                "'no_such'): it must be installed, or lie in the folder that the run is started in"
            ),
        ),
        (
            "own_transforms:mirored",
            ", but that module has no such function: give package.module:function",
        ),
        (
            "own_transforms:number",
            ", but that module has no such function: give package.module:function",
        ),
        (
            "own_transforms:failing",
            (
                ", which raised RuntimeError: no such file: it is called with the settings and "
                "must return a transform"
            ),
        ),
        (
            "own_transforms:nothing",
            (
                ", which returned a NoneType: it must return a callable on uint8 batches "
                "(N, 3, S, S) or an Albumentations transform"
            ),
        ),
        (
            "own_transforms:failing_later",
            (
                ", whose transform raised RuntimeError: out of paint on two black images of "
                "23 x 23: it must take torch.uint8 of shape (2, 3, 23, 23)"
            ),
        ),
    ],
)
def test_what_does_not_work_is_refused_by_name(name: str, rest: str):
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the whole message follows
        custom.check(name, SETTINGS)

    assert str(refused.value) == f"transforms is {name!r}{rest}"


@pytest.mark.parametrize(
    ("function", "got"),
    [
        ("smaller", "torch.uint8 of shape (2, 3, 23, 22)"),
        ("as_floats", "torch.float32 of shape (2, 3, 23, 23)"),
        ("floats", "torch.float32 of shape (2, 3, 23, 23)"),
        ("as_array", "a ndarray"),
    ],
)
def test_a_result_of_another_kind_is_refused(function: str, got: str):
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the whole message follows
        custom.check(f"own_transforms:{function}", SETTINGS)

    assert str(refused.value) == (
        f"transforms is 'own_transforms:{function}', which turned torch.uint8 of shape "
        f"(2, 3, 23, 23) into {got}: it must keep type and shape; scaling, cropping and "
        "normalising come after it"
    )


def test_a_wrong_result_is_refused_in_training_too(images: torch.Tensor):
    with pytest.raises(ValueError, match="transforms is 'own_transforms:smaller'"):
        custom.build("own_transforms:smaller", SETTINGS)(images)


def test_the_source_tells_one_version_of_a_module_from_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "version_one.py").write_text("def same(settings): ...\n", encoding="utf-8")
    (tmp_path / "version_two.py").write_text("def same(settings): 0\n", encoding="utf-8")

    one, again, two = (
        custom.source_hash(f"{name}:same") for name in ("version_one", "version_one", "version_two")
    )

    assert one == again
    assert one != two


def test_a_callable_needs_no_albumentations(tmp_path: Path):
    (tmp_path / "plain.py").write_text("def same(settings):\n    return lambda images: images\n")
    program = (
        "import sys; sys.modules['albumentations'] = None\n"
        "from trainables.image_classification import custom\n"
        "from trainables.image_classification.config import Settings\n"
        "custom.check('plain:same', Settings(data='digits', image_size=20))\n"
    )
    environment = {"PYTHONPATH": f"{tmp_path}:{EXAMPLES.parents[1]}", "OMP_NUM_THREADS": "1"}

    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
