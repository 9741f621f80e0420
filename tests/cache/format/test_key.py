"""The key: stable digests, safe names, differences in words."""

import pytest

from cache.format.key import (
    canonical_json,
    feature_path,
    file_stem,
    key_differences,
    key_digest,
)


def test_the_digest_does_not_depend_on_the_order_of_names():
    assert key_digest({"a": 1, "b": [1, 2]}) == key_digest({"b": [1, 2], "a": 1})
    assert key_digest({"a": 1}) != key_digest({"a": 2})


def test_the_digest_is_the_same_forever():
    # Written down once: a change here makes every stored file a stranger.
    key = {"encoder": "vit", "size": 224, "transform": {"antialias": True, "mean": [0.5]}}
    assert key_digest(key)[:12] == "3d59cf88eb45"


def test_numbers_that_json_cannot_say_are_refused():
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"mean": float("nan")})


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("dinov2", "dinov2"),
        ("hf-hub:timm/vit", "hf-hub-timm-vit"),
        ("../../etc/passwd", "etc-passwd"),
        ("..", "unnamed"),
        ("", "unnamed"),
    ],
)
def test_a_name_is_never_a_path(tmp_path, name, stem):
    assert file_stem(name) == stem
    path = feature_path(tmp_path, name, name, 224, {})
    assert path.resolve().parent.parent == tmp_path.resolve()


def test_a_text_file_says_so_by_its_name(tmp_path):
    path = feature_path(tmp_path, "breastmnist", "hf-hub:some/clip", None, {"text": {}})
    digest = key_digest({"text": {}})[:12]
    assert path == tmp_path / "breastmnist" / f"hf-hub-some-clip_text_{digest}.h5"


def test_differences_are_said_in_words():
    a = {"transform": {"interpolation": "bicubic"}, "size": 224, "layers": [0, 1]}
    b = {"transform": {"interpolation": "bilinear"}, "size": 224, "store": "float32"}
    assert key_differences(a, b) == [
        "transform.interpolation: bicubic -> bilinear",
        "layers: [0, 1] -> (absent)",
        "store: (absent) -> float32",
    ]
    assert key_differences(a, a) == []
