"""What other libraries offer for the same loss, each in the way its own documentation recommends."""

from avalign.bench.peers.flash_sinkhorn import FLASH_SINKHORN
from avalign.bench.peers.geomloss import GEOMLOSS
from avalign.bench.peers.ott import OTT
from avalign.bench.peers.plain import PLAIN
from avalign.bench.peers.pot import POT

PEERS = [*POT, *OTT, *GEOMLOSS, *FLASH_SINKHORN, *PLAIN]
