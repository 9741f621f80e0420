"""Data sets whose images are arrays: .npz files, MedMNIST, the demo."""
