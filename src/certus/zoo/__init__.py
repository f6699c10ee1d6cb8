"""Small networks, data sets and checkpoints to train, certify and compare with."""

from certus.zoo.checkpoint import Card as Card
from certus.zoo.checkpoint import load_checkpoint as load_checkpoint
from certus.zoo.checkpoint import save_checkpoint as save_checkpoint
from certus.zoo.checkpoint import shipped as shipped
from certus.zoo.dataset import DATA as DATA
from certus.zoo.dataset import Dataset as Dataset
from certus.zoo.dataset import load_data as load_data
from certus.zoo.download import SOURCES as SOURCES
from certus.zoo.download import Source as Source
from certus.zoo.download import download_data as download_data
from certus.zoo.idx import read_idx as read_idx
from certus.zoo.idx import read_pair as read_pair
from certus.zoo.nets import NETS as NETS
from certus.zoo.nets import Design as Design
from certus.zoo.nets import Normalize as Normalize
from certus.zoo.nets import build_net as build_net
