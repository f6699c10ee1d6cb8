"""Losses for randomized smoothing: what a network answers under noise is what is trained."""

from certus.training.noisy.augmentation import NoiseAugmentation as NoiseAugmentation
from certus.training.noisy.cat_rs import CatRS as CatRS
from certus.training.noisy.consistency import Consistency as Consistency
from certus.training.noisy.copies import Noisy as Noisy
from certus.training.noisy.denoising import Denoising as Denoising
from certus.training.noisy.diffusion import Diffusion as Diffusion
from certus.training.noisy.macer import Macer as Macer
from certus.training.noisy.smooth_adv import SmoothAdv as SmoothAdv
from certus.training.noisy.smooth_mix import SmoothMix as SmoothMix
from certus.training.noisy.stability import Stability as Stability
