"""The encoders by short name: one literal table from what a user types to one exact encoder.

A person reads and edits this table; adding an encoder is one entry. Identifiers are those that the
papers' code resolves to. `extract models` prints the table, ENCODERS.md is made from it.

Papers: wu2025 = Wu & Papiez 2025 (https://arxiv.org/abs/2501.14685), doerrich2024 = Doerrich et
al. 2024 (https://arxiv.org/abs/2404.15786), huix2024 = Huix et al. 2024
(https://arxiv.org/abs/2310.19522), baharoon2023 = Baharoon et al. 2023
(https://arxiv.org/abs/2312.02366).
"""

from extract.encoders.table.general import DEMONSTRATION, GENERAL
from extract.encoders.table.medical import MEDICAL
from extract.encoders.table.papers import PAPERS

ENTRIES = (*PAPERS, *GENERAL, *MEDICAL, *DEMONSTRATION)
