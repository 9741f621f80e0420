"""One layer's output as one vector an image, the class token or the mean patch, or as a map."""

from torch import Tensor

# How a layer's output is laid out. B batch, T tokens, D width, H and W rows and columns.
LAYOUTS = ("tokens", "BTD", "BDHW", "BHWD")


def pool_tokens(tokens: Tensor, n_prefix: int, has_cls: bool) -> dict[str, Tensor]:
    """Pool one block's tokens.

    Args:
        tokens: (B, T, D) prefix tokens (class token, registers) first, then patches.
        n_prefix: how many prefix tokens to leave out of the mean.
        has_cls: whether tokens[:, 0] is a class token. A prefix alone does not say so: timm's
            test_vit2 has one prefix token and it is a register.

    Returns:
        "cls": (B, D) where there is a class token, and "mean": (B, D), both float32.
    """
    pooled = {"cls": tokens[:, 0].float()} if has_cls else {}
    # Summed in float32: a half-precision sum over a thousand patches loses three digits.
    pooled["mean"] = tokens[:, n_prefix:].float().mean(dim=1)
    return pooled


def to_map(features: Tensor, layout: str, n_prefix: int, grid: tuple[int, int]) -> Tensor:
    """(B, h, w, D) float32 of one layer's output; row 0 is the top of the image, column 0 its left.

    Args:
        features: laid out as ``layout`` says.
        layout: one of LAYOUTS.
        n_prefix: tokens before the patches; of "tokens" alone.
        grid: rows and columns of the patches.
    """
    if layout == "BDHW":
        features = features.permute(0, 2, 3, 1)
    elif layout == "tokens":
        features = features[:, n_prefix:]
    return features.reshape(len(features), *grid, -1).float()


def mean_map(features: Tensor, layout: str) -> Tensor:
    """(B, D) float32 mean over all positions of a map.

    Args:
        features: (B, T, D), (B, D, H, W) or (B, H, W, D), as ``layout`` says.
        layout: one of LAYOUTS; "tokens" means BTD with a prefix and belongs to ``pool_tokens``.

    Raises:
        ValueError: an unknown layout.
    """
    axes = {"BTD": (1,), "BDHW": (2, 3), "BHWD": (1, 2)}
    if layout not in axes:
        raise ValueError(f"layout must be one of {tuple(axes)}, not {layout!r}")
    return features.float().mean(dim=axes[layout])
