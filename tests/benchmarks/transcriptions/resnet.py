"""ResNet-18 and ResNet-50 as torchvision has them, on one date with any bands."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["PlainResNet"]


class PlainResNet(nn.Module):
    """One date (B, 1, C, H, W) to logits (B, classes) of the chip."""

    def __init__(self, bands: int, *, layers: int, classes: int) -> None:
        super().__init__()
        import torchvision  # which takes seconds

        kind = {18: torchvision.models.resnet18, 50: torchvision.models.resnet50}[layers]
        whole = kind(num_classes=classes)
        whole.conv1 = nn.Conv2d(bands, 64, 7, stride=2, padding=3, bias=False)
        for name, part in whole.named_children():  # not under a name of its own: entries are torchvision's
            self.add_module(name, part)

    def forward(self, series: Tensor, valid: Tensor) -> Tensor:  # the one date is there
        out = self.maxpool(self.relu(self.bn1(self.conv1(series[:, 0]))))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        logits: Tensor = self.fc(self.avgpool(out).flatten(1))
        return logits
