"""Import timm, also where torchvision was built for another torch."""

import sys
from types import ModuleType


def import_timm() -> ModuleType:
    """Return timm.

    A torchvision of another build fails at import because `nms` was never registered. Declaring the two operators is
    enough for everything timm uses; `nms` itself stays unavailable. With a matching pair nothing is done.
    """
    try:
        import timm.optim
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
        import torch

        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        for name in [name for name in sys.modules if name.split(".")[0] in {"timm", "torchvision"}]:
            del sys.modules[name]
        import timm.optim

        sys.modules["timm"].__dict__["_operators"] = library  # kept alive as long as timm
    return timm
