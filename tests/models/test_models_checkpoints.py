from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
import safetensors
import torch
from torch import Tensor, nn

from trtbench.errors import CheckpointError, ConfigError, StoreError
from trtbench.models import build_model, conv_widths, load_model, save_model
from trtbench.models.widths import narrow, shapes_of

if TYPE_CHECKING:
    from pathlib import Path


def network(name: str = "resnet20", *, num_classes: int = 10) -> nn.Module:
    torch.manual_seed(1)
    model = build_model(name, num_classes=num_classes).eval()
    for module in model.modules():  # statistics that a wrong pairing would betray
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model


def logits(model: nn.Module) -> Tensor:
    torch.manual_seed(2)
    with torch.no_grad():
        out: Tensor = model(torch.randn(2, 3, 32, 32))
    return out


def saved(path: Path, model: nn.Module, *, name: str = "resnet20", **metadata: str) -> Path:
    save_model(path, model, name=name, num_classes=10, metadata=metadata)
    return path


def load(path: Path, name: str = "resnet20", **options: Any) -> tuple[nn.Module, tuple[str, ...]]:
    loaded = load_model(name, num_classes=options.pop("num_classes", 10), checkpoint=path, **options)
    return loaded.model, loaded.notes


def test_a_saved_network_comes_back_with_equal_logits_and_nothing_to_note(tmp_path: Path) -> None:
    model = network()
    back, notes = load(saved(tmp_path / "a.safetensors", model))
    assert torch.equal(logits(model), logits(back))
    assert notes == ()
    assert not back.training


@pytest.mark.parametrize("name", ["resnet20", "torchvision:squeezenet1_1"])
def test_weights_that_a_checkpoint_gives_are_not_drawn_before(name: str, tmp_path: Path) -> None:
    model = network(name)
    save_model(tmp_path / "net.safetensors", model, name=name, num_classes=10, metadata={})
    before = torch.get_rng_state()

    loaded, _ = load(tmp_path / "net.safetensors", name)

    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())


def test_without_a_checkpoint_the_weights_are_fresh_and_that_is_said() -> None:
    loaded = load_model("resnet20", num_classes=10, checkpoint=None)
    assert loaded.notes == ("the weights are untrained: there is no checkpoint",)
    assert not loaded.model.training


def test_equal_weights_give_equal_bytes_and_other_weights_others(tmp_path: Path) -> None:
    one = saved(tmp_path / "1", network(), a="1", b="2").read_bytes()
    two = saved(tmp_path / "2", network(), b="2", a="1").read_bytes()
    assert one == two
    changed = network()
    with torch.no_grad():
        next(changed.parameters()).view(-1)[0] += 1
    assert saved(tmp_path / "3", changed, a="1", b="2").read_bytes() != one


SAVE = """
    import hashlib, sys
    from pathlib import Path
    import torch
    from trtbench.models import build_model, save_model
    torch.manual_seed(1)
    metadata = {key: key for key in "abcdefgh"}
    save_model(Path(sys.argv[1]), build_model("resnet20", num_classes=10), name="r", num_classes=10, metadata=metadata)
    print(hashlib.sha256(Path(sys.argv[1]).read_bytes()).hexdigest())
    assert not any(name.startswith("torch_pruning") for name in sys.modules)
"""


def test_another_process_writes_the_same_bytes_and_needs_no_pruner(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(SAVE), str(tmp_path / "a.safetensors")]
    theirs = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    torch.manual_seed(1)
    metadata = {key: key for key in "hgfedcba"}
    model = build_model("resnet20", num_classes=10)
    save_model(tmp_path / "b.safetensors", model, name="r", num_classes=10, metadata=metadata)
    assert hashlib.sha256((tmp_path / "b.safetensors").read_bytes()).hexdigest() == theirs


def test_name_classes_and_metadata_stand_in_the_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors", network(), epoch="3")
    with safetensors.safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["trtbench"])
    assert facts == {"name": "resnet20", "num_classes": 10, "metadata": {"epoch": "3"}, "masks": {}}


def test_a_network_saved_under_another_name_is_said(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors", network("resnet18_3x3"), name="resnet18_3x3")
    assert load(path, "resnet18")[1] == ("saved as 'resnet18_3x3', loaded as 'resnet18'",)


@pytest.mark.parametrize("text", ["no json", "[1]", '{"name": 3}'])
def test_foreign_metadata_is_no_reason_to_fail(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file(network().state_dict(), path, metadata={"trtbench": text})
    assert load(path)[1] == ()


def test_tied_weights_half_precision_and_strided_weights_are_saved(tmp_path: Path) -> None:
    model = network().to(memory_format=torch.channels_last).half()
    block, next_block = (model.get_submodule(name) for name in ("layer1.0", "layer1.1"))
    next_block.conv1.weight = block.conv1.weight  # type: ignore[union-attr]  # they are blocks
    back, notes = load(saved(tmp_path / "a.safetensors", model))
    assert all(torch.equal(value.float(), back.state_dict()[key]) for key, value in model.state_dict().items())
    assert notes == ("107 tensors converted from float16 to float32",)


def test_a_write_that_fails_is_a_store_error_and_leaves_nothing(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.touch()
    with pytest.raises(StoreError):
        saved(blocker / "a.safetensors", network())
    assert list(tmp_path.iterdir()) == [blocker]


def test_a_sparse_buffer_cannot_be_saved(tmp_path: Path) -> None:
    model = nn.Module()
    model.register_buffer("table", torch.eye(3).to_sparse().coalesce())
    with pytest.raises(StoreError, match="expected dense tensors"):
        saved(tmp_path / "a.safetensors", model)


def test_the_users_usual_wrapping_is_undone_and_said(tmp_path: Path) -> None:
    model = network()
    state = {f"module.{key}": value.double() if value.is_floating_point() else value for key, value in
             model.state_dict().items() if not key.endswith("num_batches_tracked")}  # fmt: skip
    path = tmp_path / "best.pth.tar"
    torch.save({"epoch": 90, "state_dict": state, "optimizer": {"lr": 0.1}}, path)
    back, notes = load(path)
    assert torch.equal(logits(model), logits(back))
    assert notes == (
        "took 'state_dict' of the checkpoint, beside epoch, optimizer",
        "107 tensors converted from float64 to float32",
        "took the prefix 'module.' off the checkpoint's names",
    )


def test_of_a_teacher_and_a_student_in_one_file_the_one_that_is_asked_for_is_loaded(tmp_path: Path) -> None:
    teacher, student = network(), build_model("resnet20", num_classes=10).eval()
    path = tmp_path / "kd.pth"
    both = {"teacher": teacher, "student": student}
    torch.save({f"{name}.{key}": value for name, one in both.items() for key, value in one.state_dict().items()}, path)
    with pytest.raises(CheckpointError, match=r"teacher, student.*--weights-from student"):
        load(path)
    assert torch.equal(logits(load(path, weights_from="student")[0]), logits(student))
    assert torch.equal(logits(load(path, weights_from="teacher.")[0]), logits(teacher))


def foreign(key: str) -> str:
    for ours, theirs in (("layer", "stage_"), ("downsample", "side"), ("conv", "c"), ("bn", "n"), ("fc", "top")):
        key = key.replace(ours, theirs)
    return key


@pytest.mark.parametrize("has_shortcut_first", [False, True])
def test_a_checkpoint_with_names_of_its_own_loads_and_says_how(tmp_path: Path, *, has_shortcut_first: bool) -> None:
    model = network()
    keys = list(model.state_dict())
    if has_shortcut_first:
        keys.sort(key=lambda key: (key.split(".")[:2] if "layer" in key else [""] * 2, "downsample" not in key))
        keys.sort(key=lambda key: key.startswith("fc"))
    path = tmp_path / "a.pt"
    torch.save({foreign(key): model.state_dict()[key] for key in keys}, path)
    back, notes = load(path)
    assert torch.equal(logits(model), logits(back))
    assert "matched by order and shape" in notes[0]


def slim(name: str, factor: int) -> nn.Module:
    """Build the network of a fraction of the widths."""
    model = network(name)
    classes = {"fc.weight", "fc.bias"}
    shapes = {}
    for key, shape in shapes_of(model.state_dict()).items():
        outputs = shape[:1] if key in classes else tuple(size // factor for size in shape[:1])
        inputs = shape[1:2] if key == "conv1.weight" else tuple(size // factor for size in shape[1:2])
        shapes[key] = (*outputs, *inputs, *shape[2:])
    narrow(model, shapes)
    torch.manual_seed(3)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("has_own_names", [False, True])
@pytest.mark.parametrize("name", ["resnet20", "resnet18"])
def test_a_pruned_checkpoint_loads_with_its_widths(tmp_path: Path, name: str, *, has_own_names: bool) -> None:
    model = slim(name, 4)
    path = tmp_path / "a.pt"
    rename = foreign if has_own_names else str
    torch.save({rename(key): value for key, value in model.state_dict().items()}, path)
    back, notes = load(path, name)
    assert torch.equal(logits(model), logits(back))
    assert conv_widths(back) == conv_widths(model)
    assert notes[-1].startswith(f"pruned: {len(conv_widths(model))} layers are narrower than {name}'s, as conv1 ")


def refused(path: Path, name: str = "resnet20", **options: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(path, name, **options)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(
    ("made", "wanted", "words"),
    [
        ("resnet20_a", "resnet20", "it has no shortcut weights: try resnet20_a"),
        ("resnet20", "resnet20_a", "it has shortcut weights: try resnet20"),
        ("resnet32", "resnet20", "try resnet32"),
        ("resnet18", "resnet18_imagenet", "conv1.weight: expected 64 x 3 x 7 x 7, got 64 x 3 x 3 x 3; try resnet18 or"),
        ("resnet20", "torchvision:resnet18", "try resnet20"),
    ],
)
def test_an_architecture_that_does_not_fit_is_answered_with_the_one_that_does(
    tmp_path: Path, made: str, wanted: str, words: str
) -> None:
    assert words in refused(saved(tmp_path / "a.safetensors", network(made), name=made), wanted)


def test_a_pruned_checkpoint_is_answered_with_the_network_it_was_pruned_from(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors", slim("resnet20", 2))
    assert "try resnet20" in refused(path, "mobilenet_v2")


def test_a_checkpoint_that_fits_no_network_of_the_zoo_names_the_form_for_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(nn.Linear(3, 3).state_dict(), path)
    message = refused(path)
    assert "package.module:callable" in message
    assert "convolutions: expected 21, got 0" in message


def test_only_the_first_layers_that_do_not_fit_are_named(tmp_path: Path) -> None:
    message = refused(saved(tmp_path / "a.safetensors", network("resnet56")))
    assert message.count("expected nothing, got") == 3
    assert "; and 69 more; try resnet56" in message


def test_other_classes_name_the_classifier_and_both_numbers(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors", network())
    message = refused(path, num_classes=100)
    assert "classifier 'fc': expected 100 classes, got 10; use data of 10 classes" in message


def test_other_images_name_the_convolution_and_both_numbers(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors", network())
    assert "convolution 'conv1': expected 1 image channels, got 3" in refused(path, in_channels=1)


def test_widths_that_do_not_stand_together_are_refused(tmp_path: Path) -> None:
    state = network().state_dict()
    state["layer1.0.conv1.weight"] = torch.zeros(8, 16, 3, 3)
    torch.save(state, tmp_path / "a.pt")
    message = refused(tmp_path / "a.pt")
    assert "the widths of its layers: expected a resnet20 with fewer channels" in message
    assert "name the network that it was pruned from" in message


def test_an_unknown_network_is_told_before_the_file_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="an unknown name"):
        load(tmp_path / "absent.pt", "resnet21")
