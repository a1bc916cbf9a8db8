"""The set generator (PAPER.md, Networks; Mo et al., ICLR 2019, section 2.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instapipe.config import GeneratorConfig
from instapipe.networks.aggregation import build_aggregation
from instapipe.networks.blocks import ConvNormRelu, NarrowConv2d, ResidualBlock, UpsampleConv, recompute, scatter_valid
from instapipe.networks.layers import DoublingConv2d, ReflectedConv2d

MIN_SIDE = 8
"""Smallest side in pixels: at 1/4 resolution a reflection by one pixel needs two."""


class Encoder(nn.Module):
    """7x7 convolution, two stride-2 convolutions, residual blocks: (B, C, H, W) -> (B, 4 width, H/4, W/4)."""

    def __init__(self, inputs: int, width: int, blocks: int, *, affine: bool) -> None:
        super().__init__()
        self.stem = ConvNormRelu(ReflectedConv2d(inputs, width, 7), width, affine=affine)
        self.down1 = ConvNormRelu(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), 2 * width, affine=affine)
        self.down2 = ConvNormRelu(nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1), 4 * width, affine=affine)
        self.blocks = nn.Sequential(*(ResidualBlock(4 * width, affine=affine) for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = self.blocks(self.down2(self.down1(self.stem(x))))
        return out


class PaperDecoder(nn.Module):
    """Two transposed convolutions, 7x7 convolution, tanh: (B, C, H/4, W/4) -> (B, outputs, H, W) in [-1, 1]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half, quarter = inputs // 2, inputs // 4
        up1 = DoublingConv2d(inputs, half)
        up2 = DoublingConv2d(half, quarter)
        self.up1 = ConvNormRelu(up1, half, affine=False)
        self.up2 = ConvNormRelu(up2, quarter, affine=False)
        self.out = NarrowConv2d(quarter, outputs, 7)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return torch.tanh(self.out(self.up2(self.up1(x))))


class ResizeDecoder(nn.Module):
    """Fusing 3x3 convolution, residual blocks, two nearest-neighbour upsamplings with convolutions, 7x7, tanh.

    The blocks after the fusion let the decoder decide where to put things once it has seen the whole set.
    """

    def __init__(self, inputs: int, width: int, outputs: int, blocks: int) -> None:
        super().__init__()
        self.fuse = ConvNormRelu(nn.Conv2d(inputs, width, 3, padding=1), width, affine=True)
        self.blocks = nn.Sequential(*(ResidualBlock(width, affine=True) for _ in range(blocks)))
        self.up1 = ConvNormRelu(UpsampleConv(width, width // 2), width // 2, affine=True)
        self.up2 = ConvNormRelu(UpsampleConv(width // 2, width // 4), width // 4, affine=True)
        self.out = NarrowConv2d(width // 4, outputs, 7)

    def forward(self, x: Tensor) -> Tensor:
        """See :class:`PaperDecoder`."""
        return torch.tanh(self.out(self.up2(self.up1(self.blocks(self.fuse(x))))))


class SetGenerator(nn.Module):
    """(image, set of masks) -> (image, set of masks), permutation-equivariant in the set.

    Image features come from one encoder, mask features from another that all masks share; the mask features are
    aggregated over the set; the image decoder sees [image; set], the mask decoder, per mask, [mask; image; set].
    """

    recomputes = False

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        affine = config.form == "resize"
        features = 4 * config.width
        self.encoder_image = Encoder(3, config.width, config.encoder_blocks, affine=affine)
        self.encoder_mask = Encoder(1, config.width, config.encoder_blocks, affine=affine)
        self.aggregate = build_aggregation(config.aggregation, features)
        self.decoder_image: nn.Module
        self.decoder_mask: nn.Module
        if config.form == "paper":
            self.decoder_image = PaperDecoder(2 * features, 3)
            self.decoder_mask = PaperDecoder(3 * features, 1)
        else:
            image_width = config.image_decoder_width or features
            mask_width = config.mask_decoder_width or features
            self.decoder_image = ResizeDecoder(2 * features, image_width, 3, config.decoder_blocks)
            self.decoder_mask = ResizeDecoder(3 * features, mask_width, 1, config.decoder_blocks)

    def forward(self, image: Tensor, masks: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Translate.

        image: (B, 3, H, W) in [-1, 1].  masks: (B, N, H, W) in [-1, 1], -1 outside.  valid: bool (B, N), False marks
        padding.  H and W: multiples of 4, at least 8.
        Returns the image and the masks of the same shapes. Padding masks come back as they went in, and so does the
        image of a sample without any instance.
        """
        b, n, h, w = masks.shape
        if image.shape != (b, 3, h, w) or valid.shape != (b, n) or valid.dtype != torch.bool:
            raise ValueError(
                f"expected image (B, 3, H, W), masks (B, N, H, W), valid bool (B, N); "
                f"got {tuple(image.shape)}, {tuple(masks.shape)}, {valid.dtype} {tuple(valid.shape)}"
            )
        check_sides(h, w)
        if not bool(valid.any()):
            return image, masks
        sample = valid.nonzero()[:, 0]  # (V,): to which sample each valid mask belongs
        again = self.recomputes
        image_features = recompute(self.encoder_image, image, enabled=again)
        # (V, C, h, w): padding is never encoded
        mask_features = recompute(self.encoder_mask, masks[valid].unsqueeze(1), enabled=again)
        total = self.aggregate(scatter_valid(mask_features, valid), valid)
        fused = torch.cat([image_features, total], dim=1)
        new_image = recompute(self.decoder_image, fused, enabled=again).to(image.dtype)
        context = torch.cat([mask_features, fused[sample]], dim=1)
        new_masks = recompute(self.decoder_mask, context, enabled=again).squeeze(1).to(masks.dtype)
        new_image = torch.where(valid.any(dim=1)[:, None, None, None], new_image, image)
        return new_image, masks.clone().masked_scatter(valid[:, :, None, None].expand_as(masks), new_masks)


def check_sides(height: int, width: int) -> None:
    """Raises ValueError where a generator cannot take images of this size."""
    if height % 4 or width % 4 or min(height, width) < MIN_SIDE:
        raise ValueError(f"H and W: expected multiples of 4, at least {MIN_SIDE}; got {height}x{width}")


def soften(mattes: Tensor, width: int) -> Tensor:
    """Box filter of `width` pixels over mattes (B, N, H, W), the border not darkened."""
    if width == 1 or mattes.shape[1] == 0:
        return mattes
    return F.avg_pool2d(mattes, width, stride=1, padding=width // 2, count_include_pad=False)
