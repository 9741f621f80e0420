"""Stage two: questions to cached features. Starts without torch, timm or medmnist."""
