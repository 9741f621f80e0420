"""Networks as if they had been trained, images for them, and what they give compared."""

import torch


def unsettle(model, by=0.02):
    """Move every weight and running statistic: zeros and ones of a fresh model hide mistakes."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer += 0.1 * torch.randn(buffer.shape, generator=generator)
            if name.endswith("running_var"):
                buffer *= 0.5 + torch.rand(buffer.shape, generator=generator)
    return model


def randomise(model, seed=0):
    """No norm's weight stays 1, no bias 0 and no layer scale what it was."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.requires_grad_(False).eval()


def some_images(n, size):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def assert_close(found, expected, name="", relative=1e-4):
    """Equal but for the order of float32 sums: within a share of the largest number."""
    assert found.shape == expected.shape, name
    scale = max(float(expected.abs().max()), 1e-3)
    difference = float((found - expected).abs().max())
    assert difference <= relative * scale, f"{name}: {difference} of {scale}"
