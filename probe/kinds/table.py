"""The kinds of probe, a line each: what ``--kind`` takes, in this order."""

from probe.kinds.abmil import Abmil
from probe.kinds.adamw import AdamW
from probe.kinds.attentive import Attentive
from probe.kinds.decoder import Decoder
from probe.kinds.fusion import Fusion
from probe.kinds.heads import Heads
from probe.kinds.kind import Kind
from probe.kinds.knn import Knn
from probe.kinds.linear import Linear
from probe.kinds.ridge import Ridge
from probe.kinds.segment import Segment
from probe.kinds.segment_knn import SegmentKnn
from probe.kinds.stack import Stack
from probe.kinds.zeroshot import Zeroshot

TABLE: tuple[type[Kind], ...] = (
    *(Knn, Linear, AdamW, Heads, Fusion),
    *(Ridge, Stack, Abmil, Attentive, Segment, SegmentKnn, Decoder, Zeroshot),
)
KINDS = {kind.name: kind for kind in TABLE}
