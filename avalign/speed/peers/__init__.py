"""What other libraries offer for the same loss, each in the way its own documentation recommends."""

from avalign.speed.peers.flash_sinkhorn import FLASH_SINKHORN
from avalign.speed.peers.geomloss import GEOMLOSS
from avalign.speed.peers.ott import OTT
from avalign.speed.peers.plain import PLAIN
from avalign.speed.peers.pot import POT

PEERS = [*POT, *OTT, *GEOMLOSS, *FLASH_SINKHORN, *PLAIN]
